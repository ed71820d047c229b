"""Several teachers that answer as one."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from kdkeras.layer_paths import layer_paths
from kdkeras.signals import SignalSpec
from kdkeras.teachers.base import TeacherModel
from kdkeras.teachers.combining import certainty_weights, mean_logits, mixture_logits

_COMBINE = ("mean", "weighted", "confidence", "random")
_OF = ("logits", "probabilities")


@keras.saving.register_keras_serializable(package="kdkeras")
class Ensemble(TeacherModel):
    """Several models that take the same inputs, as one teacher.

    The logits z_m of the members are read behind their softmax or sigmoid, and combined with weights w_m that sum to 1:

    - `of="logits"`: z = Σ_m w_m z_m, the geometric mean of the distributions. A member's veto counts: a class that one
      of them rules out is ruled out.
    - `of="probabilities"`: p = Σ_m w_m p_m, the arithmetic mean, in log space. A member's vote counts: a class that
      one of them is sure of keeps its share. Learning from it is the same as the weighted sum of one divergence per
      member (at temperature 1), as in most papers on several teachers.

    `combine` says where the weights come from:

    - `"mean"`: all the same.
    - `"weighted"`: `weights`, divided by their sum.
    - `"confidence"`: for each sample (each position, where outputs are dense), w_m = (1 − H_m / Σ_j H_j) / (M − 1)
      with the entropy H_m of member m's distribution; for sigmoids the sum over the units. These are the entropy-based
      weights of Kwon et al. (2020), which need no labels; CA-MKD (Zhang et al. 2022) puts the cross-entropy to the
      labels in their place, and a teacher sees no labels here. It rewards members that are over-confident: calibrate
      them first if they differ in that.
    - `"random"`: in a call with `training=True`, as `Distiller.fit` makes it, one member for the whole batch, drawn
      anew each time, and only that one is run; otherwise as `"mean"`. Layers of its members cannot be tapped.

    If all members end in a softmax, so does the ensemble, likewise for sigmoids; where some end in logits, it ends in
    logits. Members run with `training=False` always. Their layers are tapped by path: `"member_name/conv4"`.

    Args:
        models: Two or more models with one output each, of one shape, and with different names.
        combine: `"mean"` (default), `"weighted"`, `"confidence"` or `"random"`.
        weights: One positive number per model for `"weighted"`, else `None`. As an attribute it is `member_weights`,
            because `weights` of a Keras model are its variables.
        of: What the weights are applied to, `"logits"` (default) or `"probabilities"`.
        seed: Seed of the draws of `"random"`; by default another one each time.
        name: Name of the model. Default `"ensemble"`.

    Attributes:
        models: The members.
        member_weights: The argument `weights`.

    Raises:
        TypeError: A member is no Keras model.
        ValueError: Fewer than two members, equal names, an unknown option, weights that do not fit; or, when the
            inputs are known, members that differ in inputs, output shape or kind of head, or have several outputs.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.teachers import Ensemble
        >>> def classifier(name):
        ...     layers = [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
        ...     return keras.Sequential(layers, name=name)
        >>> teacher = Ensemble([classifier("first"), classifier("second")], combine="confidence", of="probabilities")
        >>> teacher.head, tuple(teacher(np.zeros((2, 4))).shape)
        ('softmax', (2, 3))

    Reference:
        Kwon, Na, Lee, Kim: Adaptive Knowledge Distillation Based on Entropy, ICASSP 2020.
        Zhang, Chen, Wang: Confidence-Aware Multi-Teacher Knowledge Distillation, ICASSP 2022, arXiv:2201.00007.
        Fukuda et al.: Efficient Knowledge Distillation from an Ensemble of Teachers, Interspeech 2017 (a random
        teacher for each batch).
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        combine: Literal["mean", "weighted", "confidence", "random"] = "mean",
        weights: Sequence[float] | None = None,
        of: Literal["logits", "probabilities"] = "logits",
        seed: int | None = None,
        name: str = "ensemble",
    ) -> None:
        _check_members(models)
        for option, value, known in (("combine", combine, _COMBINE), ("of", of, _OF)):
            if value not in known:
                raise ValueError(f"`Ensemble` needs {option} to be one of {', '.join(known)}. Received: {value!r}.")
        _check_weights(weights, combine, len(models))
        super().__init__(models, name=name)
        self.models = list(models)
        self.combine = combine
        self.member_weights = None if weights is None else [float(weight) for weight in weights]
        self.of = of
        self.seed = seed
        self._draws = keras.random.SeedGenerator(seed) if combine == "random" else None
        if self.inputs is not None:
            self._connect(self.input)

    @property
    def stochastic(self) -> bool:
        """Whether a call with `training=True` gives different answers each time."""
        return self.combine == "random" or super().stochastic

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the combined answer.

        Args:
            inputs: What each member takes.
            training: Whether `combine="random"` draws a member. The members themselves run in inference mode always.

        Returns:
            Probabilities where all members return probabilities, else logits, shape `(batch, ..., units)`, float32.
        """
        if self.combine == "random":
            self._refuse_taps()
            if training:
                drawn = keras.random.randint((), 0, len(self.models), seed=self._draws)
                branches = [functools.partial(self._read, place, training=True) for place in range(len(self.models))]
                return self._end(ops.switch(drawn, branches, inputs), head=self._head)
        read = [self._read(place, inputs, training) for place in range(len(self.models))]
        return self._end(self._combined(ops.stack(read)), head=self._head)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        models = [keras.saving.serialize_keras_object(model) for model in self.models]
        options = {"combine": self.combine, "weights": self.member_weights, "of": self.of, "seed": self.seed}
        return {"models": models, **options, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Ensemble:
        """Rebuild the ensemble from `get_config`."""
        models = [keras.saving.deserialize_keras_object(model) for model in config["models"]]
        return cls(**{**config, "models": models})

    def _combined(self, logits: Any) -> Any:
        """Return the logits of the combined answer from stacked ones, `(models, batch, ..., units)`."""
        binary = self._head == "sigmoid"
        if self.combine == "confidence":
            weights = certainty_weights(logits, binary=binary)
        else:
            given = self.member_weights or [1.0] * len(self.models)
            shares = [weight / math.fsum(given) for weight in given]
            weights = ops.reshape(ops.convert_to_tensor(shares, "float32"), (-1,) + (1,) * (len(logits.shape) - 1))
        if self.of == "probabilities":
            return mixture_logits(logits, weights, binary=binary)
        return mean_logits(logits, weights)

    def _settle(self, specs: Sequence[SignalSpec]) -> str:
        shapes = {spec.model: spec.logits for spec in specs}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"`Ensemble` needs models with outputs of equal shape. Received: {shapes}. For different class sets, "
                "wrap each in `kdkeras.teachers.ClassMap`."
            )
        heads = {spec.model: spec.head or "linear" for spec in specs}
        kinds = set(heads.values())
        if "sigmoid" in kinds and len(kinds) > 1:
            raise ValueError(f"`Ensemble` needs models with one kind of head. Received: {heads}. End all in the same.")
        head = kinds.pop() if len(kinds) == 1 else "linear"  # softmax beside logits: exclusive classes in both
        if (self.combine == "confidence" or self.of == "probabilities") and head != "sigmoid":
            self._refuse_one_unit(specs[0].logits, head)
        return head

    def _refuse_one_unit(self, shape: tuple[int | None, ...], head: str) -> None:
        if shape[-1] == 1:
            raise ValueError(
                f"`Ensemble` needs class probabilities for combine={self.combine!r}, of={self.of!r}. Received: models "
                f"with one unit ending in {head}. Use of='logits' with combine='mean' for regression, or end binary "
                "classifiers in `activation='sigmoid'`."
            )

    def _refuse_taps(self) -> None:
        """A tensor of a branch is unknown outside it, and a member that was not drawn has none."""
        watched = layer_paths(self).items()
        tapped = [
            # A tap stands in the layer's own dict while it records. Softmax layers are watched as heads too.
            path
            for path, layer in watched
            if "/" in path and "call" in vars(layer) and not isinstance(layer, keras.layers.Softmax)
        ]
        if tapped:
            raise ValueError(
                f"`Ensemble` with combine='random' runs one member per step, so no layer of a member can be tapped. "
                f"Received: taps at {tapped}. Use combine='mean', or losses on the outputs alone."
            )


def _check_members(models: Sequence[keras.Model]) -> None:
    for model in models:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`Ensemble` needs Keras models. Received: {model!r} of type {type(model).__name__}.")
    names = [model.name for model in models]
    if len(models) < 2:
        raise ValueError(f"`Ensemble` needs two models or more. Received: {names}. Use a single one as it is.")
    if len(set(names)) < len(names):
        raise ValueError(
            f"`Ensemble` needs models with different names, by which their layers are tapped. Received: {names}. "
            "Set `model.name`."
        )


def _check_weights(weights: Sequence[float] | None, combine: str, models: int) -> None:
    if (weights is None) == (combine == "weighted"):
        raise ValueError(
            f"`Ensemble` needs weights for combine='weighted' and only for it. Received: combine={combine!r}, "
            f"weights={weights}."
        )
    if weights is None:
        return
    if len(weights) != models or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(
            f"`Ensemble` needs one positive weight for each of {models} models. Received: weights={list(weights)}. "
            "Leave a model out rather than giving it 0."
        )
