"""Where models look, and whether a student looks where its teacher does.

`attribute` gives Grad-CAM maps of one model, `compare` sets a student's maps beside its teacher's. For models without
images, `feature_importance` and `compare_importance` do the same by shuffling columns.
"""

from kdkeras.explain.attribution import METHODS as METHODS
from kdkeras.explain.attribution import attribute as attribute
from kdkeras.explain.comparison import ExplanationComparison as ExplanationComparison
from kdkeras.explain.comparison import compare as compare
from kdkeras.explain.explanation import Explanation as Explanation
from kdkeras.explain.importance import FeatureImportance as FeatureImportance
from kdkeras.explain.importance import feature_importance as feature_importance
from kdkeras.explain.importance_comparison import ImportanceComparison as ImportanceComparison
from kdkeras.explain.importance_comparison import compare_importance as compare_importance
