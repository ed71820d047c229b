"""The nearest place where one leaf of a tree becomes the best one, by convex programmes.

Where leaf ℓ is the best leaf is no convex set in general. With z_i = ±(w_i·x + b_i), signed so that positive turns
towards ℓ, and g_i = Σ log σ(z_j) over the splits below i on the way to ℓ:

- At each split i on the way, the best of the 2^h leaves on the other side holds at least 2^−h of what goes there, so
  that ℓ can be best only where z_i + g_i ≥ −h log 2. That is convex: the nearest point that meets it for every i bounds
  the distance from below (and is exact where the other side is a single leaf).
- ℓ leads rival m, which parts from it at split i, where z_i + g_i − (the same sum below i on the way to m) ≥ margin.
  −log σ is convex, hence at least its tangent anywhere: with the tangent the constraint is convex again, and
  whatever meets it does lead. Tangents are renewed at each solution (the convex-concave procedure).

Reference:
    [Yuille & Rangarajan, 2003](https://doi.org/10.1162/08997660360581958), the convex-concave procedure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdkeras.trees.nearest_point import nearest_point
from kdkeras.trees.routing import path_nodes

_CUTS = 40  # rounds of tangents to the concave constraints; a handful is enough
_ROUNDS = 30  # of new rivals and new tangents
_TOLERANCE = 1e-6  # nats by which a constraint may be missed


class Surroundings(NamedTuple):
    """A sample from the point of view of its tree: z = scores + weights · u, with u the change in its units.

    Attributes:
        scores: z of every split at the sample, shape (splits,).
        weights: Shape (splits, n).
        low: Least change of each feature, at most 0, shape (n,).
        high: Greatest change of each feature, at least 0, shape (n,).
    """

    scores: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Flip(NamedTuple):
    """What is known of the changes that lead to wanted leaves.

    Attributes:
        change: The shortest one found, shape (n,), or None.
        bound: No change shorter than this does it.
    """

    change: np.ndarray | None
    bound: float


class _Concave(NamedTuple):
    """The constraint linear · z + Σ_j log σ(signs_j z_j) + constant ≥ 0, with the sum over non-zero signs."""

    linear: np.ndarray
    signs: np.ndarray
    constant: float

    def tangent(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Return value and slope at z."""
        on = np.flatnonzero(self.signs)
        value = self.linear @ z - np.logaddexp(0, -self.signs[on] * z[on]).sum() + self.constant
        slope = self.linear.copy()
        slope[on] += self.signs[on] * _sigmoid(-self.signs[on] * z[on])
        return value, slope


def nearest_flip(place: Surroundings, wanted: np.ndarray, margin: float) -> Flip:
    """Return the shortest change found that makes a wanted leaf likelier than all others, and a proven bound.

    Leaves are taken in the order of a quick bound, and left out once their bound exceeds the best change found.

    Args:
        place: The sample.
        wanted: Booleans of shape (leaves,), some of them True.
        margin: Nats by which a wanted leaf must lead every other one.

    Returns:
        The `Flip`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.leaf_regions import Surroundings, nearest_flip
        >>> free = np.full(2, np.inf)
        >>> place = Surroundings(np.array([-5.0]), np.array([[3.0, 4.0]]), -free, free)  # depth 1: a half-space
        >>> flip = nearest_flip(place, np.array([False, True]), margin=1e-9)
        >>> flip.change.round(4), round(flip.bound, 4)
        (array([0.6, 0.8]), 1.0)
    """
    nodes, signs = _paths(place)
    size = np.linalg.norm(place.weights, axis=1)[nodes]  # (leaves, depth)
    missing = -_heights(nodes) * math.log(2) - signs * place.scores[nodes]  # how far z must rise at least
    reach = np.divide(missing, size, out=np.full_like(missing, math.inf), where=size > 0)
    quick = np.where(missing > 0, reach, 0).max(axis=1)
    best, bound = Flip(None, math.inf), math.inf
    shortest = math.inf
    for leaf in sorted(np.flatnonzero(wanted), key=lambda leaf: quick[leaf]):
        if quick[leaf] >= shortest:
            break  # so are all that follow
        found = _nearest_in_leaf(place, int(leaf), wanted, margin, shortest)
        bound = min(bound, found.bound)
        if found.change is not None and np.linalg.norm(found.change) < shortest:
            best, shortest = found, float(np.linalg.norm(found.change))
    return Flip(best.change, min(bound, shortest))


def _nearest_in_leaf(place: Surroundings, leaf: int, wanted: np.ndarray, margin: float, cutoff: float) -> Flip:
    """Return the shortest change found that makes this leaf lead, unless none can be shorter than `cutoff`."""
    necessary = _necessary(place, leaf)
    start, bound = _nearest(place, necessary, cutoff)
    if bound >= cutoff:
        return Flip(None, bound)
    greedy, reach = _nearest(place, _greedy(place, leaf, margin), math.inf)
    starts = [start] if math.isinf(reach) else [start, greedy]
    found = [_descend(place, leaf, wanted, margin, start, cutoff) for start in starts]
    changes = [change for change in found if change is not None]
    return Flip(min(changes, key=np.linalg.norm, default=None), bound)


