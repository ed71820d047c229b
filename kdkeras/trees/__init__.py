"""Soft decision trees: a student whose every decision can be read and drawn."""

from kdkeras.trees.soft_decision_tree import SoftDecisionTree as SoftDecisionTree
