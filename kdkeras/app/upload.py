"""A picture that a person uploads becomes a sample: bytes in memory, within limits, and nothing else."""

from __future__ import annotations

import base64
import binascii
import io
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 8 * 2**20  # of the file
MAX_PIXELS = 20_000_000  # of the picture, looked up before it is decoded
_FORMATS = ("PNG", "JPEG")
_MODES = {1: "L", 3: "RGB"}


def sample_of_picture(content: bytes, shape: tuple[int | None, ...], scale: tuple[float, float]) -> np.ndarray:
    """Return a picture as one sample: its middle, resized, with the channels and the range of the data.

    Args:
        content: The bytes of a PNG or JPEG file, at most 8 MiB and 20 million pixels.
        shape: `(height, width, channels)` that the models take; an open size is the picture's own.
        scale: The values of black and white in the data.

    Returns:
        float32, shape `(height, width, channels)`.

    Raises:
        ValueError: It is too large, of another type, damaged, or the models take no images of 1 or 3 channels.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from kdkeras.app.upload import sample_of_picture
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 20), "white").save(file, "PNG")
        >>> sample = sample_of_picture(file.getvalue(), (8, 8, 1), (0, 1))
        >>> sample.shape, float(sample.min())
        ((8, 8, 1), 1.0)
    """
    from PIL import Image, ImageOps

    if len(shape) != 3 or shape[2] not in _MODES:
        raise ValueError(
            f"Pictures fit models of images with 1 or 3 channels. These models take samples of shape {shape}."
        )
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"A picture must have at most {MAX_BYTES // 2**20} MiB. Received: {len(content) / 2**20:.1f}. Shrink it."
        )
    bombs = Image.DecompressionBombError, Image.DecompressionBombWarning
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _TooManyPixelsError(
                    f"A picture must have at most {MAX_PIXELS / 1e6:.0f} million pixels. Received: {picture.width} x "
                    f"{picture.height}. Shrink it."
                )
            picture.load()
            upright = ImageOps.exif_transpose(picture)
    except _TooManyPixelsError:
        raise
    except (OSError, ValueError, SyntaxError, struct.error, *bombs) as error:
        raise ValueError("That is no PNG or JPEG picture, or it is damaged. Choose another file.") from error
    if "A" in upright.getbands() or "transparency" in upright.info:  # what is transparent is black
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA"))
    size = (shape[1] or upright.width, shape[0] or upright.height)
    fitted = ImageOps.fit(_eight_bits(upright).convert(_MODES[shape[2]]), size, Image.Resampling.BILINEAR)
    values = np.asarray(fitted, "float32").reshape(size[1], size[0], shape[2])
    return scale[0] + values / 255 * (scale[1] - scale[0])


class _TooManyPixelsError(ValueError):
    """Said in words already."""


def decoded(text: str) -> bytes:
    """Return the bytes of a file that came as base64 text.

    Args:
        text: As a browser's `FileReader.readAsDataURL` gives it, or without what stands before the comma.

    Returns:
        The bytes.

    Raises:
        ValueError: It is too long, or no base64.

    Example:
        >>> from kdkeras.app.upload import decoded
        >>> decoded("data:image/png;base64,aGVsbG8=")
        b'hello'
    """
    if len(text) > MAX_BYTES * 4 / 3 + 200:
        raise ValueError(f"A picture must have at most {MAX_BYTES // 2**20} MiB. Shrink it.")
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("That is no PNG or JPEG picture, or it is damaged. Choose another file.") from error


def scale_of(x: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white in images: 0 and 1, 0 and 255, or the smallest and the largest.

    Args:
        x: Images.

    Returns:
        Black and white.

    Example:
        >>> import numpy as np
        >>> from kdkeras.app.upload import scale_of
        >>> scale_of(np.array([0.0, 0.5])), scale_of(np.array([0, 99])), scale_of(np.array([-1.0, 1.0]))
        ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
    """
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 255:
        return low, high
    return 0.0, 1.0 if high <= 1 else 255.0


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return a picture of 16 bits, which Pillow would cut off at 255, with the same greys in 8."""
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, "float32")
    white = 65535 if values.max() > 255 else 255
    return Image.fromarray((values.clip(0, white) / white * 255).astype("uint8"))
