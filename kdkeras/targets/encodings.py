"""Target distributions from a teacher's outputs: soft, hard, rank-encoded, cluster-encoded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Clusters(NamedTuple):
    """Typical distributions of a teacher, and which sample belongs to which.

    Attributes:
        representatives: One distribution per cluster, float32 `(num_clusters, K)`.
        assignments: Cluster of each sample, int32 `(n,)`.
    """

    representatives: np.ndarray
    assignments: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """The representative of each sample's cluster, float32 `(n, K)`."""
        return self.representatives[self.assignments]


def soft(outputs: npt.ArrayLike, *, temperature: float = 1.0, from_logits: bool = True) -> np.ndarray:
    """Return the teacher's probabilities, tempered.

    From logits z: p_i = exp(z_i / T) / Σ_j exp(z_j / T). From non-negative scores s, such as probabilities or votes:
    p_i = s_i^(1/T) / Σ_j s_j^(1/T), which at T = 1 divides by the sum and for s = softmax(z) is the same as the first.

    Args:
        outputs: Logits or scores, `(n, K)`, K at least 2.
        temperature: T; above 1 softens, below 1 sharpens. The default 1 leaves the teacher as it is.
        from_logits: Whether `outputs` are logits; as in Keras' losses, but `True` by default, because small
            probabilities are rounded away beside large ones and logits are not.

    Returns:
        Float32 `(n, K)`, rows summing to 1.

    Raises:
        TypeError: `outputs` are not numbers.
        ValueError: `outputs` are not finite or not `(n, K)`, the temperature is not above 0, or scores are negative
            or all 0 in a row.

    Example:
        >>> from kdkeras import targets
        >>> targets.soft([[3.0, 1.0, 0.0]], from_logits=False).tolist()
        [[0.75, 0.25, 0.0]]

    Reference:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015),
        https://arxiv.org/abs/1503.02531.
    """
    return _soft(outputs, temperature, from_logits).astype("float32")


def hard(outputs: npt.ArrayLike) -> np.ndarray:
    """Return 1 for the teacher's winning class and 0 for the others.

    p_i = 1 if i = argmax_j z_j, else 0; the first of several winners.

    Args:
        outputs: Logits or scores, `(n, K)`, K at least 2.

    Returns:
        Float32 `(n, K)`, rows summing to 1.

    Raises:
        TypeError: `outputs` are not numbers.
        ValueError: `outputs` are not finite or not `(n, K)`.

    Example:
        >>> from kdkeras import targets
        >>> targets.hard([[0.2, 3.0, -1.0]]).tolist()
        [[0.0, 1.0, 0.0]]
    """
    z = _checked(outputs)
    return np.eye(z.shape[1], dtype="float32")[z.argmax(axis=1)]


def rank_encoded(outputs: npt.ArrayLike, *, step_weights: npt.ArrayLike | None = None) -> np.ndarray:
    """Return targets built from the order of the outputs and the weighted gaps between neighbours in that order.

    With the outputs of one sample sorted, z_(1) ≤ … ≤ z_(K), and weights a_2 … a_K of the K - 1 steps,

        w_(1) = 0,   w_(i) = w_(i-1) + a_i (z_(i) - z_(i-1)),   p_i = w_i / Σ_j w_j,

    each class i taking the weight of its place. The weights a are ours to choose: a_i = (i - 1) / (K - 1) by default,
    so that the gap below the winner counts in full and the gap between the two last classes least.

    What follows from it: the lowest class gets 0; ties get equal probabilities; the order of the teacher is kept;
    adding a constant to all outputs or multiplying them by a positive one changes nothing, so the encoding does not
    depend on how sure the teacher is nor on any temperature. Where all outputs are equal, the target is uniform.

    The idea is to sort, to weight the successive differences and to normalise the weights. It is written down here
    after no reference implementation: the start at 0, the default weights and the uniform case are our choices.

    Args:
        outputs: Logits or scores, `(n, K)`, K at least 2.
        step_weights: a_2 … a_K, shape `(K - 1,)`, all positive; ones give w_i = z_i - min z.

    Returns:
        Float32 `(n, K)`, rows summing to 1.

    Raises:
        TypeError: `outputs` or `step_weights` are not numbers.
        ValueError: `outputs` are not finite or not `(n, K)`, or `step_weights` are not K - 1 positive numbers.

    Example:
        Sorted 1, 2, 5; gaps 1, 3; weights ½, 1; so w = 0, ½, 3½:

        >>> from kdkeras import targets
        >>> targets.rank_encoded([[1.0, 5.0, 2.0]]).tolist()
        [[0.0, 0.875, 0.125]]
    """
    z = _checked(outputs)
    classes = z.shape[1]
    a = np.arange(1, classes) / (classes - 1) if step_weights is None else _step_weights(step_weights, classes)
    order = np.argsort(z, axis=1)
    gaps = np.diff(np.take_along_axis(z, order, axis=1), axis=1)  # (n, K - 1)
    sorted_w = np.pad(np.cumsum(a * gaps, axis=1), ((0, 0), (1, 0)))  # (n, K)
    w = np.empty_like(z)
    np.put_along_axis(w, order, sorted_w, axis=1)
    total = w.sum(axis=1, keepdims=True)
    uniform = np.full_like(w, 1 / classes)
    return np.divide(w, total, out=uniform, where=total > 0).astype("float32")


