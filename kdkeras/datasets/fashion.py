"""Fashion-MNIST, read from its IDX files wherever they lie."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import keras
import numpy as np

from kdkeras.datasets.dataset import Dataset, split_off

_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_DOWNLOAD = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def fashion_mnist(*, folder: str | os.PathLike[str] | None = None, limit: int | None = None) -> Dataset:
    """Return Fashion-MNIST: images of 28×28 pixels, 10 kinds of clothes.

    The test split is the official one of 10,000; the official training set is split, stratified, into 55,000 to
    train on and 5,000 (one twelfth) to choose by. The files are looked for in the folder of the Debian package
    `dataset-fashion-mnist`, then in Keras' download cache, and are else downloaded by Keras.

    Args:
        folder: Folder with the four IDX files (`train-images-idx3-ubyte` and so on, with or without `.gz`), to
            read instead of looking for it.
        limit: At most this many samples in each split, a fixed stratified choice, for quick trials. `None`, for
            numbers to be published, takes all.

    Returns:
        The `Dataset`.

    Raises:
        FileNotFoundError: The files are neither on disk nor to be downloaded.
        ValueError: A file is damaged or is not what its name says, or `limit` is below 10.

    Example:
        A folder of one's own::

            data = datasets.fashion_mnist(folder="~/data/fashion-mnist", limit=2000)

    Reference:
        Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
        Algorithms (2017), https://arxiv.org/abs/1708.07747.
    """
    if limit is not None and limit < len(_CLOTHES):
        raise ValueError(f"`limit` must be at least 10, one sample a class. Received: limit={limit}.")
    paths = _keras_files() if folder is None and not _DEBIAN_FOLDER.is_dir() else _folder_files(folder)
    x, y = _read_pair(paths[0], paths[1])
    x_test, y_test = _read_pair(paths[2], paths[3])
    valid_size = len(y) // 12
    if valid_size < len(_CLOTHES):
        raise ValueError(
            f"'{paths[0]}' must hold at least 120 images, to split off 10 to choose by. Received: {len(y)}."
        )
    x_train, x_valid, y_train, y_valid = split_off(x, y, y, valid_size)
    splits = [*_limited(x_train, y_train, limit), *_limited(x_valid, y_valid, limit), *_limited(x_test, y_test, limit)]
    images = [part.astype("float32")[..., np.newaxis] / np.float32(255) for part in splits[::2]]  # (n, 28, 28, 1)
    parts = [part for pair in zip(images, splits[1::2], strict=True) for part in pair]
    source = "Fashion-MNIST, Zalando SE (MIT licence), https://github.com/zalandoresearch/fashion-mnist."
    return Dataset("fashion_mnist", "classification", "image", *parts, _CLOTHES, (), source)


def _limited(x: np.ndarray, y: np.ndarray, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a stratified choice of `limit` samples."""
    if limit is None or limit > len(y) - len(_CLOTHES):
        return x[:limit], y[:limit]
    _, x, _, y = split_off(x, y, y, limit)
    return x, y


def _folder_files(folder: str | os.PathLike[str] | None) -> list[Path]:
    """Return the four IDX files of a folder, packed or not."""
    root = _DEBIAN_FOLDER if folder is None else Path(folder).expanduser()
    paths = []
    for name in _IDX_FILES:
        found = [path for path in (root / f"{name}.gz", root / name) if path.is_file()]
        if not found:
            raise FileNotFoundError(_how_to_get(f"folder '{root}' has no '{name}.gz'"))
        paths.append(found[0])
    return paths


def _keras_files() -> list[Path]:
    """Return the four IDX files from Keras' cache, downloading what is missing."""
    try:
        files = [
            keras.utils.get_file(f"{name}.gz", origin=f"{_DOWNLOAD}{name}.gz", cache_subdir="datasets/fashion-mnist")
            for name in _IDX_FILES
        ]
    except Exception as error:  # Keras wraps every download failure in a plain Exception
        raise FileNotFoundError(_how_to_get(f"the download failed ({error})")) from error
    return [Path(file) for file in files]


def _how_to_get(problem: str) -> str:
    return (
        f"Fashion-MNIST was not found: {problem}; run `apt-get install dataset-fashion-mnist`, connect to the network "
        "once so that Keras can download it, or pass `folder=` with its four IDX files."
    )


def _read_pair(image_path: Path, label_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read images, uint8 `(n, 28, 28)`, and their labels, int32 `(n,)`."""
    images, labels = _read_idx(image_path, ndim=3), _read_idx(label_path, ndim=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"'{image_path}' must hold images of 28×28 pixels. Received: shape {images.shape}.")
    if len(images) != len(labels):
        raise ValueError(f"'{label_path}' must hold {len(images)} labels, one an image. Received: {len(labels)}.")
    if labels.size and labels.max() >= len(_CLOTHES):
        raise ValueError(f"'{label_path}' must hold labels from 0 to 9. Received: {labels.max()}.")
    return images, labels.astype("int32")


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read one IDX file: 0, 0, 8 (uint8), the rank, each dimension as big-endian int32, then the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"'{path}' is damaged ({error}): get the file again.") from error
    magic = bytes((0, 0, 8, ndim))
    if content[:4] != magic:
        raise ValueError(
            f"'{path}' must be an IDX file of uint8 with {ndim} dimensions, beginning with {magic.hex()}. "
            f"Received: {content[:4].hex() or 'an empty file'}; is it another file under this name?"
        )
    header = 4 + 4 * ndim
    shape = tuple(int(size) for size in np.frombuffer(content[4:header].ljust(4 * ndim, b"\0"), ">i4"))
    if len(content) < header or len(content) - header != int(np.prod(shape)):
        raise ValueError(
            f"'{path}' must hold {header + int(np.prod(shape))} bytes for its shape {shape}. "
            f"Received: {len(content)}; the file is truncated or damaged: get it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
