"""Data of one's own at the command line: labels, likelihoods, where the file is, how rows are split."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

from npvae import data
from npvae.app import cli
from npvae.core import files
from npvae.data.arrays import Mapped

NUMPY_VAE = str(Path(__file__).parent / "support/numpy_vae.py")
pytestmark = pytest.mark.usefixtures("small_world")


@pytest.mark.usefixtures("no_pictures")
def test_own_data_with_labels_and_gaussian_likelihood(capsys, error_of, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    t = rng.random(60)
    x = np.sin(np.linspace(0, 6, 12) + 6 * t[:, None]) + 0.1 * rng.standard_normal((60, 12))
    np.savez("waves.npz", x=x, labels=t)
    assert cli.main(["train", *SMALL, "--data", "waves.npz", "--likelihood", "gaussian", "--latent", "1"]) == 0
    out = capsys.readouterr().out
    assert "54 rows to train on, 6 to validate on" in out
    monkeypatch.chdir(tmp_path.parent)  # the run remembers where its data are
    folder = tmp_path / "runs/waves"
    assert cli.main(["evaluate", str(folder), "--samples", "5"]) == 0
    assert cli.main(["sample", str(folder), "--count", "4"]) == 0
    os.rename(tmp_path / "waves.npz", tmp_path / "moved.npz")
    assert "waves.npz" in error_of("evaluate", str(folder))


@pytest.mark.usefixtures("no_pictures")
def test_data_dir_is_where_the_data_are_and_may_move(error_of):
    Path("old").mkdir()
    np.save("old/bits.npy", np.eye(12))
    assert cli.main(["train", *SMALL, "--data", "bits.npy", "--data-dir", "old"]) == 0
    assert json.loads(Path("runs/bits/config.json").read_text())["arguments"]["data_dir"] == str(Path("old").resolve())
    os.rename("old", "new")
    assert cli.main(["evaluate", "runs/bits", "--samples", "2", "--data-dir", "new"]) == 0
    assert "bits.npy" in error_of("evaluate", "runs/bits")


def test_own_rows_are_split_once_and_keep_their_labels():
    rows = np.arange(40.0)
    np.savez("rows.npz", x=np.tile(rows[:, None], 2), labels=rows)
    dataset = data.load("rows.npz")
    np.testing.assert_array_equal(dataset.labels_val, dataset.x_val[:, 0])
    assert len(dataset.x_val) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([dataset.x_train, dataset.x_val])[:, 0]), rows)
    np.testing.assert_array_equal(data.load("rows.npz").x_val, dataset.x_val)


@pytest.mark.parametrize(
    ("shape", "image_shape"), [((9,), (3, 3)), ((2, 3), (2, 3)), ((1,), None), ((8,), None), ((2, 2, 2), None)]
)
def test_own_rows_are_images_where_they_came_as_such_or_are_square(shape, image_shape):
    np.save("rows.npy", np.zeros((5, *shape)))
    assert data.load("rows.npy").image_shape == image_shape


@pytest.mark.usefixtures("no_pictures")
def test_own_data_may_move():
    np.save("bits.npy", np.eye(12, dtype=bool))
    assert cli.main(["train", *SMALL, "--data", "bits.npy", "--out", "run"]) == 0
    Path("moved").mkdir()
    os.rename("bits.npy", "moved/bits.npy")
    assert cli.main(["evaluate", "run", "--samples", "2", "--data-dir", "moved"]) == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_bad_row_is_named_by_its_number_in_the_file(capsys):
    """Rows are trained and validated on in two parts; who mends the file wants the numbers of the file."""
    x = np.random.default_rng(0).standard_normal((60, 5))
    np.save("x.npy", x)
    val = data.load("x.npy").numbers_val
    bad_val, bad_train = int(val[3]), int(np.setdiff1d(np.arange(60), val)[40])
    x[[bad_val, bad_train]] = 9.97e36
    np.save("x.npy", x)
    assert cli.main(["train", *SMALL, "--data", "x.npy", "--likelihood", "gaussian", "--batch-size", "10"]) == 0
    err = capsys.readouterr().err
    assert f"see row {bad_val} (counted from 0) of the file, among the validation rows, with absolute values up to 9.97" in err
    assert f"see row {bad_train} (counted from 0) of the file, among the training rows, with absolute values up to 9.97" in err


# -------------------------------------------------------------------------------------------------- files that are mapped


ROWS = {
    "zeros and ones": lambda rng: rng.random((60, 9)) < 0.4,
    "grey levels": lambda rng: rng.integers(0, 256, (60, 9), np.uint8),
    "images": lambda rng: rng.integers(0, 256, (60, 3, 3, 1), np.uint8),
    "floats": lambda rng: rng.random((60, 9)),
    "single precision": lambda rng: rng.random((60, 9), np.float32),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_mapped_file_is_the_same_data_set(kind, monkeypatch):
    monkeypatch.setattr(data.arrays, "ROWS_PER_BLOCK", 7)
    np.save("x.npy", ROWS[kind](np.random.default_rng(0)))
    read, mapped = data.load("x.npy"), data.load("x.npy", mapped_bytes=0)
    assert isinstance(mapped.x_train, Mapped)
    assert isinstance(mapped.x_val, Mapped)
    for part in ("x_train", "x_val"):
        here, there = getattr(read, part), getattr(mapped, part)
        np.testing.assert_array_equal(there[np.arange(len(there))], here)
        np.testing.assert_array_equal(np.asarray(there), here)
        assert (there.shape, there.dtype, there.min(), there.max()) == (here.shape, here.dtype, here.min(), here.max())
    assert (mapped.digest, mapped.image_shape, mapped.description) == (read.digest, read.image_shape, read.description)
    assert data.load("x.npy", mapped_bytes=0, needs_digest=False).digest == ""


def test_what_cannot_be_used_as_it_lies_in_a_file_is_read():
    rng = np.random.default_rng(0)
    for x in (rng.integers(0, 9, (60, 9)), np.asfortranarray(rng.random((60, 9))), rng.random((60, 9)).astype(np.float16)):
        np.save("x.npy", x)
        dataset = data.load("x.npy", mapped_bytes=0)
        assert isinstance(dataset.x_train, np.ndarray)
        assert dataset.digest == data.load("x.npy").digest
    np.save("x.npy", rng.random((60, 9)))
    for options in ({"scale": 2.0}, {"condition": "half", "image_shape": (3, 3)}, {"mapped_bytes": 60 * 9 * 8 + 129}):
        assert isinstance(data.load("x.npy", **{"mapped_bytes": 0, **options}).x_train, np.ndarray)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kind", ["zeros and ones", "grey levels", "floats"])
def test_a_run_on_a_mapped_file_has_the_bits_of_one_in_memory(kind, monkeypatch):
    np.save("x.npy", ROWS[kind](np.random.default_rng(0)))
    for out, n_bytes in (("read", 2**30), ("mapped", 0)):
        monkeypatch.setattr("npvae.app.dataset.MAPPED_BYTES", n_bytes)
        assert cli.main(["train", "--model", NUMPY_VAE, *SMALL, "--data", "x.npy", "--out", out]) == 0
    (read, about), (mapped, _) = (files.read(f"{out}/checkpoint.npz") for out in ("read", "mapped"))
    assert about["model"]["class"] == "NumpyVAE"
    assert {name: value.tobytes() for name, value in read.items()} == {name: value.tobytes() for name, value in mapped.items()}


def test_bad_values_of_a_mapped_file_are_named(error_of, monkeypatch):
    monkeypatch.setattr("npvae.app.dataset.MAPPED_BYTES", 0)
    for value, message in ((np.nan, "must be finite; got nan"), (7.0, "must lie in [0, 1]")):
        x = np.random.default_rng(0).random((60, 9))
        x[33, 2] = value
        np.save("x.npy", x)
        assert message in error_of("train", "--model", NUMPY_VAE, *SMALL, "--data", "x.npy")
    Path("x.npy").write_bytes(Path("x.npy").read_bytes()[:-8])
    assert "x.npy: cannot be used" in error_of("train", "--model", NUMPY_VAE, *SMALL, "--data", "x.npy")
