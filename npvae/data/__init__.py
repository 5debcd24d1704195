"""Data sets by name or file, cut into training and validation rows."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.data import arrays, ising, mnist, toy

NAMES = ("ising", "mnist", *(f"toy:{name}" for name in toy.NAMES))
ISING_SIZE = 16
ISING_TEMPERATURES = np.linspace(1.0, 4.0, 13)
ISING_ROWS = (800, 200)  # training and validation lattices per temperature
VALIDATION_SHARE = 0.1  # of the user's own rows


class Dataset(NamedTuple):
    """Rows to train and to validate on, and what the pictures say about them."""

    description: str
    x_train: np.ndarray  # (n, D) bool, uint8 grey levels or floats
    x_val: np.ndarray
    labels_val: np.ndarray | None  # (n_val,)
    label_name: str
    image_shape: tuple | None  # (rows, columns) with product D, if the rows are images


def load(data="ising", data_dir=None, progress=False):
    """The data set "ising" (simulated), "mnist", "toy:NAME" (points in the plane), or the user's .npy or .npz file; ValueError
    or OSError if it cannot be had.

    The Ising lattices of both halves come from independent chains. MNIST validates on its test images. Of the user's rows a
    tenth, drawn with a fixed seed, is held out.
    """
    if data == "ising":
        return _ising(progress)
    if data == "mnist":
        digits = mnist.load(data_dir)
        description = f"MNIST digits, {len(digits.x_train):,} to train on, {len(digits.x_test):,} test images to validate on"
        return Dataset(description, digits.x_train, digits.x_test, digits.y_test, "digit", (28, 28))
    if data.startswith("toy:") and data in NAMES:
        return _toy(data.removeprefix("toy:"))
    if Path(data).suffix in (".npy", ".npz"):
        path = Path(data)
        if data_dir is not None:
            path = Path(data_dir) / (path.name if path.is_absolute() else path)
        return _own(path)
    raise ValueError(f"data must be {', '.join(NAMES)} or the path of a .npy or .npz file; got {data!r}")


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
    side = math.isqrt(x.shape[1])
    if image_shape is None and side > 1 and side * side == x.shape[1]:
        image_shape = (side, side)
    if image_shape is not None and len(image_shape) != 2:
        image_shape = None
    description = f"{path.name}, {len(train):,} rows to train on, {len(val):,} to validate on"
    return Dataset(description, x[train], x[val], None if labels is None else labels[val], "label", image_shape)
