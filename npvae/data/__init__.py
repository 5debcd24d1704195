"""Data sets by name or file, cut into training and validation rows."""

import hashlib
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.data import arrays, ising, mnist, toy

NAMES = ("ising", "mnist", *(f"toy:{name}" for name in toy.NAMES))
ISING_SIZE = 16
ISING_TEMPERATURES = np.linspace(1.0, 4.0, 13)
ISING_ROWS = (800, 200)  # training and validation lattices per temperature
VALIDATION_SHARE = 0.1  # of the user's own rows
STANDARDISE = "standardise"
ROWS_PER_PASS = 1000  # scaled at a time, so that little memory is needed


class Scaling(NamedTuple):
    """How values became x: values = shift + factor · x, with a number or an array (D,) each."""

    shift: float | np.ndarray
    factor: float | np.ndarray

    def undo(self, x):
        """x (..., D), or what a model makes of it, in the units of the data set: (..., D)."""
        return self.shift + self.factor * x

    def as_json(self):
        """As a dict that JSON can hold."""
        return {name: np.asarray(value).tolist() for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, values):
        """The Scaling of what `as_json` gave, None of None; ValueError for anything else."""
        if values is None:
            return None
        try:
            scaling = cls(*(np.array(values[name], np.float64)[()] for name in cls._fields))
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"a scaling must hold shift and factor, numbers or lists of them; got {values!r}") from None
        for name, value in scaling._asdict().items():
            checks.finite(f"{name} of a scaling", np.atleast_1d(value))
        return scaling


class Dataset(NamedTuple):
    """Rows to train and to validate on, and what the pictures say about them."""

    description: str
    x_train: np.ndarray  # (n, D) bool, uint8 grey levels or floats
    x_val: np.ndarray
    labels_val: np.ndarray | None  # (n_val,)
    label_name: str
    image_shape: tuple | None  # (rows, columns) with product D, if the rows are images
    scaling: Scaling | None = None  # how the rows became x; None where nothing was done
    digest: str = ""  # SHA-256 over rows and labels as they were before scaling
    numbers_train: np.ndarray | None = None  # (n,) of the rows in the user's file
    numbers_val: np.ndarray | None = None  # (n_val,)

    def in_own_units(self, x):
        """Rows x (..., D) as they were trained on, or what a model makes of them, in the units of the data set."""
        return x if self.scaling is None else self.scaling.undo(x)


def load(data="ising", data_dir=None, progress=False, scale=None, image_shape=None):
    """The data set "ising" (simulated), "mnist", "toy:NAME" (points in the plane), or the user's .npy or .npz file; ValueError
    or OSError if it cannot be had.

    scale        None: values as they are (of uint8 see `npvae.core.levels`); a positive number that all values are divided by;
                 "standardise": every column of x_train gets mean 0 and standard deviation 1, a constant one 0, and x_val is
                 treated with the same numbers; or the Scaling of another data set
    image_shape  (rows, columns) of the image that a row is, or "none" where rows are no images (spectra, curves). If not given:
                 the shape in the file, (n, rows, columns) with or without a channel axis of 1; rows that are flat in the file
                 are square images if their length is a square and they are bool, uint8 or, after division by a number `scale`,
                 within [0, 1]

    A leading ~ in data and data_dir is the home folder. The Ising lattices of both halves come from independent chains. MNIST
    validates on its test images. Of the user's rows a tenth, drawn with a fixed seed, is held out.
    """
    dataset = _as_it_is(os.path.expanduser(data), None if data_dir is None else os.path.expanduser(data_dir), progress)
    digest = digest_of(dataset.x_train, dataset.x_val, dataset.labels_val)
    x_train, x_val, scaling = scaled(dataset.x_train, dataset.x_val, scale)
    one_for_all = scaling is None or np.ndim(scaling.shift) == 0
    shape = shape_of_images(dataset, x_train if one_for_all else dataset.x_train, image_shape)
    description = dataset.description
    if scale is not None:
        description += f", divided by {scaling.factor:g}" if one_for_all else ", standardised"
    return dataset._replace(description=description, x_train=x_train, x_val=x_val, image_shape=shape, scaling=scaling,
                            digest=digest)  # fmt: skip


def _as_it_is(data, data_dir, progress):
    if data == "ising":
        return _ising(progress)
    if data == "mnist":
        digits = mnist.load(data_dir)
        description = f"MNIST digits, {len(digits.x_train):,} to train on, {len(digits.x_test):,} test images to validate on"
        return Dataset(description, digits.x_train, digits.x_test, digits.y_test, "digit", (28, 28))
    if data in NAMES:
        return _toy(data.removeprefix("toy:"))
    path = Path(data)
    if path.suffix.lower() in arrays.NEEDS:
        if data_dir is not None:
            path = Path(data_dir) / (path.name if path.is_absolute() else path)
        return _own(path)
    raise ValueError(f"data must be {', '.join(NAMES)} or the path of a .npy or .npz file; got {data!r}")


