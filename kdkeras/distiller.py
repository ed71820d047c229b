"""The distiller: a student that learns from labels and from a teacher, through `fit`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kdkeras import _backend
from kdkeras._distribution import check_compile, strategy_scope, under_strategy
from kdkeras._files import atomic_path
from kdkeras._training.compile_arguments import (
    as_losses,
    check_task_loss,
    from_tutorial,
    refuse_compiled_gradients,
    with_loss_scale,
)
from kdkeras._training.data import NAMED, check_data, named, unnamed
from kdkeras._training.guard import Watch, is_finite, watching
from kdkeras._training.steps import Connection, Steps
from kdkeras._training.task import task_of
from kdkeras._training.teacher_signals import TeacherSignals, student_inputs
from kdkeras._training.terms import Terms
from kdkeras.inputs import input_specs, specs_of_shapes
from kdkeras.losses import DistillationLoss
from kdkeras.losses._batch import refuse_batch_of_one
from kdkeras.losses.base import checked_number
from kdkeras.signals import Extractor


@keras.saving.register_keras_serializable(package="kdkeras")
class Distiller(Steps):
    """Trains a student on its task and on what a teacher shows it.

    The total loss is `task_weight · task + Σ weightᵢ · lossᵢ + the student's own regularisation`. Each step runs the
    teacher once, with `training=False`, and the student once. The teacher never changes: neither its weights nor its
    `trainable` flags. `predict` and a plain call give the student's predictions, and `distiller.student` is the clean
    student, to be saved, exported and explained alone.

    `fit` takes data in every form that Keras takes. Sample and class weights weigh the task loss and every distillation
    loss. Labels of −1 mean 'not labelled': such a sample is learnt from the teacher alone. Where the two models take
    different inputs, x is `kdkeras.Paired`; where the teacher's answers are known already, `kdkeras.Cached`; where a
    loss remembers samples, `kdkeras.Indexed`.

    Args:
        student: The model to train. By name only, as is the teacher: two models are easily swapped.
        teacher: The model to learn from; `kdkeras.teachers` makes one of several. `None` where all data are `Cached`.
        teacher_inputs: A function of x, in `keras.ops`, that makes the teacher's inputs of the student's. Default: both
            take the same.
        name: Name of the model. Default `"distiller"`.

    Attributes:
        student: The model to train.
        teacher: The model to learn from.
        distillation_losses: The losses that `compile` was given.
        task_weight: Factor on the task loss. Like every weight and temperature it may be set between steps.

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

    def __init__(
        self,
        *,
        student: keras.Model,
        teacher: keras.Model | None,
        teacher_inputs: Callable[[Any], Any] | None = None,
        name: str = "distiller",
    ) -> None:
        _check_models(student, teacher, teacher_inputs)
        with strategy_scope(student):  # variables that train together belong to one strategy
            self._set_up(student, teacher, teacher_inputs, name)

    def _set_up(
        self, student: keras.Model, teacher: keras.Model | None, teacher_inputs: Callable[[Any], Any] | None, name: str
    ) -> None:
        # The inputs of this model carry the teacher's signals beside the student's inputs: nothing here may cast them.
        super().__init__(name=name, dtype="float32", autocast=False)
        self.student = student
        self.teacher = teacher
        self.teacher_inputs = teacher_inputs
        self.output_names = getattr(student, "output_names", None)  # what Keras calls outputs in losses and metrics
        self._terms = Terms()
        self._connection: Connection | None = None
        self._task_loss: Any = None
        self._skip_limit: int | None = None
        self._freeze: bool | Literal["auto"] = "auto"
        self._compiled_fixed: dict[str, bool] = {}  # whether a step was compiled while the teacher was fixed
        self._read_student = Extractor(student, several_outputs=True)
        self._read_teacher = TeacherSignals(teacher, (), teacher_inputs)
        if student.built and input_specs(student) is not None:
            self._connect(input_specs(student))

    @property
    def distillation_losses(self) -> tuple[DistillationLoss, ...]:
        """The losses that `compile` was given."""
        return tuple(self._terms.distillation_losses)

    @property
    def task_weight(self) -> float:
        """Factor on the task loss; setting it takes effect on the next step."""
        return self._terms.task_weight

    @task_weight.setter
    def task_weight(self, value: float) -> None:
        self._terms.task_weight = value

    # --- compiling ---------------------------------------------------------------------------------------------------

    @under_strategy
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
        max_skipped_steps: int | None = 10,
        freeze_teacher: bool | Literal["auto"] = "auto",
        **kwargs: Any,
    ) -> Distiller:
        """Choose optimizer, losses and metrics, and return the distiller itself.

        The spelling of the Keras tutorial is a shorthand: `student_loss_fn` is the task loss, `alpha` its weight, and
        `distillation_loss_fn` at `temperature` the one distillation loss, with weight `1 − alpha`.

        Args:
            optimizer: Optimizer name or instance.
            loss: The student's task loss on the labels, or `None` to learn from the teacher alone. As in Keras a list
                or a dict where the student has several outputs.
            metrics: Metrics of the student's predictions.
            distillation_loss: One `DistillationLoss`, or several. Default `SoftTargets()`.
            task_weight: Factor on the task loss, at least 0. Default 1.
            student_loss_fn: Tutorial spelling of `loss`.
            distillation_loss_fn: Tutorial spelling: a Keras loss between softened probabilities.
            alpha: Tutorial spelling: weight of the task loss, in [0, 1]. Default 0.1 there.
            temperature: Tutorial spelling: temperature of `distillation_loss_fn`. Default 3 there.
            max_skipped_steps: A step whose loss or gradient is not finite changes nothing; after so many in a row `fit`
                stops with a `FloatingPointError`. `None` leaves every step as it is, unchecked. Default 10. Under
                TensorFlow's strategies for several replicas such a step is counted, and not undone.
            freeze_teacher: Whether `fit` and `evaluate` compile the teacher's weights into their steps as constants, so
                that TensorFlow folds its BatchNorm into its convolutions. Outputs are compared first. `"auto"`, the
                default, does it on TensorFlow, on one device, for teachers of up to 32 MiB: compiling takes about 16
                times their size in memory. `True` insists, up to 1 GiB.
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
        task_weight = checked_number("Distiller", "task_weight", 1.0 if task_weight is None else task_weight, minimum=0)
        if max_skipped_steps is not None:
            checked_number("Distiller", "max_skipped_steps", max_skipped_steps, minimum=1)
        if freeze_teacher not in (True, False, "auto"):
            raise ValueError(f"`freeze_teacher` must be True, False or 'auto'. Received: {freeze_teacher!r}.")
        optimizer = keras.optimizers.get(optimizer)
        if kwargs.get("auto_scale_loss", True):
            optimizer = with_loss_scale(optimizer, self.student)
        check_compile(self, optimizer, kwargs)
        losses = as_losses(distillation_loss)
        refuse_compiled_gradients(losses, kwargs.get("jit_compile"))
        student = [path for term in losses for path in term.student_layers]
        teacher = [path for term in losses for path in term.teacher_layers]
        ours = {term.name: term.student_attribution for term in losses if term.student_attribution is not None}
        theirs = {term.name: term.teacher_attribution for term in losses if term.teacher_attribution is not None}
        readers = (
            Extractor(self.student, student, several_outputs=True, attributions=ours),
            TeacherSignals(self.teacher, teacher, self.teacher_inputs, theirs),
        )
        connection = self._connection
        if connection is not None:
            connection = self._join(connection.x, readers, losses, loss)
        # Nothing above has changed this model: a refused `compile` leaves it as it was.
        self._connection = connection
        self._read_student, self._read_teacher = readers
        self._terms.replace(losses, task_weight, has_task=loss is not None)
        self._task_loss = loss
        self._skip_limit = max_skipped_steps
        self._freeze = freeze_teacher
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        return self

    def build(self, input_shape: Any) -> None:
        """Connect the two models, when the student's inputs became known only from data."""
        if self._connection is None:
            self._connect(specs_of_shapes(input_shape))

    def _connect(self, x: Any) -> None:
        """Compare the two models before any step is run; without a teacher, when there are cached answers to see."""
        readers = (self._read_student, self._read_teacher)
        self._connection = self._join(x, readers, self.distillation_losses, self._task_loss)
        self.built = self._connection is not None

    def _join(
        self, x: Any, readers: tuple[Extractor, TeacherSignals], losses: Sequence[DistillationLoss], task_loss: Any
    ) -> Connection | None:
        """Check every loss against both models, and connect it to them; `None` where the teacher is not known yet."""
        inputs = student_inputs(x)
        student, teacher = readers[0].spec(inputs), readers[1].spec(x)
        check_task_loss(task_loss, student)
        if teacher is None:
            return None
        if any(loss.needs_logits for loss in losses):
            with _backend.outside_of_graphs():  # Keras may ask while it traces, but a probe must run
                readers[0].refuse_hidden_probabilities(inputs)
                readers[1].refuse_hidden_probabilities()
        with _backend.outside_of_graphs():
            readers[0].check_attributions(inputs)
            readers[1].check_attributions()
        task = task_of(task_loss, student)
        for loss in losses:
            loss.join(self, task.with_independent_units(student), teacher)
        with _backend.outside_of_graphs():
            infinite = frozenset(id(v) for v in self.student.non_trainable_variables if not is_finite(v))
        return Connection(x, task, infinite)

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
        if self._connection is None or (self.teacher is not None and input_specs(self.student) is not None):
            return None
        plain = keras.tree.map_structure(lambda spec: keras.KerasTensor(spec.shape, spec.dtype), self._connection.x)
        return {"kind": type(plain).__name__, "inputs": keras.saving.serialize_keras_object(unnamed(plain))}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Connect the two models as before `save`."""
        self._connect(named(config["kind"], keras.saving.deserialize_keras_object(config["inputs"])))

    def get_compile_config(self) -> dict[str, Any]:
        """Return what `compile` was given, for `save`."""
        if not self.compiled:
            return {}
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.distillation_losses]
        own = {"distillation_loss": losses, "task_weight": self.task_weight, "max_skipped_steps": self._skip_limit}
        own["freeze_teacher"] = self._freeze
        return {**super().get_compile_config(), **own}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as before `save`, with the optimizer's state ready to be loaded."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        parts = {"student": self.student, "teacher": self.teacher, "teacher_inputs": self.teacher_inputs}
        return {"name": self.name} | {k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Distiller:
        """Rebuild the distiller from `get_config`."""
        parts = {k: keras.saving.deserialize_keras_object(config[k]) for k in ("student", "teacher", "teacher_inputs")}
        return cls(**{**config, **parts})

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train the student, as `keras.Model.fit`.

        Args:
            x: Inputs (plain, `kdkeras.Paired`, `kdkeras.Cached` or `kdkeras.Indexed`), or a dataset, `PyDataset` or
                generator of inputs, labels and weights.
            y: Labels, for array inputs; −1 where a sample has none, `None` where none has and `task_weight` is 0.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Returns:
            The history: `loss`, `task_loss`, one entry per distillation loss, and the metrics.

        Raises:
            ValueError: Arrays are empty, not finite, of the wrong shape, or raw uint8 images; labels are out of range.
            FloatingPointError: Too many steps in a row were skipped, see `compile`.
            RuntimeError: Something else changed the teacher meanwhile.
        """
        arguments = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs).arguments
        self._check_data(x, y, arguments.get("sample_weight"))
        if arguments.get("batch_size") == 1:
            for loss in self.distillation_losses:
                if loss.batch_wise:
                    refuse_batch_of_one(np.empty(1), type(loss).__name__)
        watch = Watch(self._terms.health[0], self.teacher, self._skip_limit)
        del arguments["self"]
        if isinstance(arguments.get("validation_data"), NAMED):
            arguments["validation_data"] = (arguments["validation_data"],)  # or Keras takes its parts for x and y
        with self._fixed_teacher(), watching(watch, arguments, self):
            return super().fit(**arguments)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Measure losses and metrics, as `keras.Model.evaluate`.

        Args:
            x: As for `fit`.
            y: As for `fit`.
            *args: Further arguments of `keras.Model.evaluate`.
            **kwargs: Further arguments of `keras.Model.evaluate`.

        Returns:
            As `keras.Model.evaluate`.

        Raises:
            ValueError: As for `fit`.
        """
        arguments = inspect.signature(keras.Model.evaluate).bind(self, x, y, *args, **kwargs).arguments
        self._check_data(x, y, arguments.get("sample_weight"))
        with self._fixed_teacher():
            return super().evaluate(x, y, *args, **kwargs)

    def _check_data(self, x: Any, y: Any, sample_weight: Any) -> None:
        self._assert_compile_called("fit")
        needs = {"needs_labels": self._terms.needs_labels, "same_inputs": self.teacher_inputs is None}
        check_data(x, y, sample_weight, self.student, self.teacher, self._task, **needs)


def _check_models(student: Any, teacher: Any, teacher_inputs: Any) -> None:
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model) and not (role == "teacher" and model is None):
            raise TypeError(f"`Distiller` needs a `keras.Model` as {role}. Received: {type(model).__name__}.")
    if teacher_inputs is not None and not callable(teacher_inputs):
        raise TypeError(f"`teacher_inputs` must be a function of x. Received: {teacher_inputs!r}.")
    if student is teacher:
        raise ValueError(
            "`Distiller` needs two models, but student and teacher are the same object. "
            "Copy one with `keras.models.clone_model`."
        )
    if teacher is not None and {id(v) for v in student.weights} & {id(v) for v in teacher.weights}:
        raise ValueError(
            "`Distiller` needs two models without common weights, or training would change the teacher. Received: "
            "layers that both use. Copy the teacher with `keras.models.clone_model` and `set_weights`."
        )
