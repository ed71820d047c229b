"""Explanation matching: the student has the teacher's reasons (e²KD, Parchami-Araghi et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kdkeras.losses._maps import pool_to_smaller
from kdkeras.losses.base import DistillationLoss
from kdkeras.losses.feature_loss import Pair
from kdkeras.ops import flatten_samples, l2_normalize
from kdkeras.signals import Attribution, Signals, SignalSpec

_METHODS = ("grad_cam", "cam", "input_gradient")
_DISTANCES = ("cosine", "squared")


def explanation_matching(
    student_maps: Any, teacher_maps: Any, *, distance: Literal["cosine", "squared"] = "cosine"
) -> Any:
    """Return `1 − cos(E_s, E_t)` of each sample, or `‖E_s/‖E_s‖ − E_t/‖E_t‖‖²`, which is twice that.

    A map that is zero everywhere has no direction: two of them agree (0), one of them agrees with no other map (1).

    Args:
        student_maps: The student's explanations E_s, shape `(batch, ...)`.
        teacher_maps: The teacher's explanations E_t, same shape.
        distance: `"cosine"` (default), as in e²KD, or `"squared"`, as in Jacobian matching.

    Returns:
        Shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import explanation_matching
        >>> left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
        >>> np.asarray(explanation_matching(left, 5 * left + right)).round(3).tolist()
        [0.019]
    """
    ours, theirs = (l2_normalize(flatten_samples(maps)) for maps in (student_maps, teacher_maps))
    if distance == "squared":
        return ops.sum(ops.square(ours - theirs), axis=-1)
    # In the place of 1 the larger squared norm: it is 1 but where both maps are empty.
    lengths = [ops.sum(ops.square(direction), axis=-1) for direction in (ours, theirs)]
    longer = ops.where(lengths[0] > lengths[1], *lengths)
    return longer - ops.sum(ours * theirs, axis=-1)


@keras.saving.register_keras_serializable(package="kdkeras")
class ExplanationMatching(DistillationLoss):
    """The student explains the teacher's top class as the teacher does: it looks at the same places.

    Per sample `1 − cos(E(student, x, ŷ_t), E(teacher, x, ŷ_t))`, where ŷ_t is the teacher's top class and E an
    explanation of that logit. The student's is differentiated again on the way to its weights, so a step costs more;
    the teacher's is a constant. Both are read in the one forward pass that every step makes, in training mode for the
    student. Larger maps are average-pooled to the smaller size.

    - `"grad_cam"`, as in e²KD: ReLU(Σ_k mean over positions (∂z/∂A_k) · A_k), with A the output of the layer.
    - `"cam"`: Σ_k w_k A_k, with w the weights of the classifier after A, for models that end in global average pooling
      and one `Dense` layer. There it is Grad-CAM without the ReLU, and takes no second derivative.
    - `"input_gradient"`: ∂z/∂x, of all channels; with `distance="squared"` it is Jacobian matching.

    Where the student's Grad-CAM is zero everywhere it has no gradient (nothing in the layer speaks for that class yet);
    such samples count 1 and teach nothing until the other losses have changed that.

    The authors enlarge both maps to the images' size; here the larger is pooled to the smaller, which costs less and
    invents nothing between the positions.

    With `kdkeras.Cached`, the teacher's maps come from the data: under the name of `teacher_attribution`, such as
    `"grad_cam:conv5"`, among its features; `kdkeras.signals.predict(teacher, x, attributions=[...])` makes them.

    Args:
        student_layer: Path of the student's layer, for `"grad_cam"` and `"cam"`; the last one with positions is usual.
        teacher_layer: Path of the teacher's layer.
        weight: Factor on this term in the total loss, λ. Default 1, as in the authors' code, which tries 0.2 to 10.
        method: `"grad_cam"` (default), `"cam"` or `"input_gradient"`.
        distance: `"cosine"` (default), or `"squared"`: the squared distance of the normalised maps, twice as much.
        every: Take every n-th training step only; the others cost nothing and give 0. The value of the n-th counts n
            times, so that neither the mean gradient nor the figure in the log depends on n, as in the lazy
            regularisation of StyleGAN2; the authors of e²KD, who take n = 4 and 16, do not do so. Default 1.
        sample_weights: Factor of each training sample on this term alone, shape `(samples,)`, such as
            `kdkeras.feedback.explanation_weights` gives; `fit` must then be given `kdkeras.Indexed` data, whose numbers
            find them. The mean is over the samples, not over the weights: more weight is more explanation in the total
            loss. The figure in the log has them in it; evaluation takes all samples alike. Default: all weigh 1. (The
            `sample_weight` of `fit` weighs the task and every loss.)
        output: Name of the output that is explained, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar. Default `"explanation_matching"`.

    Raises:
        TypeError: `every` is not a whole number.
        ValueError: A setting is out of range, or layers do not go with the method; when connected, a layer does not
            exist or has no positions, the logit does not depend on it, or the maps' sizes do not fit; in training,
            there are `sample_weights` and the data do not say which sample is which.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.ExplanationMatching("conv2", "backbone/conv5", weight=5, every=4)
        >>> str(loss.teacher_attribution)
        'grad_cam:backbone/conv5'

    Reference:
        Parchami-Araghi et al.: Good Teachers Explain: Explanation-Enhanced Knowledge Distillation, 2024,
        arXiv:2402.03119. Srinivas, Fleuret: Knowledge Transfer with Jacobian Matching, 2018, arXiv:1803.00443.
        Karras et al.: Analyzing and Improving the Image Quality of StyleGAN, 2020, arXiv:1912.04958, appendix B.
    """

    def __init__(
        self,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
        weight: float = 1.0,
        *,
        method: Literal["grad_cam", "cam", "input_gradient"] = "grad_cam",
        distance: Literal["cosine", "squared"] = "cosine",
        every: int = 1,
        sample_weights: Sequence[float] | np.ndarray | None = None,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, output=output, name=name)
        if method not in _METHODS:
            raise ValueError(f"`ExplanationMatching` needs a method of {list(_METHODS)}. Received: {method!r}.")
        if distance not in _DISTANCES:
            raise ValueError(f"`ExplanationMatching` needs a distance of {list(_DISTANCES)}. Received: {distance!r}.")
        if not isinstance(every, int) or isinstance(every, bool):
            raise TypeError(f"`ExplanationMatching` needs a whole number as every. Received: {every!r}.")
        if every < 1:
            raise ValueError(f"`ExplanationMatching` needs every of at least 1. Received: {every}.")
        self.student_layer, self.teacher_layer = student_layer, teacher_layer
        self.method, self.distance, self.every = method, distance, every
        self.student_attribution = Attribution(method, student_layer, self.output_names[0])
        self.teacher_attribution = Attribution(method, teacher_layer, self.output_names[1])
        self.sample_weights = None if sample_weights is None else _checked_weights(sample_weights)
        self.needs = ("training", "index") if self.sample_weights is not None else ("training",) if every > 1 else ()
        self._step = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check the class counts, and that the maps can be brought to one size."""
        super().connect(student, teacher)
        pair = _pair(self, student, teacher)
        pair.check_equal_rank()
        if self.student_attribution.has_channels and pair.student[-1] != pair.teacher[-1]:
            raise pair.error("inputs with equally many channels", "Explain layers instead, with method='grad_cam'.")
        pair.check_sizes()

    def is_due(self, *, training: bool) -> Any:
        """Return whether this step takes an explanation."""
        return ops.equal(ops.convert_to_tensor(self._step), 0) if training and self.every > 1 else True

    def call(
        self, student: Signals, teacher: Signals, labels: Any = None, training: bool = False, index: Any = None
    ) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        maps = (signals.attributions[self.name] for signals in (student, teacher))
        values = explanation_matching(*_same_size(self.student_attribution, *maps), distance=self.distance)
        if training and self.sample_weights is not None:
            values = values * self._weights(index)
        if not training or self.every == 1:
            return values
        due = self.is_due(training=True)
        self._step.assign(ops.mod(ops.convert_to_tensor(self._step) + 1, self.every))
        return ops.where(due, self.every * values, ops.zeros_like(values))

    def _weights(self, index: Any) -> Any:
        """Return the weight of each sample of a batch; NaN, which undoes the step, where there is none."""
        if index is None:
            raise ValueError(
                "`ExplanationMatching` with `sample_weights` needs to know which training sample is which. Received: "
                "data without an index. Pass x=kdkeras.Indexed(x, np.arange(len(x))) to `fit`."
            )
        index, last = ops.cast(index, "int32"), len(self.sample_weights) - 1
        weights = ops.take(ops.convert_to_tensor(self.sample_weights), ops.clip(index, 0, last), axis=0)
        return ops.where(ops.logical_and(index >= 0, index <= last), weights, float("nan"))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"student_layer": self.student_layer, "teacher_layer": self.teacher_layer, "method": self.method}
        weights = None if self.sample_weights is None else self.sample_weights.tolist()
        return {
            **super().get_config(),
            **own,
            "distance": self.distance,
            "every": self.every,
            "sample_weights": weights,
        }


def _checked_weights(weights: Any) -> np.ndarray:
    array = np.asarray(weights, "float32")
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(
            "`ExplanationMatching` needs sample_weights of one finite number >= 0 for each training sample, shape "
            f"(samples,). Received: shape {array.shape}, from {array.min(initial=0)} to {array.max(initial=0)}."
        )
    return array


def _pair(loss: ExplanationMatching, student: SignalSpec, teacher: SignalSpec) -> Pair:
    """Return both explanations for the checks of feature maps, with an axis of channels where they have none."""
    end = () if loss.student_attribution.has_channels else (1,)
    ours, theirs = (spec.attributions[loss.name] + end for spec in (student, teacher))
    return Pair(type(loss).__name__, str(loss.student_attribution), ours, str(loss.teacher_attribution), theirs)


def _same_size(attribution: Attribution, student: Any, teacher: Any) -> tuple[Any, Any]:
    if attribution.has_channels:
        return pool_to_smaller(student, teacher)
    student, teacher = pool_to_smaller(ops.expand_dims(student, -1), ops.expand_dims(teacher, -1))
    return ops.squeeze(student, -1), ops.squeeze(teacher, -1)
