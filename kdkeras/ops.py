"""Arithmetic that losses and metrics share: `keras.ops` only, in log space."""

from __future__ import annotations

import math
from typing import Any

from keras import ops


def log_soften(logits: Any, temperature: Any = 1.0) -> Any:
    """Return `log softmax(z / T)` over the last axis.

    Args:
        logits: Logits z, shape `(..., classes)`.
        temperature: Temperature T > 0; larger is softer.

    Returns:
        Log-probabilities, shape of `logits`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import log_soften
        >>> np.exp(log_soften(np.array([[0.0, 0.0]]))).tolist()
        [[0.5, 0.5]]
    """
    return ops.log_softmax(logits / temperature, axis=-1)


def kl_divergence(log_p: Any, log_q: Any) -> Any:
    """Return `KL(p ‖ q) = Σ p (log p − log q)` over the last axis.

    Args:
        log_p: Log-probabilities of the reference, shape `(..., classes)`.
        log_q: Log-probabilities of the approximation, same shape.

    Returns:
        Divergences in nats, shape `(...)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import kl_divergence
        >>> round(float(kl_divergence(np.log([1.0 - 1e-9, 1e-9]), np.log([0.5, 0.5]))), 4)
        0.6931
    """
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def binary_kl_divergence(logits_p: Any, logits_q: Any) -> Any:
    """Return `KL(Bernoulli(σ(a)) ‖ Bernoulli(σ(b)))` of each element.

    Args:
        logits_p: Logits a of the reference, any shape.
        logits_q: Logits b of the approximation, same shape.

    Returns:
        Divergences in nats, same shape.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import binary_kl_divergence
        >>> float(binary_kl_divergence(np.array(2.0), np.array(2.0)))
        0.0
    """
    positive = ops.sigmoid(logits_p) * (ops.log_sigmoid(logits_p) - ops.log_sigmoid(logits_q))
    negative = ops.sigmoid(-logits_p) * (ops.log_sigmoid(-logits_p) - ops.log_sigmoid(-logits_q))
    return positive + negative


def mean_per_sample(values: Any) -> Any:
    """Return the mean over every axis but the first.

    Args:
        values: Shape `(batch, ...)`.

    Returns:
        Shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import mean_per_sample
        >>> np.asarray(mean_per_sample(np.array([[[1.0, 3.0]], [[2.0, 2.0]]]))).tolist()
        [2.0, 2.0]
    """
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def standardize(logits: Any) -> Any:
    """Return each vector of logits with mean 0 and standard deviation 1: `(z − mean z) / std z`.

    The standard deviation divides by the number of classes K, as in the paper's equation; PyTorch's `std`, in the
    paper's code, divides by K − 1.

    Args:
        logits: Logits z, shape `(..., classes)`.

    Returns:
        Shape of `logits`; 0 where all logits of a vector are equal.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import standardize
        >>> np.asarray(standardize(np.array([[1.0, 3.0]]))).round(4).tolist()
        [[-1.0, 1.0]]

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427.
    """
    logits = ops.convert_to_tensor(logits)
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    # Inside the root, so that the gradient exists where all logits are equal.
    return centred / ops.sqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-12)


def l2_normalize(values: Any, axis: int | tuple[int, ...] = -1) -> Any:
    """Return values divided by their L2 norm along `axis`; zeros stay zeros, without a gradient.

    Args:
        values: Any shape.
        axis: Axis or axes of the norm. Default the last.

    Returns:
        Shape of `values`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import l2_normalize
        >>> np.asarray(l2_normalize(np.array([3.0, 4.0]))).round(4).tolist()
        [0.6, 0.8]
    """
    squares = ops.sum(ops.square(values), axis=axis, keepdims=True)
    # Zeros have no direction to move in: with a factor they would get a gradient a million times that of others.
    factor = ops.rsqrt(ops.where(squares > 1e-12, squares, ops.full_like(squares, 1e-12)))
    return values * ops.where(squares > 0, factor, ops.zeros_like(squares))


def flatten_samples(values: Any) -> Any:
    """Return values with all axes but the first in one.

    Args:
        values: Shape `(batch, ...)`.

    Returns:
        Shape `(batch, size)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import flatten_samples
        >>> tuple(flatten_samples(np.zeros((2, 3, 4))).shape)
        (2, 12)
    """
    return (
        ops.reshape(values, (-1, math.prod(values.shape[1:])))
        if None not in values.shape[1:]
        else ops.reshape(values, (ops.shape(values)[0], -1))
    )


def squared_distances(values: Any) -> Any:
    """Return the squared Euclidean distance of each pair of samples, `‖xᵢ − xⱼ‖²`.

    Args:
        values: Shape `(batch, size)`.

    Returns:
        Shape `(batch, batch)`, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import squared_distances
        >>> np.asarray(squared_distances(np.array([[0.0], [3.0]]))).tolist()
        [[0.0, 9.0], [9.0, 0.0]]
    """
    squares = ops.sum(ops.square(values), axis=-1)
    distances = squares[:, None] + squares[None, :] - 2 * ops.matmul(values, ops.transpose(values))
    return ops.maximum(distances, 0.0)


