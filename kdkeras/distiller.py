"""The distiller: a student that learns from labels and from a teacher, through `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdkeras._compile_arguments import as_losses, check_task_loss, check_task_weight, from_tutorial, with_loss_scale
from kdkeras._files import atomic_path
from kdkeras._terms import Terms
from kdkeras.inputs import (
    check_arrays,
    check_finite,
    check_same_inputs,
    input_specs,
    is_array_like,
    specs_of_shapes,
    specs_of_tensors,
)
from kdkeras.losses import DistillationLoss
from kdkeras.signals import Batch, Extractor, Signals


@keras.saving.register_keras_serializable(package="kdkeras")
class Distiller(keras.Model):
    """Trains a student on its task and on what a teacher shows it.

    The total loss is `task_weight · task + Σ weightᵢ · lossᵢ + the student's own regularisation`. Each step runs the
    teacher once, with `training=False`, and the student once. The teacher never changes: neither its weights nor its
    `trainable` flags. `predict` and a plain call give the student's predictions, and `distiller.student` is the clean
    student, to be saved, exported and explained alone.

    Args:
        student: The model to train. It ends in logits, softmax or sigmoid, with one output. By name only, as is the
            teacher: two models are easily swapped.
        teacher: The model to learn from. It takes the same inputs.
        name: Name of the model. Default `"distiller"`.

    Attributes:
        student: The model to train.
        teacher: The model to learn from.
        distillation_losses: The losses that `compile` was given.

    Raises:
        TypeError: `student` or `teacher` is not a Keras model.
        ValueError: They are the same object, or share weights.

    Example:
        >>> import keras, kdkeras
        >>> import numpy as np
        >>> def network(units):
        ...     layers = [keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)]
        ...     return keras.Sequential(layers)
        >>> distiller = kdkeras.Distiller(student=network(2), teacher=network(8)).compile(
        ...     optimizer="adam",
        ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     distillation_loss=kdkeras.losses.SoftTargets(temperature=4, weight=0.9),
        ...     task_weight=0.1,
        ... )
        >>> history = distiller.fit(np.ones((8, 4)), np.ones(8), verbose=0)
        >>> sorted(history.history)
        ['loss', 'soft_targets', 'task_loss']

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """

    def __init__(self, *, student: keras.Model, teacher: keras.Model, name: str = "distiller") -> None:
        for role, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, keras.Model):
                raise TypeError(f"`Distiller` needs a `keras.Model` as {role}. Received: {type(model).__name__}.")
        if student is teacher:
            raise ValueError(
                "`Distiller` needs two models, but student and teacher are the same object. "
                "Copy one with `keras.models.clone_model`."
            )
        if {id(variable) for variable in student.weights} & {id(variable) for variable in teacher.weights}:
            raise ValueError(
                "`Distiller` needs two models without common weights, or training would change the teacher. Received: "
                "layers that both use. Copy the teacher with `keras.models.clone_model` and `set_weights`."
            )
        # The inputs of this model carry the teacher's signals beside the student's inputs: nothing here may cast them.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.student = student
        self.teacher = teacher
        self._terms = Terms()
        self._inputs_spec: Any = None
        self._task_loss: Any = None
        self._read_student = Extractor(student)
        self._read_teacher = Extractor(teacher)
        if student.built and input_specs(student) is not None:
            self._connect(input_specs(student))

    @property
    def distillation_losses(self) -> tuple[DistillationLoss, ...]:
        """The losses that `compile` was given."""
        return tuple(self._terms.distillation_losses)

    @property
    def task_weight(self) -> float:
        """Factor on the task loss."""
        return float(self._terms.task_weight)

    # --- compiling ---------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *,
        metrics: Any = None,
        distillation_loss: DistillationLoss | Sequence[DistillationLoss] | None = None,
        task_weight: float | None = None,
        student_loss_fn: Any = None,
        distillation_loss_fn: keras.losses.Loss | None = None,
        alpha: float | None = None,
        temperature: float | None = None,
        **kwargs: Any,
    ) -> Distiller:
        """Choose optimizer, losses and metrics, and return the distiller itself.

        The spelling of the Keras tutorial is a shorthand: `student_loss_fn` is the task loss, `alpha` its weight, and
        `distillation_loss_fn` at `temperature` the one distillation loss, with weight `1 − alpha`.

        Args:
            optimizer: Optimizer name or instance.
            loss: The student's task loss on the labels, or `None` to learn from the teacher alone.
            metrics: Metrics of the student's predictions.
            distillation_loss: One `DistillationLoss`, or several. Default `SoftTargets()`.
            task_weight: Factor on the task loss, at least 0. Default 1.
            student_loss_fn: Tutorial spelling of `loss`.
            distillation_loss_fn: Tutorial spelling: a Keras loss between softened probabilities.
            alpha: Tutorial spelling: weight of the task loss, in [0, 1]. Default 0.1 there.
            temperature: Tutorial spelling: temperature of `distillation_loss_fn`. Default 3 there.
            **kwargs: Further arguments of `keras.Model.compile`.

        Returns:
            The distiller, so that `Distiller(...).compile(...).fit(...)` chains.

        Raises:
            TypeError: A distillation loss is of another type.
            ValueError: The two spellings are mixed, names collide, a weight is negative, the models cannot be compared,
                or the task loss would apply a softmax twice or not at all.
        """
        tutorial = (student_loss_fn, distillation_loss_fn, alpha, temperature)
        if any(value is not None for value in tutorial):
            if any(value is not None for value in (loss, distillation_loss, task_weight)):
                raise ValueError(
                    "`compile` takes either `loss`, `distillation_loss`, `task_weight` or the tutorial's "
                    "`student_loss_fn`, `distillation_loss_fn`, `alpha`, `temperature`. Received both: keep one."
                )
            loss, distillation_loss, task_weight = from_tutorial(*tutorial)
        task_weight = 1.0 if task_weight is None else task_weight
        check_task_weight(task_weight)
        losses = as_losses(distillation_loss)
        readers = (
            Extractor(self.student, [path for term in losses for path in term.student_layers]),
            Extractor(self.teacher, [path for term in losses for path in term.teacher_layers]),
        )
        if self._inputs_spec is not None:
            self._join(self._inputs_spec, readers, losses, loss)
        # Nothing above has changed this model: a refused `compile` leaves it as it was.
        self._read_student, self._read_teacher = readers
        self._terms.replace(losses, task_weight, has_task=loss is not None)
        self._task_loss = loss
        if kwargs.get("auto_scale_loss", True):
            optimizer = with_loss_scale(keras.optimizers.get(optimizer), self.student)
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        return self

    def build(self, input_shape: Any) -> None:
        """Connect the two models, when the student's inputs became known only from data."""
        if self._inputs_spec is None:
            self._connect(specs_of_shapes(input_shape))

    def _connect(self, inputs: Any) -> None:
        """Compare the two models before any step is run."""
        check_same_inputs(inputs, self.teacher, student_name=self.student.name)
        self._join(inputs, (self._read_student, self._read_teacher), self.distillation_losses, self._task_loss)
        self._inputs_spec = inputs
        self.built = True

    def _join(
        self, inputs: Any, readers: tuple[Extractor, Extractor], losses: Sequence[DistillationLoss], task_loss: Any
    ) -> None:
        """Check every loss against both models, and connect it to them."""
        student, teacher = (reader.spec(inputs) for reader in readers)
        check_task_loss(task_loss, student)
        if losses:
            with tf.init_scope():  # Keras may ask while it traces, but a probe must run
                for reader in readers:
                    reader.refuse_hidden_probabilities(inputs)
        for loss in losses:
            loss.join(self, student, teacher)

    def save(self, filepath: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save student, teacher, losses and optimizer, to go on training later; the student alone saves itself.

        Args:
            filepath: A `.keras` file. An older one is replaced only when the new one is whole.
            *args: Further arguments of `keras.Model.save`.
            **kwargs: Further arguments of `keras.Model.save`.

        Raises:
            OSError: The file cannot be written.
        """
        with atomic_path(filepath) as temporary:
            super().save(temporary, *args, **kwargs)

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the inputs that only data have shown, for `save`."""
        if self._inputs_spec is None or input_specs(self.student) is not None:
            return None
        plain = keras.tree.map_structure(lambda spec: keras.KerasTensor(spec.shape, spec.dtype), self._inputs_spec)
        return {"inputs": keras.saving.serialize_keras_object(plain)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Connect the two models as before `save`."""
        self._connect(keras.saving.deserialize_keras_object(config["inputs"]))

    def get_compile_config(self) -> dict[str, Any]:
        """Return what `compile` was given, for `save`."""
        if not self.compiled:
            return {}
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.distillation_losses]
        return {**super().get_compile_config(), "distillation_loss": losses, "task_weight": self.task_weight}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as before `save`, with the optimizer's state ready to be loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        models = {"student": self.student, "teacher": self.teacher}
        return {"name": self.name} | {k: keras.saving.serialize_keras_object(v) for k, v in models.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Distiller:
        """Rebuild the distiller from `get_config`."""
        models = {k: keras.saving.deserialize_keras_object(config[k]) for k in ("student", "teacher")}
        return cls(**{**config, **models})

    # --- the teacher stays as it is ----------------------------------------------------------------------------------

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the student; setting it leaves the teacher's own flags alone."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in (self.student, self._terms):
            layer.trainable = value

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Trainable variables of the student and of the losses; never the teacher's."""
        theirs = {id(variable) for variable in self.teacher.variables}
        return [variable for variable in super().trainable_variables if id(variable) not in theirs]

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """Every other variable, the teacher's among them."""
        ours = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in ours]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """As `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """As `non_trainable_variables`, without the state of metrics and random generators."""
        ours = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.weights if id(variable) not in ours]

    @property
    def losses(self) -> list[Any]:
        """The student's own regularisation, and that of the distillation losses."""
        return [*self.student.losses, *self._terms.losses]

    # --- the step ----------------------------------------------------------------------------------------------------

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train the student, as `keras.Model.fit`.

        Args:
            x: Inputs, or a dataset of inputs and labels.
            y: Labels, for array inputs.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Returns:
            The history: `loss`, `task_loss`, one entry per distillation loss, and the metrics.

        Raises:
            ValueError: Arrays are empty, not finite, of the wrong shape, or raw uint8 images.
        """
        self._check_data(x, y)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Measure losses and metrics, as `keras.Model.evaluate`.

        Args:
            x: Inputs, or a dataset of inputs and labels.
            y: Labels, for array inputs.
            *args: Further arguments of `keras.Model.evaluate`.
            **kwargs: Further arguments of `keras.Model.evaluate`.

        Returns:
            As `keras.Model.evaluate`.

        Raises:
            ValueError: As for `fit`.
        """
        self._check_data(x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def _check_data(self, x: Any, y: Any) -> None:
        if x is None or not is_array_like(x):
            return
        check_arrays(self.student, x)
        if y is not None and is_array_like(y):
            for labels in keras.tree.flatten(y):
                check_finite(np.asarray(labels), "y")

    def train_step(self, data: Any) -> dict[str, Any]:
        """Attach the teacher's signals to the inputs; the rest is Keras' own step."""
        return super().train_step(self._with_teacher(data))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Attach the teacher's signals to the inputs; the rest is Keras' own step."""
        return super().test_step(self._with_teacher(data))

    def _with_teacher(self, data: Any) -> tuple[Any, ...]:
        """Return `data` with a `Batch` in place of x: here, outside the tape, the teacher gets no gradient."""
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self._inputs_spec is None:
            self._connect(specs_of_tensors(inputs))
        signals = self._read_teacher(inputs, training=False)
        return Batch(inputs, keras.tree.map_structure(keras.ops.stop_gradient, signals)), labels, sample_weight

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the student's predictions; inside a step, all its signals.

        Args:
            inputs: The student's inputs, or the `Batch` that a step makes of them.
            training: Whether the student runs in training mode.

        Returns:
            The predictions, or `Signals` for a `Batch`.
        """
        if isinstance(inputs, Batch):
            return self._read_student(inputs.inputs, training=training)
        return self.student(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the total loss, a scalar.

        Args:
            x: A `Batch` inside a step; plain inputs while Keras builds its metrics.
            y: Labels.
            y_pred: The student's `Signals`, or plain predictions with plain inputs.
            sample_weight: Weight of each sample, shape `(batch,)`, on the task loss and on every distillation loss.
            training: Whether the student runs in training mode.

        Returns:
            `task_weight · task + Σ weightᵢ · lossᵢ + regularisation`.
        """
        if not isinstance(x, Batch):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if self._compile_loss is not None and y is None:
            raise ValueError("The task loss needs labels. Pass y, or compile with loss=None to use the teacher alone.")
        size = keras.ops.shape(keras.tree.flatten(x.inputs)[0])[0]
        total = keras.ops.zeros(())
        # Keras has no public way to ask for the task loss alone, and `task_weight` must not touch the regularisation.
        if self._compile_loss is not None:
            task = self._compile_loss(y, y_pred.predictions, sample_weight)
            total = self._terms.weigh_task(task, size)
        for penalty in self.losses:
            total = total + self._aggregate_additional_loss(penalty)
        return total + self._terms.weigh(y_pred, x.teacher, y, sample_weight, size)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the compiled metrics with the student's predictions."""
        predictions = y_pred.predictions if isinstance(y_pred, Signals) else y_pred
        return super().compute_metrics(x, y, predictions, sample_weight)
