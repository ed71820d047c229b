"""How models of other libraries are asked: scikit-learn, ONNX Runtime, PyTorch. None of them is imported before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "tensor(bool)": "bool",
}


def name_of(teacher: Any) -> str:
    """Return what to call a teacher in a message.

    Args:
        teacher: Anything.

    Returns:
        The function's name, or the name of the type.
    """
    return f"`{getattr(teacher, '__name__', type(teacher).__name__)}`"  # functions have a name, most objects none


def estimator_answers(estimator: Any, x: Any) -> tuple[np.ndarray, str]:
    """Ask a scikit-learn estimator.

    Args:
        estimator: A fitted classifier or regressor.
        x: Its inputs.

    Returns:
        The answers `(n, units)`, and the head that they have gone through.

    Raises:
        TypeError: It is neither classifier nor regressor.
        ValueError: A classifier without probabilities, or with several labels of more than two classes.
    """
    from sklearn.base import is_classifier, is_regressor

    name = type(estimator).__name__
    if is_regressor(estimator):
        values = np.asarray(estimator.predict(x))
        return values.reshape(len(values), -1), "linear"
    if not is_classifier(estimator):
        raise TypeError(f"A teacher from scikit-learn must be a classifier or a regressor. Received: {name}.")
    try:
        predict_proba = estimator.predict_proba
    except AttributeError as error:
        raise ValueError(
            f"`logits` needs a classifier with `predict_proba`. Received: {name}. Wrap it in scikit-learn's "
            "`CalibratedClassifierCV`, or pass its `decision_function` as a function."
        ) from error
    p = predict_proba(x)
    if not isinstance(p, list):
        return np.asarray(p), "softmax"
    shapes = [np.shape(label) for label in p]
    if any(len(shape) != 2 or shape[1] != 2 for shape in shapes):
        raise ValueError(
            f"`logits` needs one label of several classes, or several labels of two. Received: {name} with "
            f"{[shape[-1] for shape in shapes]} classes. Fit one estimator for each label."
        )
    return np.stack([label[:, 1] for label in p], axis=1), "sigmoid"


def session_function(session: Any, batch_size: int) -> tuple[Callable[[Any], np.ndarray], int]:
    """Return a function that runs an ONNX session on a batch, and the batch size that the session takes.

    Args:
        session: An `onnxruntime.InferenceSession` with one output.
        batch_size: Samples per call, if the session leaves that open.

    Returns:
        The function and the batch size.

    Raises:
        ValueError: The session has several outputs.
    """
    inputs = {item.name: item for item in session.get_inputs()}
    outputs = [item.name for item in session.get_outputs()]
    if len(outputs) != 1:
        raise ValueError(
            f"`logits` needs an ONNX session with one output. Received: {outputs}. Pass a function that returns the "
            f"one that you want: `lambda x: session.run([{outputs[-1]!r}], {{{next(iter(inputs))!r}: x}})[0]`."
        )
    # An open batch axis is a name or None, a fixed one a number.
    fixed = {item.shape[0] for item in inputs.values() if item.shape and isinstance(item.shape[0], int)}
    size = fixed.pop() if len(fixed) == 1 else None

    def run(batch: Any) -> np.ndarray:
        feeds = _by_input_name(batch, list(inputs))
        samples = len(next(iter(feeds.values())))
        missing = 0 if size is None else size - samples
        for name, array in feeds.items():
            dtype = _ONNX_TYPES.get(inputs[name].type)  # others, such as strings, go as they are
            array = array if dtype is None else array.astype(dtype, copy=False)
            # The last batch of a session with a fixed batch size is filled up with copies of its last sample.
            feeds[name] = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing > 0 else array
        return session.run(outputs, feeds)[0][:samples]

    return run, size or batch_size


def _by_input_name(batch: Any, names: list[str]) -> dict[str, np.ndarray]:
    feeds = dict(batch) if isinstance(batch, dict) else {names[0]: batch}
    if sorted(feeds) != sorted(names):
        received = sorted(feeds) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"The ONNX session takes inputs named {names}: pass a dict by name. Received: {received}.")
    return feeds


def module_function(module: Any) -> Callable[[Any], np.ndarray]:
    """Return a function that runs a PyTorch module on a batch, as it is at inference, and leaves it as it was.

    Args:
        module: A `torch.nn.Module`.

    Returns:
        The function. It gives arrays to the module's device, floating ones in the dtype of its parameters.
    """
    import torch

    like = next(module.parameters(), torch.zeros(()))
    dtype = like.dtype if like.is_floating_point() else torch.float32

    def tensor(array: np.ndarray) -> Any:
        made = torch.tensor(array, device=like.device)  # a copy: numpy arrays may be read-only
        return made.to(dtype) if made.is_floating_point() else made

    def run(batch: Any) -> Any:
        given = keras.tree.map_structure(tensor, batch)
        modes = {part: part.training for part in module.modules()}
        module.eval()
        try:
            with torch.no_grad():
                if isinstance(given, dict):
                    said = module(**given)
                else:
                    said = module(*given) if isinstance(given, (list, tuple)) else module(given)
        finally:
            for part, training in modes.items():
                part.training = training  # each as it was: parts may be frozen in `eval` mode on their own
        return said.float().cpu().numpy() if isinstance(said, torch.Tensor) else said

    return run
