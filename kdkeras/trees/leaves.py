"""What stands in the leaves of a soft tree: class distributions, or means of target values.

Each kind says how leaves make a prediction and what they learn from; the tree knows neither classes nor means. P are
the path probabilities, shape (batch, leaves), and φ the variable of the leaves, shape (leaves, classes or targets).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kdkeras.trees import checks, objectives, transfer

# Steps of Adam are as large as its rate, and the logits of a leaf have further to go than the weights of a split: with
# leaves ten times as fast as splits, samples spread over leaves that know their class. 1, 3, 5, 10 and 20 were tried on
# parts of the training images of digits and Fashion-MNIST.
SPEED = 10.0


class ClassLeaves:
    """Leaves that hold a class distribution Q = softmax(10 φ).

    The factor lets leaves learn faster than splits under Adam and its kin, which ignore the scale of a gradient.

    Args:
        num_classes: Number of classes.
    """

    task = "classification"
    objectives = objectives.OBJECTIVES

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.metrics = [objectives.accuracy]
        self.initializer = keras.initializers.RandomNormal(stddev=0.01 / SPEED)

    def head(self, dtype: str) -> keras.layers.Layer:
        """A softmax returns normalised probabilities unchanged: this head gives losses and teachers the logits."""
        return keras.layers.Softmax(dtype=dtype, name="softmax")

    def values(self, phi: Any) -> Any:
        """Q."""
        return ops.softmax(SPEED * phi)

    def mix(self, leaves: Any, phi: Any) -> Any:
        """Log ΣPQ, by products: integer TFLite cannot represent sums of logarithms."""
        return ops.log(ops.maximum(ops.matmul(leaves, self.values(phi)), keras.config.epsilon()))

    def mix_in_training(self, log_path: Any, phi: Any) -> Any:
        """Log ΣPQ, in log space."""
        return objectives.mixture_log_probabilities(log_path, ops.log_softmax(SPEED * phi))

    def loss(self, objective: str, y: Any, log_path: Any, phi: Any) -> Any:
        """Cross-entropy in log space, from labels, one-hot or soft targets."""
        targets = ops.cast(objectives.as_probabilities(y, self.num_classes), log_path.dtype)
        return self.objectives[objective](targets, log_path, ops.log_softmax(SPEED * phi))

    def check_targets(self, y: Any, samples: int) -> np.ndarray:
        """Class numbers or class probabilities."""
        return checks.check_targets(y, samples, self.num_classes)

    def soft_targets(self, y: np.ndarray) -> np.ndarray:
        """Class probabilities."""
        return np.asarray(objectives.as_probabilities(y, self.num_classes))

    def teacher_targets(self, teacher: Any, x: np.ndarray, temperature: float) -> np.ndarray:
        """softmax(logits / temperature)."""
        return transfer.teacher_targets(teacher, x, self.num_classes, temperature)


class MeanLeaves:
    """Leaves that hold a mean vector μ = φ of target values.

    Args:
        num_targets: Number of target values.
    """

    task = "regression"
    objectives = objectives.SQUARED

    def __init__(self, num_targets: int) -> None:
        self.num_targets = num_targets
        self.metrics = []
        self.initializer = keras.initializers.RandomNormal(stddev=0.01)

    def head(self, dtype: str) -> keras.layers.Layer:
        """Nothing is done to a mean."""
        return keras.layers.Activation("linear", dtype=dtype, name="mean")

    def values(self, phi: Any) -> Any:
        """μ."""
        return ops.convert_to_tensor(phi)

    def mix(self, leaves: Any, phi: Any) -> Any:
        """ΣPμ."""
        return ops.matmul(leaves, phi)

    def mix_in_training(self, log_path: Any, phi: Any) -> Any:
        """ΣPμ."""
        return ops.matmul(ops.exp(log_path), phi)

    def loss(self, objective: str, y: Any, log_path: Any, phi: Any) -> Any:
        """Mean squared error."""
        targets = ops.reshape(ops.cast(y, log_path.dtype), (-1, self.num_targets))
        return self.objectives[objective](targets, log_path, ops.convert_to_tensor(phi))

    def check_targets(self, y: Any, samples: int) -> np.ndarray:
        """Numbers, (n, num_targets), or (n,) for one target."""
        return checks.check_values(y, samples, self.num_targets, "y")

    def soft_targets(self, y: np.ndarray) -> np.ndarray:
        """The targets as they are."""
        return y

    def teacher_targets(self, teacher: Any, x: np.ndarray, temperature: float) -> np.ndarray:
        """The teacher's values; a temperature has no meaning here."""
        return transfer.teacher_values(teacher, x, self.num_targets, temperature)