def cluster(
    outputs: npt.ArrayLike,
    *,
    num_clusters: int,
    seed: int = 0,
    temperature: float = 1.0,
    from_logits: bool = True,
) -> Clusters:
    """Group the teacher's distributions by k-means.

    The outputs become probabilities as in `soft`; k-means (Euclidean distance, the best of 10 starts) groups them;
    the representative of a cluster is the mean of its members, made to sum to 1 again.

    Args:
        outputs: Logits or scores, `(n, K)`, K at least 2.
        num_clusters: Number of clusters, from 1 to the number of rows that differ in the sixth decimal. It sets how
            much of the teacher is kept, so there is no default.
        seed: Seed of k-means.
        temperature: As in `soft`.
        from_logits: As in `soft`.

    Returns:
        The `Clusters`.

    Raises:
        TypeError: `outputs` are not numbers.
        ValueError: As `soft`, or `num_clusters` is out of range.

    Example:
        >>> from kdkeras import targets
        >>> votes = [[7, 1], [5, 3], [1, 7]]
        >>> targets.cluster(votes, num_clusters=2, from_logits=False).targets.round(3).tolist()
        [[0.75, 0.25], [0.75, 0.25], [0.125, 0.875]]
    """
    from sklearn.cluster import KMeans

    p = _soft(outputs, temperature, from_logits)
    different = len(np.unique(p.round(6), axis=0))  # k-means tells no finer differences apart
    if not 1 <= num_clusters <= different:
        raise ValueError(
            f"`num_clusters` must lie between 1 and the number of different outputs, {different}. "
            f"Received: num_clusters={num_clusters}."
        )
    found = KMeans(num_clusters, n_init=10, random_state=seed).fit(p)
    centres = np.clip(found.cluster_centers_, 0, None)  # k-means rounds, so 0 may come out just below
    representatives = (centres / centres.sum(axis=1, keepdims=True)).astype("float32")
    return Clusters(representatives, found.labels_.astype("int32"))


def cluster_encoded(
    outputs: npt.ArrayLike,
    *,
    num_clusters: int,
    seed: int = 0,
    temperature: float = 1.0,
    from_logits: bool = True,
) -> np.ndarray:
    """Return for each sample the representative of its cluster of teacher distributions.

    This is `cluster(...).targets`; call `cluster` to see the representatives and who belongs to which. All samples
    of a cluster share one target, which keeps the typical confusions and drops what is peculiar to a sample. That
    the clusters are those of k-means on the probabilities, and the representatives their means, is our choice.

    Args:
        outputs: Logits or scores, `(n, K)`, K at least 2.
        num_clusters: As in `cluster`.
        seed: Seed of k-means.
        temperature: As in `soft`.
        from_logits: As in `soft`.

    Returns:
        Float32 `(n, K)`, rows summing to 1, with `num_clusters` different ones.

    Raises:
        TypeError: `outputs` are not numbers.
        ValueError: As `cluster`.

    Example:
        >>> from kdkeras import targets
        >>> targets.cluster_encoded([[7, 1], [5, 3]], num_clusters=1, from_logits=False).round(3).tolist()
        [[0.75, 0.25], [0.75, 0.25]]
    """
    options = {"seed": seed, "temperature": temperature, "from_logits": from_logits}
    return cluster(outputs, num_clusters=num_clusters, **options).targets


def _soft(outputs: npt.ArrayLike, temperature: float, from_logits: bool) -> np.ndarray:
    """Return float64 probabilities `(n, K)`."""
    z = _checked(outputs)
    if not 0 < temperature < np.inf:
        raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}.")
    if not from_logits:
        if (z < 0).any() or (z.sum(axis=1) == 0).any():
            raise ValueError(
                "With from_logits=False, `outputs` must be scores of at least 0 with one above 0 in each row. "
                f"Received: values from {z.min():.4g} to {z.max():.4g}; pass from_logits=True for logits."
            )
        z = np.log(z, out=np.full_like(z, -np.inf), where=z > 0)  # exp(log(s) / T) = s^(1/T)
    z = z / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _step_weights(weights: npt.ArrayLike, classes: int) -> np.ndarray:
    a = np.asarray(weights, dtype="float64")
    if a.shape != (classes - 1,) or not np.isfinite(a).all() or (a <= 0).any():
        raise ValueError(
            f"`step_weights` must be {classes - 1} positive numbers, one for each gap between {classes} classes. "
            f"Received: {a.tolist()}."
        )
    return a


def _checked(outputs: npt.ArrayLike) -> np.ndarray:
    """Return the outputs as finite float64 `(n, K)`."""
    z = np.asarray(outputs)
    if not (np.issubdtype(z.dtype, np.number) and np.isrealobj(z)) and z.dtype.name != "bfloat16":
        raise TypeError(f"`outputs` must be an array of real numbers. Received: dtype {z.dtype}.")
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise ValueError(
            "`outputs` must have shape (n, K) with at least 2 classes; for a single sigmoid p, stack 1 - p and p. "
            f"Received: shape {z.shape}."
        )
    z = z.astype("float64")
    if not np.isfinite(z).all():
        raise ValueError(
            f"`outputs` must be finite. Received: {int((~np.isfinite(z)).sum())} NaN or infinite values; "
            "look at the teacher's inputs."
        )
    return z
