"""What the page shows, without the page: models, samples, predictions, maps, agreement and marks."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kdkeras import explain, export, saving
from kdkeras.app.overview import Overview, overview_of
from kdkeras.app.samples import Sample, Samples, load_samples
from kdkeras.app.upload import sample_of_picture, scale_of
from kdkeras.explain.comparison import agreement
from kdkeras.explain.layer_choice import map_layers
from kdkeras.explain.readers import Readers
from kdkeras.explain.subject import Subject
from kdkeras.feedback import FeedbackStore, Mark, sample_id
from kdkeras.inputs import check_arrays, check_same_inputs, input_specs
from kdkeras.trees import SoftDecisionTree

TOP_K = 0.2  # share of the pixels that the overlap of two maps looks at, as in `explain.compare`
_OVERVIEW = 1000  # samples that the figures over the data are taken of
_UPLOADS = 64  # kept, the oldest go
_MAPS = 256  # comparisons kept
Answer = Callable[[np.ndarray], np.ndarray]


class Workbench:
    """Teacher and student with samples, and every answer that the page gives.

    All methods may be called from several threads; models run one at a time.

    Args:
        teacher: A Keras classifier of one input, images or a table.
        student: Another of the same input and classes.
        samples: The samples.
        tflite: The student as a TFLite file, loaded by `export.load`.
        tree: A soft decision tree of the same samples and classes.
        store: Where marks are kept.
        files: SHA-256 of the files of `"teacher"` and `"student"`, stored with each mark.

    Raises:
        TypeError: A model is of another kind.
        ValueError: Models and samples do not fit each other.

    Example:
        >>> import keras
        >>> from kdkeras.app import Workbench, load_samples
        >>> def model():
        ...     return keras.Sequential([keras.Input((13,)), keras.layers.Dense(3)])
        >>> bench = Workbench(model(), model(), load_samples("wine"))
        >>> bench.methods[:2], bench.class_names
        (('saliency', 'smooth_grad'), ('class_0', 'class_1', 'class_2'))
        >>> list(bench.predictions(bench.sample(0)))
        ['Teacher', 'Student']
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        samples: Samples,
        *,
        tflite: export.TFLiteModel | None = None,
        tree: SoftDecisionTree | None = None,
        store: FeedbackStore | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        self.models = {"teacher": teacher, "student": student}
        self.samples, self.tree, self.store, self.files = samples, tree, store, dict(files or {})
        _check_fit(self.models, samples)
        self._lock, self._drawing = threading.RLock(), threading.Lock()
        self._readers = {name: Readers(model) for name, model in self.models.items()}
        self._explainers: dict[Hashable, explain.Explainer] = {}
        self._comparisons: OrderedDict[Hashable, explain.ExplanationComparison] = OrderedDict()
        self._uploads: OrderedDict[str, Sample] = OrderedDict()
        self._answers: dict[str, Answer] = {
            "Teacher": lambda x: self._probabilities("teacher", x),
            "Student": lambda x: self._probabilities("student", x),
        }
        if tflite is not None:
            self._answers["TFLite"] = lambda x: self._of_student_head(np.asarray(tflite(x), "float32"), x)
        if tree is not None:
            if not isinstance(tree, SoftDecisionTree):
                raise TypeError(f"The tree must be a `kdkeras.SoftDecisionTree`. Received: {type(tree).__name__}.")
            self._answers["Tree"] = lambda x: tree.predict(x, verbose=0)
        self.class_names = self._named_classes()

    @classmethod
    def load(
        cls,
        teacher: str | Path,
        student: str | Path,
        data: str,
        *,
        split: str = "test",
        tflite: str | Path | None = None,
        tree: str | Path | None = None,
        feedback: str | Path | None = None,
    ) -> Workbench:
        """Make a workbench of files.

        Args:
            teacher: The teacher's `.keras` file.
            student: The student's.
            data: As `load_samples` takes it.
            split: As `load_samples` takes it.
            tflite: The student's `.tflite` file.
            tree: The tree's `.keras` file.
            feedback: The file that marks are kept in; it is made where it is missing.

        Returns:
            The `Workbench`.

        Raises:
            FileNotFoundError: A file is missing.
            OSError: The feedback cannot be stored there.
            ValueError: A file is something else, or they do not fit each other.
        """
        models = saving.load_model(teacher, compile=False), saving.load_model(student, compile=False)
        store = None if feedback is None else FeedbackStore(feedback)
        if store is not None:
            store.prepare()
        return cls(
            *models,
            load_samples(data, split),
            tflite=None if tflite is None else export.load(tflite),
            tree=None if tree is None else saving.load_model(tree, compile=False),
            store=store,
            files={"teacher": _file_hash(teacher), "student": _file_hash(student)},
        )

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """Paths of the layers that methods of layers can look at, of `"teacher"` and of `"student"`."""
        if not self.samples.of_images:
            return {"teacher": (), "student": ()}
        return {name: self._layers_of(model) for name, model in self.models.items()}

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The values of black and white in the data."""
        return scale_of(self.samples.x)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that both models allow."""
        has_layers = all(self.layers.values())
        rollout = has_layers and all(map(_has_attention, self.models.values()))
        return tuple(
            name
            for name, method in explain.METHODS.items()
            if (rollout if name == "attention_rollout" else has_layers or not method.of_layer)
        )

    def sample(self, index: int) -> Sample:
        """Return a sample of the data.

        Args:
            index: Its number.

        Returns:
            The `Sample`.

        Raises:
            ValueError: There is no such sample.
        """
        if not 0 <= index < len(self.samples.x):
            raise ValueError(f"The data have samples 0…{len(self.samples.x) - 1}. Received: {index}.")
        x = self.samples.x[index]
        return Sample(x, sample_id(x), index, None if self.samples.y is None else int(self.samples.y[index]))

    def upload(self, content: bytes) -> Sample:
        """Return a picture as a sample.

        Args:
            content: The bytes of a PNG or JPEG file, within the limits of `sample_of_picture`.

        Returns:
            The `Sample`, which `uploaded` finds by its id as long as it is one of the last 64.

        Raises:
            ValueError: It is no such picture, or the models take no images.
        """
        spec = input_specs(self.models["teacher"])
        shape = self.samples.x.shape[1:] if spec is None else tuple(spec.shape[1:])
        x = sample_of_picture(content, shape, self.scale)
        sample = Sample(x, sample_id(x))
        with self._lock:
            self._uploads[sample.id] = sample
            while len(self._uploads) > _UPLOADS:
                self._uploads.popitem(last=False)
        return sample

    def uploaded(self, name: str) -> Sample:
        """Return an uploaded sample.

        Args:
            name: Its id.

        Returns:
            The `Sample`.

        Raises:
            ValueError: It is not there any more.
        """
        with self._lock:
            if name not in self._uploads:
                raise ValueError("That picture is not kept any more. Upload it again.")
            return self._uploads[name]

    def predictions(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return what every model says of a sample.

        Args:
            sample: The sample.

        Returns:
            Title of the model → probability of each class, shape `(classes,)`; of a single unit, of class 1.
        """
        return {title: self._ask(title, sample.x[None])[0] for title in self._answers}

    def compare(
        self,
        sample: Sample,
        method: str,
        *,
        target: int | None = None,
        teacher_layer: str | None = None,
        student_layer: str | None = None,
    ) -> explain.ExplanationComparison:
        """Return the maps of both models of one sample, and how much they agree.

        Args:
            sample: The sample.
            method: One of `methods`.
            target: The class that is explained in both; by default the one that the teacher names.
            teacher_layer: For methods that look at a layer; by default the model's last one with positions.
            student_layer: Likewise.

        Returns:
            An `ExplanationComparison` of one pair; kept for the next time.

        Raises:
            ValueError: The method, a layer or the target does not fit.
        """
        if method not in self.methods:
            raise ValueError(f"`method` must be one of {', '.join(self.methods)}. Received: {method!r}.")
        of_layer = explain.METHODS[method].of_layer
        layers = (teacher_layer, student_layer) if of_layer else (None, None)
        key = (sample.id, method, target, *layers)
        with self._lock:
            if key in self._comparisons:
                self._comparisons.move_to_end(key)
                return self._comparisons[key]
            theirs = self._explainer("teacher", method, layers[0])(sample.x[None], target)
            ours = self._explainer("student", method, layers[1])(sample.x[None], theirs.target)
            found = explain.ExplanationComparison(theirs, ours, agreement(ours, theirs, TOP_K), TOP_K)
            self._comparisons[key] = found
            while len(self._comparisons) > _MAPS:
                self._comparisons.popitem(last=False)
            return found

    @cached_property
    def overview(self) -> Overview:
        """How often the models agree, and are right, over the first samples of the data."""
        x = self.samples.x[:_OVERVIEW]
        named = {title: _classes(self._ask(title, x)) for title in self._answers}
        return overview_of(named, None if self.samples.y is None else self.samples.y[: len(x)])

    def tree_path(self, sample: Sample) -> str:
        """Return the way of a sample through the tree, in words.

        Args:
            sample: The sample.

        Returns:
            Text of several lines.

        Raises:
            ValueError: There is no tree.
        """
        with self._lock:
            return str(self._tree().explain_sample(sample.x, **self._tree_names()))

    def tree_picture(self, sample: Sample) -> bytes:
        """Return a picture of the tree's first splits and of the sample's whole path, as a PNG file.

        Args:
            sample: The sample.

        Returns:
            The file's bytes.

        Raises:
            ValueError: There is no tree.
        """
        with self._drawing:  # matplotlib's settings belong to the whole process
            file = io.BytesIO()
            figure = self._tree().plot(sample.x, **self._tree_names(), max_depth=min(3, self._tree().depth))
            figure.savefig(file, format="png", dpi=80)
            return file.getvalue()

    def mark(
        self,
        sample: Sample,
        comparison: explain.ExplanationComparison,
        *,
        model: str,
        verdict: str,
        note: str = "",
        who: str = "",
    ) -> int:
        """Store what a person says of an explanation.

        Args:
            sample: The sample.
            comparison: What the person saw.
            model: Whose explanation is judged, `"teacher"` or `"student"`.
            verdict: `"right"`, `"wrong"` or `"unclear"`.
            note: Why.
            who: The person.

        Returns:
            The mark's number.

        Raises:
            OSError: It cannot be stored.
            ValueError: There is no store, or a value is not allowed.
        """
        if self.store is None:
            raise ValueError("There is nowhere to keep feedback. Start with a feedback file.")
        judged = comparison.teacher if model == "teacher" else comparison.student
        target = int(judged.target[0])
        return self.store.add(
            Mark(
                sample.id,
                model,
                judged.method,
                target,
                verdict,
                note=note.strip(),
                who=who.strip(),
                layer=judged.layer,
                index=sample.index,
                data=self.samples.name if sample.index is not None else "upload",
                target_name=self.class_names[target],
                teacher_file=self.files.get("teacher", ""),
                student_file=self.files.get("student", ""),
            )
        )

    def _ask(self, title: str, x: np.ndarray) -> np.ndarray:
        with self._lock:
            return self._answers[title](x)

    def _probabilities(self, name: str, x: np.ndarray) -> np.ndarray:
        subject = Subject(self.models[name], x, batch_size=256, readers=self._readers[name])
        return subject.probabilities(subject.signals.logits)

    def _of_student_head(self, outputs: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the outputs of the student's file as probabilities: it ends as the student does."""
        subject = Subject(self.models["student"], x[:1], readers=self._readers["student"])
        subject.predictions  # noqa: B018  (the head is known once the model was run)
        return subject.probabilities(outputs) if subject.head == "linear" else outputs

    def _explainer(self, name: str, method: str, layer: str | None) -> explain.Explainer:
        key = name, method, layer
        if key not in self._explainers:
            self._explainers[key] = explain.Explainer(self.models[name], method, layer)
        return self._explainers[key]

    def _layers_of(self, model: keras.Model) -> tuple[str, ...]:
        try:
            with self._lock:
                return tuple(map_layers(model, self.samples.x[:1].astype("float32")))
        except ValueError:  # no layer with positions: methods of the input are left
            return ()

    def _named_classes(self) -> tuple[str, ...]:
        units = {title: self._ask(title, self.samples.x[:1]).shape[1] for title in self._answers}
        if len(set(units.values())) > 1:
            raise ValueError(f"All models need the same classes. Received: {units} outputs. Load models of one task.")
        count, names = units["Teacher"], self.samples.class_names
        if count == 1 and self._readers["teacher"].get().extractor.head != "sigmoid":
            raise ValueError(
                f"The page shows classifiers. Received: a teacher, '{self.models['teacher'].name}', with one linear "
                "output. Use `kdkeras.explain` in Python."
            )
        if count == 1:
            return names[1:2] if len(names) == 2 else ("class 1",)
        if names and len(names) != count:
            raise ValueError(
                f"The data '{self.samples.name}' name {len(names)} classes, the models have {count}. Load data and "
                "models of one task."
            )
        return names or tuple(str(index) for index in range(count))

    def _tree(self) -> SoftDecisionTree:
        if self.tree is None:
            raise ValueError("There is no tree. Start with --tree and its file.")
        return self.tree

    def _tree_names(self) -> dict[str, Any]:
        return {"feature_names": self.samples.feature_names or None, "class_names": self.class_names}


def _check_fit(models: dict[str, keras.Model], samples: Samples) -> None:
    for name, model in models.items():
        if not isinstance(model, keras.Model):
            raise TypeError(f"The {name} must be a `keras.Model`. Received: {type(model).__name__}.")
        specs = input_specs(model)
        if specs is not None and len(keras.tree.flatten(specs)) > 1:
            raise ValueError(
                f"The page shows models of one input. Received: the {name} '{model.name}' with "
                f"{len(keras.tree.flatten(specs))}. Use `kdkeras.explain` in Python."
            )
        if samples.x.ndim not in (2, 4):
            raise ValueError(
                f"The page shows images (n, height, width, channels) and tables (n, features). Received: x of shape "
                f"{samples.x.shape}. Use `kdkeras.explain` in Python."
            )
        check_arrays(model, samples.x[:_OVERVIEW], name=f"x of '{samples.name}'")
    student = input_specs(models["student"])
    if student is not None:
        check_same_inputs(student, models["teacher"], student_name=models["student"].name)


def _classes(values: np.ndarray) -> np.ndarray:
    """Return the class that each row names; of a single unit, whether it is above one half."""
    return values.argmax(axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype("int64")


def _has_attention(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.MultiHeadAttention) for layer in model._flatten_layers())


def _file_hash(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
