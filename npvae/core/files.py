"""The file format of models and runs, replacement of files in one step, and safe readers.

`write` and `read`: an uncompressed npz of plain arrays with JSON metadata and a digest.
Entries: the arrays by name, and `metadata`, the UTF-8 bytes of a JSON object with the schema version, the SHA-256 over the
arrays (names, dtypes, shapes and bytes in order) and the caller's values. `replace_file` replaces a file in one step: a reader
finds the old one or the new one, whatever happens in between. `read_npz` and `read_npy`: nothing is unpickled, and no memory is
set aside for what a header only claims.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import time
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

SCHEMA = 4
MAX_RATIO = 1032  # deflate cannot do better, so a member that claims more is a lie
TEMPORARY_NAME = re.compile(r"\.npvae-[0-9a-f]{16}\.tmp")
A_DAY = 24 * 3600  # seconds
HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # what a lock that somebody holds is answered with
CANNOT_BE_DONE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM,
                  errno.EISDIR)  # fmt: skip  (the answers of file systems that do not sync a folder, or do not let us open it)


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
            arrays = read_npz(file, os.fstat(file.fileno()).st_size)
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
    """Let `write_to(file)` fill a temporary file beside `path`, then move it there in one step; what was there gets the name
    `keep` if that is given. When it returns, all of it is on the disk; OSError, naming the file, where that fails.

    Any threads and processes may save to one path at once: the last one wins, and whoever reads finds a whole file, always.
    A symbolic link stays one, and the file that it points to is replaced. The new file has the mode of the one before, else
    the umask's. What was left by a process that was killed while it saved goes with the next save in that folder.
    """
    try:
        _remove_abandoned(Path(os.path.realpath(path)).parent)
        _replace(path, write_to, keep)
    except OSError as error:
        reason = f"{error.strerror or error} (what was saved before is intact)"
        raise type(error)(error.errno, reason, str(path)) from None


def _replace(path, write_to, keep=None):
    target = Path(os.path.realpath(path))
    with _temporary(target.parent) as (temporary, file):
        write_to(file)
        file.flush()
        _copy_mode(target, temporary)
        with _where_possible():
            os.fsync(file.fileno())
        file.close()
        if keep is not None and target.exists():
            _keep(target, Path(os.path.realpath(keep)))
        os.replace(temporary, target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _temporary(folder):
    """The path of a new file in `folder`, and the file, open for writing; deleted at the end of the block unless it was moved.
    Until then it is locked, which tells it from what a dead process left."""
    path, file, lock = _locked_file(folder)
    try:
        with file:
            yield path, file
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _locked_file(folder):
    """The path of a new file, the file, and its lock: a second handle, so that it outlasts the file's closing (None on Windows,
    where nobody can delete an open file, nor move it)."""
    while True:
        path = _free_name(folder)
        file = path.open("xb")
        lock = os.dup(file.fileno()) if os.name == "posix" else None
        if lock is None or (try_lock(lock) is not False and path.exists()):
            return path, file, lock
        os.close(lock)  # before it was locked, somebody took it for abandoned
        file.close()


def _free_name(folder):
    return folder / f".npvae-{os.urandom(8).hex()}.tmp"


def _remove_abandoned(folder):
    """Delete the temporary files whose writers are gone: those that can be locked, and where there are no locks those that
    nobody has written to for a day."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY_NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    with open(entry.path, "r+b") as file:
                        locked = try_lock(file.fileno())
                        if locked:
                            os.unlink(entry.path)
                    if locked is None and time.time() - entry.stat().st_mtime > A_DAY:
                        os.unlink(entry.path)


def lock(handle):
    """Lock an open file, given by its number, until it is closed; the system's OSError where that cannot be."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)


def try_lock(handle):
    """Lock an open file until it is closed: True, or False where somebody else holds it, or None where the file system has no
    locks, or the system is Windows (where temporary files are not locked)."""
    if os.name != "posix":
        return None
    try:
        lock(handle)
    except OSError as error:
        return False if error.errno in HELD else None
    return True


def _copy_mode(old, new):
    """Give a new file the mode, and where we may the owner, of the file that it is to replace, if there is one."""
    with contextlib.suppress(OSError):  # FAT and others know neither
        was, now = os.stat(old), os.stat(new)
        if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
            with contextlib.suppress(OSError):
                os.chown(new, was.st_uid, was.st_gid)
        os.chmod(new, stat.S_IMODE(was.st_mode))


def _keep(path, keep):
    """Give the file at `path` the name `keep` as well: it is not moved, so that there is a file at `path` at any time."""
    link = _free_name(keep.parent)
    try:
        os.link(path, link)
        os.replace(link, keep)
    except OSError:  # another file system, or one without links
        with path.open("rb") as file:
            _replace(keep, lambda copy: shutil.copyfileobj(file, copy))
    finally:
        link.unlink(missing_ok=True)  # is still there if `keep` was this file already


def _sync_folder(folder):
    """Put the names in a folder on the disk."""
    if os.name == "posix":
        with _where_possible():
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _where_possible():
    """Go on where the system says that this cannot be done here; a full or broken disk stays an error."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_BE_DONE:
            raise


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
    check_npy(file, n_bytes, name)
    return npy_format.read_array(file, allow_pickle=False)


def map_npy(file, n_bytes, name="an array"):
    """As `read_npy`, of a file on the disk, whose array is mapped into memory: it can be read only, and who changes the file
    changes it, too."""
    check_npy(file, n_bytes, name)
    return np.load(file.name, mmap_mode="r", allow_pickle=False)


def check_npy(file, n_bytes, name):
    """ValueError unless an open .npy file of n_bytes holds numbers, as many as its header says; it is left at its beginning."""
    shape, dtype = read_header(file)
    if dtype.kind not in "buif":
        raise ValueError(f"{name} of dtype {dtype}")
    claimed, got = math.prod(shape) * dtype.itemsize, n_bytes - file.tell()
    if claimed != got:
        raise ValueError(f"{name} whose header claims {shape} of {dtype}, {claimed} bytes, before {got} bytes")
    file.seek(0)


def read_header(file):
    """Shape and dtype of an open .npy file, which is left behind its header."""
    version = npy_format.read_magic(file)
    if version > (2, 0):  # only structured arrays with non-Latin field names need the third version
        raise ValueError(f".npy version {version}, not an array of numbers")
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
