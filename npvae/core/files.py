"""The file format of models and runs, replacement of files in one step, and safe readers.

`write` and `read`: an uncompressed npz of plain arrays with JSON metadata and a digest.
Entries: the arrays by name, and `metadata`, the UTF-8 bytes of a JSON object with the schema version, the SHA-256 over the
arrays (names, dtypes, shapes and bytes in order) and the caller's values. `replace_file` replaces a file in one step: a reader
finds the old one or the new one, whatever happens in between. `read_npz` and `read_npy`: nothing is unpickled, and no memory is
set aside for what a header only claims.
"""

import contextlib
import hashlib
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

SCHEMA = 3
MAX_RATIO = 1032  # deflate cannot do better, so a member that claims more is a lie


def write(path, arrays, metadata, keep=None):
    """Write arrays (a dict) and metadata (a dict that JSON can hold) to `path`; the file that was there moves to `keep` if that
    is given. OSError where that fails."""
    header = {"schema": SCHEMA, "sha256": digest(arrays), **metadata}
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    replace_file(path, lambda file: np.savez(file, metadata=encoded, **arrays), keep)


def read(path):
    """The arrays and the metadata of a file written by `write`.

    FileNotFoundError if there is none; ValueError, naming the file, if it is damaged, foreign or of another schema.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            arrays = read_npz(file, path.stat().st_size)
            metadata = json.loads(arrays.pop("metadata").tobytes())
            schema, expected = metadata["schema"], metadata["sha256"]
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes raise a dozen kinds of exception in zipfile, zlib, json and NumPy
            got = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{path}: not an npvae checkpoint, or damaged ({got})") from None
    if schema != SCHEMA:
        raise ValueError(f"{path}: a file of schema {schema!r}, and this version of npvae reads schema {SCHEMA}: train again")
    if digest(arrays) != expected:
        raise ValueError(f"{path}: damaged checkpoint, the arrays do not match their SHA-256")
    return arrays, metadata


def digest(arrays):
    """SHA-256 over names, dtypes, shapes and bytes of a dict of arrays."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape};".encode())
        sha.update(array)
    return sha.hexdigest()


def replace_file(path, write_to, keep=None):
    """Let `write_to(file)` fill a temporary file beside `path`, then move it there in one step; what was there moves to `keep`
    if that is given. When it returns, all of it is on the disk; OSError, naming the file, where that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            write_to(file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(error.errno, f"{error.strerror} (what was saved before is intact)", str(path)) from None
        raise


def _sync_folder(folder):
    """Put the names in a folder on the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_npz(file, n_bytes, wanted=None):
    """The arrays of an open .npz archive of n_bytes, by name: all of them, or those that `wanted(shapes)` names, shapes being a
    dict of the shapes in their headers. What is wrong raises ValueError, or whatever zipfile and zlib make of the bytes."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}
        shapes = {}
        for name, info in members.items():
            if info.file_size > MAX_RATIO * n_bytes:
                raise ValueError(f"array {name} claims {info.file_size} bytes, more than the archive can hold")
            with archive.open(info) as member:
                shapes[name], _ = read_header(member)
        arrays = {}
        for name in members if wanted is None else wanted(shapes):
            with archive.open(members[name]) as member:
                arrays[name] = read_npy(member, members[name].file_size, f"array {name}")
    return arrays


def read_npy(file, n_bytes, name="an array"):
    """The array of an open .npy file of n_bytes, read only once its header agrees with that size."""
    shape, dtype = read_header(file)
    if dtype.kind not in "buif":
        raise ValueError(f"{name} of dtype {dtype}")
    claimed, got = math.prod(shape) * dtype.itemsize, n_bytes - file.tell()
    if claimed != got:
        raise ValueError(f"{name} whose header claims {shape} of {dtype}, {claimed} bytes, before {got} bytes")
    file.seek(0)
    return npy_format.read_array(file, allow_pickle=False)


def read_header(file):
    """Shape and dtype of an open .npy file, which is left behind its header."""
    version = npy_format.read_magic(file)
    if version > (2, 0):  # only structured arrays with non-Latin field names need the third version
        raise ValueError(f".npy version {version}, not an array of numbers")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
