"""Function matching: a patient student of a consistent teacher (Beyer et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kdkeras.distiller import Distiller
from kdkeras.inputs import check_arrays, is_array_like
from kdkeras.losses import SoftTargets
from kdkeras.losses.base import checked_number
from kdkeras.schemes._training import announce, arguments_of
from kdkeras.schemes.same_views import SameViews
from kdkeras.schemes.trained import Trained

_WARM_UP = 0.05  # share of all steps; the authors' code warms up for 5,000 of 90,000 at 300 epochs


def function_matching(
    student: keras.Model,
    teacher: keras.Model,
    views: Any,
    *,
    epochs: int,
    temperature: float = 1.0,
    learning_rate: float = 1e-3,
    compile: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Trained:
    """Let the student match the teacher as a function: on the same views, without labels, for a long time.

    What the paper found to matter, and what is done here:

    - consistent: teacher and student get the very same view, cropped and mixed, as `SameViews` makes them;
    - no labels: the loss is T² · KL(p_t ‖ p_s) alone;
    - patient: more epochs help on and on, up to thousands. The learning rate warms up over a twentieth of all steps
      and falls to 0 on a cosine until the last one, so that `epochs` is to be chosen at the start.

    The optimizer is Adam, its gradient clipped to a global norm of 1, as in the authors' code; that adds a decoupled
    weight decay of 3e-4, which this does not.

    Args:
        student: The model to train.
        teacher: The trained teacher; it is never changed, and sees the views.
        views: `SameViews`, or another dataset of inputs that are augmented already.
        epochs: How many. The paper goes from 300 to 9,600 on ImageNet.
        temperature: Temperature T. Default 1, as in the authors' code.
        learning_rate: The highest learning rate. Default 1e-3, Keras' own for Adam.
        compile: Further arguments of `Distiller.compile`; an `optimizer` takes the place of the one above.
        fit: Further arguments of `Distiller.fit`, such as `validation_data`, which are not augmented.

    Returns:
        `Trained`, with the student and one history.

    Raises:
        TypeError: `views` are plain arrays.
        ValueError: `compile` or `fit` set what this scheme sets, the views do not fit the student, or their number is
            unknown.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras.schemes import SameViews, function_matching
        >>> from kdkeras.testing import tiny_cnn
        >>> views = SameViews(np.random.rand(8, 10, 10, 1).astype("float32"), 4, augment=keras.layers.RandomCrop(8, 8))
        >>> trained = function_matching(tiny_cnn(), tiny_cnn(width=8), views, epochs=2, fit={"verbose": 0})
        >>> sorted(trained.histories[0])
        ['loss', 'soft_targets']

    Reference:
        Beyer et al.: Knowledge distillation: A good teacher is patient and consistent, CVPR 2022, arXiv:2106.05237.
        Settings: its code, `big_vision/configs/proj/distill/bit_i1k.py`.
    """
    checked_number("function_matching", "epochs", epochs, minimum=1)
    if views is None or is_array_like(views):
        raise TypeError(
            f"`function_matching` needs augmented views. Received: plain inputs of type {type(views).__name__}. Wrap "
            "them: `SameViews(x, batch_size, augment=...)`."
        )
    if isinstance(views, SameViews):
        # In the data's own type: a mixture of raw images is no longer uint8, but still raw.
        first = keras.tree.map_structure(lambda view, array: view.astype(array.dtype), views[0][0], views.x)
        check_arrays(student, first, name="views")
    reserved = ("loss", "distillation_loss", "task_weight")
    settings = arguments_of(compile, 0, name="compile", reserved=reserved)
    arguments = arguments_of(fit, 0, name="fit", reserved=("x", "y", "epochs", "batch_size"))
    if "optimizer" not in settings:
        settings["optimizer"] = _patient_adam(learning_rate, epochs * _batches(views, arguments))
    loss = SoftTargets(temperature=temperature, weight=1.0)
    distiller = Distiller(student=student, teacher=teacher).compile(**settings, distillation_loss=loss)
    announce(f"'{student.name}' matches '{teacher.name}' for {epochs} epochs", arguments.get("verbose", "auto"))
    return Trained((student,), (dict(distiller.fit(views, epochs=epochs, **{"shuffle": False, **arguments}).history),))


def _batches(views: Any, arguments: Mapping[str, Any]) -> int:
    """Return the number of batches of an epoch."""
    if arguments.get("steps_per_epoch"):
        return int(arguments["steps_per_epoch"])
    try:
        return len(views)
    except TypeError as error:
        raise ValueError(
            "`function_matching` needs to know the number of batches, for its learning rate ends with the last one. "
            'Received: data of unknown length. Pass `fit={"steps_per_epoch": ...}`, or an optimizer in `compile`.'
        ) from error


def _patient_adam(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    checked_number("function_matching", "learning_rate", learning_rate, minimum=0, exclusive=True)
    warm_up = int(_WARM_UP * steps)
    if warm_up:
        ahead = {"initial_learning_rate": 0.0, "warmup_target": learning_rate, "warmup_steps": warm_up}
    else:
        ahead = {"initial_learning_rate": learning_rate}
    schedule = keras.optimizers.schedules.CosineDecay(decay_steps=max(steps - warm_up, 1), **ahead)
    return keras.optimizers.Adam(schedule, global_clipnorm=1.0)
