"""Schemes of several models or stages, each a composition of distillers."""

from kdkeras.schemes.averaged_heads import averaged_heads as averaged_heads
from kdkeras.schemes.born_again import Generations as Generations
from kdkeras.schemes.born_again import born_again as born_again
from kdkeras.schemes.branches import branches as branches
from kdkeras.schemes.class_groups import class_groups as class_groups
from kdkeras.schemes.fitnets import fitnets as fitnets
from kdkeras.schemes.function_matching import function_matching as function_matching
from kdkeras.schemes.group_targets import GroupTargets as GroupTargets
from kdkeras.schemes.group_targets import group_logits as group_logits
from kdkeras.schemes.group_targets import group_targets as group_targets
from kdkeras.schemes.loss_stages import LossStages as LossStages
from kdkeras.schemes.mutual_learning import MutualLearning as MutualLearning
from kdkeras.schemes.parts import Parts as Parts
from kdkeras.schemes.progressive import progressive as progressive
from kdkeras.schemes.same_views import SameViews as SameViews
from kdkeras.schemes.self_distillation import SelfDistillation as SelfDistillation
from kdkeras.schemes.side_by_side import SideBySide as SideBySide
from kdkeras.schemes.teacher_assistants import teacher_assistants as teacher_assistants
from kdkeras.schemes.trained import Trained as Trained
from kdkeras.schemes.within import Within as Within
