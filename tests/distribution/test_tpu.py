"""The step has no operation that a TPU forbids. There is no TPU here: the step is compiled by XLA for the CPU.

Where the lists come from:

- Allowed are the operations that have a kernel for XLA in the installed TensorFlow: TPUs are programmed through the
  same compiler (`tf2xla`), and 'Available TensorFlow Ops' of the Cloud TPU documentation
  (https://cloud.google.com/tpu/docs/tensorflow-ops) lists a part of these. Functions and control flow are expanded by
  the compiler itself.
- Of these, operations whose output's shape depends on values are forbidden here: TPUs need static shapes (the same
  documentation, 'Performance guide'); as are those that TensorFlow's own `tpu_replication` calls unsupported, and
  whatever has strings or leaves the device.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels  # nothing public lists the kernels
from tensorflow.python.tpu import tpu_replication

import kdkeras
from kdkeras import losses

EXPANDED = {"PartitionedCall", "StatefulPartitionedCall", "StatelessIf", "If", "While", "StatelessWhile", "Case"}
EXPANDED |= {"Placeholder", "NoOp", "_Arg", "_Retval", "_DeviceArg", "_DeviceRetval"}  # arguments and results
DYNAMIC = {"Where", "Unique", "UniqueV2", "UniqueWithCounts", "ListDiff", "DynamicPartition", "SetSize", "Bincount"}
DYNAMIC |= {"DenseToDenseSetOperation", "NonMaxSuppression"} | {f"NonMaxSuppressionV{i}" for i in (2, 3, 4, 5)}
HOST = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2", "Print", "Assert"} | tpu_replication._UNSUPPORTED_OPS
BATCH = 8


def network(width, name, **head):
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(width, 3, activation="relu", name="conv"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.1),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, name="head", **head),
    ]
    return keras.Sequential(layers, name=name)


def kernels_of_xla():
    tf.function(lambda x: x + 1, jit_compile=True)(tf.ones(2))  # the first use registers them
    return {kernel.op for kernel in kernels.get_all_registered_kernels().kernel if kernel.device_type == "XLA_CPU_JIT"}


def traced(step, *specs):
    function = tf.function(step, jit_compile=True, autograph=False).get_concrete_function(tuple(specs))
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from nodes


def faults(step, *specs):
    """Return what a TPU cannot do in a step."""
    allowed = kernels_of_xla() | EXPANDED
    found = set()
    for node in traced(step, *specs):
        dtypes = {dtype for value in node.attr.values() for dtype in (value.type, *value.list.type)}
        if node.op not in allowed or node.op in DYNAMIC | HOST or tf.string.as_datatype_enum in dtypes:
            found.add(node.op)
    return found


def distiller(policy, **arguments):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        terms = [
            losses.SoftTargets(4.0),
            losses.HardTargets(),
            losses.LogitMatching(),
            losses.Hints("conv", "conv"),
            losses.SoftenedOutputs(keras.losses.KLDivergence()),
        ]
        return kdkeras.Distiller(student=network(2, "student"), teacher=network(4, "teacher")).compile(
            optimizer=keras.optimizers.AdamW(0.01, global_clipnorm=1.0, use_ema=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            distillation_loss=terms,
            **arguments,
        )
    finally:
        keras.config.set_dtype_policy("float32")


X = np.random.default_rng(0).random((2 * BATCH, 8, 8, 1)).astype("float32")
Y = np.arange(2 * BATCH, dtype="int32") % 3
SPECS = tf.TensorSpec((BATCH, 8, 8, 1)), tf.TensorSpec((BATCH,), tf.int32), tf.TensorSpec((BATCH,))


@pytest.mark.parametrize("policy", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"])
def test_no_operation_that_a_tpu_forbids(policy):
    model = distiller(policy, jit_compile=True)
    model.fit(X, Y, sample_weight=np.ones(2 * BATCH), batch_size=BATCH, verbose=0)  # XLA compiles and runs the step
    assert faults(model.train_step, *SPECS) == set()
    assert faults(model.test_step, *SPECS) == set()


@pytest.mark.slow
def test_without_the_guard_neither():
    model = distiller("float32", max_skipped_steps=None)
    model.fit(X, Y, batch_size=BATCH, verbose=0)
    assert faults(model.train_step, *SPECS) == set()


@pytest.mark.slow
def test_compiled_by_xla_the_loss_is_the_same():
    def loss(**arguments):
        return distiller("float32", **arguments).evaluate(X, Y, batch_size=BATCH, verbose=0, return_dict=True)

    plain, compiled = loss(), loss(jit_compile=True)
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: tf.where(x > 0), "Where"),
        (lambda x: tf.boolean_mask(x, x > 0), "Where"),
        (lambda x: tf.unique(tf.reshape(x, (-1,)))[0], "Unique"),
        (lambda x: tf.numpy_function(np.copy, [x], tf.float32), "PyFunc"),
        (lambda x: tf.py_function(np.copy, [x], tf.float32), "EagerPyFunc"),
        (lambda x: tf.strings.length(tf.strings.as_string(x)), "AsString"),
    ],
)
def test_the_check_sees_what_is_forbidden(operation, name):
    assert name in faults(lambda data: operation(data[0]), tf.TensorSpec((BATCH,)))
