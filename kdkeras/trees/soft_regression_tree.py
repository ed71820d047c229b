"""A soft decision tree whose leaves hold means of target values."""

from __future__ import annotations

from typing import Any

import keras

from kdkeras.trees import checks
from kdkeras.trees.leaves import MeanLeaves
from kdkeras.trees.soft_decision_tree import SoftDecisionTree


@keras.saving.register_keras_serializable(package="kdkeras")
class SoftRegressionTree(SoftDecisionTree):
    """A soft decision tree for regression: every leaf ℓ holds a mean vector μ_ℓ, and the prediction is Σ_ℓ P_ℓ μ_ℓ.

    The splits are those of `SoftDecisionTree`, and so is what can be done with the tree, except for what needs classes:
    `counterfactual`, `plot` and `min_mass=` refuse. `objective="mixture"` is the squared error of the prediction,
    `"path"` the expected one of a single leaf. `distill` learns what a regression model predicts.

    Targets should have a mean near 0 and a standard deviation near 1, as those of `kdkeras.datasets` have: leaves begin
    near 0, and the balance penalty is relative to the squared error.

    Args:
        depth: Levels of splits, 1…12.
        num_targets: Number of target values.
        **kwargs: The other settings of `SoftDecisionTree`: `penalty`, `noise`, `objective`, `beta`, `max_features`.

    Raises:
        TypeError: `depth` or `num_targets` is not an integer.
        ValueError: An argument is out of its range.

    Example:
        >>> import keras, kdkeras
        >>> import numpy as np
        >>> _ = keras.utils.set_random_seed(0)
        >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
        >>> tree = kdkeras.SoftRegressionTree(depth=2)
        >>> history = tree.fit(x, np.sign(x[:, 0]), epochs=30, verbose=0)
        >>> tree.predict(np.array([[2.0, 0.0], [-2.0, 0.0]], "float32"), verbose=0).round()
        array([[ 1.],
               [-1.]], dtype=float32)

    Reference:
        [Frosst & Hinton, 2017](https://arxiv.org/abs/1711.09784) for the splits; means in soft leaves are those of
        [Irsoy, Yildiz & Alpaydin, 2012](https://ieeexplore.ieee.org/document/6460506)
    """

    def __init__(self, depth: int = 6, num_targets: int = 1, **kwargs: Any) -> None:
        super().__init__(depth, num_targets, **kwargs)
        self.num_targets = int(num_targets)

    def _make_leaves(self, num_classes: int) -> MeanLeaves:
        checks.check_integer("num_targets", num_classes, minimum=1)
        return MeanLeaves(int(num_classes))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        config = super().get_config()
        return config | {"num_targets": config.pop("num_classes")}
