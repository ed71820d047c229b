"""What can be read from a trained soft decision tree: paths, rules, importances, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from kdkeras.trees import checks, pictures, routing, rules
from kdkeras.trees.anatomy import Anatomy, DecisionPath, importances
from kdkeras.trees.dot import dot_source
from kdkeras.trees.leaves import ClassLeaves, MeanLeaves
from kdkeras.trees.rule_list import Rule, list_rules

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Readable:
    """The explanations of `SoftDecisionTree`, which holds the variables that they read."""

    depth: int
    betas: np.ndarray
    leaves: ClassLeaves | MeanLeaves
    sample_shape: tuple[int, ...] | None

    def anatomy(self) -> Anatomy:
        """Return filters, biases, leaves and masses as arrays; z = filter · x + bias, with β and the center within.

        Returns:
            A `kdkeras.trees.anatomy.Anatomy`.

        Raises:
            ValueError: The tree is not built.
        """
        if self.sample_shape is None:
            raise ValueError("The tree has no splits yet, because it has seen no data. Call `fit` or `distill` first.")
        kernel, biases = (self.betas * weight.numpy() for weight in self.splits.weights)
        biases = biases - self.center.numpy() @ kernel
        mass, right = self.node_mass.numpy(), self.right_mass.numpy()
        last = slice(2 ** (self.depth - 1) - 1, None)  # the splits above the leaves
        return Anatomy(
            filters=kernel.T.reshape(-1, *self.sample_shape),
            biases=biases,
            leaves=ops.convert_to_numpy(self.leaves.values(self.phi)),
            node_mass=mass,
            leaf_mass=np.stack([mass - right, right], axis=1)[last].ravel(),
            task=self.leaves.task,
        )

    def decision_path(self, x: Any) -> DecisionPath:
        """Return the way of each sample to its best leaf.

        The best leaf carries the largest share of the prediction; the greedy leaf may carry less.

        Args:
            x: Samples, shape (n, *sample_shape).

        Returns:
            A `kdkeras.trees.anatomy.DecisionPath` of arrays.

        Raises:
            TypeError: The samples are not numbers.
            ValueError: The tree is not built, or the samples do not fit it.

        Example:
            >>> import numpy as np
            >>> from kdkeras.trees import SoftDecisionTree
            >>> tree = SoftDecisionTree(depth=3, num_classes=2)
            >>> tree.build((None, 4))
            >>> path = tree.decision_path(np.ones((5, 4)))
            >>> path.nodes.shape, path.leaf_distribution.shape
            ((5, 3), (5, 2))
        """
        leaves = self.anatomy().leaves
        x = checks.check_samples(x, self.sample_shape)
        logits = ops.convert_to_numpy(self.node_logits(x))
        leaf = ops.convert_to_numpy(routing.best_leaf(logits))
        nodes, right = routing.path_nodes(leaf, self.depth)
        turns = np.where(right, 1, -1).astype(logits.dtype) * np.take_along_axis(logits, nodes, axis=1)  # (n, depth)
        log_turns = ops.convert_to_numpy(ops.log_sigmoid(turns))
        return DecisionPath(nodes, right, np.exp(log_turns), leaf, leaves[leaf], np.exp(log_turns.sum(axis=1)))

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each feature in the decisions, in the shape of one sample, summing to 1.

        |w_i| / Σ_j |w_j| of every split, weighted by the running share of the training samples that reaches it.
        Weights of features with different ranges cannot be compared: standardise them before training.
        """
        return importances(self.anatomy())

    def export_text(
        self,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 3,
        min_mass: float | None = None,
    ) -> str:
        """Return the splits and leaves as indented text; see `kdkeras.trees.rules.export_text`.

        Args:
            feature_names: One name per flattened feature. Default: positions, "x[0]".
            class_names: One name per class. Default: class numbers.
            max_features: How many features a split shows. Default 3, which fit on a line.
            min_mass: Prune the text: from the leaves upwards, sibling leaves become one if they name the same class,
                or if less than this share of the training samples reaches the lighter one and their mean keeps the
                heavier one's class; see `kdkeras.trees.pruning.subtrees`. The tree itself and its predictions stay
                whole. 0 merges only leaves of one class. Default: None, nothing is merged.

        Returns:
            Text of one line per branch.

        Raises:
            ValueError: The tree is not built, the number of names does not fit, `max_features` is below 1, or
                `min_mass` is not in 0…1.
        """
        names = {"feature_names": feature_names, "class_names": class_names}
        return rules.export_text(self.anatomy(), **names, max_features=max_features, min_mass=min_mass)

    def to_rules(
        self,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 3,
        min_mass: float | None = None,
    ) -> list[Rule]:
        """Return the tree as its greedy path reads it, one rule per leaf; see `kdkeras.trees.rule_list.list_rules`.

        Exactly one rule holds for each sample; without merging, its class is that of `predict(x, mode="greedy")`.

        Args:
            feature_names: One name per flattened feature. Default: positions, "x[0]".
            class_names: One name per class. Default: class numbers.
            max_features: How many features of each condition the text shows. Default 3.
            min_mass: Share of the training samples below which leaves are merged, as in `export_text`. Default: none.

        Returns:
            A list of `kdkeras.trees.Rule` from the leftmost leaf to the rightmost.

        Raises:
            ValueError: As in `export_text`.

        Example:
            >>> from kdkeras.trees import SoftDecisionTree
            >>> tree = SoftDecisionTree(depth=3, num_classes=2)
            >>> tree.build((None, 4))
            >>> [len(rule.conditions) for rule in tree.to_rules()]
            [3, 3, 3, 3, 3, 3, 3, 3]
        """
        names = {"feature_names": feature_names, "class_names": class_names}
        return list_rules(self.anatomy(), **names, max_features=max_features, min_mass=min_mass)

    def to_graphviz(
        self,
        sample: Any = None,
        *,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_features: int = 3,
        min_mass: float | None = None,
    ) -> str:
        """Return the tree as DOT source text, which Graphviz draws; see `kdkeras.trees.dot.dot_source`.

        Graphviz is not needed to make the text.

        Args:
            sample: One sample, shape `sample_shape`, whose path to its best leaf is marked. Default: none.
            feature_names: One name per flattened feature. Default: positions, "x[0]".
            class_names: One name per class. Default: class numbers.
            max_features: How many features a split shows. Default 3.
            min_mass: Share of the training samples below which leaves are merged, as in `export_text`. Default: none.

        Returns:
            Source text; written to tree.dot, `dot -Tsvg tree.dot -o tree.svg` draws it.

        Raises:
            TypeError: The sample is not numbers.
            ValueError: As in `export_text`, or the sample does not fit the tree.

        Example:
            >>> from kdkeras.trees import SoftDecisionTree
            >>> tree = SoftDecisionTree(depth=3, num_classes=2)
            >>> tree.build((None, 4))
            >>> tree.to_graphviz().count("->")
            14
        """
        names = {"feature_names": feature_names, "class_names": class_names}
        path = None if sample is None else self.decision_path(self._one_sample(sample, "sample")[None])
        return dot_source(self.anatomy(), path=path, **names, max_features=max_features, min_mass=min_mass)

    def plot(
        self,
        sample: Any = None,
        *,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        max_depth: int | None = None,
        min_mass: float | None = None,
    ) -> Figure:
        """Draw the tree, and the path of one sample through it; see `kdkeras.trees.pictures.plot_tree`.

        Args:
            sample: One sample, shape `sample_shape`, whose path to its best leaf is drawn. Default: none.
            feature_names: One name per flattened feature, for samples that are no images.
            class_names: One name per class.
            max_depth: How many levels of splits the upper part shows. Default: 4 for images, 3 otherwise.
            min_mass: Share of the training samples below which leaves are merged, as in `export_text`; the lower
                part shows the sample's whole path all the same. Default: none.

        Returns:
            A matplotlib `Figure`; `figure.savefig("tree.png")` writes it.

        Raises:
            ValueError: The tree is not built, the sample does not fit it, or names, `max_depth` or `min_mass` do not.
        """
        anatomy = self.anatomy()
        path = None
        if sample is not None:
            sample = self._one_sample(sample, "sample")
            path = self.decision_path(sample[None])
        names = {"feature_names": feature_names, "class_names": class_names}
        return pictures.plot_tree(anatomy, sample=sample, path=path, **names, max_depth=max_depth, min_mass=min_mass)

    def _one_sample(self, sample: Any, name: str) -> np.ndarray:
        return checks.check_samples(np.asarray(sample)[None], self.sample_shape, name)[0]
