"""What can be asked of a trained soft decision tree: why this answer, what would change it, what imitates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from kdkeras.trees import checks, routing
from kdkeras.trees.anatomy import DecisionPath
from kdkeras.trees.counterfactual import Counterfactual, find_counterfactual, limits_of
from kdkeras.trees.reading import Readable
from kdkeras.trees.sample_explanation import SampleExplanation, explain_path
from kdkeras.trees.surrogate import HardTree, fit_hard_regression_tree, fit_hard_tree


class Answerable(Readable):
    """The questions to `SoftDecisionTree` that it answers by running itself."""

    def explain_sample(
        self,
        x: Any,
        *,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 3,
    ) -> SampleExplanation:
        """Explain the way of one sample to its best leaf: each split, what weighs most there, and the leaf.

        A feature weighs weight × value; what all features weigh together is compared with the split's threshold. The
        decision is one of weighted sums: no single feature decides.

        Args:
            x: One sample, shape `sample_shape`.
            feature_names: One name per flattened feature. Default: positions, "x[0]".
            class_names: One name per class. Default: class numbers.
            max_features: How many features of each split the text shows. Default 3, as in `export_text`.

        Returns:
            A `kdkeras.trees.SampleExplanation`; `print` shows it in words.

        Raises:
            TypeError: The sample is not numbers.
            ValueError: The tree is not built, the sample does not fit it, the number of names does not fit, or
                `max_features` is below 1.

        Example:
            >>> import numpy as np
            >>> from kdkeras.trees import SoftDecisionTree
            >>> tree = SoftDecisionTree(depth=2, num_classes=2)
            >>> tree.build((None, 3))
            >>> explanation = tree.explain_sample(np.ones(3), feature_names=["age", "dose", "size"])
            >>> [step.node for step in explanation.steps] == tree.decision_path(np.ones((1, 3))).nodes[0].tolist()
            True
        """
        anatomy = self.anatomy()
        sample = self._one_sample(x, "x[None]")
        path, mixture = self._ask(sample[None])
        names = {"feature_names": feature_names, "class_names": class_names}
        return explain_path(anatomy, sample, path, mixture[0], **names, max_features=max_features)

    def counterfactual(
        self,
        x: Any,
        target: int | str | None = None,
        *,
        scales: Any = None,
        bounds: tuple[Any, Any] | None = None,
        fixed: Any = None,
        margin: float = 0.01,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 5,
    ) -> Counterfactual:
        """Find the smallest change to one sample that gives its best leaf another class.

        Minimises ‖(x′ − x) / scales‖₂. What is certain: the tree was run on the answer, its best leaf has the wanted
        class, bounds and fixed features are kept; and no change shorter than `lower_bound` does it. Depth 1 is exact
        but for the margin. In deeper trees the places where a leaf is the best one are not convex: the answer is then
        the best of local searches, usually within some percent of the smallest, and `lower_bound` says how much is
        open. It is about the best leaf; the mixture of all leaves, which `predict` returns, is reported beside it and
        may keep its class. Every feature counts as a real number: fix those that are categories.

        Args:
            x: One sample, shape `sample_shape`.
            target: The class that the best leaf shall have, by number or name. Default: any other.
            scales: Unit of each feature in the distance, such as its standard deviation: one number, or an array that
                broadcasts to the sample. Default 1.
            bounds: Least and greatest value, such as `(0, 1)` for images; each a number or an array that broadcasts
                to the sample. Default: none.
            fixed: What must not change: names of features, or booleans that broadcast to the sample. Default: nothing.
            margin: Nats by which the new best leaf leads every leaf of another class, above 0. Default 0.01, 1%
                likelier: far above rounding, and hardly longer. Larger gives a more robust answer.
            feature_names: One name per flattened feature. Default: positions, "x[0]".
            class_names: One name per class. Default: class numbers.
            max_features: How many changes the text shows. Default 5.

        Returns:
            A `kdkeras.trees.Counterfactual`. Where nothing flips within the limits, its `found` is False and its text
            says so.

        Raises:
            TypeError: The sample is not numbers, or `target` is neither number nor name.
            ValueError: The tree is not built, something does not fit it, the sample lies outside of the bounds, the
                best leaf has the class `target` already, or it is a regression tree.

        Example:
            >>> import numpy as np
            >>> from kdkeras.trees import SoftDecisionTree
            >>> tree = SoftDecisionTree(depth=1, num_classes=2)
            >>> tree.build((None, 2))
            >>> tree.splits.set_weights([np.array([[3.0], [4.0]]), np.array([0.0])])  # right where 3a + 4b > 0
            >>> _ = tree.phi.assign([[0.2, 0.0], [0.0, 0.2]])  # leaves are softmax(10 φ)
            >>> answer = tree.counterfactual(np.array([-3.0, -4.0]), feature_names=["a", "b"])
            >>> answer.sample.round(2)  # the projection onto 3a + 4b = 0, and a little further
            array([0., 0.], dtype=float32)
            >>> print(answer)
            For class 1 in place of 0, change (distance 5):
            ...

        Reference:
            [Wachter, Mittelstadt & Russell, 2017](https://arxiv.org/abs/1711.00399)
        """
        anatomy = self.anatomy()
        checks.need_classes(anatomy.task, "`counterfactual`", "Read `explain_sample` instead")
        sample = self._one_sample(x, "x[None]").astype(self.variable_dtype)
        limits = limits_of(sample, scales, bounds, fixed, feature_names)
        names = {"feature_names": feature_names, "class_names": class_names, "max_features": max_features}
        return find_counterfactual(anatomy, sample, self._ask, limits=limits, target=target, margin=margin, **names)

    def to_hard_tree(
        self,
        x: Any,
        max_depth: int | None = None,
        *,
        x_test: Any = None,
        mode: str = "mixture",
        seed: int = 0,
    ) -> HardTree:
        """Fit an ordinary decision tree, whose splits ask one feature each, to this tree's answers on x.

        It is a surrogate: another model that imitates this one, with other reasons, and wrong wherever the fidelity
        falls short of 1. The fidelity on x flatters, the more the deeper the hard tree: give samples that were not
        used for the fit as `x_test`. Unlabelled samples will do for both.

        Args:
            x: Samples, shape (n, *sample_shape).
            max_depth: Greatest depth of the hard tree, at least 1. Default: the depth of this tree.
            x_test: Further samples on which the fidelity is measured. Default: none.
            mode: Whose answers are imitated: `"mixture"` (default), `"best_leaf"` or `"greedy"`, as in `predict`.
            seed: Of scikit-learn's choice among equally good splits. Default 0.

        Returns:
            A `kdkeras.trees.HardTree` with scikit-learn's `DecisionTreeClassifier` as its `model`; of a regression
            tree, a `DecisionTreeRegressor`, whose fidelity is the R² to this tree's predictions.

        Raises:
            TypeError: The samples are not numbers.
            ValueError: The tree is not built, the samples do not fit it, or `max_depth` or `mode` does not exist.

        Example:
            >>> import keras
            >>> import numpy as np
            >>> from kdkeras.trees import SoftDecisionTree
            >>> _ = keras.utils.set_random_seed(0)
            >>> tree = SoftDecisionTree(depth=2, num_classes=2)
            >>> tree.build((None, 3))
            >>> hard = tree.to_hard_tree(np.random.default_rng(0).normal(size=(50, 3)), max_depth=3)
            >>> hard.model.get_depth() <= 3, hard.test_fidelity
            (True, None)
        """
        self.anatomy()  # raises where there are no splits yet
        if mode not in routing.MODES:
            raise ValueError(f"`mode` must be one of {routing.MODES}. Received: {mode!r}.")
        if max_depth is None:
            max_depth = self.depth
        if isinstance(max_depth, bool) or not isinstance(max_depth, (int, np.integer)) or max_depth < 1:
            raise ValueError(f"`max_depth` must be a whole number of at least 1, or None. Received: {max_depth!r}.")
        x = checks.check_samples(x, self.sample_shape)
        answers, test_answers = self._answers(x, mode), None
        if x_test is not None:
            x_test = checks.check_samples(x_test, self.sample_shape, "x_test")
            test_answers = self._answers(x_test, mode)
        fit = fit_hard_tree if self.leaves.task == "classification" else fit_hard_regression_tree
        return fit(x, answers, max_depth=max_depth, seed=seed, x_test=x_test, test_answers=test_answers)

    def _ask(self, x: np.ndarray) -> tuple[DecisionPath, np.ndarray]:
        return self.decision_path(x), ops.convert_to_numpy(self(x, training=False))

    def _answers(self, x: np.ndarray, mode: str) -> np.ndarray:
        said = self.predict(x, verbose=0, mode=mode)
        return said if self.leaves.task == "regression" else said.argmax(axis=1)
