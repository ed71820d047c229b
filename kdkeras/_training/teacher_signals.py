"""Where the teacher's signals of a batch come from: the teacher itself, its frozen graph, or the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kdkeras import _backend
from kdkeras._symbolic import output_specs
from kdkeras.inputs import check_same_inputs, input_specs
from kdkeras.signals import Attribution, Cached, Explain, Extractor, Indexed, Paired, Signals, SignalSpec
from kdkeras.teachers import TeacherModel

_LOG = logging.getLogger("kdkeras")


def student_inputs(x: Any) -> Any:
    """Return the part of the data's x that the student takes.

    Args:
        x: Plain inputs, `Paired`, `Cached` or `Indexed`.

    Returns:
        The student's inputs.
    """
    if isinstance(x, Indexed):
        return student_inputs(x.inputs)
    if isinstance(x, Paired):
        return x.student
    return x.inputs if isinstance(x, Cached) else x


def refuse_plain_inputs() -> None:
    """Raise because nobody answers.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        "A distiller without a teacher needs its answers in the data. Received: plain inputs. Pass "
        "`kdkeras.Cached(inputs, logits)` as x."
    )


class TeacherSignals:
    """Reads the teacher, with `training=False` and without a gradient.

    Args:
        teacher: The teacher, or `None` where the data bring its answers.
        layers: Paths of the teacher's layers to tap.
        function: Makes the teacher's inputs of the data's x, where they differ.
        attributions: What to explain of the teacher, by the name of the loss that wants it.
    """

    def __init__(
        self,
        teacher: keras.Model | None,
        layers: Sequence[str],
        function: Callable[[Any], Any] | None,
        attributions: Mapping[str, Attribution] | None = None,
    ) -> None:
        self.teacher = teacher
        options = {"several_outputs": True, "attributions": attributions}
        self.extractor = None if teacher is None else Extractor(teacher, layers, **options)
        self.layers = tuple(dict.fromkeys(layers))
        self.attributions = dict(attributions or {})
        self.function = function
        self.probed: Any = None  # the specs that the teacher was connected with
        self._frozen: Any = None
        self._refused = False

    def spec(self, x: Any) -> SignalSpec | None:
        """Return shapes and heads of the teacher.

        Args:
            x: Symbolic x of the data, or of the student where no data was seen yet.

        Returns:
            The `SignalSpec`; `None` where only data can tell.

        Raises:
            ValueError: There is neither a teacher nor answers in the data.
        """
        if self.teacher is None:
            return self._cached_spec(x) if isinstance(x, Cached) else None
        self.probed = input_specs(self.teacher)
        if self.probed is None:
            self.probed = self._inputs(x, lambda values: output_specs(self.function, values))
        return self.extractor.spec(self.probed)

    def refuse_hidden_probabilities(self) -> None:
        """Raise if the teacher returns probabilities whose logits cannot be recovered."""
        if self.extractor is not None:
            self.extractor.refuse_hidden_probabilities(self.probed)

    def check_attributions(self) -> None:
        """Raise if what the losses want explained of the teacher is not there."""
        if self.extractor is not None:
            self.extractor.check_attributions(self.probed)

    def __call__(
        self,
        x: Any,
        frozen: Callable[..., Signals] | None = None,
        training: bool = False,
        explain: Mapping[str, Explain] | None = None,
    ) -> Signals:
        """Return the teacher's signals for a batch.

        Args:
            x: The batch's x: plain inputs, `Paired` or `Cached`.
            frozen: The teacher's graph of constants, to be run in its place.
            training: Whether a random ensemble draws a member; other teachers run in inference mode always.
            explain: Of each attribution, whether it is due in this step.

        Returns:
            The `Signals`, cut off from any gradient.

        Raises:
            ValueError: Teacher and student take different inputs and nothing says how the one's become the other's.
        """
        if isinstance(x, Cached):
            return self._cached(x)
        if self.teacher is None:
            refuse_plain_inputs()
        if self.function is None and not isinstance(x, Paired):
            check_same_inputs(x, self.teacher, student_name="student")
        with _backend.without_gradient():
            inputs = self._inputs(x, self.function)
            if frozen is not None:
                signals = frozen(inputs, explain)
            else:
                signals = self.extractor(inputs, training=training and self.is_random, explain=explain)
        return keras.tree.map_structure(keras.ops.stop_gradient, signals)

    @property
    def is_random(self) -> bool:
        """Whether the teacher answers differently in each training step."""
        return isinstance(self.teacher, TeacherModel) and self.teacher.stochastic

    @property
    def is_frozen(self) -> bool:
        """Whether a graph with constant weights exists."""
        return self._frozen is not None

    def freeze(self, *, required: bool) -> Callable[..., Signals] | None:
        """Return the teacher's forward pass with constant weights (TensorFlow only).

        Args:
            required: Whether to raise where it is not safe, and to allow large teachers.

        Returns:
            A function of the teacher's inputs and of what is to be explained; `None` where it is not safe.

        Raises:
            ValueError: It is not safe, but required.
        """
        if self.teacher is None or (self._refused and not required):
            return None
        if self.is_random:
            if required:
                raise ValueError(
                    f"Teacher '{self.teacher.name}' cannot be frozen: it draws a member in each step. Pass "
                    "freeze_teacher='auto' or False."
                )
            return None
        if self._frozen is None:
            from kdkeras._frozen import AUTOMATIC_LIMIT, HARD_LIMIT, FreezeError, freeze

            try:
                self._frozen = freeze(self.extractor, self.probed, limit=HARD_LIMIT if required else AUTOMATIC_LIMIT)
            except FreezeError as error:
                message = f"Teacher '{self.teacher.name}' cannot be frozen: {error}."
                if required:
                    raise ValueError(f"{message} Pass freeze_teacher='auto' or False.") from error
                self._refused = True
                _LOG.info("%s It runs as it is.", message)
        return self._frozen

    def thaw_if_changed(self) -> bool:
        """Drop the graph with constant weights where the teacher's weights are others by now.

        Returns:
            Whether it was dropped.
        """
        changed = self._frozen is not None and not self._frozen.is_current()
        if changed:
            self._frozen = None
        return changed

    def _inputs(self, x: Any, function: Callable[[Any], Any] | None) -> Any:
        if isinstance(x, Paired):
            return x.teacher
        x = student_inputs(x)
        return x if self.function is None else function(x)

    def _cached(self, x: Cached) -> Signals:
        self._check_cached(x)
        logits, features = keras.tree.map_structure(
            lambda values: keras.ops.cast(values, "float32"), (x.logits, dict(x.features))
        )
        attributions = {name: features[str(each)] for name, each in self.attributions.items()}
        return Signals(logits, logits, features, attributions=attributions)

    def _check_cached(self, x: Cached) -> None:
        missing = [path for path in self.layers if path not in x.features]
        if missing:
            raise ValueError(
                f"The losses compare the teacher's layers {missing}. Received: cached features {list(x.features)}. "
                "Cache those layers too."
            )
        missing = [str(each) for each in self.attributions.values() if str(each) not in x.features]
        if missing:
            raise ValueError(
                f"The losses compare the teacher's explanations {missing}. Received: cached features "
                f"{list(x.features)}. Cache those too, with `kdkeras.signals.predict(teacher, x, attributions=[...])`."
            )

    def _cached_spec(self, x: Cached) -> SignalSpec:
        self._check_cached(x)
        shapes = {path: tuple(values.shape) for path, values in x.features.items()}
        attributions = {name: shapes[str(each)] for name, each in self.attributions.items()}
        logits = [tuple(values.shape) for values in keras.tree.flatten(x.logits)]
        if len(logits) == 1:
            return SignalSpec("cached answers", None, logits[0], shapes, attributions=attributions)
        names = ["/".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(x.logits)]
        outputs = {
            name: SignalSpec(f"cached answers/{name}", None, shape, shapes, attributions=attributions)
            for name, shape in zip(names, logits, strict=True)
        }
        return SignalSpec("cached answers", None, (), shapes, outputs, attributions)
