"""Reading a TFLite file's own tables."""

from __future__ import annotations

from typing import Any, NamedTuple


class FloatParts(NamedTuple):
    """What is still float inside a TFLite file.

    Attributes:
        tensors: Number of float16, float32 and float64 tensors that are neither inputs nor outputs of the file.
        operators: Names of the ops that work on them, without the casts from and to int8.
    """

    tensors: int
    operators: tuple[str, ...]


def float_parts(content: bytes) -> FloatParts:
    """Find the float tensors of a TFLite file that are neither its inputs nor its outputs.

    An int8 file with float32 inputs and outputs quantizes at its first op and dequantizes at its last, so a fully
    quantized file counts 0; so does one that first casts an integer input to float. All subgraphs are counted: the
    bodies of loops stand in subgraphs of their own.

    Args:
        content: The bytes of a TFLite file.

    Returns:
        A `FloatParts`.
    """
    from ai_edge_litert import schema_py_generated as schema

    floats = (schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.FLOAT64)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.Model.GetRootAs(content)
    tensors, operators = 0, set()
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        steps = [
            (names[model.OperatorCodes(step.OpcodeIndex()).BuiltinCode()], _ends(step))
            for step in map(graph.Operators, range(graph.OperatorsLength()))
        ]
        # Only the main graph's inputs and outputs are seen by the caller.
        sources, results = _ends(graph) if index == 0 else (set(), set())
        casts = [ends[1] for name, ends in steps if name == "CAST" and ends[0] <= sources]
        boundary = sources.union(results, *casts)
        floating = {tensor for tensor in range(graph.TensorsLength()) if graph.Tensors(tensor).Type() in floats}
        inner = floating - boundary
        tensors += len(inner)
        operators.update(name for name, ends in steps if inner & (ends[0] | ends[1]))
    return FloatParts(tensors, tuple(sorted(operators - {"QUANTIZE", "DEQUANTIZE"})))


def custom_operators(content: bytes) -> tuple[str, ...]:
    """Return the names of the ops that are not TFLite's own: those of TensorFlow begin with "Flex".

    Args:
        content: The bytes of a TFLite file.

    Returns:
        Their names, sorted, each once.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    codes = map(model.OperatorCodes, range(model.OperatorCodesLength()))
    return tuple(sorted({code.CustomCode().decode() for code in codes if code.CustomCode()}))


def _ends(part: Any) -> tuple[set[int], set[int]]:
    """The input and output tensors of a graph or of an op."""
    return {*map(int, part.InputsAsNumpy())}, {*map(int, part.OutputsAsNumpy())}
