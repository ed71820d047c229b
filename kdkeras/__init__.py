"""Knowledge distillation and model interpretability, fused, for Keras 3.

A large teacher teaches a small student through `fit`; the student goes to a phone as a TFLite file; and both can be
explained and compared. The parts load when they are first used, so that `import kdkeras` itself is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdkeras import app as app
    from kdkeras import benchmark as benchmark
    from kdkeras import callbacks as callbacks
    from kdkeras import compress as compress
    from kdkeras import datasets as datasets
    from kdkeras import evaluate as evaluate
    from kdkeras import explain as explain
    from kdkeras import export as export
    from kdkeras import feedback as feedback
    from kdkeras import losses as losses
    from kdkeras import metrics as metrics
    from kdkeras import recipes as recipes
    from kdkeras import schemes as schemes
    from kdkeras import students as students
    from kdkeras import targets as targets
    from kdkeras import teachers as teachers
    from kdkeras import testing as testing
    from kdkeras.distiller import Distiller as Distiller
    from kdkeras.initialization import initialize as initialize
    from kdkeras.saving import load_model as load_model
    from kdkeras.signals import Cached as Cached
    from kdkeras.signals import Indexed as Indexed
    from kdkeras.signals import Paired as Paired
    from kdkeras.trees import SoftDecisionTree as SoftDecisionTree
    from kdkeras.trees import SoftRegressionTree as SoftRegressionTree

__version__ = "0.1.0"

_MODULES = (
    "app",
    "benchmark",
    "callbacks",
    "compress",
    "datasets",
    "evaluate",
    "explain",
    "export",
    "feedback",
    "losses",
    "metrics",
    "recipes",
    "schemes",
    "students",
    "targets",
    "teachers",
    "testing",
)
_MEMBERS = {
    "Cached": "kdkeras.signals",
    "Distiller": "kdkeras.distiller",
    "Indexed": "kdkeras.signals",
    "Paired": "kdkeras.signals",
    "SoftDecisionTree": "kdkeras.trees",
    "SoftRegressionTree": "kdkeras.trees",
    "initialize": "kdkeras.initialization",
    "load_model": "kdkeras.saving",
}

__all__ = ["__version__", *_MODULES, *_MEMBERS]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"kdkeras.{name}")
    if name in _MEMBERS:
        return getattr(importlib.import_module(_MEMBERS[name]), name)
    raise AttributeError(f"module 'kdkeras' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
