"""Soft decision trees: a student whose every decision can be read and drawn."""

from kdkeras.trees.rule_list import Condition as Condition
from kdkeras.trees.rule_list import Rule as Rule
from kdkeras.trees.soft_decision_tree import SoftDecisionTree as SoftDecisionTree
