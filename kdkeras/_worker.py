"""How a process of a pool starts, and when it ends. Nothing heavy is imported before TensorFlow is set up."""

from __future__ import annotations

import multiprocessing
import os
import threading

from kdkeras._silence import silenced_descriptors


def start_worker(threads: int) -> None:
    """Set up a process of its own for TensorFlow, before anything imports it: no chatter, and its share of the cores.

    It ends with the process that started it, also where that one is killed: workers of a pool would wait forever.

    Args:
        threads: Number of threads for one operation.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced_descriptors():  # TensorFlow logs its first lines before any setting of its own works
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")  # it warns that several models are traced, which is what a comparison does


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
