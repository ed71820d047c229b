"""Students that can be read: scikit-learn trees, forests, boosting, logistic regression and additive models.

`distill` teaches one from a teacher's probabilities, `fit` from labels; `fidelity` measures how well it stands in for
its teacher, `size_curve` what each size costs. `kdkeras.evaluate.compare` takes students and Keras models in one table.
"""

from kdkeras.students.fidelity import Fidelity as Fidelity
from kdkeras.students.fidelity import fidelity as fidelity
from kdkeras.students.kinds import KINDS as KINDS
from kdkeras.students.learning import distill as distill
from kdkeras.students.learning import fit as fit
from kdkeras.students.size_curve import SizeCurve as SizeCurve
from kdkeras.students.size_curve import SizePoint as SizePoint
from kdkeras.students.size_curve import size_curve as size_curve
from kdkeras.students.student import Student as Student
