"""The logits of any teacher, whatever it was made with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kdkeras.inputs import check_finite, is_array_like
from kdkeras.signals import predict_with_head
from kdkeras.targets import adapters

Head = Literal["linear", "softmax", "sigmoid"]


def logits(
    teacher: Any,
    x: Any,
    *,
    head: Head | None = None,
    batch_size: int = 256,
    epsilon: float = 1e-7,
    verbose: int = 0,
) -> np.ndarray:
    """Return a teacher's logits over `x`, whatever the teacher was made with.

    | Teacher | Its answer | `x` |
    |---|---|---|
    | `keras.Model` | the logits behind its own softmax or sigmoid, or its linear outputs | what its `predict` takes |
    | scikit-learn classifier | `predict_proba`; of several yes-no labels the probability of yes | one array or frame |
    | scikit-learn regressor | `predict`, shape `(n, outputs)` | one array or frame |
    | `onnxruntime.InferenceSession` | its only output | an array, or a dict by input name |
    | `torch.nn.Module` | its output, in `eval` mode and without gradient | an array, a tuple or a dict of arguments |
    | any function of a batch | what it returns | arrays in any nest |

    For the last three `x` may also be a dataset or a generator of batches, with or without labels. Arrays are handed on
    as they are: Keras keeps channels last, most PyTorch modules want them first, so transpose `x` where needed.
    A TFLite file is a function once `kdkeras.export.load(path)` has opened it.

    Probabilities p become logits as log p (softmax) or log p − log(1 − p) (sigmoid), with p first clipped to at least
    `epsilon`, and for a sigmoid to at most 1 − `epsilon`: a forest is often sure, and log 0 is no number.

    Args:
        teacher: Any of the above.
        x: Its inputs, n samples.
        head: What the answers have gone through: `"linear"` for logits and regression, `"softmax"` for non-negative
            scores of exclusive classes such as probabilities or votes, `"sigmoid"` for independent probabilities. Keras
            models show it, and scikit-learn's estimators mean a softmax unless told otherwise. Of the others `None`
            (the default) means `"linear"`, and rows that sum to 1 are refused.
        batch_size: Samples per call, for array inputs. scikit-learn takes all at once.
        epsilon: Smallest probability that is told from 0, in (0, 0.5). Default 1e-7, as in Keras' own losses.
        verbose: 1 shows a progress bar over the batches of a session, module or function. Default 0.

    Returns:
        Float32 logits, `(n, ..., units)`, for `kdkeras.Cached` and for the encodings of this module.

    Raises:
        TypeError: `teacher` is a path or nothing that gives scores.
        ValueError: The answers are not finite, not one row per sample, not what `head` says, or several arrays.

    Example:
        >>> import numpy as np
        >>> from kdkeras import targets
        >>> targets.logits(lambda x: x / x.sum(axis=1, keepdims=True), np.array([[1.0, 3.0]]), head="softmax").round(4)
        array([[-1.3863, -0.2877]], dtype=float32)
    """
    _check_options(head, batch_size, epsilon)
    if isinstance(teacher, keras.Model):
        if head is not None:
            raise ValueError(f"A Keras model shows its own head: leave `head` out. Received: head={head!r}.")
        return predict_with_head(teacher, x, batch_size=batch_size)[0].logits
    if _is_estimator(teacher):
        answers, meant = adapters.estimator_answers(teacher, x)
        return _as_logits(answers, head or meant, epsilon, adapters.name_of(teacher), checked=head is None)
    function, batch_size = _as_function(teacher, batch_size)
    batches = [_answer(function, batch, adapters.name_of(teacher)) for batch in _batches(x, batch_size, verbose)]
    if not batches:
        raise ValueError("`logits` needs at least one sample. Received: none in x.")
    answers = np.concatenate(batches)
    return _as_logits(answers, head or "linear", epsilon, adapters.name_of(teacher), checked=head is None)


def is_foreign_model(teacher: Any) -> bool:
    """Whether `teacher` is a model of another library that `logits` knows by its type.

    Args:
        teacher: Anything.

    Returns:
        True for scikit-learn estimators, ONNX sessions and PyTorch modules.
    """
    return _is_estimator(teacher) or _is_session(teacher) or _is_module(teacher)


def _is_estimator(teacher: Any) -> bool:
    return _is_instance(teacher, "sklearn.base", "BaseEstimator")


def _is_session(teacher: Any) -> bool:
    return _is_instance(teacher, "onnxruntime", "InferenceSession")


def _is_module(teacher: Any) -> bool:
    # A Keras model is a module too where Keras runs on torch.
    return not isinstance(teacher, keras.Model) and _is_instance(teacher, "torch.nn", "Module")


def _is_instance(teacher: Any, module: str, name: str) -> bool:
    """Whether `teacher` is of a class of another library, without importing it: its objects exist only if it is."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(teacher, getattr(loaded, name))


