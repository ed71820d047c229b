"""Callbacks that hold kernels to a form while they are trained, under any `fit`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kdkeras import _backend
from kdkeras._distribution import strategy_scope
from kdkeras.compress.kernels import Kernel, Scope, kernels_of


class Hold:
    """What a kernel is held to, after each update of its weights.

    Args:
        kernel: The kernel.

    Attributes:
        kernel: The kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._own = kernel.variable.constraint  # the user's, or that of another callback

    def __call__(self, weights: Any) -> Any:
        """Return the weights nearest to these that have the form."""
        return self.held(ops.convert_to_tensor(weights if self._own is None else self._own(weights)))

    def held(self, weights: Any) -> Any:
        """Return what becomes of weights that the kernel's own constraint has let pass."""
        raise NotImplementedError("A subclass says what the kernel is held to.")

    def apply(self) -> None:
        """Bring the kernel into the form now."""
        self.kernel.variable.assign(self.held(ops.convert_to_tensor(self.kernel.variable)))


class HeldKernels(keras.callbacks.Callback):
    """Puts constraints on kernels, which every optimizer applies after each update: in plain `fit` and in a distiller.

    On JAX the kernels are brought into the form after each batch instead, by this callback. The form can be read from
    the kernel itself, so that a training that was interrupted goes on as it was, and the model stays a plain one: it
    can be saved at any time.

    Args:
        model: The built model whose kernels are held.
        scope: Which kernels, see `kernels_of`.
    """

    def __init__(self, model: keras.Model, scope: Scope) -> None:
        super().__init__()
        self._kernels = kernels_of(model, scope, trained=True)
        self._check(self._kernels)
        self._name, self._epoch = model.name, 0
        with strategy_scope(model):
            self._holds = [self._hold(kernel) for kernel in self._kernels]
        if _backend.name() != "jax":  # where a compiled step would keep the form as it was when it was compiled
            for hold in self._holds:
                hold.kernel.variable.constraint = hold

    def _check(self, kernels: list[Kernel]) -> None:
        """Raise for kernels that cannot be brought into the form."""

    def _hold(self, kernel: Kernel) -> Hold:
        raise NotImplementedError("A subclass says what kernels are held to.")

    def _update(self, epoch: float) -> None:
        raise NotImplementedError("A subclass says when the form changes.")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compile the step anew: one that was compiled before knows nothing of the constraints."""
        trained = {id(variable) for variable in self.model.trainable_variables}
        if not all(id(kernel.variable) in trained for kernel in self._kernels):
            raise ValueError(
                f"`{type(self).__name__}` was made for model '{self._name}', which is not what '{self.model.name}' "
                "trains. Make it for that model, or for the distiller's student."
            )
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Bring the kernels into the form that this epoch begins with."""
        _ = self.model  # on JAX, this brings the variables of a running epoch back
        self._epoch = epoch
        self._update(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """On JAX, bring the kernels into the form here."""
        if _backend.name() == "jax":
            _ = self.model
            for hold in self._holds:
                hold.apply()
