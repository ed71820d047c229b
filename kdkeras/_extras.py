"""Packages that only some features need: how they are asked for, and what is said where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of an extra cannot be imported; the message says how it is installed."""


def require(module: str, *, extra: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its name.
        extra: The extra of this project that installs it.
        what: What needs it, for the message.

    Returns:
        The module.

    Raises:
        MissingExtraError: It cannot be imported.

    Example:
        >>> from kdkeras._extras import require
        >>> require("no_such_package", extra="explain", what="SHAP")
        Traceback (most recent call last):
        kdkeras._extras.MissingExtraError: SHAP needs 'no_such_package', which cannot be imported...
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs '{module}', which cannot be imported. Run `pip install 'kdkeras[{extra}]'`."
        ) from error
