"""Distillation losses: what the student should copy of its teacher, one file per method."""

from kdkeras.losses.base import DistillationLoss as DistillationLoss
from kdkeras.losses.hard_targets import HardTargets as HardTargets
from kdkeras.losses.hard_targets import hard_targets as hard_targets
from kdkeras.losses.hints import Hints as Hints
from kdkeras.losses.hints import hints as hints
from kdkeras.losses.logit_matching import LogitMatching as LogitMatching
from kdkeras.losses.logit_matching import logit_matching as logit_matching
from kdkeras.losses.lookup import get as get
from kdkeras.losses.soft_targets import SoftTargets as SoftTargets
from kdkeras.losses.soft_targets import binary_soft_targets as binary_soft_targets
from kdkeras.losses.soft_targets import soft_targets as soft_targets
from kdkeras.losses.softened_outputs import SoftenedOutputs as SoftenedOutputs
