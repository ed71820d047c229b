"""What a model takes, and whether given data fits it: checked before work starts, said in one sentence."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def input_specs(model: keras.Model) -> Any:
    """Return the symbolic inputs of a model, nested as it takes them.

    Args:
        model: A Keras model.

    Returns:
        `keras.KerasTensor`s, or `None` where only data can tell: subclassed models, and Sequential ones not yet built.

    Example:
        >>> import keras
        >>> from kdkeras.inputs import input_specs
        >>> input_specs(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])).shape
        (None, 4)
    """
    # A subclassed model has no `inputs`; a Sequential one has `None` until it is built.
    if getattr(model, "inputs", None) is None:
        return None
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def build_for(model: keras.Model, inputs: Any) -> None:
    """Build a model that is not built yet, for inputs like these in batches of any size.

    Args:
        model: A Keras model.
        inputs: Tensors of some samples, nested as the model takes them.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.inputs import build_for, input_specs
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> build_for(model, np.zeros((1, 4), "float32"))
        >>> input_specs(model).shape
        (None, 4)
    """
    if model.built:
        return
    if isinstance(model, keras.Sequential) and hasattr(inputs, "shape"):
        model.build((None, *inputs.shape[1:]))  # a call would take the size of this batch for that of all batches
    else:
        model(inputs, training=False)


def specs_of_shapes(shapes: Any) -> Any:
    """Return symbolic float inputs for shapes, the batch axis left open.

    Args:
        shapes: A shape tuple, or a nest of them.

    Returns:
        `keras.KerasTensor`s in the same nest.

    Example:
        >>> from kdkeras.inputs import specs_of_shapes
        >>> specs_of_shapes((32, 8, 8, 1)).shape
        (None, 8, 8, 1)
    """
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor((None, *shape[1:])), shapes)


def specs_of_tensors(inputs: Any) -> Any:
    """Return symbolic inputs for tensors, the batch axis left open.

    Args:
        inputs: A tensor or array, or a nest of them.

    Returns:
        `keras.KerasTensor`s in the same nest.

    Example:
        >>> import numpy as np
        >>> from kdkeras.inputs import specs_of_tensors
        >>> specs_of_tensors(np.zeros((5, 3), "int32")).dtype
        'int32'
    """

    def spec(tensor: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None, *tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype))

    return keras.tree.map_structure(spec, inputs)


def is_array_like(data: Any) -> bool:
    """Whether `data` is arrays or tensors, at rest, rather than a dataset or a generator.

    Args:
        data: Whatever `fit` takes as x.

    Returns:
        True for numpy arrays, tensors, numbers, and lists, tuples and dicts of them.

    Example:
        >>> import numpy as np
        >>> from kdkeras.inputs import is_array_like
        >>> is_array_like({"a": np.zeros(3)}), is_array_like(iter([1]))
        (True, False)
    """
    leaves = keras.tree.flatten(data)
    return all(isinstance(leaf, (np.ndarray, float, int)) or keras.ops.is_tensor(leaf) for leaf in leaves)


def check_same_inputs(student: Any, teacher: keras.Model, *, student_name: str) -> None:
    """Raise if two models do not take the same inputs.

    Args:
        student: The student's symbolic inputs.
        teacher: The teacher.
        student_name: The student's name, for the message.

    Raises:
        ValueError: Number or shapes of the inputs differ.

    Example:
        >>> import keras
        >>> from kdkeras.inputs import check_same_inputs
        >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> check_same_inputs(keras.KerasTensor((None, 4)), teacher, student_name="small")
    """
    specs = input_specs(teacher)
    if specs is None:
        return
    ours = [tuple(spec.shape[1:]) for spec in keras.tree.flatten(student)]
    theirs = [tuple(spec.shape[1:]) for spec in keras.tree.flatten(specs)]
    agree = len(ours) == len(theirs) and all(
        len(a) == len(b) and all(i == j or None in (i, j) for i, j in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )
    if not agree:
        raise ValueError(
            f"Student and teacher need the same inputs. Received: student '{student_name}' {ours}, teacher "
            f"'{teacher.name}' {theirs}. Pass `teacher_inputs=` (a function of x), give `kdkeras.Paired` data, or put "
            "a resizing layer at the start of one of them."
        )


def check_arrays(model: keras.Model, x: Any, *, name: str = "x") -> None:
    """Raise if arrays cannot be what the model was made for.

    Args:
        model: The model that will take them.
        x: Arrays or tensors, nested as the model takes them.
        name: What to call them in the message.

    Raises:
        ValueError: No samples, NaN or infinite values, a shape other than the model's, or raw uint8 images for a
            model that does not scale them itself.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.inputs import check_arrays
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> check_arrays(model, np.full((1, 2), np.nan))
        Traceback (most recent call last):
        ValueError: x contains 2 NaN or infinite values of 2. Remove or impute them first.
    """
    specs = input_specs(model)
    arrays = keras.tree.flatten(x)
    expected = [None] * len(arrays) if specs is None else keras.tree.flatten(specs)
    if len(arrays) != len(expected):
        raise ValueError(f"Model '{model.name}' takes {len(expected)} inputs. Received: {len(arrays)} in {name}.")
    for array, spec in zip(arrays, expected, strict=True):
        array = np.asarray(array)
        if not len(np.atleast_1d(array)):
            raise ValueError(f"{name} has no samples (shape {array.shape}). Pass at least one.")
        if spec is not None:
            _check_shape(model, array, tuple(spec.shape), name)
        if array.dtype == np.uint8 and array.max() > 1 and spec is not None and _takes_scaled_floats(model, spec):
            raise ValueError(_raw_images(name, f"with values up to {array.max()}", model))
        check_finite(array, name)


def refuse_raw_images(model: keras.Model, x: Any) -> None:
    """Raise if symbols of a stream's inputs are raw images, for a model that takes scaled ones.

    Args:
        model: The model that will take them.
        x: Symbolic inputs, nested as the model takes them.

    Raises:
        ValueError: An input is uint8, and the model takes floats and does not scale them itself.

    Example:
        >>> import keras
        >>> from kdkeras.inputs import refuse_raw_images
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> refuse_raw_images(model, keras.KerasTensor((None, 2), "float32"))
    """
    specs = input_specs(model)
    given = keras.tree.flatten(x)
    for tensor, spec in zip(
        given, keras.tree.flatten(specs) if specs is not None else [None] * len(given), strict=False
    ):
        if spec is not None and tensor.dtype == "uint8" and _takes_scaled_floats(model, spec):
            raise ValueError(_raw_images("x", "in the data", model))


def _raw_images(name: str, values: str, model: keras.Model) -> str:
    return (
        f"{name} is uint8 {values}, but model '{model.name}' takes floats and does not scale them. Divide by 255 "
        "(`x.astype('float32') / 255`), or start the model with `keras.layers.Rescaling(1 / 255)`."
    )


def check_count(name: str, value: int) -> None:
    """Raise unless an argument is a whole number of at least 1.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1. Received: {name}={value!r}.")


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise if an array has NaN or infinite values.

    Args:
        array: Any array; integers always pass.
        name: What to call it in the message.

    Raises:
        ValueError: Some values are not finite.

    Example:
        >>> import numpy as np
        >>> from kdkeras.inputs import check_finite
        >>> check_finite(np.array([1.0, np.inf]), "labels")
        Traceback (most recent call last):
        ValueError: labels contains 1 NaN or infinite values of 2. Remove or impute them first.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} contains {bad} NaN or infinite values of {array.size}. Remove or impute them first.")


def _check_shape(model: keras.Model, array: np.ndarray, shape: tuple[int | None, ...], name: str) -> None:
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits:
        raise ValueError(
            f"Model '{model.name}' takes inputs of shape {shape}. Received: {name} of shape {array.shape}. "
            "Reshape or resize it first."
        )


def _takes_scaled_floats(model: keras.Model, spec: Any) -> bool:
    scaling = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Embedding)
    has_scaling = any(isinstance(layer, scaling) for layer in model._flatten_layers())
    return keras.backend.is_float_dtype(spec.dtype) and not has_scaling
