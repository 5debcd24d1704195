"""The user's own data: .npy and .npz files, and arrays handed to the library, checked and turned into rows."""

import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.core import checks, files

NEEDS = {
    ".npy": "an intact .npy file of numbers (numpy.save)",
    ".npz": "an intact .npz archive (numpy.savez) with an array x, or just one array of two or more dimensions",
}
LABELS = ("labels", "y")


class Arrays(NamedTuple):
    """Rows of data and what is known about them."""

    x: np.ndarray  # (n, D), C-contiguous: bool, uint8, float32 or float64
    labels: np.ndarray | None  # (n,), in the units of the file
    image_shape: tuple | None  # (rows, columns, ...) of product D if the file held images, without a channel axis of 1


def load(path):
    """Read data from a .npy file, or from a .npz archive with optional labels.

    path: a .npy with an array (n, D), or (n, ...) whose rows are flattened in C order; or a .npz whose array `x`, or
    else only array of two or more dimensions, is such an array, with optional `labels` or `y` of shape (n,), numbers:
    others, such as strings, are left out with a warning. A leading ~ is the home folder, and the case of the ending is no
    matter. (n, rows, columns, 1) and (n, 1, rows, columns) are images of (rows, columns).

    Returns Arrays(x, labels, image_shape). x keeps bool, uint8, float32 and float64; float16 and other integers
    become float32. Values are not rescaled.

    Raises OSError where the file cannot be opened, and ValueError that names the file, what it got and what it needs.
    Nothing is ever unpickled, and no memory is set aside for data that the file does not contain.
    """
    path = Path(os.path.expanduser(path))
    suffix = path.suffix.lower()
    if suffix not in NEEDS:
        raise ValueError(f"{path}: got a file name that ends in {suffix or 'nothing'!r}, needs .npy or .npz")
    with open(path, "rb") as file:
        try:
            x, labels = (_read_npy if suffix == ".npy" else _read_npz)(file, path.stat().st_size)
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes raise a dozen kinds of exception in zipfile, zlib, ast and NumPy
            got = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path}: cannot be used ({got}), needs {NEEDS[suffix]}") from error
    image_shape = _without_channel(x.shape[1:]) if x.ndim > 2 else None
    if image_shape:
        x = x.reshape(len(x), math.prod(image_shape))  # (n, ...) -> (n, D)
    return Arrays(as_rows(x, name=str(path)), _as_labels(labels, len(x), path), image_shape)


def _without_channel(shape):
    """(28, 28, 1) and (1, 28, 28), an image with one channel, as (28, 28); other shapes as they are."""
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape[:2] if shape[2] == 1 else shape[1:]
    return shape


def as_rows(x, name="x"):
    """Turn an array-like into rows of numbers, copying only where something has to change.

    x: (n, D) of bool, integers or real numbers, n and D at least 1, finite. name: what errors call it.

    Returns a C-contiguous ndarray (n, D): bool, uint8, float32 and float64 as they came, float16 and other integers
    as float32. Raises ValueError that names the argument, what it got and what it needs.
    """
    x = checks.real_array(name, x)
    x = np.ascontiguousarray(x, dtype=_kept_dtype(x.dtype))
    if x.dtype.kind == "f":
        checks.finite(name, x)
    return x


def _kept_dtype(dtype):
    if dtype in (np.bool_, np.uint8):
        return dtype
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32)


def _as_labels(labels, n, path):
    if labels is None:
        return None
    if labels.shape != (n,):
        raise ValueError(f"{path}: got labels of shape {labels.shape}, needs one number per row, shape ({n},)")
    return labels


def _read_npy(file, n_bytes):
    return files.read_npy(file, n_bytes), None


def _read_npz(file, n_bytes):
    names = []

    def wanted(shapes):
        names.extend([_choose_x(shapes), *[name for name in LABELS if name in shapes][:1]])
        return names[:1]

    x = files.read_npz(file, n_bytes, wanted)[names[0]]
    return x, _read_labels(file, n_bytes, names[1]) if len(names) > 1 else None


def _read_labels(file, n_bytes, name):
    try:
        return files.read_npz(file, n_bytes, lambda _: [name])[name]
    except ValueError as error:  # the rows were read: good data do not fail for strings beside them
        hint = f"save class numbers instead, np.unique({name}, return_inverse=True)[1]"
        warnings.warn(f"labels are left out ({error}): {hint}", checks.NpvaeWarning, stacklevel=2)
        return None


def _choose_x(shapes):
    candidates = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in LABELS]
    if "x" in shapes:
        return "x"
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError("arrays " + (", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"))
