"""Files in, arrays out: values survive the round trip, and every damaged file is refused in one clear line."""

import errno
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npvae.core.checks import NpvaeWarning
from npvae.data import arrays, mnist

OFFICIAL = Path(__file__).parents[2] / "shared" / "data" / "mnist"
NAMES = list(mnist.FILES)


def idx_bytes(array):
    magic = mnist.IMAGES if array.ndim == 3 else mnist.LABELS
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def npy_bytes(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def npy_header(shape, dtype="<f4", version=1):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text.encode()


def write(path, contents):
    path.write_bytes(contents)
    return path


def refused(function, path, words, error=ValueError):
    """The call raises `error` with one line that names the file and says `words`."""
    with pytest.raises(error) as caught:
        function(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert words in message, message


# --- MNIST: one IDX file -------------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = np.array([7, 0, 9, 3, 1], dtype=np.uint8)
IDX, IDX_LABELS = idx_bytes(IMAGES), idx_bytes(LABELS)


@pytest.mark.parametrize("array", [IMAGES, LABELS], ids=["images", "labels"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_read_idx_round_trip(tmp_path, array, pack):
    path = write(tmp_path / "file", pack(idx_bytes(array)))
    got = mnist.read_idx(path, sha256=hashlib.sha256(idx_bytes(array)).hexdigest())
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, array)


def test_read_idx_is_row_major_big_endian(tmp_path):
    contents = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 10, 20, 30, 40, 50, 255])
    np.testing.assert_array_equal(mnist.read_idx(write(tmp_path / "a", contents)), [[[10, 20, 30], [40, 50, 255]]])


BAD_IDX = {
    "empty": (b"", "(none)"),
    "short magic": (b"\0\0", "first bytes 00 00"),
    "text": (b"<html>not found</html>", "needs an IDX file"),
    "wrong magic": (struct.pack(">II", 2050, 1) + b"\0", "first bytes 00 00 08 02"),
    "little-endian": (struct.pack("<II", 2049, 1) + b"\0", "first bytes 01 08 00 00"),
    "short header": (IDX[:9], "got 9 bytes, needs a header of 16"),
    "truncated": (IDX[:-1], "got only 75 bytes, needs the 76"),
    "header alone": (IDX[:16], "got only 16 bytes, needs the 76"),
    "trailing byte": (IDX + b"\0", "got more bytes, needs the 76"),
    "no images": (struct.pack(">4I", 2051, 0, 28, 28), "shape (0, 28, 28)"),
    "absurd size": (struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "header that claims shape (4294967295,"),
    "label 10": (idx_bytes(np.array([3, 10], np.uint8)), "got a label 10"),
    "gz truncated": (gzip.compress(IDX)[:-9], "damaged gzip"),
    "gz damaged": (gzip.compress(IDX)[:12] + b"\xff\xff\xff" + gzip.compress(IDX)[15:], "damaged gzip"),
    "gz checksum": (gzip.compress(IDX)[:-8] + bytes(4) + gzip.compress(IDX)[-4:], "damaged gzip"),
    "gz trailing": (gzip.compress(IDX) + b"more", "damaged gzip"),
    "gz longer": (gzip.compress(IDX + b"\0"), "got more bytes"),
    "gz shorter": (gzip.compress(IDX[:-2]), "got only 74 bytes"),
}


@pytest.mark.parametrize(("contents", "words"), BAD_IDX.values(), ids=BAD_IDX)
def test_read_idx_refuses(tmp_path, contents, words):
    refused(mnist.read_idx, write(tmp_path / "digits", contents), words)


def test_read_idx_refuses_wrong_checksum(tmp_path):
    path = write(tmp_path / "digits", IDX)
    refused(lambda path: mnist.read_idx(path, sha256="0" * 64), path, hashlib.sha256(IDX).hexdigest())


def test_read_idx_missing_file(tmp_path):
    refused(mnist.read_idx, tmp_path / "nothing", "No such file", FileNotFoundError)


@pytest.mark.parametrize(("n_images", "words"), [(2, "got more bytes"), (2**18, "got only")], ids=["bomb", "lie"])
def test_read_idx_memory_is_bounded(tmp_path, peak_memory, n_images, words):
    """A bomb (64 MB behind a header of 2 images) stops early; a lie (200 MB claimed, 2 images there) is cheap."""
    n_there = 64 * 2**20 if n_images == 2 else 2 * 784
    contents = struct.pack(">4I", 2051, n_images, 28, 28) + bytes(n_there)
    path = write(tmp_path / "bomb.gz", gzip.compress(contents, compresslevel=1))
    del contents
    assert peak_memory(lambda: refused(mnist.read_idx, path, words)) < 4 * 2**20


@pytest.fixture
def peak_memory():
    def measure(function):
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


# --- MNIST: the four files, the cache and the download --------------------------------------------------------------

@pytest.fixture
def little(monkeypatch):
    """Four small files that play the official ones: name -> raw bytes."""
    rng = np.random.default_rng(2)
    files = {}
    for name, n in zip(NAMES, (6, 6, 3, 3)):
        shape = (n, 2, 3) if "images" in name else (n,)
        files[name] = idx_bytes(rng.integers(0, 10, shape, dtype=np.uint8))
    monkeypatch.setattr(mnist, "FILES", {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()})
    return files


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "npvae"
    monkeypatch.setattr(mnist, "cache_dir", lambda: folder)
    return folder


@pytest.fixture
def mirrors(tmp_path, monkeypatch):
    """Two mirrors on this machine, as the folders that they serve."""
    pytest.importorskip("pooch")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(mnist, "MIRRORS", [f"{root}/one/", f"{root}/two/"])
        yield tmp_path / "one", tmp_path / "two"
        server.shutdown()
        thread.join()


def serve(folder, files):
    for name, raw in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))


