"""Deep mutual learning: students that learn together, each from the others (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kdkeras.losses import DistillationLoss, SoftTargets
from kdkeras.schemes._own_teacher import OwnTeacher
from kdkeras.schemes.side_by_side import SideBySide
from kdkeras.schemes.within import Within


@keras.saving.register_keras_serializable(package="kdkeras")
class MutualLearning(OwnTeacher):
    """Trains several students at once, each on the labels and on what the others answer to the same batch.

    The loss of student k of K is its task loss and the mean divergence from its peers,

        L_k = task_weight · task_k + weight / (K − 1) · Σ_{l ≠ k} KL(p_l ‖ p_k),

    with p_l cut off from the gradient, so that the sum over k trains each student on its own loss only. All students
    answer once per batch and are then updated together; the paper's algorithm updates them in turn and lets each see
    the new answers of those before it.

    `fit`, `evaluate` and `predict` are those of a `Distiller` (labels of −1, sample weights, steps that are undone);
    labels are given once, and count for all students. A plain call returns a dict of their predictions. Each student
    stays a clean model of its own, to be saved and exported alone.

    Args:
        students: Two or more models with different names and one output of the same classes each. They may differ in
            everything else.
        name: Name of the model. Default `"mutual_learning"`.

    Attributes:
        students: The models to train.

    Raises:
        TypeError: One is no Keras model.
        ValueError: There are fewer than two, names are equal, models share weights, or inputs differ.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.schemes import MutualLearning
        >>> from kdkeras.testing import tiny_cnn
        >>> peers = MutualLearning([tiny_cnn(name="a"), tiny_cnn(width=8, name="b")])
        >>> task = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> history = peers.compile("adam", task).fit(np.ones((4, 8, 8, 1), "float32"), np.ones(4), verbose=0)
        >>> sorted(history.history)
        ['a_from_b', 'a_loss', 'b_from_a', 'b_loss', 'loss', 'task_loss']

    Reference:
        Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning, CVPR 2018, arXiv:1706.00384.
    """

    def __init__(self, students: Sequence[keras.Model], *, name: str = "mutual_learning") -> None:
        group = SideBySide(students, name="students")
        super().__init__(group, name=name)

    @property
    def students(self) -> list[keras.Model]:
        """The models to train."""
        return list(self.student.models)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Any = None,
        distillation_loss: DistillationLoss | None = None,
        task_weight: float | None = None,
        **kwargs: Any,
    ) -> MutualLearning:
        """Choose optimizer, losses and metrics, and return the model itself.

        Args:
            optimizer: One optimizer for all students, or a list with one for each, in their order.
            loss: The task loss of every student, or a dict by student's name; `None` to learn from each other alone.
            metrics: Metrics of every student, or a dict by student's name.
            distillation_loss: What each student learns from each other one, as a pattern: copies of it, its weight
                divided by K − 1, stand in the logs as `"a_from_b"`. Default `SoftTargets(temperature=1, weight=1)`, as
                in the paper.
            task_weight: Factor on the sum of the task losses. Default 1, as in the paper.
            **kwargs: Further arguments of `Distiller.compile`.

        Returns:
            The model itself.

        Raises:
            TypeError: `distillation_loss` is no loss between outputs.
            ValueError: There are more or fewer optimizers than students, or as `Distiller.compile`.
        """
        names = [student.name for student in self.students]
        losses = _pairs(distillation_loss, names)
        optimizer = self._optimizers_of(optimizer)
        self._optimizers = optimizer if isinstance(optimizer, list) else None
        if self._optimizers is not None:
            whose = [
                [student, *(loss for loss in losses if loss.output_names[0] == student.name)]
                for student in self.students
            ]
            optimizer = keras.optimizers.MultiOptimizer(_ByStudent(optimizer, whose))
        super().compile(
            optimizer,
            self.per_output(loss, names=names),
            metrics=self.per_output(metrics, names=names),
            distillation_loss=losses,
            task_weight=task_weight,
            **{"freeze_teacher": False, **kwargs},
        )
        return self

    def get_compile_config(self) -> dict[str, Any]:
        """Return what `compile` was given, for `save`."""
        config = super().get_compile_config()
        if config and self._optimizers is not None:
            config["optimizer"] = [keras.saving.serialize_keras_object(each) for each in self._optimizers]
        return config

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"students": self.student.get_config()["models"], "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MutualLearning:
        """Rebuild the model from `get_config`."""
        students = [keras.saving.deserialize_keras_object(each) for each in config["students"]]
        return cls(students, name=config["name"])

    def _optimizers_of(self, optimizer: Any) -> Any:
        if not isinstance(optimizer, (list, tuple)):
            return optimizer
        if len(optimizer) != len(self.students) or len({id(each) for each in optimizer}) < len(optimizer):
            raise ValueError(
                f"`MutualLearning` needs one optimizer, or one of its own for each of {len(self.students)} students. "
                f"Received: {len(optimizer)}, of which {len({id(each) for each in optimizer})} are different objects."
            )
        return [keras.optimizers.get(each) for each in optimizer]


@keras.saving.register_keras_serializable(package="kdkeras")
class _ByStudent:
    """Says which optimizer a variable belongs to."""

    def __init__(
        self,
        optimizers: Sequence[keras.optimizers.Optimizer] = (),
        whose: Sequence[Sequence[keras.layers.Layer]] = (),
    ) -> None:
        self._optimizers, self._whose = optimizers, whose

    def __call__(self, variable: keras.Variable) -> keras.optimizers.Optimizer:
        # Only now, for a student may get its variables with the first batch.
        return next(
            optimizer
            for optimizer, layers in zip(self._optimizers, self._whose, strict=True)
            if any(variable is own for layer in layers for own in layer.variables)
        )

    def get_config(self) -> dict[str, Any]:
        """Return nothing: the optimizers are saved by the model, which knows whose they are."""
        return {}


def _pairs(pattern: DistillationLoss | Sequence[DistillationLoss] | None, names: list[str]) -> list[DistillationLoss]:
    """Return a copy of a loss for each student and each of its peers."""
    if isinstance(pattern, (list, tuple)) and all(isinstance(loss, Within) for loss in pattern):
        return list(pattern)  # as a saved model has them
    pattern = SoftTargets(temperature=1.0, weight=1.0) if pattern is None else pattern
    if not isinstance(pattern, DistillationLoss) or not pattern.compares_outputs:
        raise TypeError(
            f"`MutualLearning` needs one loss between outputs, of which it makes copies. Received: "
            f"{type(pattern).__name__}. Pass for example `kdkeras.losses.SoftTargets(temperature=2, weight=1)`."
        )
    share = {**pattern.get_config(), "weight": pattern.weight / (len(names) - 1)}
    return [
        Within(type(pattern).from_config({**share, "output": [own, peer], "name": f"{own}_from_{peer}"}))
        for own in names
        for peer in names
        if own != peer
    ]
