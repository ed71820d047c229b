"""The point of a polytope that is nearest to the origin: the small quadratic programme behind a counterfactual."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_STEPS = 300  # of the solver, which needs some dozens
_TOLERANCE = 1e-6  # of rows of length 1
_INFEASIBLE = 2  # scipy's status


class Nearest(NamedTuple):
    """A point, and how far away every feasible point is at least.

    Attributes:
        point: The nearest point that was found, shape (n,). It may miss constraints where there is no feasible point.
        bound: No feasible point is nearer to the origin than this, whatever became of the solver.
    """

    point: np.ndarray
    bound: float


def nearest_point(rows: np.ndarray, sides: np.ndarray, low: np.ndarray, high: np.ndarray) -> Nearest:
    """Return argmin ½‖u‖² subject to rows · u ≥ sides and low ≤ u ≤ high.

    Solved in its dual, max over λ ≥ 0 of min over u in the box of ½‖u‖² − λ·(rows · u − sides): as few unknowns as
    rows, however many features there are, and u = clip(rowsᵀ λ, low, high). By weak duality the dual's value at any
    λ ≥ 0 bounds the distance from below.

    Args:
        rows: Shape (m, n).
        sides: Shape (m,).
        low: Shape (n,), at most 0; −inf where there is no bound.
        high: Shape (n,), at least 0; inf where there is no bound.

    Returns:
        The `Nearest`. Where no point is feasible, `bound` is inf.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.nearest_point import nearest_point
        >>> free = np.full(2, np.inf)
        >>> nearest_point(np.array([[3.0, 4.0]]), np.array([10.0]), -free, free).point.round(4)
        array([1.2, 1.6])
        >>> nearest_point(np.array([[3.0, 4.0]]), np.array([10.0]), -free, np.array([np.inf, 1.0])).point.round(4)
        array([2., 1.])
    """
    from scipy.optimize import linprog, minimize

    scale = np.linalg.norm(rows, axis=1)
    if (sides[scale == 0] > 0).any():
        return Nearest(np.zeros(rows.shape[1]), math.inf)
    rows, sides = rows[scale > 0] / scale[scale > 0, None], sides[scale > 0] / scale[scale > 0]
    if not (sides > 0).any():
        return Nearest(np.zeros(rows.shape[1]), 0.0)

    def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        point = np.clip(multipliers @ rows, low, high)
        slack = rows @ point - sides
        return multipliers @ slack - 0.5 * point @ point, slack

    start = np.zeros(len(rows))
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(dual, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(rows), options=options)
    point = np.clip(found.x @ rows, low, high)
    if (rows @ point < sides - _TOLERANCE).any():  # the dual is unbounded where there is no feasible point
        box = np.stack([low, high], axis=1)
        if linprog(np.zeros(len(low)), A_ub=-rows, b_ub=-sides, bounds=box).status == _INFEASIBLE:
            return Nearest(point, math.inf)
    return Nearest(point, math.sqrt(max(0.0, -2 * found.fun)))
