"""The soft decision tree of Frosst and Hinton as a Keras model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.inputs import is_array_like
from kdkeras.trees import checks, feature_subsets, objectives, routing
from kdkeras.trees.inverse_temperature import LEARNED, InverseTemperature
from kdkeras.trees.leaves import ClassLeaves, MeanLeaves
from kdkeras.trees.optimizer import CosineDecay, default_optimizer
from kdkeras.trees.reasons import Answerable

EPOCHS = 80  # from cross-validation on digits, between 40 and 100


@keras.saving.register_keras_serializable(package="kdkeras")
class SoftDecisionTree(Answerable, keras.Model):
    """A decision tree that is trained by gradient descent and explains each prediction by one path.

    Every split i weighs all features and sends a sample right with probability p_i = σ(β(x·w_i + b_i)); every leaf ℓ
    holds one class distribution Q_ℓ = softmax(10 φ_ℓ). The prediction is the mixture Σ_ℓ P_ℓ Q_ℓ, with P_ℓ the product
    of the probabilities on the way to the leaf. Calling the tree returns the mixture, shape (batch, num_classes), so
    it evaluates, exports and distils like any softmax model.

    `fit` and `distill` compile the tree by themselves where `compile` was not called, and centre a fresh tree on the
    mean of an array `x`. Features should have similar ranges (images in [0, 1], columns standardised): the noise is
    relative to them, and so are the weights and the importances.

    Args:
        depth: Levels of splits, 1…12; the tree has 2^depth − 1 splits and 2^depth leaves.
        num_classes: Number of classes.
        penalty: Weight λ of the balance penalty, which keeps splits from sending all samples one way. Larger trains
            more of the tree but makes paths less crisp. Default 0.1, from cross-validation on digits.
        noise: Standard deviation, in 0…1, of Gaussian noise on the features in training, against overfitting.
            Default 0.1, from cross-validation on digits.
        objective: `"mixture"` (default): cross-entropy of the mixture. `"path"`: expected cross-entropy of a single
            leaf, so that each leaf must be right on its own; see `kdkeras.trees.objectives`.
        beta: Inverse temperature β of the splits. Larger starts with crisper splits. `"learned"`: one trainable β per
            split, from 1; since the weights can grow as well, it changes how fast splits become crisp, not what they
            can express. Default 1. A number may be set between steps, and `kdkeras.callbacks.Anneal(tree, "beta",
            schedule)` does so.
        max_features: How many features each split sees, drawn at random with Keras' seed when the tree is built: a
            number, a share in 0…1, `"sqrt"` or `"log2"`, as in scikit-learn. Fewer make shorter explanations. Default:
            None, all.
        **kwargs: Passed to `keras.Model` (`name`, `dtype`).

    Attributes:
        sample_shape: Shape of one sample, known once the tree is built.
        history: Keras' `History` of the latest training.

    Raises:
        TypeError: `depth` or `num_classes` is not an integer, or `beta` or `max_features` is neither number nor name.
        ValueError: An argument is out of its range.

    Example:
        >>> import keras, kdkeras
        >>> import numpy as np
        >>> _ = keras.utils.set_random_seed(0)
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> tree = kdkeras.SoftDecisionTree(depth=2, num_classes=2)
        >>> history = tree.fit(x, y, epochs=20, verbose=0)
        >>> tree.predict(np.array([[2.0, 0.0], [-2.0, 0.0]], "float32"), verbose=0).argmax(axis=1)
        array([1, 0])
        >>> bool(tree.feature_importances_[0] > 0.6)
        True

    Reference:
        [Frosst & Hinton, 2017](https://arxiv.org/abs/1711.09784)
    """

    def __init__(
        self,
        depth: int = 6,
        num_classes: int = 10,
        *,
        penalty: float = 0.1,
        noise: float = 0.1,
        objective: str = "mixture",
        beta: float | str = 1.0,
        max_features: int | float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.leaves = self._make_leaves(num_classes)
        checks.check_settings(depth, penalty, noise, objective, self.leaves.objectives)
        feature_subsets.check_max_features(max_features)
        self.depth = int(depth)
        self.num_classes = int(num_classes)  # the size of a leaf
        self.penalty = float(penalty)
        self.noise = float(noise)
        self.objective = objective
        self.max_features = max_features
        self.sample_shape: tuple[int, ...] | None = None
        self.jitter = keras.layers.GaussianNoise(self.noise, dtype=self.variable_dtype, name="jitter")
        self.splits = keras.layers.Dense(
            2**depth - 1, kernel_initializer="lecun_normal", dtype=self.dtype_policy, name="splits"
        )
        self.sharpness = InverseTemperature(beta, 2**depth - 1, dtype=self.variable_dtype, name="beta")
        self.head = self.leaves.head(self.variable_dtype)
        self._depths = routing.node_depths(depth)
        self._decays_rate = False  # whether `fit` lowers the learning rate: with the default optimizer only
        self._has_own_loss = True
        self._mode = "mixture"
        self._latest: tuple[Any, Any] | None = None  # output and log P of the latest call in training
        self._leaf_functions: dict[str, Any] = {}

    def _make_leaves(self, num_classes: int) -> ClassLeaves | MeanLeaves:
        checks.check_integer("num_classes", num_classes, minimum=2)
        return ClassLeaves(int(num_classes))

    @property
    def beta(self) -> float | str:
        """Inverse temperature of the splits, or `"learned"`; `betas` has the numbers then."""
        return LEARNED if self.sharpness.learned else float(self.sharpness.numbers())

    @beta.setter
    def beta(self, value: float) -> None:
        self.sharpness.set(value)

    @property
    def betas(self) -> np.ndarray:
        """Inverse temperature of every split, shape (2^depth − 1,)."""
        return np.broadcast_to(self.sharpness.numbers(), self._depths.shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("depth", "num_classes", "penalty", "noise", "objective", "beta", "max_features")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the variables for samples of `input_shape[1:]`."""
        if len(input_shape) < 2 or None in input_shape[1:]:
            raise ValueError(
                f"SoftDecisionTree needs samples of a known shape (batch, features) or (batch, ...). Received: "
                f"{tuple(input_shape)}. Reshape or resize them first."
            )
        self.sample_shape = tuple(input_shape[1:])
        self.input_spec = keras.layers.InputSpec(shape=(None, *self.sample_shape))
        features = math.prod(self.sample_shape)
        size = feature_subsets.subset_size(self.max_features, features)
        if size < features:
            self._restrict_splits(features, size)
        self.splits.build((None, features))
        self.center = self._statistic(np.zeros(features), "center")  # of the samples: the splits learn around it
        self.phi = self.add_weight(  # what `leaves` makes Q or μ of
            shape=(2**self.depth, self.num_classes),
            initializer=self.leaves.initializer,
            autocast=False,
            name="phi",
        )
        # Running means over the training batches; they begin as those of a tree whose splits are all even.
        even = 2.0**-self._depths
        self.node_mass = self._statistic(even, "node_mass")  # of P_i
        self.right_mass = self._statistic(even / 2, "right_mass")  # of P_i p_i
        self.built = True

    def _restrict_splits(self, features: int, size: int) -> None:
        """Let each split see `size` features, the same ones for good."""
        mask = self.add_weight(
            shape=(features, 2**self.depth - 1),
            initializer=functools.partial(feature_subsets.random_mask, size=size),
            trainable=False,
            autocast=False,
            name="feature_mask",
        )
        subset = feature_subsets.Subset(mask)
        self.splits.kernel_initializer, self.splits.kernel_constraint = subset.initializer, subset

    def _statistic(self, start: np.ndarray, name: str) -> keras.Variable:
        def initializer(shape: tuple[int, ...], dtype: str | None = None) -> Any:
            return ops.convert_to_tensor(start, dtype)

        return self.add_weight(shape=start.shape, initializer=initializer, trainable=False, autocast=False, name=name)

    def call(self, x: Any, training: bool = False) -> Any:
        """Return the class probabilities of the mixture.

        Args:
            x: Samples, shape (batch, *sample_shape).
            training: Whether to add noise to `x` and the balance penalty to `losses`, and to update the running means.

        Returns:
            Tensor of shape (batch, num_classes).
        """
        logits = self.node_logits(x, training)
        if not training:
            _, leaves = routing.reach_probabilities(logits)
            return self.head(self.leaves.mix(leaves, self.phi))
        log_path = routing.log_path_probabilities(logits)
        self.add_loss(self.penalty * self._balance(log_path))
        y_pred = self.head(self.leaves.mix_in_training(log_path, self.phi))
        self._latest = y_pred, log_path
        return y_pred

    def count_macs(self) -> int:
        """Return the multiply-accumulates of one sample: splits and mixture."""
        leaves = 2**self.depth
        return (leaves - 1) * math.prod(self.sample_shape) + leaves * self.num_classes

    def node_logits(self, x: Any, training: bool = False) -> Any:
        """Return z = β((x − center)·w + b) of every split; positive leans right.

        Args:
            x: Samples, shape (batch, *sample_shape).
            training: Whether to add noise to the samples.

        Returns:
            Tensor of shape (batch, 2^depth − 1).
        """
        flat = ops.reshape(ops.cast(x, self.variable_dtype), (-1, math.prod(self.sample_shape)))
        centred = self.jitter(flat - self.center, training=training)
        return self.sharpness(ops.cast(self.splits(centred), self.variable_dtype))

    def _balance(self, log_path: Any) -> Any:
        """Update the running means with a batch, and return the penalty of the updated ones.

        The window grows as 2^d, because a split at depth d sees that much less of each batch. The gradient flows
        through the batch's part of the mean.
        """
        batch_mass, batch_right = routing.masses(ops.mean(ops.exp(log_path), axis=0))
        share = ops.convert_to_tensor(2.0**-self._depths, self.variable_dtype)  # of this batch in the running mean
        mass = (1 - share) * self.node_mass + share * batch_mass
        right = (1 - share) * self.right_mass + share * batch_right
        self.node_mass.assign(mass)
        self.right_mass.assign(right)
        return objectives.balance_penalty(right, mass, self._depths)

    def compile(self, optimizer: Any = None, loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """Configure the training, as `keras.Model.compile` does, with the tree's own defaults.

        Args:
            optimizer: Default: `kdkeras.trees.default_optimizer()`, Adam with weight decay on the splits, whose rate
                `fit` lowers from 0.02 to 0 along a cosine over the epochs. A given optimizer is used as it is.
            loss: A Keras loss on the class probabilities. Default: the tree's `objective`, computed in log space from
                labels, one-hot or soft targets.
            metrics: As in Keras.
            **kwargs: As in Keras.
        """
        self._decays_rate = optimizer is None
        self._has_own_loss = loss is None
        self._leaf_functions = {}
        super().compile(
            optimizer=default_optimizer() if optimizer is None else optimizer,
            loss=loss,
            metrics=metrics,
            **kwargs,
        )

    def get_compile_config(self) -> dict[str, Any]:
        """Return what `compile` was given."""
        config = super().get_compile_config()
        return config | {"optimizer": None} if self._decays_rate and config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as before saving."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the objective plus the balance penalty, or the compiled loss plus the penalty."""
        if not self._has_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        of_call, self._latest = self._latest, None
        if of_call is not None and of_call[0] is y_pred:  # the step has called the tree: route once, with one noise
            log_path = of_call[1]
        else:
            log_path = routing.log_path_probabilities(self.node_logits(x, training))
        per_sample = self.leaves.loss(self.objective, y, log_path, self.phi)  # (b,)
        if sample_weight is not None:
            per_sample = per_sample * ops.cast(ops.reshape(sample_weight, (-1,)), per_sample.dtype)
        return ops.mean(per_sample) + sum(self.losses)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: str | int = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train on labels or soft targets.

        Args:
            x: Samples (n, ...) as an array, or whatever else `keras.Model.fit` takes. Arrays are checked first.
            y: Integer labels (n,) or (n, 1), or one-hot or soft targets (n, num_classes).
            batch_size: As in Keras, 32 by default.
            epochs: Default 80.
            verbose: As in Keras.
            callbacks: As in Keras.
            **kwargs: As in Keras: `validation_data`, `validation_split`, `sample_weight`, `class_weight`, ...

        Returns:
            Keras' `History`, also kept as `history`.

        Raises:
            TypeError: Samples or targets are not numbers.
            ValueError: There are no samples, some are NaN, or shapes or labels do not fit the tree.
        """
        if is_array_like(x):
            x = checks.check_samples(x, self.sample_shape)
            y = self.leaves.check_targets(y, len(x))
            self._centre(x)
        if not self.compiled:
            self.compile(metrics=self.leaves.metrics)
        epochs = EPOCHS if epochs is None else epochs
        if self._decays_rate:
            callbacks = [*keras.tree.flatten(callbacks or []), CosineDecay(epochs)]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def _centre(self, x: np.ndarray) -> None:
        """Let the splits of a tree that was never trained start around the mean sample: they then train better."""
        if not self.built:
            self.build(x.shape)
        if np.array_equal(self.right_mass.numpy(), (2.0**-self._depths / 2).astype(self.variable_dtype)):
            self.center.assign(x.reshape(len(x), -1).mean(axis=0, dtype="float64"))

    def distill(
        self,
        teacher: keras.Model | Callable[[Any], Any],
        x: Any,
        y: Any = None,
        *,
        temperature: float = 1.0,
        alpha: float = 1.0,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation_data: tuple[Any, Any] | None = None,
        verbose: str | int = "auto",
        callbacks: Any = None,
    ) -> SoftDecisionTree:
        """Train on what a teacher says of `x`; no labels are needed.

        The teacher runs once, before the training. The reported accuracy is the agreement with the teacher's class.

        Args:
            teacher: A Keras classifier that ends in logits or softmax, or a function of `x` that returns class
                probabilities (n, num_classes), such as a forest's `predict_proba`.
            x: Samples, shape (n, ...), with or without known labels.
            y: Their true targets as in `fit`, of which the tree learns the share 1 − `alpha`. Default: none.
            temperature: The targets are softmax(teacher logits / temperature). Default 1.
            alpha: Share of the teacher in the targets, in 0…1: α · teacher + (1 − α) · truth. Default 1, the teacher
                alone.
            epochs: Default 80.
            batch_size: As in Keras, 32 by default.
            validation_data: Samples and their true targets, labels or probabilities.
            verbose: As in Keras.
            callbacks: As in Keras.

        Returns:
            The tree itself, with the training's `History` as `history`.

        Raises:
            TypeError: The teacher cannot be called, or the samples are not numbers.
            ValueError: The teacher's classes are not `num_classes`, its rows do not sum to 1, `temperature` is not
                above 0, `alpha` is not in 0…1 or below 1 without `y`, or samples or targets do not fit the tree.

        Example:
            >>> import keras, numpy as np
            >>> from kdkeras.trees import SoftDecisionTree
            >>> _ = keras.utils.set_random_seed(0)
            >>> x = np.linspace(-1, 1, 50)[:, None]
            >>> def teacher(x):
            ...     p = 1 / (1 + np.exp(-9 * x))
            ...     return np.concatenate([1 - p, p], axis=1)
            >>> tree = SoftDecisionTree(depth=1, num_classes=2).distill(teacher, x, epochs=40, verbose=0)
            >>> tree.history.history["accuracy"][-1] > 0.9
            True
        """
        x = checks.check_samples(x, self.sample_shape)
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be a share in 0…1. Received: {alpha}.")
        if alpha < 1 and y is None:
            raise ValueError(f"`alpha` below 1 needs the true targets. Received: alpha={alpha} without y. Pass `y`.")
        targets = self.leaves.teacher_targets(teacher, x, temperature)
        if y is not None:
            truth = self.leaves.soft_targets(self.leaves.check_targets(y, len(x)))
            targets = alpha * targets + (1 - alpha) * truth
        if validation_data is not None:
            x_valid, y_valid = validation_data
            # One-hot, as the teacher's targets: Keras fixes the form of the targets for its metrics.
            validation_data = (x_valid, self.leaves.soft_targets(self.leaves.check_targets(y_valid, len(x_valid))))
        self.fit(x, targets, batch_size, epochs, verbose=verbose, callbacks=callbacks, validation_data=validation_data)
        return self

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        mode: str = "mixture",
    ) -> np.ndarray:
        """Return class probabilities.

        Args:
            x: As in Keras.
            batch_size: As in Keras.
            verbose: As in Keras.
            steps: As in Keras.
            callbacks: As in Keras.
            mode: `"mixture"`: all leaves together, the most accurate. `"best_leaf"`: the leaf that is reached with
                the greatest probability, the one that `decision_path` explains. `"greedy"`: the leaf reached by
                taking the likelier branch at each split, as one would on paper.

        Returns:
            float32 array of shape (n, num_classes).

        Raises:
            ValueError: The mode does not exist.
        """
        if mode not in routing.MODES:
            raise ValueError(f"`mode` must be one of {routing.MODES}. Received: {mode!r}.")
        if mode == "mixture":
            return super().predict(x, batch_size, verbose, steps, callbacks)
        self.anatomy()  # raises where there are no splits yet
        # Keras keeps one compiled predict function; each mode brings its own, so that none is compiled twice.
        of_mixture, self.predict_function = self.predict_function, self._leaf_functions.get(mode)
        self._mode = mode
        try:
            return super().predict(x, batch_size, verbose, steps, callbacks)
        finally:
            self._leaf_functions[mode] = self.predict_function
            self._mode, self.predict_function = "mixture", of_mixture

    def predict_step(self, data: Any) -> Any:
        """Return the class probabilities of one batch, in the mode that `predict` was asked for."""
        if self._mode == "mixture":
            return super().predict_step(data)
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        leaf = routing.choose_leaf(self.node_logits(x), self._mode)
        return ops.take(self.leaves.values(self.phi), leaf, axis=0)
