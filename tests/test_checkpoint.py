"""The file format: what is written is read, damage is noticed, and nothing on disk is lost."""

import json

import numpy as np
import pytest

import npvae
from npvae import checkpoint

ARRAYS = {"theta": np.arange(5.0), "m": np.ones((2, 3), np.float32)}


def test_what_is_written_is_read(tmp_path):
    checkpoint.write(tmp_path / "a.npz", ARRAYS, {"epoch": 3, "name": "β"})
    arrays, metadata = checkpoint.read(tmp_path / "a.npz")
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype
    assert (metadata["epoch"], metadata["name"], metadata["schema"]) == (3, "β", checkpoint.SCHEMA)


def write_with_objects(path):
    with path.open("wb") as file:
        np.savez(file, metadata=np.array([{"schema": 1}], dtype=object))


def write_without_metadata(path):
    with path.open("wb") as file:
        np.savez(file, **ARRAYS)


def write_newer(path):
    header = json.dumps({"schema": 99, "sha256": checkpoint.digest(ARRAYS)}).encode()
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(header, np.uint8), **ARRAYS)


def write_changed(path):
    header = json.dumps({"schema": checkpoint.SCHEMA, "sha256": checkpoint.digest(ARRAYS)}).encode()
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(header, np.uint8), **{**ARRAYS, "theta": np.arange(1, 6.0)})


def write_truncated(path):
    checkpoint.write(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "not an npvae checkpoint, or damaged"),
    "text": (lambda path: path.write_text("hello"), "not an npvae checkpoint, or damaged"),
    "a single array": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00garbage"), "not an npvae checkpoint, or damaged"),
    "objects": (write_with_objects, "not an npvae checkpoint, or damaged"),
    "no metadata": (write_without_metadata, "not an npvae checkpoint, or damaged"),
    "truncated": (write_truncated, "not an npvae checkpoint, or damaged"),
    "newer schema": (write_newer, "schema 99"),
    "changed array": (write_changed, "do not match their SHA-256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_a_value_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / "run.npz"
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        checkpoint.read(path)
    assert "run.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_any_flipped_byte_of_the_arrays_is_noticed(tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.write(path, {"theta": np.zeros(64)}, {})
    whole = path.read_bytes()
    start = whole.index(bytes(512))
    for offset in range(start, start + 512, 37):
        path.write_bytes(whole[:offset] + b"\x01" + whole[offset + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.read(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.write(path, ARRAYS, {"epoch": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.replace_file(path, fail)
    assert checkpoint.read(path)[1]["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        npvae.VAE.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("arrays", "metadata", "message"),
    [
        ({"theta": np.zeros(3)}, {}, "not a saved npvae model"),
        ({}, {"model": {"n_features": 4}}, "not a saved npvae model"),
        ({"theta": np.zeros(3)}, {"model": {"n_features": -4}}, "not a saved npvae model"),
        ({"theta": np.zeros(3)}, {"model": {"wrong": 4}}, "not a saved npvae model"),
        ({"theta": np.zeros(3, np.float32)}, {"model": {"n_features": 4}}, "theta must be"),
        ({"theta": np.full(32, np.nan, np.float32)}, {"model": {"n_features": 4, "hidden": []}}, "theta must be finite"),
    ],
)
def test_a_checkpoint_that_is_no_model_is_refused(tmp_path, arrays, metadata, message):
    checkpoint.write(tmp_path / "a.npz", arrays, metadata)
    with pytest.raises(ValueError, match=message):
        npvae.VAE.load(tmp_path / "a.npz")
