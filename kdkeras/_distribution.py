"""What a model needs beyond Keras to train on several devices, and what is refused there before training starts.

`docs/distribution.md` says how to use it and why each thing is refused. Everything here was measured on Keras 3.15; the
tests in `tests/distribution` run the refused cases with plain Keras models too, and fail once Keras can do them.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from kdkeras.inputs import is_array_like

_KINDS = ("MirroredStrategy", "MultiWorkerMirroredStrategy", "OneDeviceStrategy", "TPUStrategy")
_BATCH = 32  # what Keras takes for `batch_size=None`


class AcrossDevices(keras.Model):
    """A model whose `fit`, `evaluate` and `predict` run under the `tf.distribute` strategies that Keras knows.

    Adds what Keras' own lacks under several workers, and refuses data that a strategy cannot split.
    """

    def fit(self, x: Any = None, y: Any = None, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Train, as `keras.Model.fit`."""
        check_made_together(self)
        split = kwargs.get("validation_split") or 0.0
        x = checked_batches(self, x, batch_size, split)
        if kwargs.get("validation_data") is not None:
            given = kwargs["validation_data"]
            ours, *others = _as_tuple(given)
            ours = checked_batches(self, ours, kwargs.get("validation_batch_size") or batch_size)
            kwargs["validation_data"] = (ours, *others) if isinstance(given, (tuple, list)) else ours
        return super().fit(x, y, batch_size, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Measure losses and metrics, as `keras.Model.evaluate`."""
        check_made_together(self)
        return super().evaluate(checked_batches(self, x, batch_size), y, batch_size, *args, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return predictions, as `keras.Model.predict`."""
        return super().predict(checked_batches(self, x, batch_size), batch_size, *args, **kwargs)

    def train_step(self, *args: Any) -> Any:
        """Run one step, as `keras.Model.train_step`."""
        return _joinable(super().train_step(*args))

    def test_step(self, *args: Any) -> Any:
        """Run one step, as `keras.Model.test_step`."""
        return _joinable(super().test_step(*args))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build under the strategy's scope from the first replica's share of a batch.

        Keras' own averages the shares of all replicas, which fails where some are another process' (keras #20585).
        TensorFlow only: the other backends never call it.
        """
        strategy = strategy_of(self)
        if strategy is None:
            return
        shares = None if iterator is None else _first_shares(iterator, strategy)
        with strategy.scope():
            self._symbolic_build(iterator=shares, data_batch=data_batch)


# --- the strategy -----------------------------------------------------------------------------------------------------


def strategy_of(model: Any) -> Any:
    """Return the `tf.distribute` strategy that a model was made under.

    Args:
        model: A Keras model.

    Returns:
        The strategy; `None` where there is none, or on another backend.

    Raises:
        ValueError: Keras cannot train under it.
    """
    if keras.backend.backend() != "tensorflow" or not isinstance(model, keras.Model):
        return None
    import tensorflow as tf

    strategy = model._distribute_strategy  # the public property names the surroundings' where the model has none
    kinds = tuple(getattr(tf.distribute, name) for name in _KINDS)
    if strategy is not None and not isinstance(strategy, kinds):
        raise ValueError(
            f"Models are trained under one of {', '.join(_KINDS)}. Received: {type(strategy).__name__}, under which "
            "Keras' `fit` fails or computes something else. Make the models under one of these."
        )
    return strategy


def _name(strategy: Any) -> str:
    """Return a strategy's public name; its class may have another."""
    import tensorflow as tf

    names = [name for name in _KINDS if isinstance(strategy, getattr(tf.distribute, name))]
    return names[0] if names else type(strategy).__name__


def strategy_scope(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Return the scope of the strategy that a model was made under, for the variables that train with it.

    Args:
        model: A Keras model.

    Returns:
        A context; one that does nothing where there is no strategy, or where one is open.

    Raises:
        ValueError: Keras cannot train under the strategy.

    Example:
        >>> import keras
        >>> from kdkeras._distribution import strategy_scope
        >>> with strategy_scope(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])):
        ...     pass
    """
    strategy = strategy_of(model)
    if strategy is None:
        return contextlib.nullcontext()
    import tensorflow as tf

    return contextlib.nullcontext() if tf.distribute.has_strategy() else strategy.scope()


def under_strategy(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a model's method in the scope of its strategy, for the variables that it makes.

    Args:
        method: A method of a model.

    Returns:
        The method, in the scope.
    """

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with strategy_scope(self):
            return method(self, *args, **kwargs)

    return wrapped


def replicas_of(model: keras.Model) -> int:
    """Return among how many devices each batch of a model is split.

    Args:
        model: A Keras model.

    Returns:
        A number of replicas, 1 without distribution.
    """
    if keras.backend.backend() == "jax":
        distribution = keras.distribution.distribution()
        if distribution is None or distribution.batch_dim_name is None:
            return 1
        mesh = distribution.device_mesh
        return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])
    strategy = strategy_of(model)
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)