def check_little(data, files):
    parts = [data.x_train, data.y_train, data.x_test, data.y_test]
    for part, raw, shape in zip(parts, files.values(), [(6, 6), (6,), (3, 6), (3,)]):
        assert part.dtype == np.uint8
        assert part.shape == shape
        assert raw.endswith(part.tobytes())


def test_raw_images_may_stay_on_the_disk(tmp_path, little):
    for name, raw in little.items():
        (tmp_path / name).write_bytes(raw)
    mapped = mnist.load(tmp_path, is_mapped=True)
    check_little(mapped, little)
    assert isinstance(mapped.x_train, np.memmap)
    assert isinstance(mapped.x_test, np.memmap)
    for damage in (lambda raw: raw[:-1], lambda raw: raw + b"0", lambda raw: b"\0\0\x08\x01" + raw[4:], lambda raw: b""):
        (tmp_path / NAMES[0]).write_bytes(damage(little[NAMES[0]]))
        with pytest.raises(ValueError, match=f"{NAMES[0]}: got a file that is damaged, or of something else"):
            mnist.load(tmp_path, is_mapped=True)


def test_load_takes_raw_before_gz(tmp_path, little):
    for i, (name, raw) in enumerate(little.items()):
        write(tmp_path / f"{name}.gz", gzip.compress(raw) if i < 2 else b"not looked at")
        if i >= 2:
            write(tmp_path / name, raw)
    check_little(mnist.load(tmp_path), little)
    check_little(mnist.load(str(tmp_path)), little)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_load_finds_the_other_common_spelling(tmp_path, little, suffix):
    for name, raw in little.items():
        write(tmp_path / f"{name.replace('-idx', '.idx')}{suffix}", gzip.compress(raw) if suffix else raw)
    check_little(mnist.load(tmp_path), little)


def test_a_tilde_in_data_dir_is_the_home_directory(tmp_path, little, monkeypatch):
    for name, raw in little.items():
        write(tmp_path / name, raw)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    check_little(mnist.load(f"~/{tmp_path.name}"), little)
    refused(lambda path: mnist.load("~/nowhere"), tmp_path.parent / "nowhere", "missing", FileNotFoundError)


def test_load_names_missing_files(tmp_path, little):
    serve(tmp_path, {name: little[name] for name in NAMES[:2]})
    refused(mnist.load, tmp_path, f"missing {NAMES[2]}, {NAMES[3]} (", FileNotFoundError)
    refused(mnist.load, tmp_path / "nowhere", f"missing {', '.join(NAMES)} (", FileNotFoundError)