def _as_function(teacher: Any, batch_size: int) -> tuple[Callable[[Any], Any], int]:
    """Return a function of one batch, and the batch size it takes."""
    if isinstance(teacher, (str, Path)):
        raise TypeError(
            f"`logits` needs a teacher, not the path of one. Received: {str(teacher)!r}. Load it first, a TFLite file "
            "with `kdkeras.export.load(path)`, a Keras model with `kdkeras.load_model(path)`."
        )
    if _is_session(teacher):
        return adapters.session_function(teacher, batch_size)
    if _is_module(teacher):
        return adapters.module_function(teacher), batch_size
    if isinstance(teacher, type) or not callable(teacher):
        raise TypeError(
            "A teacher must be a keras.Model, a scikit-learn estimator, an ONNX session, a PyTorch module or a "
            f"function of a batch. Received: {teacher!r} of type {type(teacher).__name__}."
        )
    return teacher, batch_size


def _batches(x: Any, batch_size: int, verbose: int) -> Iterator[Any]:
    """Yield the batches of arrays, or of an iterable of batches, as numpy arrays in their nest."""
    if is_array_like(x):
        arrays = keras.tree.map_structure(np.asarray, x)
        sizes = {len(np.atleast_1d(array)) for array in keras.tree.flatten(arrays)}
        if len(sizes) != 1:
            raise ValueError(f"`logits` needs arrays with one number of samples. Received: {sorted(sizes)} in x.")
        starts = range(0, sizes.pop(), batch_size)
        batches = (keras.tree.map_structure(lambda a, i=i: a[i : i + batch_size], arrays) for i in starts)
        total: int | None = len(starts)
    else:
        if not isinstance(x, Iterable):
            raise TypeError(f"`logits` needs arrays or an iterable of batches. Received: {type(x).__name__} as x.")
        batches, total = (_numpy(keras.utils.unpack_x_y_sample_weight(batch)[0]) for batch in x), None
    progress = keras.utils.Progbar(total, verbose=verbose)
    for done, batch in enumerate(batches, start=1):
        yield batch
        progress.update(done)


def _numpy(batch: Any) -> Any:
    return keras.tree.map_structure(lambda leaf: np.asarray(keras.ops.convert_to_numpy(leaf)), batch)


def _answer(function: Callable[[Any], Any], batch: Any, name: str) -> np.ndarray:
    """Return what the teacher says of one batch, as one checked array."""
    said = function(batch)
    if isinstance(said, dict) or (isinstance(said, (list, tuple)) and said and np.ndim(said[0]) > 1):
        raise ValueError(
            f"`logits` needs one array of scores per batch. Received: a {type(said).__name__} of {len(said)} from "
            f"{name}. Pass a function that returns the one that you want."
        )
    scores = np.asarray(keras.ops.convert_to_numpy(said) if keras.ops.is_tensor(said) else said)
    samples = len(keras.tree.flatten(batch)[0])
    if scores.ndim < 2 or len(scores) != samples:
        raise ValueError(
            f"`logits` needs one row of scores per sample. Received: shape {scores.shape} from {name} for {samples} "
            "samples."
        )
    return scores


def _as_logits(scores: np.ndarray, head: str, epsilon: float, name: str, *, checked: bool) -> np.ndarray:
    """Turn scores behind `head` into float32 logits; `checked` if nobody has said that this is their head."""
    if not (np.issubdtype(scores.dtype, np.number) and np.isrealobj(scores)) and scores.dtype.name != "bfloat16":
        raise TypeError(f"`logits` needs real numbers as scores. Received: dtype {scores.dtype} from {name}.")
    p = scores.astype("float64")
    check_finite(p, f"the output of {name}")
    sums_to_one = bool(p.shape[-1] > 1 and p.min() >= 0 and np.allclose(p.sum(axis=-1), 1, atol=1e-3))
    if head == "linear":
        if checked and sums_to_one:
            raise ValueError(
                f"`logits` was given probabilities (rows that sum to 1) by {name}. Pass head='softmax', or "
                "head='linear' if they are logits all the same."
            )
        return p.astype("float32")
    if head == "softmax":
        if p.min() < 0 or (p.sum(axis=-1) == 0).any() or (checked and not sums_to_one):
            raise ValueError(
                f"`logits` needs scores of at least 0 with one above 0 in each row, and rows that sum to 1 unless "
                f"head='softmax' is given. Received: values from {p.min():.4g} to {p.max():.4g}, row sums from "
                f"{p.sum(axis=-1).min():.4g} to {p.sum(axis=-1).max():.4g} from {name}. Pass head='sigmoid' for "
                "independent labels."
            )
        return np.log(np.clip(p / p.sum(axis=-1, keepdims=True), epsilon, None)).astype("float32")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(
            f"`logits` needs probabilities in [0, 1] for head='sigmoid'. Received: values from {p.min():.4g} to "
            f"{p.max():.4g} from {name}. Pass head='linear' for logits."
        )
    p = np.clip(p, epsilon, 1 - epsilon)
    return (np.log(p) - np.log1p(-p)).astype("float32")


def _check_options(head: str | None, batch_size: int, epsilon: float) -> None:
    if head not in (None, "linear", "softmax", "sigmoid"):
        raise ValueError(f"`head` must be 'linear', 'softmax', 'sigmoid' or None. Received: head={head!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number of at least 1. Received: batch_size={batch_size!r}.")
    if not 0 < epsilon < 0.5:
        raise ValueError(f"`epsilon` must lie between 0 and 0.5. Received: epsilon={epsilon}.")
