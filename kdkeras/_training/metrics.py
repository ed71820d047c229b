"""Compiled metrics of what is labelled."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from kdkeras._training.task import Prepared


def update_metrics(compiled: Any, prepared: Prepared) -> None:
    """Update the metrics that `compile` was given, as Keras does, but for samples without a label.

    Keras weighs `weighted_metrics` only, and of the others just the means read a mask. Here every metric that can be
    weighed gets 0 where there is no label.

    Args:
        compiled: Keras' holder of the compiled metrics.
        prepared: Labels, predictions and weights.
    """
    labels, predictions, sample_weight, _, labelled, _ = prepared
    if all(known is None for known in labelled):
        compiled.update_state(labels, predictions, sample_weight)
        return
    if not compiled.built:
        compiled.build(labels, predictions)
    # Keras has no public way to reach the metrics by output.
    truths, answers = compiled._flatten_y(labels), compiled._flatten_y(predictions)
    weights = [None] * len(truths) if sample_weight is None else compiled._flatten_y(sample_weight)
    known = [None if one is None else ops.cast(one, "float32") for one in labelled]
    for metrics, truth, answer, shown in zip(compiled._flat_metrics, truths, answers, known, strict=False):
        _update(metrics, truth, answer, shown)
    for metrics, truth, answer, shown, weight in zip(
        compiled._flat_weighted_metrics, truths, answers, known, weights, strict=False
    ):
        _update(metrics, truth, answer, weight if shown is None else shown if weight is None else shown * weight)


def _update(metrics: Any, labels: Any, predictions: Any, weight: Any) -> None:
    for metric in metrics.metrics if metrics else ():
        if _can_be_weighed(metric):
            metric.update_state(labels, predictions, sample_weight=weight)
        else:
            metric.update_state(labels, predictions)


def _can_be_weighed(metric: keras.metrics.Metric) -> bool:
    return "sample_weight" in inspect.signature(metric.update_state).parameters
