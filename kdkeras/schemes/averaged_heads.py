"""A student of several heads as a plain model with one: their mean (DeiT, Touvron et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from kdkeras.schemes._graph import Graph
from kdkeras.signals import Extractor, SignalSpec

_TINY = 1e-30  # a probability below is taken for this: its logarithm must be finite


def averaged_heads(
    model: keras.Model,
    outputs: Sequence[str] | None = None,
    *,
    of: Literal["probabilities", "logits"] = "probabilities",
    name: str | None = None,
) -> keras.Model:
    """Return a plain model that answers with the mean of several heads of one.

    A DeiT student has a head for the labels and one for its teacher, and answers with both. With the heads' logits z_h
    of H heads,

    - `of="probabilities"`: p = Σ_h softmax(z_h) / H, in log space `z = logsumexp_h log softmax(z_h) − log H`: what the
      paper's sum of the heads' softmax outputs comes to;
    - `of="logits"`: z = Σ_h z_h / H, as the authors' code has it.

    Heads that end in logits give a model that ends in logits, heads that end in a softmax or sigmoid one that ends so.
    The model shares the layers of the one it is made of, is made of Keras operations only, and loads without kdkeras.

    Args:
        model: A Functional model with several outputs of one shape.
        outputs: Names of the outputs to be averaged. Default: all.
        of: What is averaged: `"probabilities"` (default) or `"logits"`.
        name: Name of the new model. Default: the model's with `"_averaged"`.

    Returns:
        A Functional model with one output.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: It is not Functional, there are fewer than two outputs, a name is unknown, `of` is something else,
            or the heads differ in shape or activation.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.schemes import averaged_heads
        >>> inputs = keras.Input((4,))
        >>> heads = {name: keras.layers.Dense(3, "softmax", name=name)(inputs) for name in ("label", "teacher")}
        >>> plain = averaged_heads(keras.Model(inputs, heads))
        >>> plain.predict(np.zeros((1, 4)), verbose=0).round(4)
        array([[0.3333, 0.3333, 0.3333]], dtype=float32)

    Reference:
        Touvron et al.: Training data-efficient image transformers & distillation through attention, ICML 2021,
        arXiv:2012.12877, section 4.
    """
    graph = Graph(model, asked_by="averaged_heads")
    if of not in ("probabilities", "logits"):
        raise ValueError(f"`averaged_heads` needs of='probabilities' or of='logits'. Received: {of!r}.")
    spec = Extractor(model, several_outputs=True).spec(graph.input)
    chosen = list(spec.outputs) if outputs is None else list(outputs)
    unknown = [output for output in chosen if output not in spec.outputs]
    if unknown or len(set(chosen)) < 2:
        raise ValueError(
            f"`averaged_heads` needs two or more outputs of model '{model.name}', of {list(spec.outputs)}. Received: "
            f"{chosen}. Name them in `outputs`."
        )
    head = _common_head([spec.outputs[output] for output in chosen], of)
    tensors = dict(zip(spec.outputs, keras.tree.flatten(graph.output), strict=True))
    heads = ops.stack([ops.cast(tensors[output], "float32") for output in chosen])  # (heads, batch, ..., classes)
    return keras.Model(graph.input, _averaged(heads, len(chosen), head, of), name=name or f"{model.name}_averaged")


def _averaged(heads: Any, count: int, head: str, of: str) -> Any:
    """Return the mean of stacked heads, behind the activation that they end in."""
    if head == "linear" and of == "probabilities":
        return ops.logsumexp(ops.log_softmax(heads, axis=-1), axis=0) - math.log(count)
    if head == "linear":
        return ops.mean(heads, axis=0)
    # Through logits once more, for a model that ends in a known activation is one whose logits can be read.
    yes = heads if of == "logits" else ops.mean(heads, axis=0)
    logits = ops.log(ops.maximum(yes, _TINY))
    if head == "sigmoid":
        logits = logits - ops.log(ops.maximum(1.0 - yes, _TINY))
    logits = ops.mean(logits, axis=0) if of == "logits" else logits
    return keras.layers.Activation(head, dtype="float32")(logits)


def _common_head(specs: Sequence[SignalSpec], of: str) -> str:
    heads = {spec.head or "linear" for spec in specs}
    shapes = {spec.logits for spec in specs}
    if len(heads) > 1 or len(shapes) > 1:
        received = ", ".join(f"'{spec.model}' {spec.logits} ending in {spec.head or 'no activation'}" for spec in specs)
        raise ValueError(
            f"`averaged_heads` needs outputs of one shape and one activation. Received: {received}. Choose some with "
            "`outputs`."
        )
    head = heads.pop()
    if head != "sigmoid" and of == "probabilities" and specs[0].logits[-1] == 1:
        raise ValueError(
            "`averaged_heads` needs class probabilities for of='probabilities'. Received: outputs of one unit. Pass "
            "of='logits' for a regression."
        )
    return head
