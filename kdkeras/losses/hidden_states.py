"""Hidden states of transformers, layer by layer (PKD, DistilBERT, TinyBERT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
from keras import ops

from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import l2_normalize, mean_per_sample

Kind = Literal["mse", "cosine", "normalized"]


def hidden_states(student: Any, teacher: Any, *, kind: Kind = "mse") -> Any:
    """Return how far hidden states differ, for each sample the mean over its positions.

    Args:
        student: Student hidden states h_s, shape `(batch, positions..., width)`.
        teacher: Teacher hidden states h_t, same shape.
        kind: `"mse"` for `mean_d (h_s − h_t)²` (TinyBERT), `"cosine"` for `1 − cos(h_s, h_t)` (DistilBERT),
            `"normalized"` for `‖h_s/‖h_s‖ − h_t/‖h_t‖‖²`, which is twice the cosine's value (PKD). Default `"mse"`.

    Returns:
        Distances, shape `(batch,)`.

    Raises:
        ValueError: `kind` is unknown.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import hidden_states
        >>> one, other = np.array([[[3.0, 0.0]]]), np.array([[[0.0, 1.0]]])
        >>> [float(hidden_states(one, other, kind=kind)[0]) for kind in ("mse", "cosine", "normalized")]
        [5.0, 1.0, 2.0]
    """
    student, teacher = ops.convert_to_tensor(student), ops.convert_to_tensor(teacher)
    return mean_per_sample(_distance(kind, "hidden_states")(student, teacher))


def _squared(student: Any, teacher: Any) -> Any:
    return ops.mean(ops.square(student - teacher), axis=-1)


def _normalized(student: Any, teacher: Any) -> Any:
    return ops.sum(ops.square(l2_normalize(student) - l2_normalize(teacher)), axis=-1)


def _cosine(student: Any, teacher: Any) -> Any:
    return 1 - ops.sum(l2_normalize(student) * l2_normalize(teacher), axis=-1)


_DISTANCES = {"mse": _squared, "cosine": _cosine, "normalized": _normalized}


def _distance(kind: str, asked_by: str) -> Callable[[Any, Any], Any]:
    """Return the distance at each position."""
    if kind not in _DISTANCES:
        raise ValueError(f"`{asked_by}` needs a kind of {list(_DISTANCES)}. Received: {kind!r}. Pass one of them.")
    return _DISTANCES[kind]


def layer_map(
    kind: Literal["skip", "last", "uniform"], student_count: int, teacher_count: int
) -> list[tuple[int, int]]:
    """Return which layer of the student learns from which of the teacher, as pairs of indices from 0.

    - `"skip"`, PKD-Skip: every k-th layer of the teacher, k the ratio of the counts, but not the last layers, which
      meet in the logits. 6 of 12 layers: 2, 4, 6, 8, 10, counted from 1.
    - `"last"`, PKD-Last: the top layers of the teacher, but not the last ones either. 6 of 12 layers: 7, 8, 9, 10, 11.
    - `"uniform"`, TinyBERT: every k-th layer with the last ones. 4 of 12 layers: 3, 6, 9, 12.

    Where the ratio is not whole, `"skip"` and `"uniform"` take the nearest layer.

    Args:
        kind: Name of the map.
        student_count: Number of layers of the student.
        teacher_count: Number of layers of the teacher, at least as many.

    Returns:
        Pairs (student's index, teacher's index).

    Raises:
        ValueError: There is no such map, the teacher has fewer layers, or the student too few.

    Example:
        >>> from kdkeras.losses import layer_map
        >>> layer_map("uniform", 4, 12)
        [(0, 2), (1, 5), (2, 8), (3, 11)]
    """
    if kind not in ("skip", "last", "uniform"):
        raise ValueError(f"`layer_map` needs 'skip', 'last' or 'uniform'. Received: {kind!r}. Pass one of them.")
    least = 1 if kind == "uniform" else 2
    if not least <= student_count <= teacher_count:
        raise ValueError(
            f"`layer_map` needs {least} student layers or more for '{kind}', and no fewer in the teacher. Received: "
            f"{student_count} and {teacher_count}. Count the layers of both."
        )
    if kind == "last":
        return [(place, teacher_count - student_count + place) for place in range(student_count - 1)]
    # ⌊x + ½⌋ in whole numbers
    numbers = [(2 * m * teacher_count + student_count) // (2 * student_count) for m in range(1, student_count + 1)]
    pairs = [(place, number - 1) for place, number in enumerate(numbers)]
    return pairs if kind == "uniform" else pairs[:-1]


@keras.saving.register_keras_serializable(package="kdkeras")
class HiddenStates(FeatureLoss):
    """The student's hidden states are near the teacher's at each position of a sequence.

    Per position `mean_d (h_s − h_t)²` (TinyBERT), `1 − cos(h_s, h_t)` (DistilBERT) or `‖h_s/‖h_s‖ − h_t/‖h_t‖‖²` (PKD).
    Where the widths differ, a trained linear map W without bias brings the student's to the teacher's, `h_s W`. Of
    several pairs of layers the sum is taken; `layer_map` gives the published maps from layer to layer. Embeddings are
    hidden states too: TinyBERT compares them in the same way.

    Values are per position, so that padding does not count where Keras knows the mask of the first of the student's
    layers. PKD compares the first position only, and its code divides by the width; TinyBERT has one W for all layers,
    here each pair has its own.

    Args:
        student_layer: Path of the student's layer, or a list of paths.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 1, that of TinyBERT and DistilBERT; PKD uses 10 to 1000.
        kind: `"mse"`, `"cosine"` or `"normalized"`. Default `"mse"`.
        name: Name in logs and progress bar. Default `"hidden_states"`.

    Attributes:
        projectors: The linear map W of each pair, or `None` where the widths agree, once connected.

    Raises:
        TypeError: A path is not a string.
        ValueError: `kind` is unknown, or `weight` is negative; when connected, the layers are missing, or their ranks
            or lengths differ.

    Example:
        >>> import kdkeras
        >>> from kdkeras.losses import layer_map
        >>> pairs = layer_map("skip", 3, 6)
        >>> loss = kdkeras.losses.HiddenStates(
        ...     [f"encoder{s}" for s, _ in pairs], [f"encoder{t}" for _, t in pairs], kind="normalized"
        ... )
        >>> loss.teacher_layers
        ('encoder1', 'encoder3')

    Reference:
        Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression, 2019, arXiv:1908.09355.
        Sanh, Debut, Chaumond, Wolf: DistilBERT, a distilled version of BERT, 2019, arXiv:1910.01108.
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2019, arXiv:1909.10351.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 1.0,
        *,
        kind: Kind = "mse",
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.kind = kind
        self._distance = _distance(kind, "HiddenStates")
        self.projectors: list[keras.layers.Dense | None] = []

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check rank and lengths of one pair, and create its projector where the widths differ."""
        if place == 0:
            self.projectors = []
        pair.check_equal_rank()
        pair.check_channels()
        lengths = zip(pair.student[1:-1], pair.teacher[1:-1], strict=True)
        if any(None not in (ours, theirs) and ours != theirs for ours, theirs in lengths):
            raise pair.error("sequences of equal length", "Give both models the same positions.")
        wider = pair.student[-1] != pair.teacher[-1]
        self.projectors.append(pair.projector(f"projector{place}", use_bias=False) if wider else None)

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the distance at each position, shape `(batch, positions...)`."""
        projector = self.projectors[place]
        return self._distance(student if projector is None else projector(student), teacher)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind}
