"""Where models look, and whether a student looks where its teacher does.

`attribute` explains one model by any of `METHODS`, `compare` sets a student's maps beside its teacher's. For tables,
`feature_importance` and `compare_importance` say what matters to the whole model, by shuffling columns, and `surrogate`
fits a readable model to a network's answers.

`faithfulness` measures whether an explanation is true of its model; its measures are functions too.

`compare_structure`, `layer_similarity` and `class_selectivity` look at the layers and units inside.

`report` puts all of it on one page.
"""

from kdkeras.explain.attribution import METHODS as METHODS
from kdkeras.explain.attribution import Explainer as Explainer
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
from kdkeras.explain.insides import ClassSelectivity as ClassSelectivity
from kdkeras.explain.insides import LayerSimilarity as LayerSimilarity
from kdkeras.explain.insides import StructureComparison as StructureComparison
from kdkeras.explain.insides import class_selectivity as class_selectivity
from kdkeras.explain.insides import compare_structure as compare_structure
from kdkeras.explain.insides import layer_similarity as layer_similarity
from kdkeras.explain.lime import LIME as LIME
from kdkeras.explain.maximisation import ActivationMaximum as ActivationMaximum
from kdkeras.explain.maximisation import activation_maximisation as activation_maximisation
from kdkeras.explain.measures import Faithfulness as Faithfulness
from kdkeras.explain.measures import PerturbationCurve as PerturbationCurve
from kdkeras.explain.measures import Randomisation as Randomisation
from kdkeras.explain.measures import average_stability as average_stability
from kdkeras.explain.measures import complexity as complexity
from kdkeras.explain.measures import deletion as deletion
from kdkeras.explain.measures import faithfulness as faithfulness
from kdkeras.explain.measures import infidelity as infidelity
from kdkeras.explain.measures import insertion as insertion
from kdkeras.explain.measures import max_sensitivity as max_sensitivity
from kdkeras.explain.measures import model_randomisation as model_randomisation
from kdkeras.explain.measures import mu_fidelity as mu_fidelity
from kdkeras.explain.measures import pointing_game as pointing_game
from kdkeras.explain.measures import sparseness as sparseness
from kdkeras.explain.method import Method as Method
from kdkeras.explain.perturbation import RISE as RISE
from kdkeras.explain.perturbation import Occlusion as Occlusion
from kdkeras.explain.pictures import method_grid as method_grid
from kdkeras.explain.reference_importance import ReferenceImportance as ReferenceImportance
from kdkeras.explain.reference_importance import reference_importance as reference_importance
from kdkeras.explain.reporting import report as report
from kdkeras.explain.rollout import AttentionRollout as AttentionRollout
from kdkeras.explain.shap import SHAP as SHAP
from kdkeras.explain.summary import Summary as Summary
from kdkeras.explain.surrogate import Surrogate as Surrogate
from kdkeras.explain.surrogate import surrogate as surrogate
