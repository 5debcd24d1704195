"""The file format: what is written is read, damage is noticed, and nothing on disk is lost."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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
    "newer schema": (lambda path: write_schema(path, 99), "a file of schema 99, and .* reads schema 4: train again"),
    "older schema": (lambda path: write_schema(path, 3), "a file of schema 3, and .* reads schema 4: train again"),
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


# ------------------------------------------------------------------------------------------------ replacement in one step

TEMPORARY = ".npvae-0123456789abcdef.tmp"  # a name of a temporary file
posix = pytest.mark.skipif(os.name != "posix", reason="links, modes and locks as POSIX has them")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def save(path, content=b"new", keep=None):
    files.replace_file(path, lambda file: file.write(content), keep)


def test_threads_that_save_to_one_path_all_succeed_and_a_reader_finds_a_whole_file_always(tmp_path):
    path, done, read = tmp_path / "run.npz", threading.Event(), []

    def save_often(thread):
        for k in range(12):
            files.write(path, {"theta": np.full(2000 + thread, k)}, {"thread": thread}, keep=tmp_path / "previous.npz")

    def read_often():
        while not done.is_set():
            arrays, metadata = files.read(path)
            read.append(len(arrays["theta"]) - metadata["thread"])

    files.write(path, {"theta": np.zeros(2000)}, {"thread": 0})
    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read_often)
        saves = [pool.submit(save_often, thread) for thread in range(4)]
        errors = [save.exception() for save in saves]
        done.set()
        reader.result()
    assert errors == [None] * 4
    assert set(read) == {2000}
    assert names_in(tmp_path) == ["previous.npz", "run.npz"]
    assert files.read(tmp_path / "previous.npz")[0]["theta"].size >= 2000


@posix
def test_what_a_killed_process_left_goes_with_the_next_save_and_what_is_being_written_stays(tmp_path):
    """Whatever the numbers of the processes: in a container each is number 1."""
    code = """if True:
        import os, signal, sys
        from npvae.core import files
        def half(file):
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        files.replace_file(sys.argv[1], half)
    """
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False).returncode == -signal.SIGKILL
    (left,) = names_in(tmp_path)
    others = [f".a.{os.getpid()}", ".npvae-notes.tmp"]  # a user's own, whatever they look like
    for name in others:
        (tmp_path / name).write_text("mine")

    def while_this_is_written(file):
        (temporary,) = set(names_in(tmp_path)) - {*others, "b"}
        save(tmp_path / "b")
        assert names_in(tmp_path) == sorted([*others, temporary, "b"])
        file.write(b"new")

    with (tmp_path / left).open("rb+") as file:
        assert files.try_lock(file.fileno())  # as if that process still lived
        save(tmp_path / "b")
        assert left in names_in(tmp_path)
    files.replace_file(tmp_path / "a", while_this_is_written)
    assert names_in(tmp_path) == sorted([*others, "a", "b"])
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize(("age", "stays"), [(3600, True), (2 * files.A_DAY, False)])
def test_without_locks_a_temporary_file_is_abandoned_after_a_day(tmp_path, monkeypatch, age, stays):
    monkeypatch.setattr(files, "try_lock", lambda handle: None)
    (tmp_path / TEMPORARY).write_bytes(b"half")
    os.utime(tmp_path / TEMPORARY, (time.time() - age,) * 2)
    save(tmp_path / "a")
    assert names_in(tmp_path) == ([TEMPORARY] if stays else []) + ["a"]


@posix
def test_a_file_system_without_locks_is_told_from_a_file_that_is_locked(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "a").open("wb") as one, (tmp_path / "a").open("rb+") as two:
        assert [files.try_lock(file.fileno()) for file in (one, two)] == [True, False]
    for error, answer in [(errno.ENOLCK, None), (errno.ENOSYS, None), (errno.EOPNOTSUPP, None), (errno.EAGAIN, False)]:
        monkeypatch.setattr(fcntl, "flock", raises(OSError(error, os.strerror(error))))
        assert files.try_lock(0) is answer
    monkeypatch.setattr(fcntl, "flock", raises(OSError(errno.ENOLCK, "No locks available")))
    save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


def raises(error):
    def function(*args):
        raise error

    return function


@posix
def test_a_new_file_that_is_taken_for_abandoned_before_it_is_locked_gets_another_name(tmp_path, monkeypatch):
    """Another process may lock and delete it in the moment between its making and its locking."""
    lock, locked = files.try_lock, []

    def too_late(handle):
        for path in () if len(locked) > 1 else list(tmp_path.iterdir()):
            path.unlink()
        locked.append(handle)
        return lock(handle) if len(locked) > 1 else False

    monkeypatch.setattr(files, "try_lock", too_late)
    save(tmp_path / "a")
    assert len(locked) == 3
    assert names_in(tmp_path) == ["a"]


@posix
@pytest.mark.parametrize("target", ["kept", "not there yet"])
def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(tmp_path, target):
    (tmp_path / "run").mkdir()
    (tmp_path / "disk").mkdir()
    if target == "kept":
        (tmp_path / "disk/a").write_bytes(b"old")
    for name in ("a", "previous"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "disk" / name)
    save(tmp_path / "run/a", keep=tmp_path / "run/previous")
    assert (tmp_path / "run/a").is_symlink()
    assert (tmp_path / "run/previous").is_symlink()
    assert (tmp_path / "disk/a").read_bytes() == b"new"
    if target == "kept":
        assert (tmp_path / "disk/previous").read_bytes() == b"old"
    assert names_in(tmp_path / "run") == ["a", "previous"]
    assert names_in(tmp_path / "disk") == (["a", "previous"] if target == "kept" else ["a"])


@posix
def test_the_mode_is_that_of_the_file_before_or_the_umask_s(tmp_path):
    before = os.umask(0o026)
    try:
        save(tmp_path / "a")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
        for mode in (0o664, 0o600):
            (tmp_path / "a").chmod(mode)
            save(tmp_path / "a", keep=tmp_path / "b")
            assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [mode, mode]
    finally:
        os.umask(before)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_that_of_the_file_before(tmp_path):
    save(tmp_path / "a")
    os.chown(tmp_path / "a", 12345, 23456)
    save(tmp_path / "a")
    assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (12345, 23456)


def test_keep_gets_what_was_there_while_the_path_is_never_without_a_file(tmp_path, monkeypatch):
    """Also where there are no hard links, and where both names are of one file already."""
    path, keep, replace, there = tmp_path / "a", tmp_path / "b", os.replace, []
    monkeypatch.setattr(os, "replace", lambda *paths: (replace(*paths), there.append(path.exists())))
    for k, links in enumerate((True, True, False)):
        if not links:
            monkeypatch.setattr(os, "link", raises(OSError(errno.EPERM, "Operation not permitted")))
        save(path, b"%d" % k, keep)
        assert path.read_bytes() == b"%d" % k
        if k:
            assert keep.read_bytes() == b"%d" % (k - 1)
            assert not path.samefile(keep)
    monkeypatch.undo()
    keep.unlink()
    os.link(path, keep)
    save(path, b"3", keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"3", b"2")
    assert all(there)
    assert names_in(tmp_path) == ["a", "b"]


@posix
@pytest.mark.parametrize("function", ["fsync", "open"])
@pytest.mark.parametrize("error", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM"])
def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch, function, error):
    number = getattr(errno, error)
    monkeypatch.setattr(os, function, raises(OSError(number, os.strerror(number))))
    save(tmp_path / "a")
    monkeypatch.undo()
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


@posix
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_a_broken_or_full_disk_is_an_error(tmp_path, monkeypatch, error):
    number = getattr(errno, error)
    save(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", raises(OSError(number, os.strerror(number))))
    with pytest.raises(OSError, match=r"what was saved before is intact") as caught:
        save(tmp_path / "a")
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


def test_an_error_that_the_writer_raises_keeps_its_words(tmp_path):
    with pytest.raises(OSError, match=r"the cable is out \(what was saved before is intact\)"):
        files.replace_file(tmp_path / "a", raises(OSError("the cable is out")))
    assert names_in(tmp_path) == []
