"""`kdkeras explore`: teacher and student side by side in the browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "explore",
        help="an interactive page: predictions and explanations side by side, with feedback",
        description="Open a page in the browser with the predictions of teacher, student, TFLite file and tree, their "
        "explanations side by side, and a place to say which are right or wrong. This machine alone can see it.",
    )
    parser.add_argument("--teacher", required=True, metavar="FILE", help="the teacher, a .keras file")
    parser.add_argument("--student", required=True, metavar="FILE", help="the student, a .keras file")
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="name of a data set, or an .npz file with x and perhaps y"
    )
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"), help="of a data set (test)")
    parser.add_argument("--tflite", metavar="FILE", help="the student as a .tflite file")
    parser.add_argument("--tree", metavar="FILE", help="a soft decision tree, a .keras file")
    parser.add_argument(
        "--feedback", default="feedback.db", metavar="FILE", help="where feedback is kept (feedback.db)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1); another one opens the page to others"
    )
    parser.add_argument("--port", type=int, metavar="N", help="by default the first free one from 7860")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kdkeras._silence import silenced_descriptors

    with silenced_descriptors():  # TensorFlow logs its first lines before any setting of its own works
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")  # it warns that several models are traced, which is what the page does
        from kdkeras import app
        from kdkeras.app.page import check_gradio

    # What is missing or taken is said before the models are loaded.
    check_gradio()
    with contextlib.closing(app.listen(options.host, options.port)) as listener:
        _serve(options, app, listener)


def _serve(options: argparse.Namespace, app: Any, listener: socket.socket) -> None:
    from kdkeras.app.serve import is_loopback

    bench = app.Workbench.load(
        options.teacher,
        options.student,
        options.data,
        split=options.split,
        tflite=options.tflite,
        tree=options.tree,
        feedback=options.feedback,
    )
    if not is_loopback(options.host):
        print(
            "The page is open, without a password, to all who can reach this machine: they see the data and can store "
            "feedback."
        )

    def ready(address: str) -> None:
        print(f"Open {address} in a browser. Feedback is kept in {options.feedback}. Ctrl-C ends.", flush=True)

    app.serve(bench, listener, ready=ready)
