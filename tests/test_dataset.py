"""Data sets by name or file: where they are looked for, their scale, what is an image, and their digest."""

import json

import numpy as np
import pytest

import npvae
from npvae import data
from npvae.data import Scaling, arrays

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 17, (40, 64)).astype(float)  # from 0 to 16, as another collection of digits has them
DIGITS[0, :2] = 0, 16
SPECTRA = 1e4 * RNG.random((40, 256)) - 5


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(x, name="rows.npy"):
    np.save(name, x)
    return name


def rows_of(dataset):
    return np.concatenate([dataset.x_train, dataset.x_val])


# ---- where data are ----


def test_the_home_folder_and_the_case_of_endings(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = rows_of(data.load(saved(DIGITS)))
    (tmp_path / "rows.npy").rename(tmp_path / "ROWS.NPY")
    for arguments in [("~/ROWS.NPY",), ("ROWS.NPY", "~"), (tmp_path / "ROWS.NPY",), ("elsewhere/../ROWS.NPY", tmp_path)]:
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        np.testing.assert_array_equal(rows_of(data.load(*arguments)), expected)
    np.savez("a.npz", x=DIGITS)
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    np.testing.assert_array_equal(rows_of(data.load("A.NPZ")), expected)


@pytest.mark.parametrize("name", ["rows.csv", "no such", "toy:no such", ""])
def test_what_is_no_data_set_is_refused(name):
    with pytest.raises(ValueError, match=r"^data must be ising, mnist, [^\n]* or the path of a \.npy or \.npz file; got "):
        data.load(name)


# ---- scale ----


def test_values_divided_by_a_number():
    dataset = data.load(saved(DIGITS), scale=16)
    plain = data.load("rows.npy")
    np.testing.assert_allclose(dataset.x_train, plain.x_train / 16)
    np.testing.assert_allclose(dataset.x_val, plain.x_val / 16)
    np.testing.assert_allclose(dataset.in_own_units(dataset.x_val), plain.x_val, atol=1e-14)
    assert dataset.description.endswith(", divided by 16")
    assert (plain.scaling, dataset.x_train.dtype) == (None, np.float64)
    assert plain.in_own_units(plain.x_val) is plain.x_val
    npvae.fit(npvae.VAE(64, 2, (), backend="numpy"), dataset.x_train, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("uint8", "float32"), ("bool", "float32"), ("float32", "float32"), ("int64", "float32"), ("float64", "float64")],
)
def test_what_is_scaled_are_floats(dtype, kept):
    x = DIGITS.astype(dtype)
    saved(x)
    for scale in (2.5, data.STANDARDISE):
        dataset = data.load("rows.npy", scale=scale)
        assert dataset.x_train.dtype == dataset.x_val.dtype == kept
        np.testing.assert_allclose(dataset.in_own_units(dataset.x_val), data.load("rows.npy").x_val, atol=1e-5)


def test_every_column_standardised():
    x = np.array([1e7, 0, -3, 5]) + RNG.standard_normal((3000, 4)) * [1, 10, 0, 1e-3]  # float32 sums would lose the first
    x[:, 2] = 0.1  # whose mean of 3000 is not 0.1 to the last digit
    saved(x.astype(np.float32))
    dataset, plain = data.load("rows.npy", scale="standardise"), data.load("rows.npy")
    columns = [0, 1, 3]
    mean, std = (getattr(plain.x_train[:, columns], name)(axis=0, dtype=float) for name in ("mean", "std"))
    np.testing.assert_allclose(dataset.x_train.mean(axis=0, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.x_train.std(axis=0, dtype=float), [1, 1, 0, 1], rtol=1e-5)
    assert not dataset.x_train[:, 2].any()
    np.testing.assert_allclose(dataset.x_val[:, columns], (plain.x_val[:, columns] - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dataset.in_own_units(dataset.x_val), plain.x_val, rtol=1e-6)
    assert dataset.description.endswith(", standardised")


def test_data_sets_that_are_built_in_are_scaled_too():
    dataset = data.load("toy:ring", scale=2)
    np.testing.assert_allclose(2 * dataset.x_val, data.load("toy:ring").x_val)


@pytest.mark.parametrize("scale", [3.0, data.STANDARDISE])
def test_the_scaling_of_one_data_set_serves_another(scale):
    first = data.load(saved(DIGITS), scale=scale)
    other = data.load(saved(DIGITS[::-1] + 2.0), scale=first.scaling)
    shift, factor = other.scaling
    assert shift is first.scaling.shift
    np.testing.assert_allclose(other.x_val, (data.load("rows.npy").x_val - shift) / factor, rtol=1e-6)


def test_a_scaling_of_other_columns_is_refused():
    scaling = data.load(saved(DIGITS), scale=data.STANDARDISE).scaling
    with pytest.raises(ValueError, match=r"^a scaling of \d+ columns cannot be that of rows of 3$"):
        data.load(saved(RNG.random((20, 3))), scale=scaling)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf, "two", True])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(ValueError, match=r"^scale must be a [^\n]*; got "):
        data.load(saved(DIGITS), scale=scale)


