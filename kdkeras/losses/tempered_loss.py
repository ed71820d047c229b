"""The base of losses between logits that are softened by a temperature."""

from __future__ import annotations

from typing import Any

from keras import ops

from kdkeras._backend import number
from kdkeras.losses.base import DistillationLoss, checked_number
from kdkeras.ops import standardize
from kdkeras.signals import Signals


class TemperedLoss(DistillationLoss):
    """A distillation loss with a temperature T, which may be moved between steps, and with standardised logits.

    Args:
        temperature: Temperature T > 0.
        weight: Factor on this term in the total loss.
        standardize: Whether each vector of logits is brought to mean 0 and standard deviation 1 first (LSKD), so that
            the student need not match the range of the teacher's logits. Default `False`.
        output: Name of the output that is compared, where the models have several; a pair where the names differ.
        name: Name in logs and progress bar.

    Raises:
        TypeError: `standardize` is not a boolean.
        ValueError: `temperature` is not above 0, or `weight` is negative.

    Example:
        >>> import kdkeras
        >>> loss = kdkeras.losses.SoftTargets(temperature=2, weight=9, standardize=True)
        >>> loss.temperature = 3
        >>> loss.temperature
        3.0

    Reference:
        Sun et al.: Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427.
    """

    def __init__(
        self,
        temperature: float,
        weight: float,
        *,
        standardize: bool = False,
        output: str | tuple[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, output=output, name=name)
        if not isinstance(standardize, bool):
            raise TypeError(f"`{type(self).__name__}` needs standardize=True or False. Received: {standardize!r}.")
        self._temperature = self._setting("temperature", temperature, minimum=0.0, exclusive=True)
        self.standardize = standardize

    @property
    def temperature(self) -> float:
        """Temperature T; setting it takes effect on the next step."""
        return number(self._temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature.assign(checked_number(type(self).__name__, "temperature", value, minimum=0.0, exclusive=True))

    def logits(self, student: Signals, teacher: Signals) -> tuple[Any, Any, Any]:
        """Return what `call` compares.

        Args:
            student: The student's signals.
            teacher: The teacher's signals.

        Returns:
            The student's logits and the teacher's, standardised where that is asked for, and the temperature.
        """
        both = (student.logits, teacher.logits)
        if self.standardize:
            both = tuple(standardize(logits) for logits in both)
        return *both, ops.convert_to_tensor(self._temperature)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature, "standardize": self.standardize}
