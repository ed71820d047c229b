"""Teachers made of other models: several that answer as one, and one that answers over other classes."""

from kdkeras.teachers.base import TeacherModel as TeacherModel
from kdkeras.teachers.class_map import ClassMap as ClassMap
from kdkeras.teachers.combining import certainty_weights as certainty_weights
from kdkeras.teachers.combining import entropy as entropy
from kdkeras.teachers.combining import mean_logits as mean_logits
from kdkeras.teachers.combining import mixture_logits as mixture_logits
from kdkeras.teachers.ensemble import Ensemble as Ensemble
