"""The user's own data: .npy and .npz files, and arrays handed to the library, checked and turned into rows."""

import hashlib
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
ROWS_PER_BLOCK = 1000  # of a mapped file that are in memory at a time
MAX_CLASSES = 1000  # as a condition: each class is a column of ones and zeros


class Arrays(NamedTuple):
    """Rows of data and what is known about them."""

    x: np.ndarray  # (n, D), C-contiguous: bool, uint8, float32 or float64
    labels: np.ndarray | None  # (n,), in the units of the file
    image_shape: tuple | None  # (rows, columns, ...) of product D if the file held images, without a channel axis of 1
    condition: np.ndarray | None = None  # (n,) class numbers or (n, C) floats, if an array of the file was named as such


class Mapped:
    """Rows of a file that is mapped into memory, or those of some numbers: what is not indexed is not read.

    x (n_all, D), C-contiguous: bool, uint8, float32 or float64; numbers (n,) of the rows in it, None for all.
    """

    ndim = 2

    def __init__(self, x, numbers=None):
        self.x, self.numbers = np.asarray(x), numbers
        self.dtype, self.shape = x.dtype, (len(x) if numbers is None else len(numbers), x.shape[1])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """The rows of an index (B,) or a slice: (B, D)."""
        return self.x[index if self.numbers is None else self.numbers[index]]

    def __array__(self, dtype=None, copy=None):
        """All rows, in memory, for who needs them at once."""
        return np.array(self[:], dtype)

    def blocks(self):
        """All rows, some after the other: (ROWS_PER_BLOCK, D), the last block fewer."""
        for start in range(0, len(self), ROWS_PER_BLOCK):
            yield self[start : start + ROWS_PER_BLOCK]

    def min(self):
        return min(block.min() for block in self.blocks())

    def max(self):
        return max(block.max() for block in self.blocks())


def can_be_mapped(x):
    """Whether an array is one that is mapped from a file, and can be used as it lies there: C-contiguous rows of bool, uint8,
    float32 or float64."""
    return isinstance(x, np.memmap) and x.ndim == 2 and x.flags.c_contiguous and _kept_dtype(x.dtype) == x.dtype


def load(path, condition=None, is_mapped=False):
    """Read data from a .npy file, or from a .npz archive with optional labels.

    path: a .npy with an array (n, D), or (n, ...) whose rows are flattened in C order; or a .npz whose array `x`, or
    else only array of two or more dimensions, is such an array, with optional `labels` or `y` of shape (n,), numbers:
    others, such as strings, are left out with a warning. A leading ~ is the home folder, and the case of the ending is no
    matter. (n, rows, columns, 1) and (n, 1, rows, columns) are images of (rows, columns).
    condition: the name of another array of the .npz, (n,) or (n, C), which is read as `as_condition` says.
    is_mapped: leave the rows of a .npy file where they are, where they can be used so, as Mapped.

    Returns Arrays(x, labels, image_shape, condition). x keeps bool, uint8, float32 and float64; float16 and other integers
    become float32. Values are not rescaled.

    Raises OSError where the file cannot be opened, and ValueError that names the file, what it got and what it needs.
    Nothing is ever unpickled, and no memory is set aside for data that the file does not contain.
    """
    path = Path(os.path.expanduser(path))
    suffix = path.suffix.lower()
    if suffix not in NEEDS:
        raise ValueError(f"{path}: got a file name that ends in {suffix or 'nothing'!r}, needs .npy or .npz")
    if condition is not None and suffix == ".npy":
        raise ValueError(f"{path}: a .npy file has no second array {condition} for the condition: save both in a .npz file")
    with open(path, "rb") as file:
        try:
            n_bytes = path.stat().st_size
            read = files.map_npy if is_mapped else files.read_npy
            x, labels, given = (read(file, n_bytes), None, None) if suffix == ".npy" else _read_npz(file, n_bytes, condition)
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes raise a dozen kinds of exception in zipfile, zlib, ast and NumPy
            got = " ".join(str(error).split()) or type(error).__name__
            also = "" if condition is None else f", and an array {condition} for the condition"
            raise ValueError(f"{path}: cannot be used ({got}), needs {NEEDS[suffix]}{also}") from error
    image_shape = _without_channel(x.shape[1:]) if x.ndim > 2 else None
    if image_shape:
        x = x.reshape(len(x), math.prod(image_shape))  # (n, ...) -> (n, D)
    if condition is not None:
        given = as_condition(given, len(x), f"{path}: the condition {condition}")
    if can_be_mapped(x):
        return Arrays(Mapped(x), None, image_shape)
    return Arrays(as_rows(x, name=str(path)), _as_labels(labels, len(x), path), image_shape, given)


