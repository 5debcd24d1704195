"""One file format for models and runs: an uncompressed npz of plain arrays with JSON metadata and a digest.

Entries: the arrays by name, and `metadata`, the UTF-8 bytes of a JSON object with the schema version, the SHA-256 over the
arrays (names, dtypes, shapes and bytes in order) and the caller's values. Nothing is ever pickled. A file is replaced
atomically: a reader finds the old one or the new one, whatever happens in between.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from npvae import archive

SCHEMA = 2  # 1 had no place within an epoch and no best epoch


def write(path, arrays, metadata, keep=None):
    """Write arrays (a dict) and metadata (a dict that JSON can hold) to `path`; the file that was there moves to `keep` if that
    is given. OSError where that fails."""
    header = {"schema": SCHEMA, "sha256": digest(arrays), **metadata}
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    replace_file(path, lambda file: np.savez(file, metadata=encoded, **arrays), keep)


def read(path):
    """The arrays and the metadata of a file written by `write`, of this schema or an older one.

    FileNotFoundError if there is none; ValueError, naming the file, if it is damaged, foreign or of a newer schema.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            arrays = archive.read_npz(file, path.stat().st_size)
            metadata = json.loads(arrays.pop("metadata").tobytes())
            schema, expected = metadata["schema"], metadata["sha256"]
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes raise a dozen kinds of exception in zipfile, zlib, json and NumPy
            got = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{path}: not an npvae checkpoint, or damaged ({got})") from None
    if schema not in range(1, SCHEMA + 1):
        raise ValueError(f"{path}: checkpoint of schema {schema!r}; this version of npvae reads schemas up to {SCHEMA}")
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
