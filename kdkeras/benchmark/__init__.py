"""Every distillation loss beside the others: `run`, or `kdkeras benchmark` on the command line."""

from kdkeras.benchmark.plan import Settings as Settings
from kdkeras.benchmark.results import BenchmarkResult as BenchmarkResult
from kdkeras.benchmark.results import load as load
from kdkeras.benchmark.run import run as run
from kdkeras.benchmark.run import write as write