def test_load_leaves_the_users_damaged_file_alone(tmp_path, little):
    serve(tmp_path, little)
    other = idx_bytes(np.zeros((6, 2, 3), np.uint8))  # intact, but not the official one
    path = write(tmp_path / NAMES[0], other)
    with pytest.raises(ValueError, match="official MNIST") as caught:
        mnist.load(tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == other


def test_cache_is_poochs_own(monkeypatch, tmp_path):
    pooch = pytest.importorskip("pooch")
    assert mnist.cache_dir() == pooch.os_cache("npvae")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mnist.cache_dir() == pooch.os_cache("npvae")


@pytest.mark.parametrize(("platform", "folder"), [
    ("linux", "home/.cache/npvae"), ("darwin", "home/Library/Caches/npvae"), ("win32", "local/npvae/npvae/Cache")])
def test_cache_on_each_platform(monkeypatch, tmp_path, platform, folder):
    monkeypatch.setattr(mnist, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert mnist.cache_dir() == tmp_path / folder


def no_home(*args):
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(("platform", "variable"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_a_home_directory_is_asked_for_only_where_it_is_needed(monkeypatch, tmp_path, platform, variable):
    monkeypatch.setattr(mnist, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(Path, "expanduser", lambda path: no_home() if str(path).startswith("~") else path)
    monkeypatch.setenv(variable, str(tmp_path))
    assert mnist.cache_dir().is_relative_to(tmp_path)
    for value in ("", "~/cache"):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ValueError, match=rf"^no home directory is known .*set {variable} .*\(--data-dir\)$"):
            mnist.load()


def test_load_reads_the_cache_without_pooch(little, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    cache.mkdir(parents=True)
    serve(cache, little)
    check_little(mnist.load(), little)


def one_line_oserror(*words):
    with pytest.raises(OSError, match="data_dir \\(--data-dir\\)") as caught:
        mnist.load()
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, mnist.MIRRORS[0], *(f"{name}.gz" for name in NAMES)):
        assert word in message


def test_no_pooch_message(little, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    one_line_oserror("pip install 'npvae[data]'", str(cache))


def test_download_once(little, cache, mirrors):
    serve(mirrors[0], little)
    check_little(mnist.load(), little)
    shutil.rmtree(mirrors[0])
    check_little(mnist.load(), little)
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)  # nothing half-done left behind


def forbidden(*args, **options):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_cache_that_cannot_be_written_is_not_called_a_failed_download(little, cache, mirrors, monkeypatch):
    """Its folder cannot be made; it is there, but of somebody else; a damaged file in it cannot be replaced."""
    serve(mirrors[0], little)
    words = str(cache), "cannot be written (Permission denied)", "set XDG_CACHE_HOME to one that can be"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        one_line_oserror(*words)
    cache.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "_mkstemp_inner", forbidden)
        patch.setattr(os, "open", forbidden)
        one_line_oserror(*words)
    write(cache / NAMES[0], b"damaged")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", forbidden)
        one_line_oserror(*words)
    check_little(mnist.load(), little)


def test_a_full_disk_is_told_from_a_mirror_that_does_not_answer(little, cache, mirrors, monkeypatch):
    serve(mirrors[0], little)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Path, "write_bytes", lambda *args: (_ for _ in ()).throw(full))
    one_line_oserror("No space left on device")


def test_download_where_there_is_no_stderr(little, cache, mirrors, monkeypatch):
    serve(mirrors[0], little)
    monkeypatch.setattr(sys, "stderr", None)
    check_little(mnist.load(), little)


def test_download_decompressed_by_the_server(little, cache, mirrors):
    """Some servers label the .gz as a transfer encoding, and what arrives is raw."""
    for name, raw in little.items():
        write(mirrors[0] / f"{name}.gz", raw)
    check_little(mnist.load(), little)


BAD_DOWNLOAD = {
    "absent": None,
    "html": b"<html>moved</html>",
    "truncated": gzip.compress(IDX)[:-9],
    "another file": gzip.compress(IDX),
}


@pytest.mark.parametrize("contents", BAD_DOWNLOAD.values(), ids=BAD_DOWNLOAD)
def test_second_mirror_when_first_fails(little, cache, mirrors, contents):
    serve(mirrors[0], little)
    serve(mirrors[1], little)
    bad = mirrors[0] / f"{NAMES[0]}.gz"
    bad.unlink() if contents is None else bad.write_bytes(contents)
    check_little(mnist.load(), little)


@pytest.mark.parametrize("contents", BAD_DOWNLOAD.values(), ids=BAD_DOWNLOAD)
def test_failed_download_leaves_nothing_and_the_next_try_succeeds(little, cache, mirrors, contents):
    for folder in mirrors:
        if contents is not None:
            (folder / f"{NAMES[0]}.gz").write_bytes(contents)
    one_line_oserror(NAMES[0], *mnist.MIRRORS, "HTTPError" if contents is None else "not the official file")
    assert list(cache.iterdir()) == []
    serve(mirrors[1], little)
    check_little(mnist.load(), little)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_damaged_cache_is_replaced(little, cache, mirrors, suffix):
    serve(mirrors[0], little)
    cache.mkdir(parents=True)
    damaged = write(cache / f"{NAMES[1]}{suffix}", little[NAMES[1]][:-1])
    check_little(mnist.load(), little)
    assert not damaged.exists() or damaged.read_bytes() == little[NAMES[1]]


def test_damaged_cache_is_removed_without_network(little, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    cache.mkdir(parents=True)
    serve(cache, little)
    damaged = write(cache / NAMES[1], b"damaged")
    check_little(mnist.load(), little)  # the intact .gz beside it serves
    assert not damaged.exists()


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official MNIST files are not here")
def test_official_files():
    data = mnist.load(OFFICIAL)
    assert data.x_train.shape == (60000, 784)
    assert data.x_test.shape == (10000, 784)
    assert data.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert round(float(data.x_train.mean() / 255), 4) == 0.1307  # the mean that everybody normalises with
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [part.dtype for part in data] == [np.dtype(np.uint8)] * 4


# --- the user's own files --------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(("given", "kept"), [
    ("bool", "bool"), ("uint8", "uint8"), ("float32", "float32"), ("float64", "float64"), (">f4", "float32"),
    (">f8", "float64"), ("longdouble", "float64"), ("float16", "float32"), ("int8", "float32"), ("int64", "float32"),
    ("uint16", "float32"), (">i2", "float32")])
def test_load_npy_values_and_dtype(tmp_path, given, kept):
    values = np.array([[0, 1, 2], [3, 4, 100]]).astype(given)
    path = tmp_path / "a.npy"
    np.save(path, values)
    data = arrays.load(path)
    assert data.x.dtype == np.dtype(kept)
    assert data.x.dtype.isnative
    assert data.x.flags.c_contiguous
    assert data.labels is None
    assert data.image_shape is None
    np.testing.assert_array_equal(data.x, values.astype(kept))


@pytest.mark.parametrize("order", ["C", "F"])
def test_load_flattens_images_row_by_row(tmp_path, order):
    images = np.asarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), order=order)
    np.save(tmp_path / "a.npy", images)
    data = arrays.load(str(tmp_path / "a.npy"))
    np.testing.assert_array_equal(data.x, np.arange(24).reshape(2, 12))
    assert data.x.flags.c_contiguous
    assert data.image_shape == (3, 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("fields", [("x", "labels"), ("x", "y"), ("spins", "labels"), ("x", None), ("spins", None)])
def test_load_npz(tmp_path, save, fields):
    x_name, labels_name = fields
    labels = np.array([2.5, 0, 1, 4])
    contents = {x_name: ROWS, "extra": np.arange(3), "notes": np.array("hello")}
    if labels_name:
        contents[labels_name] = labels
    save(tmp_path / "a.npz", **contents)
    data = arrays.load((tmp_path / "a.npz").rename(tmp_path / "A.NPZ"))  # the case of the ending is no matter
    np.testing.assert_array_equal(data.x, ROWS)
    assert (data.labels is None) == (labels_name is None)
    if labels_name:
        np.testing.assert_array_equal(data.labels, labels)


def test_load_npz_prefers_x(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.zeros((2, 2)), x=ROWS.reshape(4, 2, 3), y=np.zeros(4), labels=np.ones(4))
    data = arrays.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.x, ROWS)
    np.testing.assert_array_equal(data.labels, np.ones(4))
    assert data.image_shape == (2, 3)


