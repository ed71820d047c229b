"""Pictures whose names are shown as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def plain_text(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a drawing function show dollar signs in names, instead of reading what is between them as mathematics.

    Args:
        draw: A function that makes matplotlib texts.

    Returns:
        The same function, under matplotlib's setting `text.parse_math = False`.

    Example:
        >>> from kdkeras._plain_text import plain_text
        >>> @plain_text
        ... def draw(name):
        ...     from matplotlib.text import Text
        ...     return Text(0, 0, name).get_parse_math()
        >>> draw("cost $x$")
        False
    """

    @functools.wraps(draw)
    def drawing(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return drawing
