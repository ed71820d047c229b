"""Several models as one, with an output for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kdkeras._distribution import strategy_scope
from kdkeras.inputs import check_same_inputs, input_specs
from kdkeras.schemes._training import check_apart


@keras.saving.register_keras_serializable(package="kdkeras")
class SideBySide(keras.Model):
    """Several models that take the same inputs, as one model with an output for each, by its name.

    As a teacher, it lets each of its models teach its own part: losses name the part by `output=("student's", "part")`,
    or tap its layers by path, `"part/conv4"`. As a student, it trains them all at once. The models stay what they are.

    Args:
        models: Two or more models with different names, without common weights.
        name: Name of the model. Default `"side_by_side"`.

    Attributes:
        models: The models.

    Raises:
        TypeError: One is no Keras model.
        ValueError: There are fewer than two, names are equal, models share weights, or inputs differ.

    Example:
        >>> import numpy as np
        >>> from kdkeras.schemes import SideBySide
        >>> from kdkeras.testing import tiny_cnn
        >>> both = SideBySide([tiny_cnn(name="a"), tiny_cnn(units=2, name="b")])
        >>> {name: tuple(output.shape) for name, output in both(np.ones((4, 8, 8, 1), "float32")).items()}
        {'a': (4, 3), 'b': (4, 2)}
    """

    def __init__(self, models: Sequence[keras.Model], *, name: str = "side_by_side") -> None:
        if not isinstance(models, (list, tuple)) or len(models) < 2:
            raise ValueError(f"`SideBySide` needs two models or more, in a list. Received: {models!r}. Add one.")
        check_apart(models, asked_by="SideBySide")
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(
                f"`SideBySide` needs models with different names, for they name its outputs. Received: {names}. Pass "
                "`name=` when you make them."
            )
        with strategy_scope(models[0]):
            # Inputs pass through to the models, each of which casts its own.
            super().__init__(name=name, autocast=False)
        self.models = list(models)
        self.output_names = sorted(names)  # the order in which Keras flattens a dict
        known = self._known_inputs()
        if known is not None:
            for model in models:
                check_same_inputs(known, model, student_name=models[0].name)
        self.built = all(model.built for model in models)

    @property
    def inputs(self) -> list[Any] | None:
        """Symbolic inputs as a flat list, or `None` where only data can tell."""
        known = self._known_inputs()
        return None if known is None else keras.tree.flatten(known)

    @property
    def input(self) -> Any:
        """Symbolic inputs, nested as the models take them."""
        known = self._known_inputs()
        return super().input if known is None else known

    def build(self, input_shape: Any) -> None:
        """Leave it to the models to build themselves when they are first called."""
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        """Return what each model says.

        Args:
            inputs: What each model takes.
            training: Handed on to the models.

        Returns:
            Their outputs, by name.
        """
        return {model.name: model(inputs, training=training) for model in self.models}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"models": [keras.saving.serialize_keras_object(model) for model in self.models], "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SideBySide:
        """Rebuild the model from `get_config`."""
        return cls(**{**config, "models": [keras.saving.deserialize_keras_object(each) for each in config["models"]]})

    def _known_inputs(self) -> Any:
        """Return the inputs of the first model that knows its own. Kept here, Keras would wrap the nest."""
        specs = (input_specs(model) for model in self.models)
        return next((spec for spec in specs if spec is not None), None)