def _descend(
    place: Surroundings, leaf: int, wanted: np.ndarray, margin: float, start: np.ndarray, cutoff: float
) -> np.ndarray | None:
    """Return a change that makes this leaf lead and that no small step shortens, or None."""
    necessary = _necessary(place, leaf)
    change, best = start, None
    rivals: list[int] = []
    for _ in range(_ROUNDS):
        z = place.scores + place.weights @ change
        log_path = log_paths(place, z)
        behind = np.where(wanted, -math.inf, log_path)
        if log_path[leaf] - behind.max() >= margin - 2 * _TOLERANCE:
            if best is not None and np.linalg.norm(change) > 0.999 * np.linalg.norm(best):
                return min(change, best, key=np.linalg.norm)
            best = change
        elif (rival := int(behind.argmax())) not in rivals:
            rivals.append(rival)
        leading = [_leads(place, leaf, rival, z, margin) for rival in rivals]
        change, reach = _nearest(place, necessary + leading, cutoff)
        if reach >= cutoff:
            break
    return best


def _nearest(place: Surroundings, constraints: Sequence[_Concave], cutoff: float) -> tuple[np.ndarray, float]:
    """Return the shortest change that meets concave constraints, by cutting planes (Kelley), and its proven bound.

    A tangent lies above its concave function, so that every round solves an easier problem than the one asked for:
    its bound holds at once.
    """
    change, bound = np.zeros(len(place.low)), 0.0
    longest = np.linalg.norm(np.maximum(-place.low, place.high))
    rows, sides = [], []
    for _ in range(_CUTS):
        z = place.scores + place.weights @ change
        missed = False
        for constraint in constraints:
            value, slope = constraint.tangent(z)
            if value < -_TOLERANCE:
                on = np.flatnonzero(slope)
                rows.append(slope[on] @ place.weights[on])
                sides.append(slope @ (z - place.scores) - value)
                missed = True
        if not missed:
            break
        found = nearest_point(np.stack(rows), np.array(sides), place.low, place.high)
        change, bound = found.point, max(bound, found.bound)
        if bound > longest * (1 + 1e-9):
            return change, math.inf  # it lies outside of the box
        if bound >= cutoff:
            break
    return change, bound


def log_paths(place: Surroundings, z: np.ndarray) -> np.ndarray:
    """Return log P_ℓ of every leaf for the scores z of every split, in double precision; shape (leaves,)."""
    nodes, signs = _paths(place)
    return -np.logaddexp(0, -signs * z[nodes]).sum(axis=1)


def _necessary(place: Surroundings, leaf: int) -> list[_Concave]:
    """Return the constraints without which a leaf cannot be the best, one per split on its way."""
    nodes, signs = (array[leaf] for array in _paths(place))
    heights = _heights(nodes)
    return [
        _Concave(
            _scatter(place, nodes[[i]], signs[[i]]),
            _scatter(place, nodes[i + 1 :], signs[i + 1 :]),
            heights[i] * math.log(2),
        )
        for i in range(len(nodes))
    ]


def _greedy(place: Surroundings, leaf: int, margin: float) -> list[_Concave]:
    """Return the constraints of the leaf's greedy path: every score leans its way."""
    nodes, signs = (array[leaf] for array in _paths(place))
    none = np.zeros(len(place.scores))
    return [_Concave(_scatter(place, nodes[[i]], signs[[i]]), none, -margin) for i in range(len(nodes))]


def _leads(place: Surroundings, leaf: int, rival: int, at: np.ndarray, margin: float) -> _Concave:
    """Return a constraint under which a leaf leads its rival by `margin`, with tangents at the scores `at`."""
    nodes, signs = _paths(place)
    parting = int((nodes[leaf] == nodes[rival]).sum()) - 1  # the last split that both pass
    below, away = nodes[rival, parting + 1 :], signs[rival, parting + 1 :]
    slope = away * _sigmoid(-away * at[below])  # of log σ on the rival's way
    value = -np.logaddexp(0, -away * at[below])
    linear = _scatter(place, nodes[leaf, [parting]], signs[leaf, [parting]]) - _scatter(place, below, slope)
    constant = (slope * at[below] - value).sum() - margin
    return _Concave(linear, _scatter(place, nodes[leaf, parting + 1 :], signs[leaf, parting + 1 :]), float(constant))


def _scatter(place: Surroundings, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    row = np.zeros(len(place.scores))
    row[nodes] = values
    return row


def _paths(place: Surroundings) -> tuple[np.ndarray, np.ndarray]:
    """Return the splits on the way to every leaf, and +1 where the way turns right, −1 where left: (leaves, depth)."""
    leaves = len(place.scores) + 1
    nodes, right = path_nodes(np.arange(leaves), leaves.bit_length() - 1)
    return nodes, np.where(right, 1.0, -1.0)


def _heights(nodes: np.ndarray) -> np.ndarray:
    """Return h of the splits on a way: the other side of each has 2^h leaves."""
    return nodes.shape[-1] - 1 - np.arange(nodes.shape[-1])


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -z))
