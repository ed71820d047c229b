"""Soft decision trees: a student whose every decision can be read and drawn."""

from kdkeras.trees.counterfactual import Counterfactual as Counterfactual
from kdkeras.trees.rule_list import Condition as Condition
from kdkeras.trees.rule_list import Rule as Rule
from kdkeras.trees.sample_explanation import SampleExplanation as SampleExplanation
from kdkeras.trees.sample_explanation import Step as Step
from kdkeras.trees.soft_decision_tree import SoftDecisionTree as SoftDecisionTree
from kdkeras.trees.surrogate import HardTree as HardTree
