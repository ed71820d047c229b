"""Small real data sets for examples, tests and benchmarks, each with one fixed split.

`digits`, `wine`, `breast_cancer` and `diabetes` come with scikit-learn and need no network; `fashion_mnist` comes
from a Debian package or from Keras' own download.

The split is fixed, so that numbers of different days and people can be compared. **The test split is for the last
measurement alone: never train on it, calibrate on it or choose by it.** Use `valid` for early stopping, for choosing
hyper-parameters and for calibrating a quantised model.
"""

from __future__ import annotations

from kdkeras.datasets.bundled import breast_cancer as breast_cancer
from kdkeras.datasets.bundled import diabetes as diabetes
from kdkeras.datasets.bundled import digits as digits
from kdkeras.datasets.bundled import wine as wine
from kdkeras.datasets.dataset import Dataset as Dataset
from kdkeras.datasets.fashion import fashion_mnist as fashion_mnist


def load(name: str) -> Dataset:
    """Return a data set by its name.

    Args:
        name: `"digits"`, `"wine"`, `"breast_cancer"`, `"diabetes"` or `"fashion_mnist"`.

    Returns:
        The `Dataset`.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: Fashion-MNIST is neither on disk nor to be downloaded.

    Example:
        >>> from kdkeras import datasets
        >>> datasets.load("wine").class_names
        ('class_0', 'class_1', 'class_2')
    """
    loaders = {
        "digits": digits,
        "wine": wine,
        "breast_cancer": breast_cancer,
        "diabetes": diabetes,
        "fashion_mnist": fashion_mnist,
    }
    if name not in loaders:
        raise ValueError(f"`name` must be one of {', '.join(loaders)}. Received: name={name!r}.")
    return loaders[name]()