@pytest.mark.parametrize("labels", [np.array(list("abcd")), np.array([Trap()] * 4), np.zeros(4, complex)],
                         ids=["strings", "objects", "complex"])
def test_load_npz_leaves_out_labels_that_are_no_numbers(tmp_path, labels):
    np.savez(tmp_path / "a.npz", x=ROWS, labels=labels)
    with pytest.warns(NpvaeWarning, match=rf"^labels are left out \(array labels of dtype {labels.dtype}\): save class "):
        data = arrays.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.x, ROWS)
    assert data.labels is None


@pytest.mark.parametrize(("shape", "image_shape"), [
    ((2, 3, 1), (2, 3)), ((1, 2, 3), (2, 3)), ((1, 6, 1), (1, 6)), ((3, 2, 1, 1), (3, 2, 1, 1)), ((2, 1, 3), (2, 1, 3))])
def test_load_takes_one_channel_for_an_image(tmp_path, shape, image_shape):
    np.save(tmp_path / "a.npy", ROWS.reshape(4, *shape))
    data = arrays.load(tmp_path / "a.npy")
    assert data.image_shape == image_shape
    np.testing.assert_array_equal(data.x, ROWS)


def test_load_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", ROWS)
    np.testing.assert_array_equal(arrays.load("~/a.npy").x, ROWS)
    monkeypatch.setattr("os.path.expanduser", lambda path: str(path))  # as where there is none
    refused(arrays.load, "~/a.npy", "No such file", FileNotFoundError)


