"""What differs between TensorFlow, JAX and PyTorch and has no name in Keras."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras


def name() -> str:
    """Return `"tensorflow"`, `"jax"` or `"torch"`."""
    return keras.backend.backend()


def replicas() -> int:
    """Return how many replicas of the step run at once under the current `tf.distribute` strategy."""
    if name() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def branches_may_update() -> bool:
    """Return whether an optimizer may stand in a branch of a step: not where TensorFlow merges replicas, be it one."""
    if name() != "tensorflow":
        return True
    import tensorflow as tf

    return not tf.distribute.has_strategy() or isinstance(tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy)


def values(gradient: Any) -> Any:
    """Return the numbers of a gradient, which on TensorFlow may be rows of a table alone."""
    if name() != "tensorflow":
        return gradient
    import tensorflow as tf

    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def outside_of_graphs() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which operations run at once, even while TensorFlow traces a step."""
    if name() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return contextlib.nullcontext() if tf.executing_eagerly() else tf.init_scope()  # which stops every tape


def without_gradient() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which PyTorch keeps nothing for a backward pass; the others decide that elsewhere."""
    if name() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def number(variable: keras.Variable) -> float:
    """Return the value of a scalar variable, whichever strategy holds it."""
    return float(keras.ops.convert_to_numpy(variable))


def gradients_and_rest(function: Callable[..., Any], weights: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Return the gradients by `weights` of a function's first result, and its second (JAX only)."""
    import jax

    (_, others), gradients = jax.value_and_grad(function, has_aux=True)(weights, *args, **kwargs)
    return gradients, others


# --- gradients inside a step -----------------------------------------------------------------------------------------


def differentiable(
    run: Callable[[Callable[[str, Any], Any]], tuple[list[Any], Any]], model: keras.Model
) -> tuple[list[Any], Any, Callable[[int, Any, str], Any]]:
    """Run a model once, so that its outputs can be differentiated by tensors inside it.

    The gradients are part of the surrounding computation: what is made of them can be differentiated by the model's
    weights. Random numbers and BatchNorm's statistics are those of a single forward pass.

    Args:
        run: Calls the model and returns its outputs, with anything else. It is given a function
            `mark(name, tensor) -> tensor`, calls it for each tensor that is to be differentiated by, and goes on with
            what it returns. Of several tensors of one name the last counts.
        model: The model that it calls, whose state may change.

    Returns:
        The outputs; what else `run` returned; and a function `gradient(place, weights, name)`, the gradient of
        `Σ weights · outputs[place]` by the tensor of that name, or `None` where there is no way from one to the other.
    """
    return {"tensorflow": _with_tape, "jax": _with_pullback, "torch": _with_autograd}[name()](run, model)


def _with_tape(run: Callable[..., Any], _: keras.Model) -> tuple[list[Any], Any, Callable[[int, Any, str], Any]]:
    import tensorflow as tf

    marked = {}
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)

    def mark(name: str, tensor: Any) -> Any:
        tape.watch(tensor)
        marked[name] = tensor
        return tensor

    with tape:
        outputs, rest = run(mark)

    def gradient(place: int, weights: Any, name: str) -> Any:
        value = tape.gradient(outputs[place], marked[name], output_gradients=weights)
        if value is None:  # under `tf.init_scope` no tape sees anything, but there only shapes are asked for
            return None if _tapes_run() else tf.zeros_like(marked[name])
        return tf.convert_to_tensor(value)

    return outputs, rest, gradient


def _tapes_run() -> bool:
    import tensorflow as tf

    one = tf.ones(())
    with tf.GradientTape() as tape:
        tape.watch(one)
        two = one + one
    return tape.gradient(two, one) is not None


def _with_autograd(run: Callable[..., Any], _: keras.Model) -> tuple[list[Any], Any, Callable[[int, Any, str], Any]]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    marked = {}
    again = torch.is_grad_enabled()  # whether the gradients will be differentiated themselves

    def mark(name: str, tensor: Any) -> Any:
        marked[name] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return marked[name]

    # The fast kernels of attention cannot be differentiated twice.
    kernels = sdpa_kernel(SDPBackend.MATH) if again else contextlib.nullcontext()
    with torch.enable_grad(), kernels:
        outputs, rest = run(mark)

    def gradient(place: int, weights: Any, name: str) -> Any:
        if marked[name].is_meta:  # Keras asks for shapes, and its conversions cut the way from one to the other
            return torch.zeros_like(marked[name])
        if not outputs[place].requires_grad:
            return None
        options = {"create_graph": again, "retain_graph": True, "allow_unused": True}
        return torch.autograd.grad(outputs[place], marked[name], weights, **options)[0]

    return outputs, rest, gradient


def _with_pullback(
    run: Callable[..., Any], model: keras.Model
) -> tuple[list[Any], Any, Callable[[int, Any, str], Any]]:
    import jax

    marked: dict[str, list[Any]] = {}  # shapes and dtypes

    def look(name: str, tensor: Any) -> Any:
        marked.setdefault(name, []).append((tensor.shape, tensor.dtype))
        return tensor

    for _ in range(1 if model.built else 2):  # a model that is built by its first call may call its layers twice
        marked.clear()
        now = [(variable, variable.value) for variable in model.variables]
        with keras.StatelessScope(state_mapping=now):  # for shapes alone: what it would change is dropped
            jax.eval_shape(lambda: run(look))
    # What is added to each marked tensor is nothing, but the outputs can be differentiated by it.
    nothing = {name: jax.numpy.zeros(*calls[-1]) for name, calls in marked.items()}
    written: list[keras.Variable] = []

    def shifted(shifts: dict[str, Any]) -> Any:
        left = {name: len(calls) for name, calls in marked.items()}

        def mark(name: str, tensor: Any) -> Any:
            left[name] -= 1
            return tensor if left[name] else tensor + shifts[name]

        with keras.StatelessScope(state_mapping=now, collect_losses=True) as scope:
            before = dict(scope.state_mapping)
            outputs, rest = run(mark)
        written[:] = [v for v, _ in now if scope.get_current_value(v) is not before[id(v)]]
        return outputs, (rest, [scope.get_current_value(v) for v in written], scope.losses)

    outputs, pull, (rest, values, losses) = jax.vjp(shifted, nothing, has_aux=True)
    for variable, value in zip(written, values, strict=True):
        variable.assign(value)
    if losses:  # of any layer in it: a Functional model takes none
        next(each for each in model._flatten_layers() if not isinstance(each, keras.Model)).add_loss(losses)

    def gradient(place: int, weights: Any, name: str) -> Any:
        def pulled(weights: Any) -> Any:
            return pull([weights if i == place else jax.numpy.zeros_like(z) for i, z in enumerate(outputs)])[0][name]

        return pulled(weights) if _depends(pulled, weights) else None

    return outputs, rest, gradient


def _depends(function: Callable[[Any], Any], value: Any) -> bool:
    """Whether a function's result depends on its argument (JAX only, where a gradient that is not there is zeros)."""
    import jax

    jaxpr = jax.make_jaxpr(function)(value).jaxpr
    reached = {id(variable) for variable in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return any(id(variable) in reached for variable in jaxpr.outvars)
