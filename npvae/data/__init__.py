"""Data sets by name or file, cut into training and validation rows."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.core import checks, levels
from npvae.core.randomness import permutation
from npvae.data import arrays, ising, mnist, toy

NAMES = ("ising", "mnist", *(f"toy:{name}" for name in toy.NAMES))
ISING_SIZE = 16
ISING_TEMPERATURES = np.linspace(1.0, 4.0, 13)
ISING_ROWS = (800, 200)  # training and validation lattices per temperature
VALIDATION_SHARE = 0.1  # of the user's own rows
STANDARDISE = "standardise"
NONE = "none"  # the data of a model without
LABEL, HALF = "label", "half"  # conditions; any other word is the name of an array
MAPPED_BYTES = 2**30  # from which on a .npy file is mapped into memory, not read
MNIST_BYTES = 60_000 * 784  # of its training images
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


class Whole(NamedTuple):
    """The images of which one half is the condition and the other is x."""

    image_shape: tuple  # (rows, columns)
    scaling: Scaling | None


class Dataset(NamedTuple):
    """Rows to train and to validate on, and what the pictures say about them. C: columns of the condition."""

    description: str
    x_train: np.ndarray  # (n, D) bool, uint8 grey levels or floats
    x_val: np.ndarray
    labels_val: np.ndarray | None  # (n_val,)
    label_name: str
    image_shape: tuple | None  # (rows, columns) with product D, if the rows are images
    scaling: Scaling | None = None  # how the rows became x; None where nothing was done
    digest: str = ""  # SHA-256 over rows, labels and an array as the condition, as they were before scaling
    numbers_train: np.ndarray | None = None  # (n,) of the rows in the user's file
    numbers_val: np.ndarray | None = None  # (n_val,)
    labels_train: np.ndarray | None = None  # (n,)
    condition_train: np.ndarray | None = None  # (n,) class numbers or (n, C) floats, where x is modelled given those
    condition_val: np.ndarray | None = None  # (n_val,) or (n_val, C)
    condition_name: str = ""
    n_condition: int = 0  # the number of classes, or C
    whole: Whole | None = None  # where the condition is the upper half of images

    @property
    def train(self):
        """The training rows as a batch: (x,), or (x, condition); () where there are no data."""
        if not self.x_train.shape[1]:
            return ()
        return (self.x_train,) if self.condition_train is None else (self.x_train, self.condition_train)

    @property
    def val(self):
        """The validation rows as a batch, as `train`."""
        if not self.x_val.shape[1]:
            return ()
        return (self.x_val,) if self.condition_val is None else (self.x_val, self.condition_val)

    def in_own_units(self, x):
        """Rows x (..., D) as they were trained on, or what a model makes of them, in the units of the data set."""
        return x if self.scaling is None else self.scaling.undo(x)

    def whole_images(self, condition, x):
        """Rows x (n, D), or what a model makes of them, as they are shown: in the units of the data set, and under the
        condition (n, C) where that is the upper half of images. Returns them, (n, D) or (n, C + D), and their image_shape."""
        if self.whole is None:
            return self.in_own_units(x), self.image_shape
        images = np.hstack([condition, x])  # (n, C), (n, D) -> (n, C + D)
        return (images if self.whole.scaling is None else self.whole.scaling.undo(images)), self.whole.image_shape

    def conditions(self, n):
        """n conditions to draw x for: the classes in order, each as often as any other or once more, (n,); or else those of
        validation rows at equal distances, (n, C)."""
        if self.condition_val.ndim == 1:
            return np.arange(n) * self.n_condition // n
        return self.condition_val[np.linspace(0, len(self.condition_val) - 1, n).astype(int)]


NO_DATA = Dataset("none: an epoch is 100 steps", np.empty((100, 0)), np.empty((0, 0)), None, "", None)


def load(data="ising", data_dir=None, progress=False, scale=None, image_shape=None, condition=None, mapped_bytes=MAPPED_BYTES,
         needs_digest=True):  # fmt: skip
    """The data set "ising" (simulated), "mnist", "toy:NAME" (points in the plane), or the user's .npy or .npz file; "none" for
    a model without data. ValueError or OSError if it cannot be had.

    scale        None: values as they are (of uint8 see `npvae.core.levels`); a positive number that all values are divided by;
                 "standardise": every column of x_train gets mean 0 and standard deviation 1, a constant one 0, and x_val is
                 treated with the same numbers; or the Scaling of another data set
    image_shape  (rows, columns) of the image that a row is, or "none" where rows are no images (spectra, curves). If not given:
                 the shape in the file, (n, rows, columns) with or without a channel axis of 1; rows that are flat in the file
                 are square images if their length is a square and they are bool, uint8 or, after division by a number `scale`,
                 within [0, 1]
    condition    what x is modelled given: "label", the labels of the rows; "half", the upper half of each image, x being the
                 lower, which is the larger one of an odd number of pixel rows; or the name of an array (n,) or (n, C) of the
                 .npz file. (n,) integers are class numbers, all else are floats (`arrays.as_condition`). scale acts on x, and
                 so on both halves, but on no other condition
    mapped_bytes a .npy file of at least so many bytes, and MNIST's images if they are that much, stay on the disk, and their
                 rows are read when they are used, unless there is a scale or a condition
    needs_digest whether to compute the digest, which reads all rows

    A leading ~ in data and data_dir is the home folder. The Ising lattices to train and to validate on come from independent
    chains. MNIST validates on its test images. Of the user's rows a tenth, drawn with a fixed seed, is held out.
    """
    if data == NONE:
        return NO_DATA
    data, data_dir = os.path.expanduser(data), None if data_dir is None else os.path.expanduser(data_dir)
    mapped_bytes = mapped_bytes if scale is None and condition is None else math.inf
    dataset = _with_condition(_as_it_is(data, data_dir, progress, condition, mapped_bytes), condition)
    parts = dataset.x_train, dataset.x_val, dataset.labels_val, dataset.condition_train, dataset.condition_val
    digest = arrays.digest_of(*parts) if needs_digest else ""
    x_train, x_val, scaling = scaled(dataset.x_train, dataset.x_val, scale)
    one_for_all = scaling is None or np.ndim(scaling.shift) == 0
    shape = shape_of_images(dataset, x_train if one_for_all else dataset.x_train, image_shape)
    description = dataset.description
    if scale is not None:
        description += f", divided by {scaling.factor:g}" if one_for_all else ", standardised"
    if dataset.condition_name:
        description += f", given the {dataset.condition_name}"
    dataset = dataset._replace(description=description, x_train=x_train, x_val=x_val, image_shape=shape, scaling=scaling,
                               digest=digest)  # fmt: skip
    return _in_halves(dataset) if condition == HALF else dataset


def _as_it_is(data, data_dir, progress, condition, mapped_bytes):
    """The data set before anything is done to it. A condition that is an array of its file is there already."""
    if not isinstance(condition, str | None) or (data in NAMES and condition not in (None, LABEL, HALF)):
        raise ValueError(f"condition must be {LABEL}, {HALF}, or the name of an array of a .npz file; got {condition!r} with "
                         f"the data {data}")  # fmt: skip
    if data == "ising":
        return _ising(progress)
    if data == "mnist":
        digits = mnist.load(data_dir, mapped_bytes <= MNIST_BYTES)
        description = f"MNIST digits, {len(digits.x_train):,} to train on, {len(digits.x_test):,} test images to validate on"
        return Dataset(description, digits.x_train, digits.x_test, digits.y_test, "digit", (28, 28),
                       labels_train=digits.y_train)  # fmt: skip
    if data in NAMES:
        return _toy(data.removeprefix("toy:"))
    path = Path(data)
    if path.suffix.lower() in arrays.NEEDS:
        if data_dir is not None:
            path = Path(data_dir) / (path.name if path.is_absolute() else path)
        is_mapped = path.suffix.lower() == ".npy" and path.exists() and path.stat().st_size >= mapped_bytes
        return _own(path, None if condition in (LABEL, HALF) else condition, is_mapped)
    raise ValueError(f"data must be {', '.join(NAMES)} or the path of a .npy or .npz file; got {data!r}")


def _with_condition(dataset, condition):
    """A data set with its labels, or the array of its file, as the condition, and with what the condition is called."""
    if condition in (None, HALF):
        return dataset
    if condition != LABEL:
        train, val, name = dataset.condition_train, dataset.condition_val, condition
    elif dataset.labels_val is None:
        raise ValueError(f"condition {LABEL} needs data with labels, as a .npz file holds them in an array "
                         f"{' or '.join(arrays.LABELS)}; got {dataset.description}")  # fmt: skip
    else:
        labels, name = (dataset.labels_train, dataset.labels_val), dataset.label_name
        train, val = (arrays.as_condition(values, len(values), f"the condition {name}") for values in labels)
    n_condition = 1 + int(max(train.max(), val.max())) if train.ndim == 1 else train.shape[1]
    return dataset._replace(condition_train=train, condition_val=val, condition_name=name, n_condition=n_condition)


def _in_halves(dataset):
    """A data set of images as one of their lower halves, given the upper ones, whose values are those that a model sees."""
    shape, (x_train, x_val), scaling = dataset.image_shape, (dataset.x_train, dataset.x_val), dataset.scaling
    if shape is None or shape[0] < 2:
        got = f"no images, but rows of {x_train.shape[1]} values" if shape is None else "images of a single row"
        raise ValueError(f"condition {HALF} needs images of at least 2 rows of pixels; got {got}: image_shape (--image-shape) "
                         "may say what a row is")  # fmt: skip
    n_upper = shape[0] // 2 * shape[1]  # C
    dtype = np.float64 if x_train.dtype == np.float64 else np.float32
    factor = dtype(levels.scale_of(x_train, "x_train", decides=True))
    upper = [x[:, :n_upper].astype(dtype) * factor for x in (x_train, x_val)]  # (n, C + D) -> (n, C)
    lower = [np.ascontiguousarray(x[:, n_upper:]) for x in (x_train, x_val)]  # (n, C + D) -> (n, D)
    if scaling is not None and np.size(scaling.shift) > 1:
        scaling = Scaling(scaling.shift[n_upper:], scaling.factor[n_upper:])
    return dataset._replace(description=f"{dataset.description}, the lower half of each given the upper", x_train=lower[0],
                            x_val=lower[1], image_shape=(shape[0] - shape[0] // 2, shape[1]), scaling=scaling,
                            condition_train=upper[0], condition_val=upper[1], condition_name="upper half", n_condition=n_upper,
                            whole=Whole(shape, dataset.scaling))  # fmt: skip


def scaled(x_train, x_val, scale):
    """Training and validation rows with `scale` as in `load`, and the Scaling that it was, None for None."""
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
    both = []
    for x in (x_train, x_val):
        both.append(np.empty(x.shape, np.float64 if x.dtype == np.float64 else np.float32))
        for start in range(0, len(x), ROWS_PER_PASS):
            rows = slice(start, start + ROWS_PER_PASS)
            both[-1][rows] = (x[rows] - shift) / factor  # in float64, whatever x is
    return *both, Scaling(shift, factor)


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


def _ising(progress):
    temperatures = ISING_TEMPERATURES
    train = ising.simulate(temperatures, ISING_ROWS[0], ISING_SIZE, seed=0, progress=progress)
    val = ising.simulate(temperatures, ISING_ROWS[1], ISING_SIZE, seed=1, progress=progress)
    description = (
        f"Ising lattices {ISING_SIZE} × {ISING_SIZE} at {len(temperatures)} temperatures from {temperatures[0]:g} to "
        f"{temperatures[-1]:g}, {len(train.spins):,} to train on, {len(val.spins):,} to validate on"
    )
    return Dataset(description, train.spins.view(bool), val.spins.view(bool), val.temperature, "temperature (J/k)",
                   (ISING_SIZE, ISING_SIZE), labels_train=train.temperature)  # fmt: skip


def _toy(name):
    x_train, x_val = toy.dataset_rows(name)
    description = f"points of the density {name} in the plane, {len(x_train):,} to train on, {len(x_val):,} to validate on"
    return Dataset(description, x_train, x_val, None, "label", None)


def _own(path, condition, is_mapped):
    """Rows of the user's file; condition: the name of the array that is to be it, or None; is_mapped: they stay in it."""
    x, labels, image_shape, values = arrays.load(path, condition, is_mapped)
    if len(x) < 2:
        raise ValueError(f"{path} must hold at least 2 rows, to train and to validate on; got {len(x)}")
    order = permutation(np.random.default_rng(0), len(x))
    n_val = max(1, round(VALIDATION_SHARE * len(x)))
    train, val = np.sort(order[n_val:]), np.sort(order[:n_val])
    description = f"{path.name}, {len(train):,} rows to train on, {len(val):,} to validate on"
    labels_train, labels_val = (None, None) if labels is None else (labels[train], labels[val])
    condition_train, condition_val = (None, None) if values is None else (values[train], values[val])
    x_train, x_val = (arrays.Mapped(x.x, part) if isinstance(x, arrays.Mapped) else x[part] for part in (train, val))
    return Dataset(description, x_train, x_val, labels_val, "label", image_shape, numbers_train=train, numbers_val=val,
                   labels_train=labels_train, condition_train=condition_train, condition_val=condition_val)  # fmt: skip