@pytest.mark.parametrize("scale", [3.0, data.STANDARDISE])
def test_a_scaling_goes_into_json_and_comes_back(scale):
    dataset = data.load(saved(DIGITS), scale=scale)
    twin = Scaling.from_json(json.loads(json.dumps(dataset.scaling.as_json())))
    np.testing.assert_array_equal(twin.undo(dataset.x_val), dataset.scaling.undo(dataset.x_val))
    assert Scaling.from_json(None) is None


@pytest.mark.parametrize("values", [{}, {"shift": 0}, 3, {"shift": "a", "factor": 1}, {"shift": [[1], [2, 3]], "factor": 1},
                                    {"shift": 0, "factor": [1, float("inf")]}, {"shift": None, "factor": 1}])  # fmt: skip
def test_what_is_no_scaling_is_refused(values):
    with pytest.raises(ValueError, match=r"of a scaling must be finite|^a scaling must hold shift and factor"):
        Scaling.from_json(values)


# ---- images ----


@pytest.mark.parametrize(
    ("x", "scale", "shape"),
    [
        (SPECTRA, None, None),
        (SPECTRA, data.STANDARDISE, None),
        (DIGITS, None, None),
        (DIGITS, 16, (8, 8)),
        (DIGITS / 16, None, (8, 8)),
        (DIGITS / 16, data.STANDARDISE, (8, 8)),
        (DIGITS.astype(np.uint8), None, (8, 8)),
        (DIGITS.astype(np.uint8), data.STANDARDISE, (8, 8)),
        (DIGITS > 8, None, (8, 8)),
        (DIGITS[:, :60] > 8, None, None),
        (DIGITS.reshape(40, 4, 16), None, (4, 16)),
        (DIGITS.reshape(40, 8, 8, 1), None, (8, 8)),
        (DIGITS.reshape(40, 1, 8, 8), data.STANDARDISE, (8, 8)),
        (DIGITS.reshape(40, 4, 4, 4), None, None),
    ],
)
def test_which_rows_are_images(x, scale, shape):
    assert data.load(saved(x), scale=scale).image_shape == shape


def test_what_is_an_image_can_be_said():
    saved(SPECTRA / SPECTRA.max().clip(1))
    for shape in [(16, 16), (4, 64), [2, 128]]:
        assert data.load("rows.npy", image_shape=shape).image_shape == tuple(shape)
    assert data.load(saved(np.abs(SPECTRA) / 1e5)).image_shape == (16, 16)
    assert data.load("rows.npy", image_shape="none").image_shape is None
    assert data.load(saved(DIGITS.reshape(40, 8, 8)), image_shape=(4, 16)).image_shape == (4, 16)
    assert data.load("rows.npy", image_shape="none").image_shape is None


@pytest.mark.parametrize("shape", [(8, 9), (64,), (8, 8, 1), (-8, -8), (8.0, 8), "square"])
def test_an_image_shape_that_cannot_be_is_refused(shape):
    with pytest.raises(ValueError, match=r"^image_shape must be [^\n]*; got "):
        data.load(saved(DIGITS), image_shape=shape)


# ---- digest ----


def test_the_digest_is_that_of_the_data_whatever_their_scale():
    saved(DIGITS)
    digest = data.load("rows.npy").digest
    assert len(digest) == 64
    assert data.load("rows.npy", scale=16, image_shape="none").digest == digest
    np.savez("rows.npz", x=DIGITS)
    assert data.load("rows.npz").digest == digest
    digests = [digest]
    for changed in (DIGITS + (np.arange(40) == 17)[:, None], DIGITS[:-1], DIGITS.astype(np.uint8), DIGITS[:, ::-1]):
        digests.append(data.load(saved(changed)).digest)
    for labels in (np.zeros(40), np.ones(40)):
        np.savez("rows.npz", x=DIGITS, labels=labels)
        digests.append(data.load("rows.npz").digest)
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_hang_on_the_last_bits():
    """Of generated floats they differ between processors."""
    x = data.load("toy:moons").x_train
    assert arrays.digest_of(x) == arrays.digest_of(x * (1 + 2.0**-52)) != arrays.digest_of(x * (1 + 1e-6))
    assert arrays.digest_of(x, None) == arrays.digest_of(x)
