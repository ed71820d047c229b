"""Factor transfer: the teacher's features, paraphrased, are translated by the student (Kim et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kdkeras.inputs import check_arrays, input_specs, is_array_like
from kdkeras.losses._maps import pool_to_smaller
from kdkeras.losses._paraphraser import Paraphraser, Reconstruction, encoder
from kdkeras.losses.base import checked_number
from kdkeras.losses.feature_loss import FeatureLoss, Pair
from kdkeras.ops import flatten_samples, l2_normalize
from kdkeras.signals import Extractor, SignalSpec


def factor_transfer(student_factors: Any, teacher_factors: Any, *, power: float = 1.0) -> Any:
    """Return `mean |f_s / ‖f_s‖ − f_t / ‖f_t‖|^p` of each sample.

    Args:
        student_factors: What the translator makes of the student's features, f_s, shape `(batch, ..., factors)`.
        teacher_factors: What the paraphraser makes of the teacher's, f_t, same shape.
        power: Power p, at least 1. Default 1, as in the paper's code.

    Returns:
        Mean distances, shape `(batch,)`.

    Example:
        >>> import numpy as np
        >>> from kdkeras.losses import factor_transfer
        >>> np.asarray(factor_transfer(np.array([[2.0, 0.0]]), np.array([[0.0, 7.0]]))).tolist()
        [1.0]
    """
    ours, theirs = (l2_normalize(flatten_samples(factors)) for factors in (student_factors, teacher_factors))
    return ops.mean(ops.power(ops.abs(ours - theirs), power), axis=-1)


@keras.saving.register_keras_serializable(package="kdkeras")
class FactorTransfer(FeatureLoss):
    """A translator beside the student imitates the factors that a paraphraser finds in the teacher's features.

    Per sample `mean |f_s / ‖f_s‖ − f_t / ‖f_t‖|^p`. The paraphraser is an autoencoder of three 3×3 convolutions and
    three transposed ones; its code, k factors per channel, is f_t. The translator, three 3×3 convolutions like those of
    the encoder, makes f_s of the student's features, and is trained with the student. Larger maps of factors are
    average-pooled to the smaller size; of several pairs of layers the sum is taken. The value is of the whole map:
    masked positions take part.

    **The paraphraser is trained first**, without labels: call `fit_paraphraser(teacher, x)` before `Distiller.fit`,
    which raises otherwise. It does not change after that, and is saved with the loss.

    Distance, networks and weight are those of the paper's code: no BatchNorm, leaky ReLU of slope 0.1, the mean of
    absolute differences. RepDistiller compares attention maps of the factors instead, with weight 200, and has
    BatchNorm in the translator. Here the paraphraser's last convolution is linear, because a tapped layer may be
    negative; it is trained on the squared error, as in RepDistiller (the paper's code has the absolute one), by Adam.

    Args:
        student_layer: Path of the student's layer, maps of shape `(batch, height, width, channels)`, or a list of
            paths; the paper takes the end of the last stage.
        teacher_layer: Path of the teacher's layer, or as many in a list.
        weight: Factor on this term in the total loss. Default 500, as in the paper's code.
        rate: Number of factors per channel of the teacher's layer, k. Default 0.5, as in the paper's code.
        power: Power p, at least 1. Default 1.
        name: Name in logs and progress bar. Default `"factor_transfer"`.

    Attributes:
        paraphrasers: The paraphraser of each pair. Those of one teacher may be given to the losses of other students:
            `loss.paraphrasers = other.paraphrasers`.
        translators: The translator of each pair.

    Raises:
        TypeError: `rate` or `power` is not a number.
        ValueError: `weight` is negative, `rate` not above 0 or `power` below 1; when connected, ranks or sizes do not
            fit; when called, the paraphraser is not trained.

    Example:
        >>> import kdkeras
        >>> import numpy as np
        >>> teacher = kdkeras.testing.tiny_stages()
        >>> loss = kdkeras.losses.FactorTransfer("relu2", "relu2")
        >>> history = loss.fit_paraphraser(teacher, np.ones((4, 8, 8, 1)), epochs=2, verbose=0)
        >>> len(history.history["loss"])
        2

    Reference:
        Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018,
        arXiv:1802.04977.
    """

    def __init__(
        self,
        student_layer: str | Sequence[str],
        teacher_layer: str | Sequence[str],
        weight: float = 500.0,
        *,
        rate: float = 0.5,
        power: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight, name=name)
        self.rate = checked_number("FactorTransfer", "rate", rate, minimum=0.0, exclusive=True)
        self.power = checked_number("FactorTransfer", "power", power, minimum=1.0)
        self.paraphrasers: list[Paraphraser] = [Paraphraser(self.rate) for _ in self.teacher_layers]
        self.translators: list[keras.Model] = []

    def fit_paraphraser(
        self, teacher: keras.Model, data: Any, epochs: int = 30, *, optimizer: Any = "adam", **kwargs: Any
    ) -> keras.callbacks.History:
        """Train the paraphrasers to reconstruct the teacher's features; neither labels nor a student are needed.

        The teacher runs in inference mode, and stays as it is. A further call trains further.

        Args:
            teacher: The teacher.
            data: What the teacher takes: arrays, or a dataset; labels in it are not looked at.
            epochs: Number of epochs. Default 30, as in RepDistiller.
            optimizer: Optimizer name or instance. Default `"adam"`.
            **kwargs: Further arguments of `keras.Model.fit`, such as `batch_size`.

        Returns:
            The history: `loss` is the mean squared error of the reconstruction, summed over the layers.

        Raises:
            ValueError: The teacher has no such layer, or one that is no map; the data are not what it takes.
        """
        if is_array_like(data):
            check_arrays(teacher, data, name="data")
        inputs = input_specs(teacher)
        if inputs is not None:
            features = Extractor(teacher, self.teacher_layers, several_outputs=True).spec(inputs).features
            for path, paraphraser in zip(self.teacher_layers, self.paraphrasers, strict=True):
                _prepare(paraphraser, path, features[path])
        model = Reconstruction(teacher, self.teacher_layers, self.paraphrasers)
        for paraphraser in self.paraphrasers:
            paraphraser.trainable = True
        model.compile(optimizer=optimizer)
        try:
            history = model.fit(data, epochs=epochs, **kwargs)
        finally:
            for paraphraser in self.paraphrasers:
                paraphraser.trainable = False
        for paraphraser in self.paraphrasers:
            paraphraser.fitted = True
        return history

    def connect(self, student: SignalSpec, teacher: SignalSpec) -> None:
        """Check ranks and sizes, and create the translators; paraphrasers that were trained stay."""
        self.translators = []
        super().connect(student, teacher)

    def connect_pair(self, place: int, pair: Pair) -> None:
        """Check ranks and sizes of one pair, and create its translator."""
        pair.check_rank(4)
        pair.check_sizes()
        pair.check_channels()
        paraphraser = self.paraphrasers[place]
        _prepare(paraphraser, self.teacher_layers[place], pair.teacher)
        paraphraser.trainable = False
        factors = paraphraser.encoder.output_shape[-1]
        self.translators.append(encoder(pair.student[-1], factors, "translator"))

    def compare_pair(self, place: int, student: Any, teacher: Any) -> Any:
        """Return the loss of each sample, shape `(batch,)`."""
        paraphraser = self.paraphrasers[place]
        if not paraphraser.fitted:
            raise ValueError(
                "`FactorTransfer` needs a paraphraser that was trained on the teacher's features. Received: an "
                f"untrained one for layer '{self.teacher_layers[place]}'. Call `fit_paraphraser(teacher, x)` first."
            )
        factors = pool_to_smaller(self.translators[place](student), ops.stop_gradient(paraphraser.encoder(teacher)))
        return factor_transfer(*factors, power=self.power)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rate": self.rate, "power": self.power}


def _prepare(paraphraser: Paraphraser, path: str, shape: tuple[int | None, ...]) -> None:
    """Create the variables of a paraphraser, or check that it has those for a layer."""
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            "`FactorTransfer` needs maps of shape (batch, height, width, channels). Received: teacher "
            f"'{path}' {shape}. Choose another layer."
        )
    if not paraphraser.built:
        paraphraser.build(shape)
    if paraphraser.channels != shape[-1]:
        raise ValueError(
            f"`FactorTransfer` has a paraphraser for {paraphraser.channels} channels. Received: teacher '{path}' "
            f"{shape}. Make a new loss for another teacher."
        )