# --- what is refused --------------------------------------------------------------------------------------------------


def check_compile(model: keras.Model, optimizer: Any, arguments: dict[str, Any]) -> None:
    """Raise if Keras cannot do under the model's strategy what `compile` asks for.

    Args:
        model: The model that is compiled.
        optimizer: A Keras optimizer.
        arguments: Further arguments of `keras.Model.compile`.

    Raises:
        ValueError: It fails or computes something else under the strategy.
    """
    strategy = strategy_of(model)
    if strategy is None or strategy.num_replicas_in_sync < 2:
        return
    kind = _name(strategy)
    if not all(strategy.extended.variable_created_in_scope(variable.value) for variable in optimizer.variables):
        raise ValueError(
            f"The optimizer must be made under the scope of the model's `{kind}`. Received: an optimizer made outside. "
            "Move it into `with strategy.scope():`, or pass its name."
        )
    if arguments.get("jit_compile") is True:
        raise ValueError(
            f"`jit_compile=True` does not run under `{kind}`: XLA cannot reach the variables of other replicas. "
            "Leave it out; on TPUs every step is compiled anyway."
        )
    if arguments.get("steps_per_execution", 1) > 1 and _reduces_collectively(strategy):
        raise ValueError(
            f"`steps_per_execution` above 1 fails under `{kind}` with collective reductions. Received: "
            f"{arguments['steps_per_execution']}. Leave it at 1, or on one machine make the strategy with "
            "`cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()`."
        )
    _check_optimizer(getattr(optimizer, "inner_optimizer", optimizer), strategy, kind)


def _check_optimizer(optimizer: Any, strategy: Any, kind: str) -> None:
    """Raise for settings that synchronise inside of a condition, and warn of those that act per replica."""
    for setting in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        value = getattr(optimizer, setting)
        if value is not None and (setting != "ema_overwrite_frequency" or optimizer.use_ema):
            raise ValueError(
                f"Keras' optimizers have no {setting} under `{kind}` (keras #20582). Received: {value}. Leave it out; "
                "several replicas take larger batches."
            )
    for setting in ("clipnorm", "global_clipnorm", "clipvalue"):
        value = getattr(optimizer, setting)
        if value is not None:
            replicas = strategy.num_replicas_in_sync
            warnings.warn(
                f"Keras clips the gradient of each of the {replicas} replicas before it adds them up, so that "
                f"{setting}={value} lets pass up to {replicas} times as much as on one device. To bound the sum, "
                f"divide {setting} by {replicas}.",
                stacklevel=5,  # the caller of `compile`
            )


def _reduces_collectively(strategy: Any) -> bool:
    import tensorflow as tf

    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    copying = (tf.distribute.ReductionToOneDevice, tf.distribute.HierarchicalCopyAllReduce, tf.distribute.NcclAllReduce)
    # TensorFlow has no public way to ask which reduction a strategy chose.
    return isinstance(strategy, tf.distribute.MirroredStrategy) and not isinstance(
        strategy.extended._cross_device_ops, copying
    )


def check_made_together(model: keras.Model) -> None:
    """Raise if a model's trainable variables live on other devices than its distribution.

    Args:
        model: The model that is to be trained.

    Raises:
        ValueError: A variable was made outside of the strategy's scope, or before the JAX distribution was set.
    """
    if keras.backend.backend() == "jax":
        distribution = keras.distribution.distribution()
        if distribution is None:
            return
        devices = int(np.prod(distribution.device_mesh.shape))
        strays = [v for v in model.variables if len(v.value.sharding.device_set) != devices]
        _refuse_strays(strays, "after `keras.distribution.set_distribution(...)`", "earlier")
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    strategy = strategy_of(model)
    if strategy is None and tf.distribute.has_strategy():
        raise ValueError(
            f"A model trains under the strategy it was made under. Received: '{model.name}', made outside of the scope "
            f"of `{_name(tf.distribute.get_strategy())}`. Make student and distiller inside of it."
        )
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        strays = [v for v in model.trainable_variables if not strategy.extended.variable_created_in_scope(v.value)]
        _refuse_strays(strays, "under `with strategy.scope():`", "outside")


