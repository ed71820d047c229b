"""Where models look, and whether a student looks where its teacher does.

`attribute` explains one model by any of `METHODS`, `compare` sets a student's maps beside its teacher's. For tables,
`feature_importance` and `compare_importance` say what matters to the whole model, by shuffling columns.
"""

from kdkeras.explain.attribution import METHODS as METHODS
from kdkeras.explain.attribution import attribute as attribute
from kdkeras.explain.class_activation import GradCAM as GradCAM
from kdkeras.explain.class_activation import GradCAMPlusPlus as GradCAMPlusPlus
from kdkeras.explain.class_activation import LayerCAM as LayerCAM
from kdkeras.explain.class_activation import ScoreCAM as ScoreCAM
from kdkeras.explain.comparison import ExplanationComparison as ExplanationComparison
from kdkeras.explain.comparison import compare as compare
from kdkeras.explain.explanation import Explanation as Explanation
from kdkeras.explain.gradients import GradientTimesInput as GradientTimesInput
from kdkeras.explain.gradients import IntegratedGradients as IntegratedGradients
from kdkeras.explain.gradients import Saliency as Saliency
from kdkeras.explain.gradients import SmoothGrad as SmoothGrad
from kdkeras.explain.importance import FeatureImportance as FeatureImportance
from kdkeras.explain.importance import feature_importance as feature_importance
from kdkeras.explain.importance_comparison import ImportanceComparison as ImportanceComparison
from kdkeras.explain.importance_comparison import compare_importance as compare_importance
from kdkeras.explain.method import Method as Method
from kdkeras.explain.perturbation import RISE as RISE
from kdkeras.explain.perturbation import Occlusion as Occlusion
