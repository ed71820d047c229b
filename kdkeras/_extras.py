"""Packages that only some features need: how they are asked for, and what is said where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its name.
        extra: The extra of this project that installs it.
        what: What needs it, for the message.

    Returns:
        The module.

    Raises:
        ImportError: It cannot be imported.

    Example:
        >>> from kdkeras._extras import require
        >>> require("no_such_package", extra="explain", what="SHAP")
        Traceback (most recent call last):
        ImportError: SHAP needs 'no_such_package', which cannot be imported. Run `pip install 'kdkeras[explain]'`.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs '{module}', which cannot be imported. Run `pip install 'kdkeras[{extra}]'`."
        ) from error