def test_load_npz_takes_highly_compressible_data(tmp_path):
    """The bound on a member's size is the best that deflate can do, so that honest zeros pass."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000), np.uint8))
    assert arrays.load(tmp_path / "a.npz").x.shape == (1000, 1000)


def test_load_npy_second_header_version(tmp_path):
    path = write(tmp_path / "a.npy", npy_header((4, 6), version=2) + ROWS.tobytes())
    np.testing.assert_array_equal(arrays.load(path).x, ROWS)


BAD_NPY = {
    "empty file": (b"", "cannot be used"),
    "text": (b"1,2,3\n4,5,6\n", "magic string"),
    "archive": (b"PK\x03\x04" + bytes(30), "magic string"),
    "truncated header": (npy_bytes(ROWS)[:40], "cannot be used"),
    "truncated": (npy_bytes(ROWS)[:-1], "96 bytes, before 95 bytes"),
    "two arrays": (npy_bytes(ROWS) * 2, "96 bytes, before"),
    "absurd size": (npy_header((10**12, 784)) + ROWS.tobytes(), "3136000000000000 bytes, before 96 bytes"),
    "negative shape": (npy_header((-4, -6)) + ROWS.tobytes(), "cannot be used"),
    "huge header": (npy_header((4, 6), "<f4' + " + "' " * 20000), "Header info length"),
    "header of code": (npy_header("(__import__('os'), 1)"), "cannot be used"),
    "unknown version": (npy_header((4, 6), version=3) + ROWS.tobytes(), "version (3, 0)"),
    "pickle": (pickle.dumps(Trap()), "magic string"),
    "objects": (npy_bytes(np.array([[Trap()]]), allow_pickle=True), "dtype object"),
    "complex": (npy_bytes(ROWS.astype(complex)), "dtype complex128"),
    "strings": (npy_bytes(np.array([["a", "b"]])), "dtype <U1"),
    "dates": (npy_bytes(np.zeros((2, 2), "M8[s]")), "dtype datetime64[s]"),
    "records": (npy_bytes(np.zeros((2, 2), [("a", "f4"), ("b", "f4")])), "dtype [('a', '<f4'), ('b', '<f4')]"),
    "scalar": (npy_bytes(np.float32(1)), "must be a real array of shape (n, D); got shape ()"),
    "one-dimensional": (npy_bytes(ROWS[0]), "must be a real array of shape (n, D); got shape (6,)"),
    "no rows": (npy_bytes(ROWS[:0]), "got shape (0, 6)"),
    "no columns": (npy_bytes(ROWS[:, :0]), "got shape (4, 0)"),
    "no images": (npy_bytes(np.zeros((0, 2, 3))), "got shape (0, 6)"),
    "nan": (npy_bytes(np.array([[0, 1], [2, np.nan]])), "must be finite; got nan at [1, 1]"),
    "infinity": (npy_bytes(np.array([[0, -np.inf]], np.float16)), "must be finite; got -inf at [0, 1]"),
}


@pytest.mark.parametrize(("contents", "words"), BAD_NPY.values(), ids=BAD_NPY)
def test_load_npy_refuses(tmp_path, contents, words):
    path = write(tmp_path / "mine.npy", contents)
    refused(arrays.load, path, words)


@pytest.mark.parametrize(("fields", "words"), [
    ({}, "arrays none"),
    ({"a": ROWS, "b": ROWS}, "arrays a (4, 6), b (4, 6)"),
    ({"a": ROWS[0]}, "arrays a (6,)"),
    ({"y": ROWS}, "arrays y (4, 6)"),
    ({"x": ROWS[0]}, "got shape (6,)"),
    ({"x": ROWS.astype(complex)}, "array x of dtype complex128"),
    ({"x": np.array([[Trap()]])}, "dtype object"),
    ({"x": np.full((2, 2), np.nan)}, "must be finite; got nan at [0, 0]"),
    ({"x": ROWS, "labels": np.arange(3)}, "got labels of shape (3,)"),
    ({"x": ROWS, "y": np.zeros((4, 1))}, "got labels of shape (4, 1)"),
])
def test_load_npz_refuses(tmp_path, fields, words):
    path = tmp_path / "mine.npz"
    np.savez(path, **fields)
    refused(arrays.load, path, words)


def archive_bytes(contents=b"", name="x.npy", **kwargs):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **kwargs) as archive:
        archive.writestr(name, contents)
    return file.getvalue()


def lying_archive():
    """The directory entry of x claims 4 GB; so does the array's header."""
    contents = bytearray(archive_bytes(npy_header((1024, 1024, 1023))))
    entry = contents.rindex(b"PK\x01\x02")
    contents[entry + 24:entry + 28] = struct.pack("<I", 4 * 1024 * 1024 * 1023 + 128)
    return bytes(contents)


