"""A model as a graph of constants: TensorFlow then folds its BatchNorm into its convolutions, once.

TensorFlow only. A teacher never changes in training, nor a model while it is explained, but a traced function reads
their weights from variables, so the graph optimiser must leave `gamma / sqrt(variance + epsilon)` and every layout
change of a kernel in each call. Where the same weights stand in the graph as constants, it computes them once, when the
function is compiled.

The weights are replaced through Keras' own `StatelessScope` while the function is traced, and not by rewriting the
graph (`convert_variables_to_constants_v2`): it is as fast, takes less memory, keeps loops, and whatever reads a weight
behind Keras' back still reads the variable, which is right, only not faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry  # which operations keep state stands nowhere else

from kdkeras.signals import Explain, Extractor, Signals

AUTOMATIC_LIMIT = 32 * 2**20  # bytes of weights; while a step is compiled, it holds about 16 times as much
HARD_LIMIT = 2**30  # a graph is limited to 2 GB by its file format, and copies of it are made in memory

_LOG = logging.getLogger("kdkeras")
_COPIES = 16  # of the constants, measured as the growth of a process that compiled one step of a ResNet50V2
_UNKNOWN_SIZE = 32  # stands in for a dimension that a model leaves open, when it is probed
_TOLERANCE = {"float16": 2e-2, "bfloat16": 5e-2}  # of the largest output; some rounding errors of a deep network
_FLOAT_TOLERANCE = 1e-4
# Ops that keep or read state and are still the same at every call: reading a variable, and calls of other functions.
_READS = {"VarHandleOp", "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "If", "While", "Case"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


class FreezeError(ValueError):
    """A model cannot be turned into constants safely; the message says why."""


class Frozen:
    """A model's forward pass with its weights as constants, to be called where a function is traced.

    Made by `freeze`. Each function that is traced holds its own copy of the constants. A function that was traced
    before the model's weights changed must be traced again: see `is_current`.

    Args:
        extractor: Reads the model.

    Attributes:
        extractor: Reads the model.
        bytes: Size of the weights that become constants.
        seconds: Time that `freeze` took.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        # By identity: a layer that is used twice may be listed twice.
        variables = {id(variable): variable for variable in extractor.model.variables}
        self._weights = [(variable, variable.numpy()) for variable in variables.values()]
        self.bytes = sum(value.nbytes for _, value in self._weights)
        self.seconds = 0.0

    def __call__(self, inputs: Any, explain: Mapping[str, Explain] | None = None) -> Signals:
        """Return the model's signals for `inputs`, with `training=False`.

        Outside of a traced function, where there is no graph to hold constants, the model itself is run.

        Args:
            inputs: Tensors, nested as the model takes them.
            explain: As for the extractor.

        Returns:
            The `Signals`, as the extractor's.
        """
        if tf.executing_eagerly():
            return self.extractor(inputs, training=False, explain=explain)
        constants = [(variable, tf.constant(value)) for variable, value in self._weights]
        with keras.StatelessScope(state_mapping=constants):
            return self.extractor(inputs, training=False, explain=explain)

    def is_current(self) -> bool:
        """Return whether the model's weights are still those that become constants, to the bit."""
        return all(np.array_equal(variable.numpy(), value, equal_nan=True) for variable, value in self._weights)


def freeze(extractor: Extractor, inputs_spec: Any, *, probe: Any = None, limit: int = AUTOMATIC_LIMIT) -> Frozen:
    """Return a model whose weights are constants, after checking that its outputs are the same.

    May be called while a function is traced.

    Args:
        extractor: Reads the model. It must have run once, so that all weights exist.
        inputs_spec: Shapes and dtypes of the model's inputs, in its nest; `None` for open axes.
        probe: A few samples to check with, nested as `inputs_spec`. By default random numbers; zeros and ones where the
            inputs are integers.
        limit: Refuse more than this many bytes of weights; never more than 1 GiB. The default is what
            `freeze_teacher="auto"` allows.

    Returns:
        The `Frozen`.

    Raises:
        FreezeError: It is not safe; the message is the reason, without the model's name.

    Example:
        >>> import keras, tensorflow as tf
        >>> from kdkeras._frozen import freeze
        >>> from kdkeras.signals import Extractor
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> frozen = freeze(Extractor(teacher), teacher.inputs[0])
        >>> frozen.bytes
        60
        >>> step = tf.function(lambda x: frozen(x).logits)
        >>> step.get_concrete_function(tf.TensorSpec((None, 4))).variables
        ()
    """
    start = time.perf_counter()
    model = extractor.model
    _refuse_distribution(model)
    _refuse_size(sum(_size(variable) for variable in model.variables), min(limit, HARD_LIMIT))
    with tf.init_scope():  # the caller may be tracing a step, but a probe must run
        try:
            frozen = _checked(extractor, inputs_spec, probe)
        except FreezeError:
            raise
        except Exception as error:  # whatever a model's own code may raise on a probe: the model stays as it is
            raise FreezeError(f"it failed on a probe ({type(error).__name__}: {error})") from error
    frozen.seconds = time.perf_counter() - start
    _LOG.info(
        "Model '%s' is frozen: %.1f MB of weights become constants (about %.0f MB while a function is compiled); "
        "checked in %.1f s.",
        model.name,
        frozen.bytes / 1e6,
        _COPIES * frozen.bytes / 1e6,
        frozen.seconds,
    )
    return frozen


