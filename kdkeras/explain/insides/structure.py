"""The layers of teacher and student side by side, and what a distillation compares of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras

from kdkeras.explain.insides.features import shapes_of_layers
from kdkeras.explain.subject import prepared
from kdkeras.layer_paths import find_layer, first_paths, layer_paths
from kdkeras.losses import DistillationLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerRow:
    """One layer that a model calls.

    Attributes:
        path: Its path in the model.
        kind: Its class, such as `"Conv2D"`.
        shape: Shape of its output for one sample, without the batch.
        parameters: Number of its weights' elements; those of a shared layer count once.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class ModelStructure:
    """The layers of one model, in the order in which they are called.

    Attributes:
        model: Name of the model.
        layers: The layers that return a tensor of their own.
        parameters: Number of all weights' elements, those that no such layer holds among them.
    """

    model: str
    layers: tuple[LayerRow, ...] = field(repr=False)
    parameters: int


@dataclass(frozen=True)
class StructureComparison:
    """Two models side by side.

    Attributes:
        teacher: The teacher's layers.
        student: The student's layers.
        links: What is compared while distilling: name of the loss, path of the student's layer and of the teacher's,
            `""` for the output.
    """

    teacher: ModelStructure
    student: ModelStructure
    links: tuple[tuple[str, str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""

        def record(model: ModelStructure) -> dict[str, Any]:
            layers = [{**vars(layer), "shape": list(layer.shape)} for layer in model.layers]
            return {"model": model.model, "parameters": model.parameters, "layers": layers}

        links = [{"loss": loss, "student": ours, "teacher": theirs} for loss, ours, theirs in self.links]
        return {"teacher": record(self.teacher), "student": record(self.student), "links": links}

    def __str__(self) -> str:
        from tabulate import tabulate

        parts = []
        for role, model, place in (("teacher", self.teacher, 2), ("student", self.student, 1)):
            rows = [
                (
                    layer.path,
                    layer.kind,
                    " × ".join(map(str, layer.shape)),
                    f"{layer.parameters:,}",
                    ", ".join(link[0] for link in self.links if link[place] == layer.path),
                )
                for layer in model.layers
            ]
            header = ("layer", "kind", "output", "parameters", "compared by")
            table = tabulate(rows, header, disable_numparse=True, colalign=("left", "left", "right", "right", "left"))
            parts.append(f"{role} '{model.model}': {model.parameters:,} parameters\n{table}")
        return "\n\n".join(parts)

    def plot(self, *, rows: int = 32) -> Figure:
        """Draw both models as columns of layers, with a line for each pair that is compared.

        Args:
            rows: Most layers to draw of a model. Deeper ones are folded: what has no parameters or keeps its shape goes
                with the layer before it, and what is compared stays. Default 32, which fits a page.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: `rows` is below 4.
        """
        from kdkeras.explain.insides.pictures import side_by_side

        return side_by_side(self, rows)


def compare_structure(
    teacher: keras.Model, student: keras.Model, x: Any, losses: Sequence[DistillationLoss] = ()
) -> StructureComparison:
    """Set the layers of teacher and student side by side: shapes, parameters, and what a distillation compares.

    Both models are run once on the first sample, so that subclassed and nested ones show what they call.

    Args:
        teacher: A Keras model.
        student: Another, that takes the same inputs.
        x: Samples, of which the first is used; for several inputs, a list or dict of arrays.
        losses: Distillation losses whose layers are marked, such as `distiller.distillation_losses`.

    Returns:
        The `StructureComparison`.

    Raises:
        TypeError: A model is not a Keras model, or x is not of arrays.
        ValueError: x does not fit a model, or a loss names a layer that does not exist.

    Example:
        >>> import keras, kdkeras, numpy as np
        >>> def model(width):
        ...     hidden = keras.layers.Dense(width, activation="relu", name="hidden")
        ...     return keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, name="out")])
        >>> hints = kdkeras.losses.Hints("hidden", "hidden")
        >>> found = kdkeras.explain.compare_structure(model(16), model(4), np.ones((1, 4)), [hints])
        >>> found.student.layers[0]
        LayerRow(path='hidden', kind='Dense', shape=(4,), parameters=20)
        >>> found.links
        (('hints', 'hidden', 'hidden'),)
    """
    for model in (teacher, student):
        if not isinstance(model, keras.Model):
            raise TypeError(f"A model must be a `keras.Model`. Received: {model!r} of type {type(model).__name__}.")
    links = [
        (loss.name, _path(student, ours), _path(teacher, theirs)) for loss in losses for ours, theirs in _pairs_of(loss)
    ]
    return StructureComparison(_structure(teacher, x), _structure(student, x), tuple(links))


def _structure(model: keras.Model, x: Any) -> ModelStructure:
    shapes = shapes_of_layers(model, prepared(model, x))
    found = layer_paths(model)
    taken: set[int] = set()
    own = {}
    # The innermost first, so that a layer's weights do not count for what it lies in; and each weight once.
    for path in sorted(shapes, key=lambda path: -path.count("/")):
        weights = [weight for weight in found[path].weights if id(weight) not in taken]
        taken.update(map(id, weights))
        own[path] = sum(_size(weight) for weight in weights)
    layers = (LayerRow(path, type(found[path]).__name__, tuple(shape[1:]), own[path]) for path, shape in shapes.items())
    return ModelStructure(model.name, tuple(layers), sum(_size(weight) for weight in model.weights))


def _size(weight: keras.Variable) -> int:
    return int(keras.ops.size(weight))


def _pairs_of(loss: DistillationLoss) -> list[tuple[str, str]]:
    """Return the layers of student and teacher that a loss compares, `""` for the outputs."""
    layers = [list(loss.student_layers), list(loss.teacher_layers)]
    for place, attribution in enumerate((loss.student_attribution, loss.teacher_attribution)):
        if attribution is not None and attribution.layer:
            layers[place].append(attribution.layer)
    if not any(layers):
        return [("", "")]
    longest = max(map(len, layers))
    ours, theirs = (each + each[-1:] * (longest - len(each)) if each else [""] * longest for each in layers)
    return list(zip(ours, theirs, strict=True))


def _path(model: keras.Model, name: str) -> str:
    if not name:
        return ""
    layer = find_layer(model, name)
    return first_paths(model)[layer]