def _refuse_strays(strays: list[keras.Variable], where: str, instead: str) -> None:
    if strays:
        raise ValueError(
            f"Models that train on several devices must be made {where}. Received: '{strays[0].path}' and "
            f"{len(strays) - 1} other variables made {instead}. Make or load the models there."
        )


# --- batches ----------------------------------------------------------------------------------------------------------


def checked_batches(model: keras.Model, x: Any, batch_size: int | None, validation_split: float = 0.0) -> Any:
    """Raise if a batch would leave a device without samples; let datasets that do not tell raise when they do.

    Args:
        model: The model that takes the data.
        x: Arrays, a dataset, or anything else that Keras takes.
        batch_size: Size of the global batch of arrays; `None` for Keras' default of 32.
        validation_split: Part of the arrays that is set aside.

    Returns:
        x, to be used in its place.

    Raises:
        ValueError: A batch is too small, or on JAX not divisible.
    """
    replicas = replicas_of(model)
    if replicas < 2 or x is None:
        return x
    if is_array_like(x):
        samples, size = len(keras.tree.flatten(x)[0]), batch_size or _BATCH
        kept = int(samples * (1 - validation_split))
        for part in (kept, samples - kept):
            for batch in {min(size, part), part % size} - {0}:
                _check_size(batch, replicas, f"{part} samples in batches of {size}")
        return x
    return _guarded(x, replicas) if keras.backend.backend() == "tensorflow" else x


def _check_size(size: int, replicas: int, received: str) -> None:
    if keras.backend.backend() == "jax":
        if size % replicas:
            raise ValueError(
                f"JAX splits a batch only into {replicas} equal parts. Received: {received}, of which one has {size}. "
                "Drop samples, or choose another batch_size."
            )
    elif _leaves_one_empty(size, replicas):
        raise ValueError(
            f"Each of the {replicas} replicas needs a sample of every batch. Received: {received}, of which one has "
            f"{size}. Drop samples, or choose another batch_size."
        )


def _leaves_one_empty(size: Any, replicas: int) -> Any:
    """Whether a replica gets nothing: TensorFlow hands out `ceil(size / replicas)` samples until there are no more."""
    return -(-size // replicas) * (replicas - 1) >= size


def _guarded(x: Any, replicas: int) -> Any:
    """Return a dataset that raises for a batch that leaves a replica empty; static sizes are checked at once."""
    import tensorflow as tf

    if not isinstance(x, tf.data.Dataset):
        return x
    first = tf.nest.flatten(x.element_spec)[0]
    if not isinstance(first, tf.TensorSpec) or not first.shape.rank:
        return x
    if first.shape[0] is not None:
        _check_size(first.shape[0], replicas, "a dataset of batches of one size")
        return x
    message = (
        f"Each of the {replicas} replicas needs a sample of every batch. Received: a dataset with a batch too small "
        "for that. Use `batch(..., drop_remainder=True)`."
    )

    def check(*batch: Any) -> Any:
        size = tf.shape(tf.nest.flatten(batch)[0])[0]
        tf.debugging.Assert(tf.logical_not(_leaves_one_empty(size, replicas)), [message], summarize=1)
        return batch if len(batch) > 1 else batch[0]

    return x.map(check)


# --- several workers --------------------------------------------------------------------------------------------------


def _first_shares(iterator: Any, strategy: Any) -> Iterator[tuple[int, int, list[Any]]]:
    """Yield what a Keras epoch iterator yields, with the batch that this process' first replica gets."""
    for begin, end, batches in iterator:
        batch = next(batches)
        yield begin, end, [keras.tree.map_structure(lambda v: strategy.experimental_local_results(v)[0], batch)]


def _joinable(logs: Any) -> Any:
    """Return logs with an axis to average over, where Keras averages them between processes (keras #20585)."""
    if keras.backend.backend() != "tensorflow":
        return logs
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or strategy.num_replicas_in_sync < 2:
        return logs
    return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()}


def _as_tuple(data: Any) -> tuple[Any, ...]:
    return tuple(data) if isinstance(data, (tuple, list)) else (data,)
