"""What a soft decision tree minimises: the distance of its leaves to the targets, and the balance of its splits."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_SMALLEST = 1e-6  # keeps log(α) finite where all samples, or none, go one way
_TINY = 1e-37  # keeps log 0 finite in float32


def mixture_cross_entropy(targets: Any, log_path: Any, log_leaves: Any) -> Any:
    """Cross-entropy of the whole tree's prediction: −Σ_k T_k log Σ_ℓ P_ℓ Q_ℓk.

    Leaves may share the work on a sample, which gives the better accuracy.

    Args:
        targets: Class probabilities T of shape (batch, classes).
        log_path: log P of shape (batch, leaves).
        log_leaves: log Q of shape (leaves, classes).

    Returns:
        Tensor of shape (batch,), in nats.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import mixture_cross_entropy
        >>> log_path, log_leaves = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1], [0.3, 0.7]])
        >>> float(mixture_cross_entropy(np.array([[1.0, 0.0]]), log_path, log_leaves)[0])  # −log(.45 + .15)
        0.510825...
    """
    return -ops.sum(targets * mixture_log_probabilities(log_path, log_leaves), axis=-1)


def path_cross_entropy(targets: Any, log_path: Any, log_leaves: Any) -> Any:
    """Expected cross-entropy of a single leaf: Σ_ℓ P_ℓ · (−Σ_k T_k log Q_ℓk).

    Every leaf must be right on its own, so the best leaf stands closer to the mixture. The paper prints the
    logarithm of this sum with the sign inside, which is the logarithm of a negative number; this is its argument.

    Args:
        targets: Class probabilities T of shape (batch, classes).
        log_path: log P of shape (batch, leaves).
        log_leaves: log Q of shape (leaves, classes).

    Returns:
        Tensor of shape (batch,), in nats.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import path_cross_entropy
        >>> log_path, log_leaves = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1], [0.3, 0.7]])
        >>> float(path_cross_entropy(np.array([[1.0, 0.0]]), log_path, log_leaves)[0])  # −(log .9 + log .3) / 2
        0.654666...
    """
    leaf_cross_entropy = -ops.matmul(targets, ops.transpose(log_leaves))  # (b, leaves)
    return ops.sum(ops.exp(log_path) * leaf_cross_entropy, axis=-1)


def mixture_squared_error(targets: Any, log_path: Any, means: Any) -> Any:
    """Squared error of the whole tree's prediction: mean_k (T_k − Σ_ℓ P_ℓ μ_ℓk)².

    Args:
        targets: Target values T of shape (batch, targets).
        log_path: log P of shape (batch, leaves).
        means: μ of shape (leaves, targets).

    Returns:
        Tensor of shape (batch,).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import mixture_squared_error
        >>> float(mixture_squared_error(np.array([[1.0]]), np.log([[0.5, 0.5]]), np.array([[0.0], [1.0]]))[0])
        0.25
    """
    return ops.mean(ops.square(targets - ops.matmul(ops.exp(log_path), means)), axis=-1)


def path_squared_error(targets: Any, log_path: Any, means: Any) -> Any:
    """Expected squared error of a single leaf: Σ_ℓ P_ℓ · mean_k (T_k − μ_ℓk)².

    Args:
        targets: Target values T of shape (batch, targets).
        log_path: log P of shape (batch, leaves).
        means: μ of shape (leaves, targets).

    Returns:
        Tensor of shape (batch,).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import path_squared_error
        >>> float(path_squared_error(np.array([[1.0]]), np.log([[0.5, 0.5]]), np.array([[0.0], [1.0]]))[0])
        0.5
    """
    error = ops.mean(ops.square(targets[:, None] - means), axis=-1)  # (b, leaves)
    return ops.sum(ops.exp(log_path) * error, axis=-1)


def mixture_log_probabilities(log_path: Any, log_leaves: Any) -> Any:
    """Log-probabilities of the classes: log Σ_ℓ P_ℓ Q_ℓk.

    One matrix product, with the greatest log Q of each class taken out before: several times as fast as the sum of
    exponentials over (batch, leaves, classes), and as exact, because the greatest P of a sample is at least
    1 / leaves. A class whose probability is e^85 times less than its best leaf has it counts as that.

    Args:
        log_path: log P of shape (batch, leaves).
        log_leaves: log Q of shape (leaves, classes).

    Returns:
        Tensor of shape (batch, classes).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import mixture_log_probabilities
        >>> log_path, log_leaves = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1], [0.3, 0.7]])
        >>> np.exp(mixture_log_probabilities(log_path, log_leaves)).round(3)
        array([[0.6, 0.4]])

    Reference:
        The log-einsum-exp trick of [Peharz et al., 2020](https://arxiv.org/abs/2004.06231)
    """
    best = ops.stop_gradient(ops.max(log_leaves, axis=0))  # (classes,)
    mixture = ops.matmul(ops.exp(log_path), ops.exp(log_leaves - best))  # (b, leaves) @ (leaves, classes)
    return ops.log(mixture + _TINY) + best


def balance_penalty(right_mass: Any, mass: Any, depths: np.ndarray) -> Any:
    """Penalty for splits that send nearly all samples one way: −Σ_i 2^(−d_i) · ½ [log α_i + log(1 − α_i)].

    α_i = Σ_x P_i(x) p_i(x) / Σ_x P_i(x) is the share of node i's samples that turns right. It is least at
    α = ½, and fades with the depth d, because few classes are left to part near the leaves.

    Args:
        right_mass: Tensor of shape (nodes,), the mean of P_i p_i.
        mass: Tensor of shape (nodes,), the mean of P_i.
        depths: Level of every node, shape (nodes,).

    Returns:
        A scalar tensor, at least (number of levels) · log 2.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import balance_penalty
        >>> float(balance_penalty(np.array([0.5]), np.array([1.0]), np.array([0])))  # log 2
        0.693147...
    """
    total = ops.log(mass + 2 * _SMALLEST)
    log_right = ops.log(right_mass + _SMALLEST) - total
    log_left = ops.log(ops.maximum(mass - right_mass, 0.0) + _SMALLEST) - total
    fading = ops.convert_to_tensor(2.0**-depths, dtype=log_right.dtype)
    return -ops.sum(fading * 0.5 * (log_right + log_left))


def as_probabilities(y: Any, num_classes: int) -> Any:
    """Return targets as class probabilities.

    Args:
        y: Class numbers of shape (batch,) or (batch, 1), or probabilities of shape (batch, num_classes).
        num_classes: Number of classes.

    Returns:
        Tensor of shape (batch, num_classes); class numbers become one-hot.

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import as_probabilities
        >>> np.asarray(as_probabilities(np.array([1, 0]), 2))
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    if len(y.shape) == 2 and y.shape[1] == num_classes:
        return y
    return ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), num_classes)


@keras.saving.register_keras_serializable(package="kdkeras")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return whether the likeliest class is the target's, for labels, one-hot and soft targets alike.

    Args:
        y_true: Targets as in `as_probabilities`.
        y_pred: Class probabilities of shape (batch, classes).

    Returns:
        Zeros and ones of shape (batch,).

    Example:
        >>> import numpy as np
        >>> from kdkeras.trees.objectives import accuracy
        >>> np.asarray(accuracy(np.array([1, 0]), np.array([[0.1, 0.9], [0.3, 0.7]])))
        array([1., 0.], dtype=float32)
    """
    classes = ops.argmax(as_probabilities(y_true, y_pred.shape[-1]), axis=-1)
    return ops.cast(classes == ops.argmax(y_pred, axis=-1), "float32")


OBJECTIVES = {"mixture": mixture_cross_entropy, "path": path_cross_entropy}
SQUARED = {"mixture": mixture_squared_error, "path": path_squared_error}
