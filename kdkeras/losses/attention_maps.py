"""Attention maps of transformers (TinyBERT, Jiao et al. 2019; MiniLM, Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from kdkeras.losses._attention import AttentionLoss, attended, divergence, mean_shown, squared_error
from kdkeras.ops import scaled_dot_products

Kind = Literal["scores", "distributions"]
_DISTANCES = {"scores": squared_error, "distributions": divergence}


def attention_maps(
    student_query: Any,
    student_key: Any,
    teacher_query: Any,
    teacher_key: Any,
    *,
    kind: Kind = "scores",
    relation_heads: int | None = None,
    causal: bool = False,
    mask: Any = None,
) -> Any:
    """Return how far the attention `A = Q Kᵀ/√d` of each sample differs, the mean over heads and positions.

    Args:
        student_query: Student queries, shape `(batch, length, heads, size)`.
        student_key: Student keys, same shape, or with fewer heads that each serve several queries.
        teacher_query: Teacher queries, shape `(batch, length, heads, size)`; the size may be another.
        teacher_key: Teacher keys.
        kind: `"scores"` for `mean_k (A_s − A_t)²`, `"distributions"` for `KL(softmax(A_t) ‖ softmax(A_s))`. Default
            `"scores"`.
        relation_heads: All heads put together and split into so many; `None`, the default, for the models' own heads,
            which must be equally many.
        causal: Whether a position attends to itself and what stands before it only. Default `False`.
        mask: Boolean, shape `(batch, length)`, false where there is padding: it is neither attended to nor counted.

    Returns:
        Shape `(batch,)`.

    Raises:
        ValueError: `kind` is unknown.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import attention_maps
        >>> q = np.ones((1, 3, 2, 4), "float32")
        >>> np.asarray(attention_maps(q, q, 2 * q, q)).tolist()
        [4.0]
    """
    student = scaled_dot_products(student_query, student_key, relation_heads)
    teacher = scaled_dot_products(teacher_query, teacher_key, relation_heads)
    distance = _distance(kind, "attention_maps")
    return mean_shown(distance(student, teacher, attended(student, mask, causal)), mask)


def _distance(kind: str, asked_by: str) -> Callable[[Any, Any, Any], Any]:
    """Return the distance at each position."""
    if kind not in _DISTANCES:
        raise ValueError(f"`{asked_by}` needs a kind of {list(_DISTANCES)}. Received: {kind!r}. Pass one of them.")
    return _DISTANCES[kind]


@keras.saving.register_keras_serializable(package="kdkeras")
class AttentionMaps(AttentionLoss):
    """The student's positions look where the teacher's look: attention scores or distributions, head by head.

    Per position, with `A = Q Kᵀ/√d`: `mean_k (A_s − A_t)²` over heads and attended positions k, the un-normalised
    scores of TinyBERT's code, or `KL(softmax(A_t) ‖ softmax(A_s))`, the mean over heads, as MiniLM has it. Of several
    pairs of layers the sum is taken.

    The layers are self-attention layers whose sub-layers are called `query`, `key` and `attention_output`, as those of
    `keras.layers.MultiHeadAttention` and `GroupQueryAttention` are. Fused kernels do not matter, for the scores are
    computed from queries and keys. What changes these afterwards (rotary positions) is not seen. Padding is neither
    attended to nor counted, where the attention layer gets a Keras mask, as from `Embedding(mask_zero=True)`; what a
    layer is told by its `attention_mask` argument is not known here. TinyBERT's code counts masked scores as equal.

    Args:
        student_layer: Path of the student's attention layer, or a list of paths.
        teacher_layer: Path of the teacher's attention layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1, as in TinyBERT.
        kind: `"scores"` or `"distributions"`. Default `"scores"`, with which TinyBERT found faster convergence.
        relation_heads: Number of heads into which all heads of each model are split anew, for models whose head counts
            differ (MiniLMv2). Default `None`: the models' own heads.
        causal: Whether the layers are called with `use_causal_mask=True`. Default `False`.
        name: Name in logs and progress bar. Default `"attention_maps"`.

    Raises:
        TypeError: A path is not a string, `relation_heads` is no whole number, or `causal` no boolean.
        ValueError: `kind` is unknown, `relation_heads` is below 1, or `weight` is negative; when connected, the layers
            are missing, are no self-attention, or head counts or lengths differ.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.AttentionMaps("attention1", "attention3", kind="distributions")
        >>> loss.student_layers
        ('attention1/attention_output', 'attention1/query', 'attention1/key')

    Reference:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2019, arXiv:1909.10351, equation 7.
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers,
        2020, arXiv:2002.10957.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        kind: Kind = "scores",
        relation_heads: int | None = None,
        causal: bool = False,
        name: str | None = None,
    ) -> None:
        settings = {"relation_heads": relation_heads, "causal": causal, "name": name}
        super().__init__(student_layer, teacher_layer, weight, pairs=[("query", "key")], **settings)
        self.kind = kind
        self._distance = _distance(kind, "AttentionMaps")

    def compare_scores(self, student: Any, teacher: Any, mask: Any) -> Any:
        """Return the distance at each position, shape `(batch, length)`."""
        return self._distance(student, teacher, attended(student, mask, self.causal))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind}
