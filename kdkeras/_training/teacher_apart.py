"""A model that holds a teacher beside what it trains, and never trains the teacher."""

from __future__ import annotations

from typing import Any

import keras


class TeacherApart(keras.Model):
    """Keeps the variables and the flags of `self.teacher` out of what a model trains, whatever is set.

    A subclass sets `self.teacher` (a model or `None`) and says in `_trained_layers` which layers follow `trainable`.
    """

    # Without a value: PyTorch looks among its submodules only where the class has nothing of that name.
    teacher: keras.Model | None

    def _trained_layers(self) -> list[keras.layers.Layer]:
        raise NotImplementedError("A subclass says which layers it trains.")

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the student; setting it leaves the teacher's own flags alone."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._trained_layers():
            layer.trainable = value

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Trainable variables of the student and of the losses; never the teacher's."""
        theirs = {id(variable) for variable in self.teacher.variables} if self.teacher is not None else set()
        ours = {id(variable) for layer in self._trained_layers() for variable in layer.trainable_variables} - theirs
        return [variable for variable in super().trainable_variables if id(variable) in ours]

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """Every other variable, the teacher's among them."""
        ours = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in ours]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """As `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """As `non_trainable_variables`, without the state of random generators."""
        ours = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.weights if id(variable) not in ours]

    @property
    def own_variables(self) -> list[keras.Variable]:
        """All variables but the teacher's."""
        theirs = {id(variable) for variable in self.teacher.variables} if self.teacher is not None else set()
        return [variable for variable in self.variables if id(variable) not in theirs]

    @property
    def losses(self) -> list[Any]:
        """The student's own regularisation, and that of the distillation losses; never the teacher's."""
        if self._losses_override:  # what JAX carries from the forward pass into the loss
            return list(self._losses_override)
        return [loss for layer in self._trained_layers() for loss in layer.losses]