GOOD_NPZ = archive_bytes(npy_bytes(ROWS))
BAD_NPZ = {
    "empty file": (b"", "not a zip file"),
    "npy": (npy_bytes(ROWS), "not a zip file"),
    "truncated": (GOOD_NPZ[:-30], "not a zip file"),
    "damaged array": (GOOD_NPZ.replace(ROWS.tobytes()[8:16], bytes(8)), "CRC"),
    "damaged deflate": (archive_bytes(npy_bytes(ROWS), compression=zipfile.ZIP_DEFLATED)
                        .replace(b"\x00\x00x.npy", b"\x00\x00x.npy\xff\xff", 1), "cannot be used"),
    "lost offset": (GOOD_NPZ[40:], "cannot be used"),
    "not an array": (archive_bytes(b"hello"), "magic string"),
    "text alone": (archive_bytes(b"hello", name="readme.txt"), "arrays none"),
    "absurd size": (archive_bytes(npy_header((10**12, 784)) + ROWS.tobytes()), "before 96 bytes"),
    "lying directory": (lying_archive(), "more than the archive can hold"),
}


@pytest.mark.parametrize(("contents", "words"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_load_npz_refuses_damage(tmp_path, contents, words):
    path = write(tmp_path / "mine.npz", contents)
    refused(arrays.load, path, words)
    refused(arrays.load, path, "needs an intact .npz archive")


@pytest.mark.parametrize("name", ["rows.csv", "rows", "rows.npy.gz"])
def test_load_refuses_other_kinds_of_file(tmp_path, name):
    refused(arrays.load, tmp_path / name, "needs .npy or .npz")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_load_missing_file(tmp_path, name):
    refused(arrays.load, tmp_path / name, "No such file", FileNotFoundError)


def test_load_folder(tmp_path):
    (tmp_path / "a.npy").mkdir()
    refused(arrays.load, tmp_path / "a.npy", "", OSError)


# --- arrays in memory ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32", "float64"])
def test_as_rows_does_not_copy(dtype):
    x = np.ones((3, 2), dtype)
    assert np.shares_memory(arrays.as_rows(x), x)
    assert arrays.as_rows(x).dtype == x.dtype


def test_as_rows_converts():
    rows = arrays.as_rows([[1, 2], [3, 4]])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[1, 2], [3, 4]])
    turned = arrays.as_rows(ROWS.T)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, ROWS.T)


@pytest.mark.parametrize(("x", "words"), [
    (ROWS[0], "must be a real array of shape (n, D); got shape (6,)"),
    (ROWS.reshape(2, 2, 6), "must be a real array of shape (n, D); got shape (2, 2, 6)"),
    (3.0, "must be a real array of shape (n, D); got shape ()"),
    (None, "must be a real array of shape (n, D); got dtype object"),
    ([], "got shape (0,)"),
    (np.zeros((0, 3)), "got shape (0, 3)"),
    (np.zeros((3, 0)), "got shape (3, 0)"),
    (ROWS.astype(complex), "dtype complex128"),
    ([["a", "b"]], "dtype <U1"),
    ([[None, 1]], "dtype object"),
    ([[1, 2], [3]], "got rows of different lengths"),
    ([[1.0, np.nan]], "must be finite; got nan at [0, 1]"),
    ([[1.0], [-np.inf]], "must be finite; got -inf at [1, 0]"),
])
def test_as_rows_refuses(x, words):
    refused(lambda name: arrays.as_rows(x, name=name), "x_train", words)
    refused(lambda name: arrays.as_rows(x, name=name), "x_train", "must be")


def test_pooch_waits_for_a_download():
    code = "import sys, npvae.data.mnist, npvae.data.arrays; sys.exit('pooch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