def _checked(extractor: Extractor, inputs_spec: Any, probe: Any) -> Frozen:
    """Return the frozen model, once its outputs on a probe were those of the live one."""
    specs = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), inputs_spec)
    samples = keras.tree.map_structure(_sample, specs) if probe is None else probe
    samples = keras.tree.map_structure(lambda spec, value: tf.constant(value, spec.dtype), specs, samples)
    live = _traced(lambda inputs: extractor(inputs, training=False), specs)
    _refuse_ops(live)
    frozen = Frozen(extractor)
    # Compiled like what is traced later, and dropped when this function returns: its memory serves that compilation.
    _refuse_difference(_tensors(live(samples)), _tensors(_traced(frozen, specs)(samples)), _tolerance(extractor.model))
    return frozen


def _traced(function: Callable[[Any], Any], specs: Any) -> Any:
    # One argument alone: TensorFlow would count the others, though they have defaults, among what a call must give.
    return tf.function(lambda inputs: function(inputs), autograph=False).get_concrete_function(specs)


def _size(variable: keras.Variable) -> int:
    return int(np.prod(variable.shape, dtype="int64")) * tf.as_dtype(variable.dtype).size


def _tensors(signals: Signals) -> list[np.ndarray]:
    return [value.numpy() for value in keras.tree.flatten(signals) if value is not None]


def _sample(spec: tf.TensorSpec) -> np.ndarray:
    """Return two samples: random numbers, or zeros and ones, which are in range for any embedding of two rows."""
    shape = [2, *(_UNKNOWN_SIZE if size is None else size for size in spec.shape[1:])]
    if spec.shape[0] is not None:
        shape[0] = spec.shape[0]
    random = np.random.default_rng(0)
    if spec.dtype.is_floating:
        return random.standard_normal(shape).astype(spec.dtype.as_numpy_dtype)
    if not (spec.dtype.is_integer or spec.dtype.is_bool):
        raise FreezeError(f"its inputs have the dtype {spec.dtype.name}, for which no samples can be made up")
    values = random.integers(0, 2, shape)
    values[:, :1] = 1  # a sequence of zeros alone may be masked out as a whole
    return values.astype(spec.dtype.as_numpy_dtype)


def _tolerance(model: keras.Model) -> float:
    """Return the difference that rounding may make, relative to the largest output."""
    dtypes = {layer.compute_dtype for layer in model._flatten_layers()}
    return max([_TOLERANCE[dtype] for dtype in dtypes & set(_TOLERANCE)], default=_FLOAT_TOLERANCE)


# --- reasons to leave a model as it is -------------------------------------------------------------------------------


def _refuse_distribution(model: keras.Model) -> None:
    shared = any(isinstance(variable.value, tf.distribute.DistributedValues) for variable in model.variables)
    if shared or tf.distribute.has_strategy():
        raise FreezeError("it is used under a `tf.distribute` strategy")


def _refuse_size(size: int, limit: int) -> None:
    if size > limit:
        raise FreezeError(
            f"its weights are {size / 1e6:.1f} MB, more than the {limit / 1e6:.1f} MB allowed (as constants they take "
            f"about {_COPIES} times as much while a function is compiled)"
        )


def _refuse_ops(live: Any) -> None:
    """Raise where the forward pass draws random numbers, keeps state or leaves TensorFlow, or calls a `tf.function`."""
    found = set(_ops(live.graph.as_graph_def()))
    calls = found & _CALLS
    if calls:
        # TensorFlow would keep its trace, which holds constants of one step, for the next one and the live model.
        raise FreezeError("it calls a `tf.function`, whose trace is shared with other callers")
    stateful = {name for name in found - _READS if op_def_registry.get(name).is_stateful}
    if stateful:
        raise FreezeError(f"its forward pass has the operations {sorted(stateful)}, which keep state or draw at random")


def _ops(graph: Any) -> Iterator[str]:
    """Yield the type of every operation, of loop bodies and branches too."""
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            yield node.op


def _refuse_difference(live: list[np.ndarray], frozen: list[np.ndarray], tolerance: float) -> None:
    """Raise where an output differs by more than `tolerance` of the largest live one."""
    for expected, received in zip(live, frozen, strict=True):
        if expected.shape != received.shape or expected.dtype != received.dtype:
            raise FreezeError(
                f"it returns {expected.dtype} {expected.shape}, but {received.dtype} {received.shape} with constants"
            )
        if not expected.size:
            continue
        # Equal infinities and NaNs are equal: a logarithm of random numbers has them.
        values, others = (np.asarray(array, "float64") for array in (expected, received))
        finite = np.isfinite(values)
        scale = np.abs(values[finite]).max(initial=0.0)
        error = np.abs(values[finite] - others[finite]).max(initial=0.0)
        if not np.array_equal(values[~finite], others[~finite], equal_nan=True) or not error <= tolerance * scale:
            raise FreezeError(
                f"an output differs by {error:.1e} with constants, of a largest {scale:.1e}; {tolerance:.0e} of it is "
                "allowed for rounding"
            )
