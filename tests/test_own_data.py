"""Data of one's own at the command line: labels, likelihoods, where the file is, how rows are split."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

from npvae import data
from npvae.app import cli

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
