"""What schemes of several trainings share: arguments, one `fit` after the other, and what can be refused early."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kdkeras.distiller import Distiller
from kdkeras.losses import DistillationLoss
from kdkeras.signals import Cached, Indexed, Paired

# One set of arguments for all stages, or a function from the stage's number, from 0, to its own.
Arguments = Mapping[str, Any] | Callable[[int], Mapping[str, Any]]

_OF_ONE_TRAINING = (keras.optimizers.Optimizer, keras.losses.Loss, keras.metrics.Metric, DistillationLoss)


def copied(value: Any) -> Any:
    """Return optimizers, losses and metrics made anew from their configuration; anything else as it is.

    What belongs to one training keeps its state, so that a second one needs its own.

    Args:
        value: Such an object, or a nest of them.

    Returns:
        The same nest.

    Example:
        >>> import keras
        >>> from kdkeras.schemes._training import copied
        >>> optimizer = keras.optimizers.SGD(0.5)
        >>> other = copied({"optimizer": optimizer, "metrics": ["accuracy"]})
        >>> other["optimizer"] is optimizer, float(other["optimizer"].learning_rate), other["metrics"]
        (False, 0.5, ['accuracy'])
    """
    return keras.tree.map_structure(
        lambda leaf: type(leaf).from_config(leaf.get_config()) if isinstance(leaf, _OF_ONE_TRAINING) else leaf, value
    )


def as_name(text: str) -> str:
    """Return a text as a name of a loss or a model, of which TensorFlow allows plain letters and digits only.

    Args:
        text: Any text.

    Returns:
        The text with `_` for what is not allowed.

    Example:
        >>> from kdkeras.schemes._training import as_name
        >>> as_name("warm clothes/2")
        'warm_clothes_2'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def arguments_of(given: Arguments | None, stage: int, *, name: str, reserved: Sequence[str] = ()) -> dict[str, Any]:
    """Return the arguments of one stage.

    Args:
        given: One set for all stages, of which each gets copies, or a function of the stage's number.
        stage: Number of the stage, from 0.
        name: What they are arguments of, for the message.
        reserved: Names that the scheme sets itself.

    Returns:
        A dict of its own.

    Raises:
        TypeError: They are no mapping.
        ValueError: One of them is set by the scheme.
    """
    arguments = given(stage) if callable(given) else given or {}
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"`{name}` must be a dict of arguments, or a function from the stage's number to one. Received: "
            f"{type(arguments).__name__}."
        )
    taken = sorted(set(arguments) & set(reserved))
    if taken:
        raise ValueError(f"This scheme sets {taken} itself. Received: `{name}` with them. Leave them out.")
    return dict(arguments) if callable(given) else {key: copied(value) for key, value in arguments.items()}


def check_apart(models: Sequence[keras.Model], *, asked_by: str) -> None:
    """Raise unless models are Keras models without common weights.

    Args:
        models: The models.
        asked_by: Who asks, for the message.

    Raises:
        TypeError: One is no Keras model.
        ValueError: Two share weights.
    """
    owners: dict[int, str] = {}
    for model in models:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`{asked_by}` needs Keras models. Received: {model!r} of type {type(model).__name__}.")
        for variable in model.weights:
            if id(variable) in owners:
                raise ValueError(
                    f"`{asked_by}` needs models without common weights. Received: '{owners[id(variable)]}' and "
                    f"'{model.name}' share '{variable.path}'. Make each anew, or use `keras.models.clone_model`."
                )
        owners |= {id(variable): model.name for variable in model.weights}


def check_readable_again(x: Any, *, asked_by: str) -> None:
    """Raise for data that a second `fit` could not read.

    Args:
        x: What the scheme was given as x.
        asked_by: Who asks, for the message.

    Raises:
        ValueError: They are a generator or another iterator.
    """
    if isinstance(x, Iterator):
        raise ValueError(
            f"`{asked_by}` reads the data once for each stage. Received: {type(x).__name__}, which can be read only "
            "once. Pass arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`."
        )


def refuse_one_teachers_inputs(x: Any, *, asked_by: str) -> None:
    """Raise for data that belong to one teacher, where teachers change.

    Args:
        x: What the scheme was given as x.
        asked_by: Who asks, for the message.

    Raises:
        ValueError: They are `Paired` or `Cached`.
    """
    x = x.inputs if isinstance(x, Indexed) else x
    if isinstance(x, (Paired, Cached)):
        raise ValueError(
            f"`{asked_by}` changes the teacher from stage to stage. Received: `{type(x).__name__}`, which is about "
            "one teacher. Pass plain inputs."
        )


def fit_in_order(
    distillers: Sequence[Distiller],
    x: Any,
    y: Any,
    fit: Arguments | None,
    *,
    during: Callable[[int], contextlib.AbstractContextManager[Any]] = lambda stage: contextlib.nullcontext(),
) -> tuple[dict[str, list[float]], ...]:
    """Fit distillers one after the other.

    Args:
        distillers: Compiled distillers.
        x: Data, as `fit` takes them.
        y: Labels, as `fit` takes them.
        fit: Further arguments of `fit`.
        during: Function from the stage's number, from 0, to a context that it runs in.

    Returns:
        The history of each.
    """
    stages = [arguments_of(fit, stage, name="fit", reserved=("x", "y")) for stage in range(len(distillers))]
    histories = []
    for stage, (distiller, arguments) in enumerate(zip(distillers, stages, strict=True)):
        teacher = "its answers" if distiller.teacher is None else f"'{distiller.teacher.name}'"
        announce(
            f"Stage {stage + 1} of {len(stages)}: '{distiller.student.name}' learns from {teacher}",
            arguments.get("verbose", "auto"),
        )
        with during(stage):
            histories.append(dict(distiller.fit(x, y, **arguments).history))
    return tuple(histories)


def announce(text: str, verbose: Any) -> None:
    """Say what follows, where the progress bar of `fit` will stand, and only if there will be one.

    Args:
        text: What to say.
        verbose: The argument of `fit`.
    """
    from keras.src.utils.io_utils import print_msg  # what `fit` itself prints with has no public name

    if verbose != 0:
        print_msg(text)
