"""The user's own data: .npy and .npz files, and arrays handed to the library, checked and turned into rows."""

import math
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
    image_shape: tuple | None  # (rows, columns, ...) of product D if the file held images, else None


def load(path):
    """Read data from a .npy file, or from a .npz archive with optional labels.

    path: a .npy with an array (n, D), or (n, ...) whose rows are flattened in C order; or a .npz whose array `x`, or
    else only array of two or more dimensions, is such an array, with optional `labels` or `y` of shape (n,).

    Returns Arrays(x, labels, image_shape). x keeps bool, uint8, float32 and float64; float16 and other integers
    become float32. Values are not rescaled; see `grey_scale`.

    Raises OSError where the file cannot be opened, and ValueError that names the file, what it got and what it needs.
    Nothing is ever unpickled, and no memory is set aside for data that the file does not contain.
    """
    path = Path(path)
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
    image_shape = x.shape[1:] if x.ndim > 2 else None
    if image_shape:
        x = x.reshape(len(x), math.prod(image_shape))  # (n, ...) -> (n, D)
    return Arrays(as_rows(x, name=str(path)), _as_labels(labels, len(x), path), image_shape)


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


def grey_scale(x):
    """The factor that turns rows into model input: 1/255 for grey levels 0-255, else 1.0.

    Grey levels are told by their dtype, uint8, and a value above 1; uint8 zeros and ones are already binary.
    """
    return 1 / 255 if x.dtype == np.uint8 and x.max() > 1 else 1.0


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
    def wanted(shapes):
        return [_choose_x(shapes), *[name for name in LABELS if name in shapes][:1]]

    arrays = files.read_npz(file, n_bytes, wanted)
    labels = next((arrays[name] for name in LABELS if name in arrays), None)
    return arrays[_choose_x({name: array.shape for name, array in arrays.items()})], labels


def _choose_x(shapes):
    candidates = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in LABELS]
    if "x" in shapes:
        return "x"
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError("arrays " + (", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"))
