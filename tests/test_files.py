"""The file format: what is written is read, damage is noticed, and nothing on disk is lost."""

import json
import os
import struct

import numpy as np
import pytest

from npvae.core import files

ARRAYS = {"theta": np.arange(5.0), "m": np.ones((2, 3), np.float32)}


def test_what_is_written_is_read(tmp_path):
    files.write(tmp_path / "a.npz", ARRAYS, {"epoch": 3, "name": "β"})
    arrays, metadata = files.read(tmp_path / "a.npz")
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype
    assert (metadata["epoch"], metadata["name"], metadata["schema"]) == (3, "β", files.SCHEMA)


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.zeros((2, 3))},
        {"v": np.zeros((3, 2))},
        {"v": np.zeros((2, 3), np.int64)},
        {"v": np.ones((2, 3))},
        {"v": np.zeros((2, 3)), "w": np.zeros((2, 3))},
    ],
)
def test_digest_tells_names_shapes_dtypes_and_values_apart(other):
    assert files.digest(other) != files.digest({"v": np.zeros((2, 3))})


def test_digest_does_not_depend_on_the_order_of_arrays_or_memory():
    square = np.arange(6.0).reshape(2, 3)
    assert files.digest({"a": square, "b": ARRAYS["m"]}) == files.digest(
        {"b": ARRAYS["m"], "a": np.asfortranarray(square)}
    )


class Pickled:
    """An object that leaves a trace where it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_is_unpickled(tmp_path, capsys):
    with (tmp_path / "a.npz").open("wb") as file:
        np.savez(file, metadata=np.array([Pickled()], dtype=object))
    with pytest.raises(ValueError, match="not an npvae checkpoint, or damaged"):
        files.read(tmp_path / "a.npz")
    assert not capsys.readouterr().out


def write_foreign_metadata(path):
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(b"[1, 2]", np.uint8), **ARRAYS)


def write_without_metadata(path):
    with path.open("wb") as file:
        np.savez(file, **ARRAYS)


def write_schema(path, schema):
    header = json.dumps({"schema": schema, "sha256": files.digest(ARRAYS)}).encode()
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(header, np.uint8), **ARRAYS)


def write_changed(path):
    header = json.dumps({"schema": files.SCHEMA, "sha256": files.digest(ARRAYS)}).encode()
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(header, np.uint8), **{**ARRAYS, "theta": np.arange(1, 6.0)})


def write_one_array(path):
    with path.open("wb") as file:
        np.save(file, ARRAYS["theta"])


def write_unknown_compression(path):
    files.write(path, ARRAYS, {})
    content = path.read_bytes()
    method = content.index(b"PK\x01\x02") + 10  # of the first entry of the archive's directory
    path.write_bytes(content[:method] + struct.pack("<H", 99) + content[method + 2 :])


def write_truncated(path):
    files.write(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "not an npvae checkpoint, or damaged"),
    "text": (lambda path: path.write_text("hello"), "not an npvae checkpoint, or damaged"),
    "a single array": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00garbage"), "not an npvae checkpoint, or damaged"),
    "metadata of another kind": (write_foreign_metadata, "not an npvae checkpoint, or damaged"),
    "an intact array": (write_one_array, "not an npvae checkpoint, or damaged"),
    "unknown compression": (write_unknown_compression, "not an npvae checkpoint, or damaged"),
    "no metadata": (write_without_metadata, "not an npvae checkpoint, or damaged"),
    "truncated": (write_truncated, "not an npvae checkpoint, or damaged"),
    "newer schema": (lambda path: write_schema(path, 99), "a file of schema 99, and .* reads schema 3: train again"),
    "older schema": (lambda path: write_schema(path, 2), "a file of schema 2, and .* reads schema 3: train again"),
    "schema of another kind": (lambda path: write_schema(path, "3"), "a file of schema '3'"),
    "changed array": (write_changed, "do not match their SHA-256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_a_value_error_that_names_the_file(tmp_path, damage):
    path = tmp_path / "run.npz"
    spoil, message = DAMAGE[damage]
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        files.read(path)
    assert "run.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_any_flipped_byte_of_the_arrays_is_noticed(tmp_path):
    path = tmp_path / "run.npz"
    files.write(path, {"theta": np.zeros(64)}, {})
    whole = path.read_bytes()
    start = whole.index(bytes(512))
    for offset in range(start, start + 512, 37):
        path.write_bytes(whole[:offset] + b"\x01" + whole[offset + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            files.read(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    files.write(path, ARRAYS, {"epoch": 1})
    names = []

    def fail(file, **arrays):
        file.write(b"half")
        names.extend(p.name for p in tmp_path.iterdir())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, ARRAYS, {})
    assert len(names) == 2  # the new file grows beside the old one, on the same disk
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    assert files.read(path)[1]["epoch"] == 1


def test_bytes_are_on_the_disk_before_the_old_file_goes(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_size))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    files.replace_file(tmp_path / "a", lambda file: file.write(b"four"))
    assert events[:2] == [4, "replace"]
    assert len(events) == 3  # then the folder, which holds the name


def test_any_flipped_bit_is_harmless_or_a_value_error_that_names_the_file(tmp_path):
    path = tmp_path / "run.npz"
    files.write(path, {"theta": np.arange(6.0)}, {"epoch": 1})
    whole = path.read_bytes()
    refused, harmless = 0, 0
    for offset in range(len(whole)):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        try:
            arrays, metadata = files.read(path)
        except ValueError as error:
            refused += "run.npz" in str(error)
        else:
            np.testing.assert_array_equal(arrays["theta"], np.arange(6.0))
            assert metadata["epoch"] == 1
            harmless += 1
    assert refused + harmless == len(whole)
    assert refused > harmless