def grad_cam(features: Any, gradients: Any) -> Any:
    """Return Grad-CAM maps, `ReLU(Σ_k mean over positions (∂z_c/∂A_k) · A_k)`.

    Args:
        features: Output A of a layer, shape `(batch, positions..., channels)`.
        gradients: Gradient of one logit z_c of each sample by it, same shape.

    Returns:
        Shape `(batch, positions...)`, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import grad_cam
        >>> a, g = np.array([[[1.0, 2.0], [3.0, 0.0]]]), np.array([[[1.0, -1.0], [1.0, -1.0]]])
        >>> np.asarray(grad_cam(a, g)).tolist()
        [[0.0, 3.0]]

    Reference:
        Selvaraju et al.: Grad-CAM: Visual explanations from deep networks via gradient-based localization, 2017,
        arXiv:1610.02391.
    """
    weights = ops.mean(gradients, axis=tuple(range(1, len(features.shape) - 1)), keepdims=True)
    return ops.relu(ops.sum(weights * features, axis=-1))


def grad_cam_plus_plus(features: Any, gradients: Any) -> Any:
    """Return Grad-CAM++ maps, `ReLU(Σ_k w_k A_k)`, which weigh the positions where a channel speaks for the class.

    `w_k = Σ_ij α_kij ReLU(g_kij)` with `α = g² / (2 g² + g³ Σ_ij A_kij)`, made to sum to 1 over the positions of each
    channel. g is the gradient of the logit: the paper derives by exp(z), whose factor scales the whole map only.

    Args:
        features: Output A of a layer, shape `(batch, positions..., channels)`.
        gradients: Gradient g of one logit z_c of each sample by it, same shape.

    Returns:
        Shape `(batch, positions...)`, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import grad_cam_plus_plus
        >>> a, g = np.array([[[1.0, 2.0], [3.0, 0.0]]]), np.array([[[1.0, -1.0], [0.0, -1.0]]])
        >>> np.asarray(grad_cam_plus_plus(a, g)).tolist()
        [[1.0, 3.0]]

    Reference:
        Chattopadhyay et al.: Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks, 2018,
        arXiv:1710.11063.
    """
    positions = tuple(range(1, len(features.shape) - 1))
    squares = ops.square(gradients)
    total = ops.sum(features, axis=positions, keepdims=True)
    shares = _divide(squares, 2 * squares + squares * gradients * total)
    shares = _divide(shares, ops.sum(shares, axis=positions, keepdims=True))
    weights = ops.sum(shares * ops.relu(gradients), axis=positions, keepdims=True)
    return ops.relu(ops.sum(weights * features, axis=-1))


def _divide(values: Any, by: Any) -> Any:
    """Return a quotient that is 0, without a gradient, where the divisor is 0."""
    usable = ops.not_equal(by, 0)
    return ops.where(usable, values / ops.where(usable, by, ops.ones_like(by)), ops.zeros_like(values))


def layer_cam(features: Any, gradients: Any) -> Any:
    """Return LayerCAM maps, `ReLU(Σ_k ReLU(g_k) · A_k)`, which weigh each position by its own gradient.

    Args:
        features: Output A of a layer, shape `(batch, positions..., channels)`.
        gradients: Gradient g of one logit of each sample by it, same shape.

    Returns:
        Shape `(batch, positions...)`, at least 0.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import layer_cam
        >>> a, g = np.array([[[1.0, 2.0], [3.0, 0.0]]]), np.array([[[1.0, -1.0], [2.0, -1.0]]])
        >>> np.asarray(layer_cam(a, g)).tolist()
        [[1.0, 6.0]]

    Reference:
        Jiang et al.: LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, 2021.
    """
    return ops.relu(ops.sum(ops.relu(gradients) * features, axis=-1))


def scaled_dot_products(first: Any, second: Any, heads: int | None = None) -> Any:
    """Return `first · secondᵀ / √d` between the positions of a sequence, head by head: of queries and keys, attention.

    Args:
        first: Queries, keys or values, shape `(batch, length, heads, d)`, or `(batch, length, width)` where `heads`
            says how to split them.
        second: The same or others of them. Where there are fewer heads (grouped queries), each serves several.
        heads: Relation heads: all heads put together and split again; `None` for the model's own.

    Returns:
        Scores, shape `(batch, heads, length, length)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.ops import scaled_dot_products
        >>> np.asarray(scaled_dot_products(np.ones((1, 2, 1, 4)), np.ones((1, 2, 1, 4)))).tolist()
        [[[[2.0, 2.0], [2.0, 2.0]]]]
    """
    if len(second.shape) == 4 and first.shape[2] != second.shape[2]:
        second = ops.repeat(second, first.shape[2] // second.shape[2], axis=2)  # as `GroupQueryAttention` does
    if heads is not None:
        first, second = (_split(values, heads) for values in (first, second))
    return ops.einsum("bthd,bshd->bhts", first, second) * first.shape[-1] ** -0.5


def _split(values: Any, heads: int) -> Any:
    batch, length = ops.shape(values)[:2]
    return ops.reshape(values, (batch, length, heads, math.prod(values.shape[2:]) // heads))
