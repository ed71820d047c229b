"""Contracts that every loss keeps, for this library's own tests and for those who write their own losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kdkeras.losses import DistillationLoss
from kdkeras.signals import Attribution, Explain, Extractor, Signals, SignalSpec

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


def tiny_stages(units: int = 3, width: int = 4, *, name: str = "tiny") -> keras.Model:
    """Return a small convolutional classifier for 8×8 images, in two stages of convolution, BatchNorm and ReLU.

    Args:
        units: Number of classes.
        width: Channels of the first stage; the second, of half the size, has twice as many.
        name: Name of the model.

    Returns:
        A built Functional model, input shape `(8, 8, 1)`. Its layers are `conv1`, `norm1`, `relu1` of 8×8, `conv2`,
        `norm2`, `relu2` of 4×4, `pool` and `head`.

    Example:
        >>> from kdkeras.testing import tiny_stages
        >>> tiny_stages().get_layer("relu2").output.shape
        (None, 4, 4, 8)
    """
    inputs = features = keras.Input((8, 8, 1))
    for stage in (1, 2):
        features = keras.layers.Conv2D(width * stage, 3, strides=stage, padding="same", name=f"conv{stage}")(features)
        features = keras.layers.BatchNormalization(name=f"norm{stage}")(features)
        features = keras.layers.ReLU(name=f"relu{stage}")(features)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.Model(inputs, keras.layers.Dense(units, name="head")(pooled), name=name)


def tiny_transformer(units: int = 3, width: int = 4, *, heads: int = 2, name: str = "tiny") -> keras.Model:
    """Return a small transformer classifier for sequences of 6 vectors of 5 numbers.

    Args:
        units: Number of classes.
        width: Size of its hidden states; a multiple of `heads`.
        heads: Number of attention heads.
        name: Name of the model.

    Returns:
        A built Functional model, input shape `(6, 5)`. Its layers are `embed`, and twice `attentionN`, a
        `MultiHeadAttention`, with its hidden states after `hiddenN`; then `pool` and `head`.

    Example:
        >>> from kdkeras.testing import tiny_transformer
        >>> tiny_transformer(width=8).get_layer("hidden2").output.shape
        (None, 6, 8)
    """
    inputs = keras.Input((6, 5))
    hidden = keras.layers.Dense(width, name="embed")(inputs)
    for block in (1, 2):
        attended = keras.layers.MultiHeadAttention(heads, width // heads, name=f"attention{block}")(hidden, hidden)
        hidden = keras.layers.LayerNormalization(name=f"hidden{block}")(hidden + attended)
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(hidden)
    return keras.Model(inputs, keras.layers.Dense(units, name="head")(pooled), name=name)


def check_gradient(function: Callable[..., Any], *arrays: np.ndarray, tolerance: float = 1e-6) -> None:
    """Raise `AssertionError` where the gradient of a function is not its slope, in float64.

    The slope along a random direction is taken by central differences, and compared with what the backend's
    differentiation promises, for each array in turn.

    Args:
        function: A function of tensors; its values are summed.
        *arrays: Its arguments. Those of floating point are differentiated by.
        tolerance: Largest relative difference. Default 1e-6.

    Raises:
        AssertionError: Gradient and slope differ.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import soft_targets
        >>> from kdkeras.testing import check_gradient
        >>> z = np.random.default_rng(0).normal(size=(2, 4, 3))
        >>> check_gradient(soft_targets, z[0], z[1])
    """
    rng = np.random.default_rng(3)
    arrays = tuple(np.asarray(a, "float64") if np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in arrays)
    with _double_precision():
        tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
        for place, array in enumerate(arrays):
            if array.dtype.kind != "f":
                continue
            direction = keras.ops.convert_to_tensor(rng.standard_normal(array.shape))

            def total(shift: Any, place: int = place, direction: Any = direction) -> Any:
                moved = [*tensors[:place], tensors[place] + shift * direction, *tensors[place + 1 :]]
                return keras.ops.sum(function(*moved))

            promised = _derivative(total, "float64")
            step = 1e-6 * max(1.0, float(np.abs(array).max()))
            measured = float(_numbers(total(step)) - _numbers(total(-step))) / (2 * step)
            close = abs(measured - promised) <= tolerance * max(abs(measured), abs(promised), 1e-2)
            _check(close, f"gradient by argument {place}: central difference {measured}, gradient {promised}")


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def check_loss(
    make: Callable[[], DistillationLoss],
    *,
    minimum: float | None = 0.0,
    batch: int = 5,
    network: Callable[..., keras.Model] = tiny_cnn,
) -> None:
    """Raise `AssertionError` where a distillation loss breaks the contract of its base.

    Checked between two small models: one finite value per sample, or one for the batch; the known minimum where the
    student is the teacher; samples independent of each other and of their order, or for a batch-wise loss that the
    order does not matter, a sample of weight 0 has no part, and twice the weight counts twice; the gradient against
    central differences; half-precision signals; `get_config` and `from_config`; and that the weight is a variable that
    can be moved.

    Args:
        make: Returns a fresh, unconnected loss. Layers that it taps must be among those of `network`.
        minimum: Value at student = teacher; `None` where it depends on the data.
        batch: Number of samples.
        network: Returns a model of 3 classes; takes `width` and `name`. Default `tiny_cnn`.

    Raises:
        AssertionError: The contract is broken; the message says where.

    Example:
        >>> import kdkeras
        >>> from kdkeras.testing import check_loss
        >>> check_loss(kdkeras.losses.SoftTargets)
    """
    keras.utils.set_random_seed(0)
    student, teacher = network(name="student"), network(width=6, name="teacher")
    samples = np.random.default_rng(0).random((batch, *student.input_shape[1:])).astype("float32")
    theirs, teacher_spec = _signals(teacher, make().teacher_layers, samples, _attribution(make(), "teacher"))
    explain = Explain(keras.ops.argmax(theirs.logits, axis=-1))
    attribution = _attribution(make(), "student")
    ours, student_spec = _signals(student, make().student_layers, samples, attribution, explain)
    loss = _connected(make, student_spec, teacher_spec)
    labels = np.arange(batch) % 3

    values = _numbers(_values(loss, ours, theirs, labels))
    shape = "()" if loss.batch_wise else f"({batch}, ...)"
    right = values.shape == () if loss.batch_wise else values.shape[:1] == (batch,)
    _check(right, f"`call` must return shape {shape}, got {values.shape}")
    _check(np.isfinite(values).all(), f"`call` must be finite, got {values}")
    _check_minimum(make, theirs, teacher_spec, labels, minimum)
    check_samples = _check_weights if loss.batch_wise else _check_independence
    check_samples(loss, ours, theirs, labels, values)
    _check_gradient(loss, ours, theirs, labels)
    half = keras.tree.map_structure(lambda value: keras.ops.cast(value, "float16"), (ours, theirs))
    close = np.allclose(_numbers(_values(loss, *half, labels)), values, rtol=0.05, atol=0.01)
    _check(close, "float16 signals differ")
    _check_configuration(make)


def _values(loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray, weights: Any = None) -> Any:
    """Return the values of a loss as the train step asks for them, but for the weights of a loss per sample."""
    context = {"sample_weight": weights, "index": np.arange(len(labels)), "training": False}
    return loss(ours, theirs, labels=labels, **{name: context[name] for name in loss.needs})


def _attribution(loss: DistillationLoss, role: str) -> dict[str, Attribution]:
    each = loss.student_attribution if role == "student" else loss.teacher_attribution
    return {} if each is None else {loss.name: each}


def _signals(
    model: keras.Model,
    layers: tuple[str, ...],
    samples: np.ndarray,
    attributions: dict[str, Attribution],
    explain: Explain | None = None,
) -> tuple[Signals, SignalSpec]:
    extractor = Extractor(model, layers, attributions=attributions)
    signals = extractor(samples, explain=dict.fromkeys(attributions, explain or Explain()))
    return signals, extractor.spec(keras.KerasTensor(model.input_shape))


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
    same = set(loss.student_layers) == set(loss.teacher_layers) and loss.student_attribution == loss.teacher_attribution
    if minimum is not None and same:
        loss = _connected(make, spec, spec)
        values = _numbers(_values(loss, theirs, theirs, labels))
        _check(
            np.allclose(values, minimum, atol=1e-5), f"at student = teacher the loss must be {minimum}, got {values}"
        )


def _check_independence(
    loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray, values: np.ndarray
) -> None:
    order = np.arange(len(values))[::-1].copy()
    ours, theirs = _taken(order, ours, theirs)
    shuffled = _numbers(_values(loss, ours, theirs, labels[order]))
    _check(np.allclose(shuffled, values[order], atol=1e-5), "the value of a sample must not depend on its place")
    alone = _numbers(_values(loss, *_taken([0], ours, theirs), labels[order][:1]))
    _check(np.allclose(alone, shuffled[:1], atol=1e-5), "the value of a sample must not depend on the others")


def _check_weights(
    loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray, value: np.ndarray
) -> None:
    order = np.arange(len(labels))[::-1].copy()
    shuffled = _numbers(_values(loss, *_taken(order, ours, theirs), labels[order]))
    _check(np.allclose(shuffled, value, rtol=1e-4, atol=1e-6), "the order of the samples must not matter")
    ones = np.ones(len(labels), "float32")
    _check(
        np.allclose(_numbers(_values(loss, ours, theirs, labels, ones)), value, rtol=1e-5),
        "weights of 1 must do nothing",
    )
    doubled = _numbers(_values(loss, ours, theirs, labels, 2 * ones))
    _check(np.allclose(doubled, 2 * value, rtol=1e-4, atol=1e-6), "twice the weight must count twice")
    none = ones * (np.arange(len(ones)) != 0)
    kept = _numbers(_values(loss, ours, theirs, labels, none))
    others = np.array([1, *range(1, len(ones))])  # sample 1 in the place of sample 0
    replaced = _numbers(_values(loss, *_taken(others, ours, theirs), labels[others], none))
    _check(np.allclose(kept, replaced, rtol=1e-4, atol=1e-6), "a sample of weight 0 must have no part")


def _taken(order: Any, *signals: Signals) -> Any:
    order = np.asarray(order)
    return keras.tree.map_structure(lambda value: keras.ops.take(value, order, axis=0), signals)


def _check_gradient(loss: DistillationLoss, ours: Signals, theirs: Signals, labels: np.ndarray) -> None:
    """Compare the change of the summed loss along a random direction with what its gradient promises."""
    rng = np.random.default_rng(2)
    # What the loss reads of the student, each a direction of its own.
    read = {"logits": ours.logits, **ours.features, **ours.attributions}
    directions = {
        key: keras.ops.convert_to_tensor(rng.standard_normal(tuple(value.shape)).astype("float32"))
        for key, value in read.items()
    }

    def total(shift: Any, key: str) -> Any:
        moved = {**read, key: read[key] + shift * directions[key]}
        features = {path: moved[path] for path in ours.features}
        attributions = {name: moved[name] for name in ours.attributions}
        signals = Signals(moved["logits"], moved["logits"], features, attributions=attributions)
        return keras.ops.sum(_values(loss, signals, theirs, labels))

    for key in read:
        promised = _derivative(lambda shift, key=key: total(shift, key))
        measured = float(_numbers(total(_STEP, key)) - _numbers(total(-_STEP, key))) / (2 * _STEP)
        close = abs(measured - promised) <= 0.02 * max(abs(measured), abs(promised), 0.05)
        _check(close, f"gradient by {key}: central difference {measured}, gradient {promised}")


def _derivative(function: Callable[[Any], Any], dtype: str = "float32") -> float:
    """Return the derivative of a function of one number at 0, by the backend's own differentiation."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return float(jax.grad(function)(0.0))
    if backend == "torch":
        import torch

        shift = torch.zeros((), dtype=getattr(torch, dtype), requires_grad=True)
        (gradient,) = torch.autograd.grad(function(shift), shift, allow_unused=True)
        return 0.0 if gradient is None else float(gradient)
    import tensorflow as tf

    shift = tf.Variable(0.0, dtype=dtype)
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
