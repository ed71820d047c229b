"""Relations between the values of a transformer's self-attention (MiniLM, Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kdkeras.losses._attention import AttentionLoss, attended, divergence, mean_shown
from kdkeras.ops import scaled_dot_products

_RELATIONS = ("query-key", "query-query", "key-key", "value-value")


def value_relations(
    student: Any, teacher: Any, *, relation_heads: int | None = None, causal: bool = False, mask: Any = None
) -> Any:
    """Return `KL(softmax(V_t V_tᵀ/√d_t) ‖ softmax(V_s V_sᵀ/√d_s))` of each sample, the mean over heads and positions.

    Args:
        student: Student values V_s, shape `(batch, length, heads, size)`; queries or keys do as well.
        teacher: Teacher values V_t, shape `(batch, length, heads, size)`; the size may be another.
        relation_heads: All heads put together and split into so many; `None`, the default, for the models' own heads,
            which must be equally many.
        causal: Whether a position is related to itself and what stands before it only. Default `False`.
        mask: Boolean, shape `(batch, length)`, false where there is padding: it is neither related to nor counted.

    Returns:
        Divergences in nats, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import value_relations
        >>> v = np.random.default_rng(0).normal(size=(1, 3, 2, 4)).astype("float32")
        >>> np.asarray(value_relations(-v, v)).round(6).tolist()
        [0.0]
    """
    ours, theirs = (
        scaled_dot_products(student, student, relation_heads),
        scaled_dot_products(teacher, teacher, relation_heads),
    )
    return mean_shown(divergence(ours, theirs, attended(ours, mask, causal)), mask)


@keras.saving.register_keras_serializable(package="kdkeras")
class ValueRelations(AttentionLoss):
    """MiniLM: where the positions of the last layer look, and how like their values are to each other.

    Per position the sum over the given relations of `KL(softmax(A_t B_tᵀ/√d_t) ‖ softmax(A_s B_sᵀ/√d_s))`, the mean
    over heads, where A and B are queries, keys or values. MiniLM takes queries with keys, which is attention, and
    values with values; MiniLMv2 queries with queries, keys with keys and values with values, in relation heads. The
    student may be narrower than the teacher, for a relation has the size of the sequence. One layer of each is enough:
    the last, or in MiniLMv2 one of the upper middle of a large teacher.

    The layers are self-attention layers whose sub-layers are called `query`, `key`, `value` and `attention_output`, as
    those of `keras.layers.MultiHeadAttention` and `GroupQueryAttention` are; fused kernels do not matter. Padding is
    neither related to nor counted, where the attention layer gets a Keras mask, as from `Embedding(mask_zero=True)`;
    what a layer is told by its `attention_mask` argument is not known here.

    Args:
        student_layer: Path of the student's attention layer, or a list of paths.
        teacher_layer: Path of the teacher's attention layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1, as in the paper.
        relations: Of `"query-key"`, `"query-query"`, `"key-key"` and `"value-value"`. Default `("query-key",
            "value-value")`, MiniLM; `("query-query", "key-key", "value-value")` is MiniLMv2.
        relation_heads: Number of heads into which all heads of each model are split anew, so that the models' own may
            differ. Default `None`: the models' own heads. MiniLMv2 uses 48 of a base and 64 of a large teacher.
        causal: Whether the layers are called with `use_causal_mask=True`. Default `False`.
        name: Name in logs and progress bar. Default `"value_relations"`.

    Raises:
        TypeError: A path is not a string, `relation_heads` is no whole number, or `causal` no boolean.
        ValueError: A relation is unknown or there is none, `relation_heads` is below 1, or `weight` is negative; when
            connected, the layers are missing, are no self-attention, or head counts or lengths differ.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.ValueRelations(
        ...     "attention6", "attention12", relations=["query-query", "key-key", "value-value"], relation_heads=48
        ... )
        >>> loss.student_layers[1:]
        ('attention6/query', 'attention6/key', 'attention6/value')

    Reference:
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers,
        2020, arXiv:2002.10957.
        Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers,
        2020, arXiv:2012.15828.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        relations: Sequence[str] = ("query-key", "value-value"),
        relation_heads: int | None = None,
        causal: bool = False,
        name: str | None = None,
    ) -> None:
        if isinstance(relations, str) or not relations or set(relations) - set(_RELATIONS):
            raise ValueError(
                f"`ValueRelations` needs a list of relations out of {list(_RELATIONS)}. Received: {relations!r}. Pass "
                "['query-key', 'value-value'] for MiniLM."
            )
        pairs = [tuple(relation.split("-")) for relation in relations]
        settings = {"relation_heads": relation_heads, "causal": causal, "name": name}
        super().__init__(student_layer, teacher_layer, weight, pairs=pairs, **settings)
        self.relations = tuple(relations)

    def compare_scores(self, student: Any, teacher: Any, mask: Any) -> Any:
        """Return the divergence at each position, shape `(batch, length)`."""
        return divergence(student, teacher, attended(student, mask, self.causal))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "relations": list(self.relations)}
