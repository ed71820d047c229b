"""The data sets that scikit-learn brings along: no download, no folder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kdkeras.datasets.dataset import Dataset, split_off


def digits() -> Dataset:
    """Return handwritten digits: 1,797 images of 8×8 pixels, 10 classes, split 60/20/20.

    Example:
        >>> from kdkeras import datasets
        >>> float(datasets.digits().x_train.max())
        1.0
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images[..., np.newaxis] / 16).astype("float32")  # 16 grey levels
    splits = _split(images, bunch.target.astype("int32"), bunch.target)
    names = tuple(str(name) for name in bunch.target_names)
    source = "UCI Optical Recognition of Handwritten Digits (CC BY 4.0), as bundled with scikit-learn."
    return Dataset("digits", "classification", "image", *splits, names, (), source)


def wine() -> Dataset:
    """Return wine recognition: 178 samples, 13 chemical features, 3 cultivars, split 60/20/20.

    Example:
        >>> from kdkeras import datasets
        >>> datasets.wine().input_shape
        (13,)
    """
    from sklearn.datasets import load_wine

    return _table("wine", load_wine(), "UCI Wine (CC BY 4.0), as bundled with scikit-learn.")


def breast_cancer() -> Dataset:
    """Return the Wisconsin diagnostic data: 569 samples, 30 features, malignant or benign, split 60/20/20.

    Example:
        >>> from kdkeras import datasets
        >>> datasets.breast_cancer().class_names
        ('malignant', 'benign')
    """
    from sklearn.datasets import load_breast_cancer

    source = "UCI Breast Cancer Wisconsin (Diagnostic) (CC BY 4.0), as bundled with scikit-learn."
    return _table("breast_cancer", load_breast_cancer(), source)


def diabetes() -> Dataset:
    """Return diabetes progression, a regression: 442 patients, 10 features, split 60/20/20.

    The splits are stratified by fifths of the target. The target is standardised; see `Dataset`.

    Example:
        >>> from kdkeras import datasets
        >>> data = datasets.diabetes()
        >>> round(data.target_mean), round(data.target_scale)
        (151, 76)
    """
    from sklearn.datasets import load_diabetes

    source = "Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression (2004), as bundled with scikit-learn."
    return _table("diabetes", load_diabetes(scaled=False), source, regression=True)


def _split(x: np.ndarray, y: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, ...]:
    """Split 60/20/20 by row numbers, so that features, targets and strata stay together."""
    fifth = math.ceil(len(x) / 5)
    rows = np.arange(len(x))
    rest, test, rest_strata, _ = split_off(rows, strata, strata, fifth)
    train, valid, _, _ = split_off(rest, rest_strata, rest_strata, fifth)
    return x[train], y[train], x[valid], y[valid], x[test], y[test]


def _table(name: str, bunch: Any, source: str, *, regression: bool = False) -> Dataset:
    """Split a scikit-learn table and standardise it by its training split."""
    strata = _fifths(bunch.target) if regression else bunch.target
    x_train, y_train, x_valid, y_valid, x_test, y_test = _split(bunch.data, bunch.target, strata)
    mean, scale = x_train.mean(axis=0), x_train.std(axis=0)
    features = [((part - mean) / scale).astype("float32") for part in (x_train, x_valid, x_test)]
    y_mean, y_scale = (float(y_train.mean()), float(y_train.std())) if regression else (0.0, 1.0)
    dtype = "float32" if regression else "int32"
    targets = [((part - y_mean) / y_scale).astype(dtype) for part in (y_train, y_valid, y_test)]
    return Dataset(
        name,
        "regression" if regression else "classification",
        "tabular",
        *(part for pair in zip(features, targets, strict=True) for part in pair),
        class_names=() if regression else tuple(str(label) for label in bunch.target_names),
        feature_names=tuple(str(feature) for feature in bunch.feature_names),
        source=source,
        target_mean=y_mean,
        target_scale=y_scale,
    )


def _fifths(target: np.ndarray) -> np.ndarray:
    """Return which fifth of the sorted targets each target lies in."""
    return np.digitize(target, np.quantile(target, [0.2, 0.4, 0.6, 0.8]))