def _without_channel(shape):
    """(28, 28, 1) and (1, 28, 28), an image with one channel, as (28, 28); other shapes as they are."""
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape[:2] if shape[2] == 1 else shape[1:]
    return shape


def as_rows(x, name="x"):
    """Turn an array-like into rows of numbers, copying only where something has to change.

    x: (n, D) of bool, integers or real numbers, n and D at least 1, finite. name: what errors call it.

    Returns a C-contiguous ndarray (n, D): bool, uint8, float32 and float64 as they came, float16 and other integers
    as float32; an array that is mapped from a file as Mapped, where it can be used so. Raises ValueError that names the
    argument, what it got and what it needs.
    """
    x = Mapped(x) if can_be_mapped(x) and x.size else x
    if isinstance(x, Mapped):
        for block in x.blocks() if x.dtype.kind == "f" else ():
            checks.finite(f"a block of {ROWS_PER_BLOCK} rows of {name}", block)
        return x
    x = checks.real_array(name, x)
    x = np.ascontiguousarray(x, dtype=_kept_dtype(x.dtype))
    if x.dtype.kind == "f":
        checks.finite(name, x)
    return x


def as_condition(values, n, name="condition"):
    """What x is modelled given, of n rows: class numbers (n,) int64, or floats (n, C), float32 unless the values are float64.

    values: (n,) of integers or bool are the numbers 0 ... C − 1 of classes; other (n,) and all (n, C) are finite numbers, taken
    as they are. Raises ValueError, calling them `name`, for anything else, and for more than MAX_CLASSES classes.
    """
    values = checks.plain_array(name, values)
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2) or len(values) != n or values.size == 0:
        raise ValueError(f"{name} must be real numbers of shape ({n},) or ({n}, C); got {values.dtype} of shape {values.shape}")
    if values.ndim == 1 and values.dtype.kind != "f":
        low, high = values.min(), values.max()
        if low < 0 or high >= MAX_CLASSES:
            raise ValueError(f"{name} must be class numbers from 0 to at most {MAX_CLASSES - 1} where it holds integers; got "
                             f"values from {low} to {high}: a quantity is saved as floats")  # fmt: skip
        return values.astype(np.int64)
    kept = np.float64 if _kept_dtype(values.dtype) == np.float64 else np.float32
    return checks.converted(name, values.reshape(n, -1), kept)  # (n,) -> (n, 1)


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


def _read_npz(file, n_bytes, condition):
    names = []

    def wanted(shapes):
        names.extend([_choose_x(shapes, condition), *[name for name in LABELS if name in shapes][:1]])
        return names[:1]

    x = files.read_npz(file, n_bytes, wanted)[names[0]]
    labels = _read_labels(file, n_bytes, names[1]) if len(names) > 1 else None
    return x, labels, None if condition is None else files.read_npz(file, n_bytes, lambda _: [condition])[condition]


def _read_labels(file, n_bytes, name):
    try:
        return files.read_npz(file, n_bytes, lambda _: [name])[name]
    except ValueError as error:  # the rows were read: good data do not fail for strings beside them
        hint = f"save class numbers instead, np.unique({name}, return_inverse=True)[1]"
        warnings.warn(f"labels are left out ({error}): {hint}", checks.NpvaeWarning, stacklevel=2)
        return None


def _choose_x(shapes, condition):
    candidates = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in (*LABELS, condition)]
    if condition is None or condition in shapes:
        if "x" in shapes and condition != "x":
            return "x"
        if len(candidates) == 1:
            return candidates[0]
    raise ValueError("arrays " + (", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"))


def digest_of(*parts):
    """SHA-256 over arrays, or None, in order. Floats count as float32: their last bits may depend on the processor."""
    sha = hashlib.sha256()
    for array in parts:
        if array is not None:
            dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype
            sha.update(f"{dtype.str} {array.shape};".encode())
            for block in array.blocks() if isinstance(array, Mapped) else [array]:
                with np.errstate(over="ignore"):
                    sha.update(np.ascontiguousarray(block, dtype))
    return sha.hexdigest()
