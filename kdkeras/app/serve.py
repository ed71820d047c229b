"""Serving the page on this machine, and nowhere else unless that is asked."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable

from kdkeras.app.guard import Guard
from kdkeras.app.page import check_gradio, import_gradio, page, style
from kdkeras.app.workbench import Workbench

LOOPBACK = "127.0.0.1"
_FIRST_PORT, _TRIED = 7860, 100
_PATIENCE = 1  # seconds that open pages have to close when the server ends


def serve(bench: Workbench, listener: socket.socket | None = None, *, ready: Callable[[str], None] = print) -> None:
    """Serve the page until Ctrl-C.

    Args:
        bench: What it shows.
        listener: Where, as `listen` returns it; it is closed at the end. Default: `listen()`, this machine alone.
        ready: Is told the page's address once it can be opened.

    Raises:
        MissingGradioError: Gradio is not installed.
        OSError: No port is free.
    """
    check_gradio()
    import uvicorn

    with contextlib.closing(listener or listen()) as listener:
        host, port = listener.getsockname()[:2]
        guard = application(bench, host, port)
        config = uvicorn.Config(guard, log_level="critical", timeout_graceful_shutdown=_PATIENCE)
        ready(_address(host, port))  # from here on browsers wait in line
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
            uvicorn.Server(config).run(sockets=[listener])


def application(bench: Workbench, host: str = LOOPBACK, port: int = _FIRST_PORT) -> Guard:
    """Return the page as an ASGI application.

    Args:
        bench: What it shows.
        host: Address at which it is served.
        port: Port at which it is served.

    Returns:
        The `Guard` with all that stands behind it.

    Raises:
        MissingGradioError: Gradio is not installed.
    """
    gradio = import_gradio()
    import fastapi

    blocks = page(bench)
    # `launch` sets it, mounting does not, and without it Gradio copies any file that a client names (6.31).
    blocks.has_launched = True
    # No path is allowed beside Gradio's own files, and the guard lets no request for one pass.
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=style(),
    )
    return Guard(app, _names(host))


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine alone.

    Args:
        host: An address or a name.

    Example:
        >>> from kdkeras.app.serve import is_loopback
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str = LOOPBACK, port: int | None = None) -> socket.socket:
    """Return a socket that listens for browsers.

    Args:
        host: Address to listen at. Default 127.0.0.1: this machine alone. Another one opens the page, with the data and
            without any password, to all who can reach the machine.
        port: Default the first that is free from 7860.

    Returns:
        The socket.

    Raises:
        OSError: The address or the port cannot be used.
        ValueError: The port is no number of a port.

    Example:
        >>> from kdkeras.app.serve import listen
        >>> with listen() as listener:
        ...     listener.getsockname()[0]
        '127.0.0.1'
    """
    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"A port must be a number in 0…65535. Received: {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(_FIRST_PORT, _FIRST_PORT + _TRIED) if port is None else [port]:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise OSError(
                f"The page cannot be served at {host}, port {number}: {error.strerror or error}. Choose another "
                "--host, or a --port above 1023."
            ) from error
        return listener
    if port is None:
        raise OSError(f"No port of {_FIRST_PORT}…{_FIRST_PORT + _TRIED - 1} is free at {host}. Choose one with --port.")
    raise OSError(f"Port {port} is taken by another program. Choose another with --port, or leave --port out.")


def _names(host: str) -> tuple[str, ...]:
    """Return the names by which the page may be reached: one that is open to others, by any."""
    return (host, LOOPBACK, "localhost", "::1") if is_loopback(host) else ()


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
