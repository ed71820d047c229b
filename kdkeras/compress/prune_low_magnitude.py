"""Pruning of single weights while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kdkeras.compress import masks
from kdkeras.compress._held_kernels import HeldKernels, Hold
from kdkeras.compress.kernels import Kernel, Scope


class PruneLowMagnitude(HeldKernels):
    """Sets the smallest weights of each kernel to zero while a model trains, and keeps them there.

    When an epoch begins, and every `every` batches, the share of zeros in each kernel is brought to what the schedule
    says. A weight that was pruned stays zero. The zeros hold under plain `fit` and under a `Distiller`, go with the
    model when it is saved, and hold after this `fit` too, until `strip` gives a model that is free of them. On JAX they
    hold in each `fit` that is given this callback.

    Zeros make the *compressed* file smaller. They make a TFLite model neither smaller on the device nor faster: see
    `remove_channels` for that. Tiny students bear little of it, and their depthwise kernels least.

    Args:
        model: The built model to prune: for a distiller, its student.
        schedule: The share of zeros by the epoch: `constant`, `polynomial`, or any function.
        scope: `"kernels"`, those of dense, convolutional and recurrent layers; `"all"`, depthwise ones too; or a list
            of layer paths. Default `"kernels"`.
        pattern: `None` for any weights; `"2:4"` for at most two zeros among four neighbours along the input channels,
            which needs no share above 0.5; `(rows, columns)` for whole blocks of the matrix inputs × outputs.
        every: Batches between updates within an epoch. Default: only when an epoch begins. The paper: 100 to 1000.

    Raises:
        TypeError: `model` is not a Keras model, or `schedule` no function.
        ValueError: There is nothing to prune, an option is out of range, or `"2:4"` is asked of a depthwise kernel.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import compress
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        >>> model.compile("sgd", "mse")
        >>> prune = compress.PruneLowMagnitude(model, compress.constant(0.75))
        >>> history = model.fit(np.random.rand(32, 4), np.random.rand(32, 8), verbose=0, callbacks=[prune])
        >>> compress.sparsity(model).share, history.history["sparsity"]
        (0.75, [0.75])

    Reference:
        Zhu, Gupta: To prune, or not to prune: exploring the efficacy of pruning for model compression, 2017,
        arXiv:1710.01878. Mishra et al.: Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378 (2:4).
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: Callable[[float], float],
        *,
        scope: Scope = "kernels",
        pattern: Literal["2:4"] | tuple[int, int] | None = None,
        every: int | None = None,
    ) -> None:
        if not callable(schedule):
            raise TypeError(
                "`PruneLowMagnitude` needs a function from the epoch to a share of zeros. Received: "
                f"{type(schedule).__name__}. Write for example `constant(0.5)`."
            )
        blocks = isinstance(pattern, tuple) and len(pattern) == 2 and all(size >= 1 for size in pattern)
        if pattern not in (None, "2:4") and not blocks:
            raise ValueError(f"`pattern` must be None, '2:4' or a tuple (rows, columns). Received: {pattern!r}.")
        if every is not None and every < 1:
            raise ValueError(f"`every` must be 1 batch or more, or None. Received: {every!r}.")
        self.schedule, self.pattern, self.every = schedule, pattern, every
        super().__init__(model, scope)

    def _check(self, kernels: list[Kernel]) -> None:
        depthwise = [kernel.path for kernel in kernels if kernel.is_depthwise]
        if self.pattern == "2:4" and depthwise:
            raise ValueError(
                f"pattern='2:4' needs kernels with input channels. Received: depthwise {depthwise}. Leave them out of "
                "`scope`."
            )

    def _hold(self, kernel: Kernel) -> Hold:
        return _Masked(kernel)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that the batches of an epoch are counted, where that is needed."""
        super().on_train_begin(logs)
        if self.every is not None and not (self.params or {}).get("steps"):
            raise ValueError(
                "`PruneLowMagnitude` with `every` needs to know the number of batches of an epoch. Received: data of "
                "unknown length. Give `steps_per_epoch` to `fit`, or leave `every` out."
            )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Prune within an epoch, where that is asked for."""
        if self.every is not None and batch and batch % self.every == 0:
            _ = self.model
            self._update(self._epoch + batch / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the share of zeros in all kernels together."""
        if logs is not None:
            kept = sum(float(ops.sum(hold.mask)) for hold in self._holds)
            logs["sparsity"] = 1 - kept / sum(hold.kernel.size for hold in self._holds)

    def _update(self, epoch: float) -> None:
        share = float(self.schedule(epoch))
        if not 0 <= share < 1 or (self.pattern == "2:4" and share > 0.5):
            raise ValueError(
                f"The schedule must give shares of zeros in [0, 1), and at most 0.5 for pattern='2:4'. Received: "
                f"{share} at epoch {epoch:g}."
            )
        for hold in self._holds:
            hold.mask.assign(self._mask(hold.kernel, share))
            hold.apply()

    def _mask(self, kernel: Kernel, share: float) -> np.ndarray:
        weights = ops.convert_to_numpy(kernel.variable)
        if self.pattern is None:
            mask = masks.magnitude_mask(weights, share)
        elif self.pattern == "2:4":
            mask = masks.group_mask(weights, share, axis=kernel.input_axis)
        else:
            mask = masks.block_mask(weights, share, block=self.pattern)
        # What is zero already was pruned before: the mask need not be saved for a training to go on.
        return mask & (weights != 0) if share > 0 else mask


class _Masked(Hold):
    """Keeps weights at zero."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        shape, dtype = kernel.variable.shape, kernel.variable.dtype
        self.mask = keras.Variable(ops.ones(shape, dtype), trainable=False, name="mask")

    def held(self, weights: Any) -> Any:
        return weights * ops.convert_to_tensor(self.mask)
