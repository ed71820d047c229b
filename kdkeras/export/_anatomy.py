"""What stands in a TFLite file: its graph, read without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

from kdkeras.export._flatbuffer import custom_operators


def parse(content: bytes) -> Any:
    """Return the tables of a TFLite file.

    Args:
        content: The bytes of the file.

    Returns:
        The `Model` of the TFLite schema.

    Raises:
        ValueError: They are no TFLite file.

    Example:
        >>> from kdkeras.export._anatomy import parse
        >>> parse(b"hello")
        Traceback (most recent call last):
        ValueError: A TFLite file is needed. Received: 5 bytes of something else...
    """
    from ai_edge_litert import schema_py_generated as schema

    if len(content) < 8 or not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError(
            f"A TFLite file is needed. Received: {len(content)} bytes of something else. "
            "Write one with `kdkeras.export.tflite`."
        )
    return schema.Model.GetRootAs(content)


def cannot_start(content: bytes, said: str, *, asked_by: str) -> str:
    """Say in a sentence that the runtime cannot start a file, and which ops it lacks.

    Args:
        content: The bytes of the file.
        said: What the runtime said.
        asked_by: Name of the public function or class that was given the file.

    Returns:
        The sentence.
    """
    foreign = ", ".join(custom_operators(content)) or said.splitlines()[0]
    return (
        f"`{asked_by}` needs a file of builtin ops. Received: one that the runtime cannot start ({foreign}). Export "
        "the model with `kdkeras.export.tflite`."
    )


def head(content: bytes) -> Literal["softmax", "sigmoid", "linear"]:
    """Tell which activation the only output of a file has gone through.

    Args:
        content: The bytes of a TFLite file.

    Returns:
        `"softmax"`, `"sigmoid"`, or `"linear"` for anything else.

    Raises:
        ValueError: The file has several outputs.
    """
    model = parse(content)
    graph = model.Subgraphs(0)
    if graph.OutputsLength() != 1:
        raise ValueError(
            f"A TFLite file of one output can be scored. Received: one with {graph.OutputsLength()} outputs. Export a "
            "model of the output that you want."
        )
    makers = {output: (name, inputs) for name, inputs, outputs in _operators(model, graph) for output in outputs}
    tensor = graph.Outputs(0)
    while tensor in makers:
        name, inputs = makers[tensor]
        if name not in ("DEQUANTIZE", "QUANTIZE", "CAST"):
            return {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(name, "linear")
        tensor = inputs[0]
    return "linear"


def parameters(content: bytes) -> int:
    """Count the numbers that a file keeps: the elements of its constant tensors, but for shapes and axes.

    Batch normalisation is folded into the kernels beside it, so there are fewer than in the Keras model.

    Args:
        content: The bytes of a TFLite file.

    Returns:
        The number.
    """
    from ai_edge_litert import schema_py_generated as schema

    whole = (schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL, schema.TensorType.STRING)
    model = parse(content)
    counted: dict[int, int] = {}  # several tensors may share a buffer
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            quantized = tensor.Quantization() is not None and tensor.Quantization().ScaleLength() > 0
            if model.Buffers(tensor.Buffer()).DataLength() and (quantized or tensor.Type() not in whole):
                counted[tensor.Buffer()] = math.prod(_shape(tensor))
    return sum(counted.values())


def macs(content: bytes) -> int | None:
    """Count the multiply-accumulates of one sample, by the convention of `kdkeras.counting`.

    Args:
        content: The bytes of a TFLite file.

    Returns:
        The number; `None` where the graph has loops, branches, ops of a whole recurrent layer or custom ops.
    """
    model = parse(content)
    graph = model.Subgraphs(0)
    shapes = [_shape(graph.Tensors(index)) for index in range(graph.TensorsLength())]
    total = 0
    for name, inputs, outputs in _operators(model, graph):
        if name in _UNCOUNTED or name.endswith(("_LSTM", "_RNN")):
            return None
        if name in _COUNTED:
            total += _COUNTED[name]([shapes[index] for index in inputs if index >= 0], shapes[outputs[0]])
    batch = shapes[graph.Inputs(0)][:1] or (1,)
    return total // batch[0]


_UNCOUNTED = {"WHILE", "IF", "CALL", "CALL_ONCE", "LSTM", "RNN", "SVDF", "CUSTOM"}

# From the shapes of the inputs and of the output; kernels are (filters, window…, channels), but for CONV_3D.
_COUNTED = {
    "CONV_2D": lambda given, made: math.prod(made) * math.prod(given[1][1:]),
    "DEPTHWISE_CONV_2D": lambda given, made: math.prod(made) * math.prod(given[1][1:3]),
    "FULLY_CONNECTED": lambda given, made: math.prod(made) * given[1][-1],
    "BATCH_MATMUL": lambda given, made: math.prod(given[0]) * made[-1],
    "TRANSPOSE_CONV": lambda given, made: math.prod(given[2]) * math.prod(given[1][:-1]),
    "CONV_3D": lambda given, made: math.prod(made) * math.prod(given[1][:-1]),
}


def _operators(model: Any, graph: Any) -> Iterator[tuple[str, list[int], list[int]]]:
    """Name, input tensors and output tensors of each op of a graph, in the order in which they run."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    for step in map(graph.Operators, range(graph.OperatorsLength())):
        name = names[model.OperatorCodes(step.OpcodeIndex()).BuiltinCode()]
        yield name, [*map(int, step.InputsAsNumpy())], [*map(int, step.OutputsAsNumpy())]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(map(int, tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