def scaled(x_train, x_val, scale):
    """Both halves of a data set with `scale` as in `load`, and the Scaling that it was, None for None."""
    if scale is None:
        return x_train, x_val, None
    if scale == STANDARDISE:
        shift, factor = x_train.mean(axis=0, dtype=np.float64), x_train.std(axis=0, dtype=np.float64)  # (D,)
        constant = x_train.min(axis=0) == x_train.max(axis=0)  # rounding may leave it a deviation that is not 0
        shift[constant], factor[constant] = x_train[0, constant], 1
    elif isinstance(scale, Scaling):
        shift, factor = scale
        if np.size(shift) not in (1, x_train.shape[1]):
            raise ValueError(f"a scaling of {np.size(shift)} columns cannot be that of rows of {x_train.shape[1]}")
    elif isinstance(scale, str):
        raise ValueError(f"scale must be a positive number or {STANDARDISE}; got {scale!r}")
    else:
        shift, factor = np.float64(0), np.float64(checks.number("scale", scale, 0, exclusive=True))
    halves = []
    for x in (x_train, x_val):
        halves.append(np.empty(x.shape, np.float64 if x.dtype == np.float64 else np.float32))
        for start in range(0, len(x), ROWS_PER_PASS):
            rows = slice(start, start + ROWS_PER_PASS)
            halves[-1][rows] = (x[rows] - shift) / factor  # in float64, whatever x is
    return *halves, Scaling(shift, factor)


def shape_of_images(dataset, x, image_shape):
    """The image_shape of a data set: what was asked for, else what the file has, else the rule of `load` for rows x."""
    n_features = x.shape[1]
    if isinstance(image_shape, str) and image_shape == "none":
        return None
    if image_shape is not None:
        sides = () if isinstance(image_shape, str) else tuple(checks.integer("image_shape", side, 1) for side in image_shape)
        if len(sides) != 2 or math.prod(sides) != n_features:
            raise ValueError(f"image_shape must be rows and columns of product {n_features}, or none; got {image_shape!r}")
        return sides
    if dataset.image_shape is not None:
        return dataset.image_shape if len(dataset.image_shape) == 2 else None
    side = math.isqrt(n_features)
    is_image = x.dtype in (np.bool_, np.uint8) or (x.min() >= 0 and x.max() <= 1)
    return (side, side) if side > 1 and side * side == n_features and is_image else None


def digest_of(*parts):
    """SHA-256 over arrays, or None, in order. Floats count as float32: their last bits may depend on the processor."""
    sha = hashlib.sha256()
    for array in parts:
        if array is not None:
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)
            sha.update(f"{array.dtype.str} {array.shape};".encode())
            sha.update(array)
    return sha.hexdigest()


def _ising(progress):
    temperatures = ISING_TEMPERATURES
    train = ising.simulate(temperatures, ISING_ROWS[0], ISING_SIZE, seed=0, progress=progress)
    val = ising.simulate(temperatures, ISING_ROWS[1], ISING_SIZE, seed=1, progress=progress)
    description = (
        f"Ising lattices {ISING_SIZE} × {ISING_SIZE} at {len(temperatures)} temperatures from {temperatures[0]:g} to "
        f"{temperatures[-1]:g}, {len(train.spins):,} to train on, {len(val.spins):,} to validate on"
    )
    return Dataset(description, train.spins, val.spins, val.temperature, "temperature (J/k)", (ISING_SIZE, ISING_SIZE))


def _toy(name):
    x_train, x_val = toy.dataset_rows(name)
    description = f"points of the density {name} in the plane, {len(x_train):,} to train on, {len(x_val):,} to validate on"
    return Dataset(description, x_train, x_val, None, "label", None)


def _own(path):
    x, labels, image_shape = arrays.load(path)
    if len(x) < 2:
        raise ValueError(f"{path} must hold at least 2 rows, to train and to validate on; got {len(x)}")
    order = np.random.default_rng(0).permutation(len(x))
    n_val = max(1, round(VALIDATION_SHARE * len(x)))
    train, val = np.sort(order[n_val:]), np.sort(order[:n_val])
    description = f"{path.name}, {len(train):,} rows to train on, {len(val):,} to validate on"
    labels_val = None if labels is None else labels[val]
    return Dataset(description, x[train], x[val], labels_val, "label", image_shape, numbers_train=train, numbers_val=val)
