"""How the logits of several models become those of one: `keras.ops` only, in log space.

All functions take the models' logits stacked on a first axis, `(models, batch, ..., units)`. With `binary=True` each
unit is a yes-or-no question of its own (a sigmoid), otherwise the units are exclusive classes (a softmax).
"""

from __future__ import annotations

from typing import Any

from keras import ops

_SMALLEST_WEIGHT = 1e-30  # log(0) would give a gradient of NaN


def mean_logits(logits: Any, weights: Any) -> Any:
    """Return `z = Σ_m w_m z_m`: the geometric mean of the models' distributions, `p ∝ Π_m p_m^(w_m)`.

    Args:
        logits: Logits z_m, shape `(models, batch, ..., units)`.
        weights: Weights w_m that sum to 1 over the models, shape `(models, batch, ..., 1)` or broadcast to it.

    Returns:
        Logits, shape `(batch, ..., units)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.teachers import mean_logits
        >>> z = np.array([[[2.0, 0.0]], [[0.0, 4.0]]], "float32")
        >>> np.asarray(mean_logits(z, np.array([[[0.5]], [[0.5]]], "float32"))).tolist()
        [[1.0, 2.0]]
    """
    return ops.sum(weights * logits, axis=0)


def mixture_logits(logits: Any, weights: Any, *, binary: bool = False) -> Any:
    """Return logits of the arithmetic mean of the models' distributions, `p = Σ_m w_m p_m`.

    Exclusive classes: `z = logsumexp_m(log w_m + log softmax(z_m))`, which is log p. Binary units: with the same sum
    over `log σ(z_m)` for log p and over `log σ(−z_m)` for log(1 − p), `z = log p − log(1 − p)`.

    Args:
        logits: Logits z_m, shape `(models, batch, ..., units)`.
        weights: Weights w_m that sum to 1 over the models, shape `(models, batch, ..., 1)` or broadcast to it.
        binary: Whether each unit is a sigmoid of its own. Default `False`.

    Returns:
        Logits, shape `(batch, ..., units)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.teachers import mixture_logits
        >>> z = np.log(np.array([[[0.8, 0.2]], [[0.2, 0.8]]], "float32"))
        >>> np.exp(mixture_logits(z, np.array([[[0.75]], [[0.25]]], "float32"))).round(4)
        array([[0.65, 0.35]], dtype=float32)
    """
    log_weights = ops.log(ops.maximum(weights, _SMALLEST_WEIGHT))
    if not binary:
        return ops.logsumexp(log_weights + ops.log_softmax(logits, axis=-1), axis=0)
    yes, no = (ops.logsumexp(log_weights + ops.log_sigmoid(sign * logits), axis=0) for sign in (1, -1))
    return yes - no


def entropy(logits: Any, *, binary: bool = False) -> Any:
    """Return the entropy of each distribution: `−Σ_k p_k log p_k`, or the sum of the units' binary entropies.

    Args:
        logits: Logits, shape `(..., units)`.
        binary: Whether each unit is a sigmoid of its own. Default `False`.

    Returns:
        Entropies in nats, shape `(...)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.teachers import entropy
        >>> round(float(entropy(np.zeros(8, "float32"))), 4), round(float(np.log(8)), 4)
        (2.0794, 2.0794)
    """
    if not binary:
        log_p = ops.log_softmax(logits, axis=-1)
        return -ops.sum(ops.exp(log_p) * log_p, axis=-1)
    yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    return -ops.sum(ops.exp(yes) * yes + ops.exp(no) * no, axis=-1)


def certainty_weights(logits: Any, *, binary: bool = False) -> Any:
    """Return the weight of each model for each sample: more for those that are certain.

    `w_m = (1 − H_m / Σ_j H_j) / (M − 1)` with the entropy H_m of model m's distribution: the entropy-based weights of
    Kwon et al. (2020), divided by M − 1 so that they sum to 1. They need no labels, unlike those of CA-MKD (Zhang et
    al. 2022), which has them as its baseline "EBKD", in the form that is followed here. Where no model has any doubt,
    all weigh the same.

    Args:
        logits: Logits, shape `(models, batch, ..., units)`, of two models or more.
        binary: Whether each unit is a sigmoid of its own. Default `False`.

    Returns:
        Weights, shape `(models, batch, ..., 1)`, that sum to 1 over the models.

    Example:
        >>> import numpy as np
        >>> from kdkeras.teachers import certainty_weights
        >>> z = np.array([[[100.0, 0.0]], [[0.0, 0.0]]], "float32")
        >>> np.asarray(certainty_weights(z)).ravel().tolist()
        [1.0, 0.0]

    Reference:
        Kwon, Na, Lee, Kim: Adaptive Knowledge Distillation Based on Entropy, ICASSP 2020.
        Zhang, Chen, Wang: Confidence-Aware Multi-Teacher Knowledge Distillation, ICASSP 2022, arXiv:2201.00007.
    """
    models = logits.shape[0]
    doubt = ops.expand_dims(entropy(logits, binary=binary), -1)
    total = ops.sum(doubt, axis=0, keepdims=True)
    share = ops.where(total > 0, doubt / ops.where(total > 0, total, 1.0), 1.0 / models)
    return (1.0 - share) / (models - 1)
