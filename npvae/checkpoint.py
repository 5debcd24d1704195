"""One file format for models and runs: an uncompressed npz of plain arrays with JSON metadata and a digest.

Entries: the arrays by name, and `metadata`, the UTF-8 bytes of a JSON object with the schema version, the SHA-256 over the
arrays (names, dtypes, shapes and bytes in order) and the caller's values. Nothing is ever pickled. A file is replaced
atomically: a reader finds the old one or the new one, whatever happens in between.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

SCHEMA = 1


def write(path, arrays, metadata):
    """Write arrays (a dict) and metadata (a dict that JSON can hold) to `path`; OSError where that fails."""
    path = Path(path)
    header = {"schema": SCHEMA, "sha256": digest(arrays), **metadata}
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    replace_file(path, lambda file: np.savez(file, metadata=encoded, **arrays))


def read(path):
    """The arrays and the metadata of a file written by `write`.

    FileNotFoundError if there is none; ValueError, naming the file, if it is damaged, foreign or of a newer schema.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            metadata = json.loads(arrays.pop("metadata").tobytes())
            schema, expected = metadata["schema"], metadata["sha256"]
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes raise a dozen kinds of exception in zipfile, zlib, json and NumPy
            got = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{path}: not an npvae checkpoint, or damaged ({got})") from None
    if schema != SCHEMA:
        raise ValueError(f"{path}: checkpoint of schema {schema!r}; this version of npvae reads schema {SCHEMA}")
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


def replace_file(path, write_to):
    """Let `write_to(file)` fill a temporary file beside `path`, then move it there in one step."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            write_to(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
