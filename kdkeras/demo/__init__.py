"""The main job on real data: teacher, distilled student, TFLite files, explanations, soft decision tree, report."""

from kdkeras.demo.results import DemoResult as DemoResult
from kdkeras.demo.run import DATA as DATA
from kdkeras.demo.run import run as run
