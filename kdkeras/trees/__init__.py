"""Soft decision trees: a student whose every decision can be read and drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdkeras.trees.counterfactual import Counterfactual as Counterfactual
from kdkeras.trees.optimizer import default_optimizer as default_optimizer
from kdkeras.trees.rule_list import Condition as Condition
from kdkeras.trees.rule_list import Rule as Rule
from kdkeras.trees.sample_explanation import SampleExplanation as SampleExplanation
from kdkeras.trees.sample_explanation import Step as Step
from kdkeras.trees.soft_decision_tree import SoftDecisionTree as SoftDecisionTree
from kdkeras.trees.soft_regression_tree import SoftRegressionTree as SoftRegressionTree
from kdkeras.trees.surrogate import HardTree as HardTree

if TYPE_CHECKING:
    from kdkeras.trees.soft_decision_tree_classifier import SoftDecisionTreeClassifier as SoftDecisionTreeClassifier
    from kdkeras.trees.soft_decision_tree_regressor import SoftDecisionTreeRegressor as SoftDecisionTreeRegressor

_ESTIMATORS = {  # these load scikit-learn
    "SoftDecisionTreeClassifier": "kdkeras.trees.soft_decision_tree_classifier",
    "SoftDecisionTreeRegressor": "kdkeras.trees.soft_decision_tree_regressor",
}


def __getattr__(name: str) -> Any:
    if name in _ESTIMATORS:
        return getattr(importlib.import_module(_ESTIMATORS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
