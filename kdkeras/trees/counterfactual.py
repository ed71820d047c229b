"""The smallest change to a sample that moves it to a leaf of another class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdkeras.trees.anatomy import Anatomy, DecisionPath, class_labels, feature_labels
from kdkeras.trees.leaf_regions import Surroundings, nearest_flip
from kdkeras.trees.wording import heaviest

_RETRIES = (1, 10, 100, 1000)  # times the margin, where rounding in the tree's own precision undoes the flip


class Counterfactual(NamedTuple):
    """What would have to be different for another class.

    Attributes:
        found: Whether a change was found. Without one, `text` says so, and `sample` and `change` are None.
        sample: The changed sample, in the tree's precision and the shape of one sample.
        change: Changed minus given sample, the same shape.
        distance: ‖change / scales‖₂; inf without a change.
        lower_bound: No change shorter than this gives the best leaf a wanted class: proven, up to rounding. Where it
            equals `distance` but for the margin, the change is the smallest there is. inf: no change does it.
        leaf: The best leaf of the changed sample, as the tree itself says; −1 without a change.
        class_index: The likeliest class of that leaf; −1 without a change.
        probability: Its probability there; 0 without a change.
        mixture: Class probabilities by all leaves together for the changed sample, shape (classes,). They can still
            name the old class.
        text: All of it in words, which `str(counterfactual)` returns, too.
    """

    found: bool
    sample: np.ndarray | None
    change: np.ndarray | None
    distance: float
    lower_bound: float
    leaf: int
    class_index: int
    probability: float
    mixture: np.ndarray | None
    text: str

    def __str__(self) -> str:
        return self.text


class Limits(NamedTuple):
    """How a sample may change: units of the distance and the range of every feature, each of shape (features,)."""

    scales: np.ndarray
    low: np.ndarray
    high: np.ndarray


def find_counterfactual(
    anatomy: Anatomy,
    sample: np.ndarray,
    ask: Callable[[np.ndarray], tuple[DecisionPath, np.ndarray]],
    *,
    limits: Limits,
    target: int | str | None = None,
    margin: float = 0.01,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    max_features: int = 5,
) -> Counterfactual:
    """Return the smallest change found that gives the best leaf another class; see `SoftDecisionTree.counterfactual`.

    Args:
        anatomy: The tree.
        sample: One sample, in the shape of a filter and in the tree's precision.
        ask: Runs the tree: takes samples (1, ...), returns their decision path and mixture.
        limits: From `limits_of`.
        target: The class wanted, by number or name. Default: any other.
        margin: Nats by which the new leaf leads.
        feature_names: One name per flattened feature.
        class_names: One name per class.
        max_features: How many changes the text shows.

    Returns:
        A `Counterfactual`, verified by running the tree.

    Raises:
        TypeError: The target is neither a number nor a name.
        ValueError: The target is unknown or the class already, or an argument is out of its range.
    """
    from threadpoolctl import threadpool_limits

    if not 0 < margin < math.inf:
        raise ValueError(f"`margin` must be finite and above 0, in nats. Received: {margin}.")
    features = feature_labels(anatomy.filters.shape[1:], feature_names)
    classes = class_labels(anatomy.leaves.shape[1], class_names)
    heaviest(sample, max_features)  # raises where there is nothing to show
    now = int(ask(sample[None])[0].leaf_distribution[0].argmax())
    goal = _class_number(target, classes, now)
    of_leaf = anatomy.leaves.argmax(axis=1)
    wanted = of_leaf != now if goal is None else of_leaf == goal
    wish = f"another class than {classes[now]}" if goal is None else f"class {classes[goal]}"
    if not wanted.any():
        return _nothing(f"No leaf of the tree has {wish}.", math.inf)
    place = _surroundings(anatomy, sample, limits)
    bound = 0.0
    for times in _RETRIES:
        with threadpool_limits(1):  # many small problems: threads only wait for each other
            flip = nearest_flip(place, wanted, margin * times)
        bound = max(bound, flip.bound)
        if flip.change is None:
            break
        moved = _moved(sample, flip.change, limits)
        path, mixture = ask(moved[None])
        if wanted[path.leaf[0]]:
            change = moved - sample
            distance = float(np.linalg.norm(change.ravel() / limits.scales))
            found = _Found(moved, change, distance, min(bound, distance), path, mixture[0])
            return _answer(found, sample, now, limits, features, classes, max_features)
    if math.isinf(bound):
        return _nothing(f"No change within the limits leads to a best leaf of {wish}.", bound)
    text = f"No change was found that leads to a best leaf of {wish}; one would be longer than {bound:.3g}."
    return _nothing(text, bound)


def limits_of(
    sample: np.ndarray,
    scales: Any = None,
    bounds: tuple[Any, Any] | None = None,
    fixed: Any = None,
    feature_names: Sequence[str] | None = None,
) -> Limits:
    """Return the units and ranges of a change, checked.

    Args:
        sample: One sample, of a floating type.
        scales: Unit of each feature, above 0, broadcast to the sample. Default 1.
        bounds: Least and greatest value, each broadcast to the sample. Default: none.
        fixed: Booleans, broadcast to the sample, True where nothing may change; or names of features.
        feature_names: One name per flattened feature.

    Returns:
        The `Limits`.

    Raises:
        ValueError: A shape or name does not fit, a scale is not above 0, or the sample lies outside of the bounds.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.counterfactual import limits_of
        >>> limits_of(np.array([0.5, 2.0]), bounds=(0, [1, 9]), fixed=["x[0]"])
        Limits(scales=array([1., 1.]), low=array([0.5, 0. ]), high=array([0.5, 9. ]))
    """
    units = _like(sample, 1.0 if scales is None else scales, "scales")
    if not ((units > 0) & np.isfinite(units)).all():
        raise ValueError(f"`scales` must be finite and above 0. Received: {units.min():g} to {units.max():g}.")
    if bounds is None:
        bounds = (-math.inf, math.inf)
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ValueError(f"`bounds` must be a pair (low, high), such as (0, 1). Received: {bounds!r}.")
    # In the sample's own precision: float32(0.1) shall lie within (0, 0.1).
    low, high = (_like(sample, bound, "bounds").astype(sample.dtype).astype("float64") for bound in bounds)
    flat = sample.ravel().astype("float64")
    if not ((low <= flat) & (flat <= high)).all():
        raise ValueError(
            f"The sample must lie within `bounds`. Received: values from {flat.min():g} to {flat.max():g} for bounds "
            f"from {low.min():g} to {high.max():g}. Widen the bounds or clip the sample."
        )
    still = _still(sample, fixed, feature_names)
    return Limits(units, np.where(still, flat, low), np.where(still, flat, high))


def _like(sample: np.ndarray, values: Any, name: str) -> np.ndarray:
    values = np.asarray(values, dtype="float64")
    try:
        spread = np.broadcast_to(values, sample.shape).ravel()
    except ValueError:
        raise ValueError(
            f"`{name}` must fit samples of shape {sample.shape}. Received: shape {values.shape}. Pass one number, or "
            "one for each feature."
        ) from None
    if np.isnan(spread).any():
        raise ValueError(f"`{name}` must be numbers. Received: NaN. Use inf where there is no bound.")
    return spread


def _still(sample: np.ndarray, fixed: Any, feature_names: Sequence[str] | None) -> np.ndarray:
    if fixed is None:
        return np.zeros(sample.size, dtype=bool)
    given = np.asarray(fixed)
    if given.dtype.kind == "b":
        return _like(sample, given, "fixed").astype(bool)
    names = feature_labels(sample.shape, feature_names)
    unknown = [name for name in given.ravel().tolist() if name not in names]
    if unknown:
        raise ValueError(
            f"`fixed` must be booleans in the shape of a sample, or names of features. Received: {unknown[0]!r}. "
            f"Names are {names[0]!r}, ..., {names[-1]!r}."
        )
    return np.isin(names, given)


def _class_number(target: int | str | None, classes: list[str], now: int) -> int | None:
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, np.integer, str)):
        raise TypeError(f"`target` must be a class number or a class name. Received: {target!r}.")
    if isinstance(target, str) and target in classes:
        target = classes.index(target)
    if isinstance(target, str) or not 0 <= target < len(classes):
        raise ValueError(f"`target` must be a class of {classes}, by number or name. Received: {target!r}.")
    if target == now:
        raise ValueError(f"The best leaf of the sample has class {classes[now]} already. Choose another `target`.")
    return int(target)


def _surroundings(anatomy: Anatomy, sample: np.ndarray, limits: Limits) -> Surroundings:
    filters = anatomy.filters.reshape(len(anatomy.filters), -1).astype("float64")
    flat = sample.ravel().astype("float64")
    low, high = ((edge - flat) / limits.scales for edge in (limits.low, limits.high))
    movable = low < high
    return Surroundings(filters @ flat + anatomy.biases, filters * limits.scales * movable, low, high)


def _moved(sample: np.ndarray, change: np.ndarray, limits: Limits) -> np.ndarray:
    """Return the changed sample in the precision of the given one; features without a change stay what they are."""
    flat = sample.ravel().astype("float64")
    moved = np.clip(flat + limits.scales * change, limits.low, limits.high)
    return np.where(change == 0, flat, moved).astype(sample.dtype).reshape(sample.shape)


class _Found(NamedTuple):
    sample: np.ndarray
    change: np.ndarray
    distance: float
    bound: float
    path: DecisionPath
    mixture: np.ndarray


def _nothing(text: str, bound: float) -> Counterfactual:
    return Counterfactual(False, None, None, math.inf, bound, -1, -1, 0.0, None, text)


def _answer(
    found: _Found,
    sample: np.ndarray,
    now: int,
    limits: Limits,
    features: Sequence[str],
    classes: Sequence[str],
    max_features: int,
) -> Counterfactual:
    distribution = found.path.leaf_distribution[0]
    best, leaf, likeliest = int(distribution.argmax()), int(found.path.leaf[0]), int(found.mixture.argmax())
    weight = found.change.ravel() / limits.scales
    top = [i for i in heaviest(weight, max_features) if weight[i]]
    lines = [f"For class {classes[best]} in place of {classes[now]}, change (distance {found.distance:.3g}):"]
    for i in top:
        before, after = sample.ravel()[i], found.sample.ravel()[i]
        lines.append(f"    {features[i]}: {before:.3g} -> {after:.3g} ({after - before:+.2g})")
    others = int((weight != 0).sum()) - len(top)
    if others:
        lines.append(f"    and {others} more {'feature' if others == 1 else 'features'}, each by less")
    lines.append(f"The best leaf is then leaf {leaf}: class {classes[best]}, probability {distribution[best]:.2f}.")
    lines.append(f"All leaves together: class {classes[likeliest]}, probability {found.mixture[likeliest]:.2f}.")
    known = f"No change shorter than {found.bound:.3g} does it."
    lines.append(known if found.bound else "How much shorter a change could do it is not known.")
    return Counterfactual(
        True,
        found.sample,
        found.change,
        found.distance,
        found.bound,
        leaf,
        best,
        float(distribution[best]),
        found.mixture,
        "\n".join(lines),
    )
