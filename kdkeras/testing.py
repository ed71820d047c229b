"""Contracts that every loss keeps, for this library's own tests and for those who write their own losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kdkeras.losses import DistillationLoss
from kdkeras.signals import Extractor, Signals, SignalSpec

_STEP = 1e-2  # of the central differences: large enough for float32, small enough for losses of bounded curvature


def tiny_cnn(units: int = 3, width: int = 4, *, activation: str | None = None, name: str = "tiny") -> keras.Model:
    """Return a small convolutional classifier for 8×8 images.

    Args:
        units: Number of classes.
        width: Channels of its convolution, `"conv"`.
        activation: Activation of its last layer, `"head"`.
        name: Name of the model.

    Returns:
        A built `keras.Sequential`, input shape `(8, 8, 1)`.

    Example:
        >>> from kdkeras.testing import tiny_cnn
        >>> tiny_cnn(units=5).output_shape
        (None, 5)
    """
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, activation="relu", name="conv"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(units, activation=activation, name="head"),
    ]
    return keras.Sequential(layers, name=name)


def check_loss(make: Callable[[], DistillationLoss], *, minimum: float | None = 0.0, batch: int = 5) -> None:
    """Raise `AssertionError` where a distillation loss breaks the contract of its base.

    Checked between two `tiny_cnn`s: one finite value per sample; the known minimum where the student is the teacher;
    samples independent of each other and of their order; the gradient against central differences; half-precision
    signals; `get_config` and `from_config`; and that the weight is a variable that can be moved.

    Args:
        make: Returns a fresh, unconnected loss. Layers that it taps must be among `tiny_cnn`'s.
        minimum: Value at student = teacher; `None` where it depends on the data.
        batch: Number of samples.

    Raises:
        AssertionError: The contract is broken; the message says where.

    Example:
        >>> import kdkeras
        >>> from kdkeras.testing import check_loss
        >>> check_loss(kdkeras.losses.SoftTargets)
    """
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((batch, 8, 8, 1)).astype("float32")
    student, teacher = tiny_cnn(name="student"), tiny_cnn(width=6, name="teacher")
    ours, student_spec = _signals(student, make().student_layers, images)
    theirs, teacher_spec = _signals(teacher, make().teacher_layers, images)
    loss = _connected(make, student_spec, teacher_spec)
    labels = np.arange(batch) % 3

    values = _numbers(loss(ours, theirs, labels=labels))
    _check(values.shape[:1] == (batch,), f"`call` must return shape ({batch}, ...), got {values.shape}")
    _check(np.isfinite(values).all(), f"`call` must be finite, got {values}")
    _check_minimum(make, theirs, teacher_spec, labels, minimum)
    _check_independence(loss, ours, theirs, labels, values)
    _check_gradient(loss, ours, theirs, labels)
    half = keras.tree.map_structure(lambda value: keras.ops.cast(value, "float16"), (ours, theirs))
    _check(np.allclose(_numbers(loss(*half, labels=labels)), values, rtol=0.05, atol=0.01), "float16 signals differ")
    _check_configuration(make)


def _signals(model: keras.Model, layers: tuple[str, ...], images: np.ndarray) -> tuple[Signals, SignalSpec]:
    extractor = Extractor(model, layers)
    return extractor(images), extractor.spec(keras.KerasTensor((None, 8, 8, 1)))


def _connected(make: Callable[[], DistillationLoss], student: SignalSpec, teacher: SignalSpec) -> DistillationLoss:
    keras.utils.set_random_seed(1)
    loss = make()
    loss.connect(student, teacher)
    loss.built = True
    return loss


def _check_minimum(
    make: Callable[[], DistillationLoss], theirs: Signals, spec: SignalSpec, labels: np.ndarray, minimum: float | None
) -> None:
    loss = make()
    same = set(loss.student_layers) == set(loss.teacher_layers)
    if minimum is not None and same:
        loss = _connected(make, spec, spec)
        values = _numbers(loss(theirs, theirs, labels=labels))
        _check(
            np.allclose(values, minimum, atol=1e-5), f"at student = teacher the loss must be {minimum}, got {values}"
        )


def _check_independence(
    loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray, values: np.ndarray
) -> None:
    order = np.arange(len(values))[::-1].copy()
    ours, theirs = keras.tree.map_structure(lambda value: keras.ops.take(value, order, axis=0), (ours, theirs))
    shuffled = _numbers(loss(ours, theirs, labels=labels[order]))
    _check(np.allclose(shuffled, values[order], atol=1e-5), "the value of a sample must not depend on its place")
    one = keras.tree.map_structure(lambda value: value[:1], (ours, theirs))
    alone = _numbers(loss(*one, labels=labels[order][:1]))
    _check(np.allclose(alone, shuffled[:1], atol=1e-5), "the value of a sample must not depend on the others")


def _check_gradient(loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray) -> None:
    """Compare the change of the summed loss along a random direction with what its gradient promises."""
    rng = np.random.default_rng(2)
    # What the loss reads of the student, each a direction of its own.
    read = {"logits": ours.logits, **ours.features}
    directions = {
        key: keras.ops.convert_to_tensor(rng.standard_normal(tuple(value.shape)).astype("float32"))
        for key, value in read.items()
    }

    def total(shift: Any, key: str) -> Any:
        moved = {**read, key: read[key] + shift * directions[key]}
        features = {path: moved[path] for path in ours.features}
        return keras.ops.sum(loss(Signals(moved["logits"], moved["logits"], features), theirs, labels=labels))

    for key in read:
        promised = _derivative(lambda shift, key=key: total(shift, key))
        measured = float(_numbers(total(_STEP, key)) - _numbers(total(-_STEP, key))) / (2 * _STEP)
        close = abs(measured - promised) <= 0.02 * max(abs(measured), abs(promised), 0.05)
        _check(close, f"gradient by {key}: central difference {measured}, gradient {promised}")


def _derivative(function: Callable[[Any], Any]) -> float:
    """Return the derivative of a function of one number at 0, by the backend's own differentiation."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return float(jax.grad(function)(0.0))
    if backend == "torch":
        import torch

        shift = torch.zeros((), requires_grad=True)
        (gradient,) = torch.autograd.grad(function(shift), shift, allow_unused=True)
        return 0.0 if gradient is None else float(gradient)
    import tensorflow as tf

    shift = tf.Variable(0.0)
    with tf.GradientTape() as tape:
        value = function(shift)
    return float(tape.gradient(value, shift, unconnected_gradients="zero"))


def _check_configuration(make: Callable[[], DistillationLoss]) -> None:
    loss = make()
    copy = type(loss).from_config(loss.get_config())
    _check(copy.get_config() == loss.get_config(), "`from_config(get_config())` must give the same settings")
    loss.weight = 0.25
    _check(loss.weight == 0.25 and float(loss.weight_variable) == 0.25, "`weight` must be movable")


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
