"""Self-distillation: the exit at the end of a model teaches exits at its inner layers (Zhang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kdkeras._distribution import strategy_scope
from kdkeras.losses import DistillationLoss, Hints, SoftTargets
from kdkeras.schemes._graph import Graph
from kdkeras.schemes._own_teacher import OwnTeacher
from kdkeras.schemes.within import Within
from kdkeras.signals import Extractor

_FINAL = "final"
_POOLING = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}


@keras.saving.register_keras_serializable(package="kdkeras")
class SelfDistillation(OwnTeacher):
    """Trains a model together with classifiers at its inner layers, which learn from the one at its end.

    Each exit i has a bottleneck, whose output is its embedding F_i, and a linear classifier. With the model's own
    output C, cut off from the gradient where it teaches,

        L = task_weight · (task_C + Σᵢ taskᵢ) + Σᵢ [weight · T² KL(p_C ‖ p_i) + hint_weight · mean (F_i − F_C)²],

    F_C being the output of the layer `feature`. The inner layers are trained by all exits behind them, which is what
    helps the model itself; the exits may be used too, where a fast answer is enough.

    The caller's model is trained in place and stays as it is built: exits are layers beside it, in `exit_model`.

    Args:
        model: A Functional or Sequential classifier with one output, of shape `(batch, classes)`.
        exits: Names of its layers that get an exit, the shallow ones first.
        feature: Name of the layer, with an output of shape `(batch, size)`, whose output the embeddings imitate: the
            last one before the classifier. Default: none is imitated.
        bottleneck: Function from the exit's name to a layer that makes its embedding, of the size of `feature`.
            Default: the average over all positions, and with `feature` a dense ReLU layer of its size. The paper's are
            convolutions.
        name: Name of the model. Default `"self_distillation"`.

    Attributes:
        model: The caller's model.
        exits: Names of the layers that have an exit.
        feature: Name of the layer that the embeddings imitate.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: The model is not Functional or Sequential, has several outputs or no known final activation, or a
            layer does not exist, lies inside another model, is used twice or has the wrong shape.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.schemes import SelfDistillation
        >>> from kdkeras.testing import tiny_stages
        >>> model = tiny_stages()
        >>> teaching = SelfDistillation(model, exits=["relu1"], feature="pool")
        >>> task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> history = teaching.compile("adam", task).fit(np.ones((4, 8, 8, 1), "float32"), np.ones(4), verbose=0)
        >>> sorted(name for name in history.history if name.startswith("relu1"))
        ['relu1_from_final', 'relu1_hint', 'relu1_loss']
        >>> teaching.exit_model("relu1").output_shape
        (None, 3)

    Reference:
        Zhang et al.: Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self
        Distillation, ICCV 2019, arXiv:1905.08094.
    """

    def __init__(
        self,
        model: keras.Model,
        exits: Sequence[str],
        *,
        feature: str | None = None,
        bottleneck: Callable[[str], keras.layers.Layer] | None = None,
        name: str = "self_distillation",
    ) -> None:
        if not isinstance(exits, (list, tuple)) or not exits or len(set(exits)) < len(exits) or _FINAL in exits:
            raise ValueError(
                f"`SelfDistillation` needs the names of one or more different layers as exits, in a list, none of them "
                f"'{_FINAL}'. Received: {exits!r}."
            )
        graph = Graph(model, asked_by="SelfDistillation")
        units, head = _end_of(model, graph.input)
        tapped = [*exits, *([] if feature is None else [feature])]
        features = {path: graph.output_of(path) for path in tapped}
        width = None if feature is None else features[feature].shape[-1]
        if feature is not None and (len(features[feature].shape) != 2 or width is None):
            raise ValueError(
                f"`SelfDistillation` needs a `feature` of shape (batch, size). Received: layer '{feature}' "
                f"{tuple(features[feature].shape)}. Name the layer after pooling."
            )
        with strategy_scope(model):
            outputs = {_FINAL: graph.output}
            for path in exits:
                embedding = bottleneck(path) if bottleneck is not None else _pooled(features[path], width, path)
                embedded = keras.layers.Identity(name=_embedding(path))(embedding(features[path]))
                outputs[path] = keras.layers.Dense(units, head, name=f"{path}_exit")(embedded)
            student = keras.Model(graph.input, outputs, name=f"{model.name}_with_exits")
        super().__init__(student, name=name)
        self.output_names = sorted(outputs)
        self.model, self.exits, self.feature, self.bottleneck = model, list(exits), feature, bottleneck

    def exit_model(self, exit: str) -> keras.Model:
        """Return the part of the model that answers at an exit, with the same weights, as a plain model.

        Args:
            exit: Name of the exit.

        Returns:
            A Functional model, to be evaluated, saved or exported.

        Raises:
            ValueError: There is no such exit.
        """
        if exit not in self.exits:
            raise ValueError(f"`SelfDistillation` has the exits {self.exits}. Received: {exit!r}. Name one of them.")
        return keras.Model(self.student.input, self.student.output[exit], name=f"{self.model.name}_{exit}")

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Any = None,
        distillation_loss: DistillationLoss | None = None,
        hint_weight: float = 0.1,
        task_weight: float | None = None,
        **kwargs: Any,
    ) -> SelfDistillation:
        """Choose optimizer, losses and metrics, and return the model itself.

        The defaults are those of the authors' code (`--temperature 3 --alpha 0.1 --beta 1e-6`), which weighs the task
        by 1 − 0.1. Its β is a factor on a sum over the batch and all channels: for 128 samples and 512 to 2,048
        channels, 0.07 to 0.26 on the mean that is taken here.

        Args:
            optimizer: Optimizer name or instance.
            loss: The task loss of every exit and of the model itself, or a dict by output (`"final"` and the exits);
                `None` to train the exits on the model alone, which then learns nothing itself.
            metrics: Metrics of every output, or a dict by output.
            distillation_loss: What each exit learns from the end, as a pattern: copies of it stand in the logs as
                `"exit_from_final"`. Default `SoftTargets(temperature=3, weight=0.1)`.
            hint_weight: Factor on the squared error of each embedding, with `feature`. Default 0.1.
            task_weight: Factor on the sum of the task losses. Default 0.9.
            **kwargs: Further arguments of `Distiller.compile`.

        Returns:
            The model itself.

        Raises:
            TypeError: `distillation_loss` is no loss between outputs.
            ValueError: As `Distiller.compile`.
        """
        losses = distillation_loss
        if not (isinstance(losses, (list, tuple)) and all(isinstance(each, Within) for each in losses)):
            losses = self._exit_losses(distillation_loss, hint_weight)
        names = [_FINAL, *self.exits]
        super().compile(
            optimizer,
            self.per_output(loss, names=names),
            metrics=self.per_output(metrics, names=names),
            distillation_loss=losses,
            task_weight=0.9 if task_weight is None else task_weight,
            **{"freeze_teacher": False, **kwargs},
        )
        return self

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        parts = {"model": self.model, "bottleneck": self.bottleneck}
        plain = {"exits": list(self.exits), "feature": self.feature, "name": self.name}
        return plain | {key: keras.saving.serialize_keras_object(part) for key, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SelfDistillation:
        """Rebuild the model from `get_config`."""
        parts = {key: keras.saving.deserialize_keras_object(config[key]) for key in ("model", "bottleneck")}
        return cls(**{**config, **parts})

    def _exit_losses(self, pattern: DistillationLoss | None, hint_weight: float) -> list[DistillationLoss]:
        pattern = SoftTargets(temperature=3.0, weight=0.1) if pattern is None else pattern
        if not isinstance(pattern, DistillationLoss) or not pattern.compares_outputs:
            raise TypeError(
                f"`SelfDistillation` needs one loss between outputs, of which it makes copies. Received: "
                f"{type(pattern).__name__}. Pass for example `kdkeras.losses.SoftTargets(temperature=3, weight=0.1)`."
            )
        config = pattern.get_config()
        losses = [
            Within(type(pattern).from_config({**config, "output": [path, _FINAL], "name": f"{path}_from_{_FINAL}"}))
            for path in self.exits
        ]
        if self.feature is not None:
            losses += [
                Within(Hints(_embedding(path), self.feature, weight=hint_weight, name=f"{path}_hint"))
                for path in self.exits
            ]
        return losses


def _end_of(model: keras.Model, inputs: Any) -> tuple[int, str]:
    """Return number of classes and final activation of a model."""
    spec = Extractor(model).spec(inputs)
    if spec.head is None or len(spec.logits) != 2:
        raise ValueError(
            f"`SelfDistillation` needs a classifier with an output of shape (batch, classes) and a known activation. "
            f"Received: '{model.name}' {spec.logits} ending in {spec.head or 'an unknown activation'}. End it in "
            "`keras.layers.Dense(classes)`."
        )
    return spec.logits[-1], spec.head


def _embedding(path: str) -> str:
    return f"{path}_embedding"


def _pooled(values: Any, width: int | None, path: str) -> Callable[[Any], Any]:
    """Return the default bottleneck for a tensor."""
    layers = [_POOLING[len(values.shape)](name=f"{path}_pool")] if len(values.shape) in _POOLING else []
    layers += [] if width is None else [keras.layers.Dense(width, "relu", name=f"{path}_bottleneck")]

    def call(tensor: Any) -> Any:
        for layer in layers:
            tensor = layer(tensor)
        return tensor

    return call
