"""One step of distillation, on every backend: ask the teacher, let Keras train the student, undo what is not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
from keras import ops

from kdkeras import _backend
from kdkeras._distribution import AcrossDevices
from kdkeras._symbolic import output_specs
from kdkeras._training.data import first_batch, split_index, unpacked
from kdkeras._training.guard import Gate, check_health, count_only, judged, kept
from kdkeras._training.metrics import update_metrics
from kdkeras._training.task import Task
from kdkeras._training.teacher_apart import TeacherApart
from kdkeras._training.teacher_signals import TeacherSignals, student_inputs
from kdkeras._training.terms import Terms
from kdkeras.inputs import refuse_raw_images, specs_of_tensors
from kdkeras.signals import Batch, Extractor, Signals


@dataclass(frozen=True)
class Connection:
    """What is known since student and teacher were compared.

    Attributes:
        x: Symbolic x of the data. It stays in here, for Keras would track a dict that hangs on a model itself.
        task: The student's task.
        infinite: Identities of the student's variables that never were finite, such as a mask of -inf.
    """

    x: Any
    task: Task
    infinite: frozenset[int] = frozenset()


class Steps(TeacherApart, AcrossDevices):
    """The steps of a model that learns from a teacher; `kdkeras.Distiller` sets up what they need.

    Attributes:
        student: The model to train.
        teacher: The model to learn from, or `None`.
    """

    student: keras.Model
    _terms: Terms
    _read_student: Extractor
    _read_teacher: TeacherSignals
    _connection: Connection | None
    _skip_limit: int | None

    _freeze: bool | Literal["auto"]
    _compiled_fixed: dict[str, bool]
    _teacher_is_fixed = False

    @property
    def _task(self) -> Task:
        return self._connection.task if self._connection is not None else Task()

    def _connect(self, x: Any) -> None:
        """Compare the two models before any step is run."""
        raise NotImplementedError("A subclass says how student and teacher are connected.")

    def _trained_layers(self) -> list[keras.layers.Layer]:
        return [self.student, self._terms]

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Connect the models and let Keras build losses and metrics, all on symbols: what is wrong shows here."""
        if not self._ready():
            data_batch = first_batch(iterator) if data_batch is None else data_batch
            x, y, sample_weight = unpacked(data_batch)
            x, index = split_index(x)
            x, index = specs_of_tensors(x), _symbol(index)
            refuse_raw_images(self.student, student_inputs(x))
            if self._connection is None:
                self._connect(x)
            batch = Batch(student_inputs(x), output_specs(self._read_teacher, x), index)
            labels = keras.tree.map_structure(_symbol, (y, sample_weight))
            data_batch = (batch, *labels)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def _ready(self) -> bool:
        """Whether the models are connected, and Keras' parts of the step are built."""
        parts = (self._compile_loss, self._compile_metrics)
        return self._connection is not None and all(part is None or part.built for part in parts)

    def _build_for(self, data: Any) -> None:
        """Build what this step needs: on TensorFlow nothing was, when the step is traced."""
        if not self._ready() or (self.optimizer is not None and not self.optimizer.built):
            with _backend.outside_of_graphs():
                self._symbolic_build(data_batch=data)

    def train_step(self, *args: Any) -> Any:
        """Attach the teacher's signals to the inputs; the rest is Keras' own step, undone if it is not finite."""
        if _backend.name() == "jax":
            return self._stateless_train_step(*args)
        (data,) = args
        self._build_for(data)
        batch = self._with_teacher(data, training=True)
        health = self._terms.health[0]
        if self._skip_limit is None:
            return super().train_step(batch)
        if not _backend.branches_may_update():
            logs = super().train_step(batch)
            count_only(health, [*self.trainable_variables, *self._statistics()])
            return logs
        left = {id(variable) for variable in [*health.variables, *self.trainable_variables]}
        written = [v for v in [*self.own_variables, *self.metrics_variables] if id(v) not in left]
        with Gate(self.optimizer, health, self._statistics(), written):
            super().train_step(batch)
        return self.get_metrics_result()

    def _statistics(self) -> list[keras.Variable]:
        """Return the student's variables that no optimizer changes and that must stay finite, such as BatchNorm's."""
        infinite = self._connection.infinite if self._connection is not None else ()
        variables = self.student.non_trainable_variables
        return [v for v in variables if id(v) not in infinite and keras.backend.is_float_dtype(v.dtype)]

    def _stateless_train_step(self, state: tuple[Any, ...], data: Any) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Run a step on JAX, where the state comes in and goes out."""
        batch, others = self._attach_stateless(state[0], state[1], data, training=True)
        state = (state[0], others, *state[2:])
        if self._skip_limit is None:
            return super().train_step(state, batch)
        # Keras' own step, but for what comes between the gradients and the update.
        gradients, (loss, predictions, others, metrics) = _backend.gradients_and_rest(
            self.compute_loss_and_updates, *state[:2], state[3], *batch, training=True, optimizer_variables=state[2]
        )
        health = self._terms.health[0]
        places = {id(variable): place for place, variable in enumerate(self.non_trainable_variables)}
        statistics = [others[places[id(variable)]] for variable in self._statistics()]
        place = places[id(health.record)]
        record, sound = health.judge(others[place], judged(self.optimizer, gradients), statistics)
        others = kept(sound, others, state[1])
        others[place] = record
        trained, slots = self.optimizer.stateless_apply(state[2], gradients, state[0])
        _, metrics = self._update_metrics_variables(metrics, loss, *batch[:2], predictions, batch[2])
        metrics = kept(sound, metrics, state[3])
        with keras.StatelessScope(state_mapping=list(zip(self.metrics_variables, metrics, strict=True))):
            logs = self.get_metrics_result()
        return logs, (kept(sound, trained, state[0]), others, kept(sound, slots, state[2]), metrics)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Run one step, as `keras.Model.train_on_batch`.

        Args:
            *args: Arguments of `keras.Model.train_on_batch`.
            **kwargs: Arguments of `keras.Model.train_on_batch`.

        Returns:
            As `keras.Model.train_on_batch`.

        Raises:
            ValueError: There were labels out of range.
            FloatingPointError: Too many steps in a row were skipped, see `compile`.
        """
        result = super().train_on_batch(*args, **kwargs)
        health = self._terms.health[0]
        try:
            check_health(health, self._skip_limit)
        except (ValueError, FloatingPointError):
            health.forget()
            raise
        return result

    def test_step(self, *args: Any) -> Any:
        """Attach the teacher's signals to the inputs; the rest is Keras' own step."""
        if _backend.name() == "jax":
            state, data = args
            batch, others = self._attach_stateless(state[0], state[1], data)
            return super().test_step((state[0], others, *state[2:]), batch)
        (data,) = args
        self._build_for(data)
        return super().test_step(self._with_teacher(data))

    def _attach_stateless(
        self, trainable: Any, others: Any, data: Any, training: bool = False
    ) -> tuple[Any, list[Any]]:
        """Return `data` with the teacher's signals, and what the teacher's own state became."""
        variables = [*self.trainable_variables, *self.non_trainable_variables]
        with keras.StatelessScope(state_mapping=list(zip(variables, [*trainable, *others], strict=True))) as scope:
            batch = self._with_teacher(data, training)
        return batch, [scope.get_current_value(variable) for variable in self.non_trainable_variables]

    def _with_teacher(self, data: Any, training: bool = False) -> tuple[Any, ...]:
        """Return `data` with a `Batch` in place of x: here, outside the tape, the teacher gets no gradient."""
        x, labels, sample_weight = unpacked(data)
        x, index = split_index(x)
        explain = self._terms.explain(training=training)
        signals = self._read_teacher(x, frozen=self._frozen_teacher(), training=training, explain=explain)
        return Batch(student_inputs(x), signals, index), labels, sample_weight

    @contextlib.contextmanager
    def _fixed_teacher(self) -> Iterator[None]:
        """While this lasts, steps may be compiled with the teacher's weights as constants."""
        outermost = not self._teacher_is_fixed
        if outermost and self._read_teacher.thaw_if_changed():
            self.train_function = self.test_function = None
        self._teacher_is_fixed = True
        try:
            yield
        finally:
            self._teacher_is_fixed = not outermost

    def _frozen_teacher(self) -> Any:
        """Return the teacher's forward pass with constant weights, where that is wished, safe and of use."""
        possible = _backend.name() == "tensorflow" and self._teacher_is_fixed and not self.run_eagerly
        if not possible or self._freeze is False or _backend.replicas() > 1:
            return None
        if self._freeze == "auto" and self.jit_compile:  # XLA folds nothing
            return None
        return self._read_teacher.freeze(required=self._freeze is True)

    def make_train_function(self, force: bool = False) -> Any:
        """Compile the train step anew where it was compiled with a teacher that may have changed since."""
        return super().make_train_function(force or self._compiled_otherwise("train"))

    def make_test_function(self, force: bool = False) -> Any:
        """Compile the test step anew where it was compiled with a teacher that may have changed since."""
        return super().make_test_function(force or self._compiled_otherwise("test"))

    def _compiled_otherwise(self, step: str) -> bool:
        before = self._compiled_fixed.get(step, self._teacher_is_fixed)
        self._compiled_fixed[step] = self._teacher_is_fixed
        return before != self._teacher_is_fixed and self._read_teacher.is_frozen

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the student's predictions; inside a step, all its signals.

        Args:
            inputs: The student's inputs, or the `Batch` that a step makes of them.
            training: Whether the student runs in training mode.

        Returns:
            The predictions, or `Signals` for a `Batch`.
        """
        if isinstance(inputs, Batch):
            explain = self._terms.explain(inputs.teacher, training=training)
            return self._read_student(inputs.inputs, training=training, explain=explain)
        return self.student(student_inputs(inputs), training=training)

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
            return ops.zeros(()) if y is None else super().compute_loss(x, y, y_pred, sample_weight, training)
        size = ops.shape(keras.tree.flatten(x.inputs)[0])[0]
        # Keras has no public way to ask for the task loss alone, and `task_weight` must not touch the regularisation.
        task, impossible = ops.zeros(()), ops.zeros((), "int32")
        if self._compile_loss is not None and y is not None:
            ready = self._task.prepare(y, y_pred, sample_weight)
            task, impossible = self._compile_loss(ready.labels, ready.predictions, ready.loss_weight), ready.impossible
            known = ready.labelled[0] if len(ready.labelled) == 1 else None
            share = ops.ones(()) if known is None else ops.mean(ops.cast(known, "float32"))
            if not training:  # what is left out in training must not look as if it had been scored here
                task = ops.where(impossible > 0, float("nan"), task)
                share = ops.where(impossible > 0, 1.0, share)
            task = self._terms.weigh_task(task, share * ops.cast(size, "float32"))
        elif self._terms.needs_labels:
            raise ValueError("The task loss needs labels. Pass y, or task_weight=0 to learn from the teacher alone.")
        penalty = sum((self._aggregate_additional_loss(loss) for loss in self.losses), ops.zeros(()))
        terms = self._terms.weigh(y_pred, x, y, sample_weight, self._task, training=training)
        values = [task, penalty, *terms]
        if training:
            self._terms.health[0].note(impossible, values)
        return sum(values[1:], values[0])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the compiled metrics with the student's predictions of what is labelled."""
        if y is None:
            return self.get_metrics_result()
        if not isinstance(y_pred, Signals):
            return super().compute_metrics(x, y, y_pred, sample_weight)
        if self._compile_metrics is not None:
            update_metrics(self._compile_metrics, self._task.prepare(y, y_pred, sample_weight))
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the value of every metric that has seen labels."""
        if self._compile_metrics is None or self._compile_metrics.built:
            return super().get_metrics_result()
        return {metric.name: metric.result() for metric in self.metrics if metric is not self._compile_metrics}


def _symbol(tensor: Any) -> Any:
    """Return a symbol of a batch's labels or weights, with the batch axis open as in `specs_of_tensors`."""
    return None if tensor is None else specs_of_tensors(tensor)
