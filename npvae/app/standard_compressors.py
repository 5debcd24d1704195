"""What standard compressors make of data, for comparison: gzip, bz2 and lzma of the packed bytes, and lossless PNG and WebP.

Shapes: n rows, D data.
"""

import bz2
import lzma
import math
import zlib
from io import BytesIO

import numpy as np

LONGEST = 16383  # pixels of a side of a WebP image
SHEET = 2800  # pixels of a side of a picture of many images, about


def sizes(symbols, image_shape, is_binary):
    """name -> bytes that each compressor needs, at its strongest setting.

    symbols (n, D) uint8, zeros and ones if is_binary (packed as eight to a byte, and as pictures of one bit a pixel), else
    levels. The pictures hold many images of image_shape side by side, or one row each if that is None. PNG and WebP are
    Pillow's; what that cannot write is left out.
    """
    content = (np.packbits(symbols) if is_binary else symbols).tobytes()
    found = {
        "gzip -9": len(zlib.compress(content, 9, 31)),  # 31: with the header and checksum of gzip
        "bzip2 -9": len(bz2.compress(content, 9)),
        "xz -9e": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
    }
    pictures = sheets(symbols, image_shape)
    png = {"format": "PNG", "optimize": True}
    webp = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    for name, options in [("PNG", png), ("WebP lossless", webp)]:
        n_bytes = [_picture_bytes(picture, is_binary, options) for picture in pictures]
        if None not in n_bytes:
            found[name] = sum(n_bytes)
    return found


def _picture_bytes(picture, is_binary, options):
    """The bytes of a picture in a format; None where Pillow is not there or cannot write it."""
    try:
        from PIL import Image, features
    except ImportError:
        return None
    if options["format"] == "WEBP" and (max(picture.shape) > LONGEST or not features.check("webp")):
        return None
    image = Image.fromarray(picture * np.uint8(255)).convert("1") if is_binary else Image.fromarray(picture)
    file = BytesIO()
    image.save(file, **options)
    return file.tell()


def sheets(symbols, image_shape):
    """The rows as pictures (rows, columns) of many images each, filled up with zeros: symbols (n, D) -> a list of arrays."""
    n, n_features = symbols.shape
    height, width = image_shape or (1, n_features)
    across, down = max(1, min(n, SHEET // width)), max(1, SHEET // height)
    pictures = []
    for start in range(0, n, across * down):
        part = symbols[start : start + across * down]
        used = math.ceil(len(part) / across)
        whole = np.zeros((used * across, n_features), np.uint8)
        whole[: len(part)] = part
        tiled = whole.reshape(used, across, height, width).swapaxes(1, 2)  # -> (used, height, across, width)
        pictures.append(tiled.reshape(used * height, across * width))
    return pictures
