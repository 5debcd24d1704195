"""The MNIST digits, read from the official IDX files and held against their checksums.

LeCun, Cortes & Burges: 60 000 training and 10 000 test images of 28 × 28 grey levels. An IDX file of images is four
big-endian 32-bit integers (2051, n, rows, columns) and then the pixels, one byte each, row by row; a file of labels
is two integers (2049, n) and then the labels, one byte each.
"""

import contextlib
import gzip
import hashlib
import math
import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npvae.core.progress import is_terminal

# Official name -> sha256 of the decompressed bytes: mirrors recompress, so the .gz itself has no fixed checksum.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]

IMAGES, LABELS = 2051, 2049  # the first integer of an IDX file of unsigned bytes in three and in one dimension
MAX_BYTES = 2**30  # twenty times MNIST; a header that claims more is damaged
CHUNK = 2**20


class MNIST(NamedTuple):
    """Images as rows of 784 grey levels, 0 (paper) to 255 (ink), and their digits 0-9; all uint8."""

    x_train: np.ndarray  # (60000, 784)
    y_train: np.ndarray  # (60000,)
    x_test: np.ndarray  # (10000, 784)
    y_test: np.ndarray  # (10000,)


def load(data_dir=None, is_mapped=False):
    """Read the four MNIST files, and download them the first time if no folder is given.

    data_dir: folder (~ is the home directory) that holds the four IDX files under their official names or as
    train-images.idx3-ubyte, the other common spelling; raw or with ".gz" (raw is taken where both are there). Without
    it they are read from `cache_dir()`, and what is missing or damaged there is downloaded (11 MB in all; needs pooch:
    pip install 'npvae[data]').
    is_mapped: leave the images on the disk, where the file is raw, and do not look whether they are the official ones.

    Returns MNIST(x_train, y_train, x_test, y_test); the images are flattened row by row, (28, 28) -> (784,).

    Raises FileNotFoundError that names the files missing from data_dir, OSError where a download fails or the cache
    cannot be written, and ValueError where a file in data_dir is not, byte for byte, the official one.
    """
    if data_dir is None:
        x_train, y_train, x_test, y_test = (_read_cached(name, is_mapped) for name in FILES)
    else:
        folder = Path(os.path.expanduser(data_dir))
        paths = {name: _find(folder, name) for name in FILES}
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            raise FileNotFoundError(f"{folder}: missing {', '.join(missing)} (each may also end in .gz, and have a dot "
                                    "before idx)")  # fmt: skip
        x_train, y_train, x_test, y_test = (_read_or_map(path, name, is_mapped) for name, path in paths.items())
    return MNIST(x_train.reshape(len(x_train), -1), y_train, x_test.reshape(len(x_test), -1), y_test)


def _read_or_map(path, name, is_mapped):
    return map_idx(path) if is_mapped and "images" in name and path.suffix != ".gz" else read_idx(path, sha256=FILES[name])


def map_idx(path):
    """As `read_idx`, of a raw file of images, which stays on the disk: what is not indexed is not read."""
    with open(path, "rb") as file:
        header = file.read(16)
    magic, *shape = struct.unpack(">4I", header) if len(header) == 16 else (0,)
    if magic != IMAGES or min(shape) == 0 or os.path.getsize(path) != 16 + math.prod(shape):
        raise ValueError(f"{path}: got a file that is damaged, or of something else, needs a raw IDX file of images")
    return np.memmap(path, np.uint8, "r", 16, tuple(shape))


def read_idx(path, sha256=None):
    """Read one IDX file of images or labels, raw or gzip-compressed (told apart by its first bytes, not by its name).

    sha256: hexadecimal checksum that the decompressed bytes must have; None accepts any intact file.

    Returns uint8: (n, rows, columns) grey levels 0-255, or (n,) labels 0-9.

    Raises OSError where the file cannot be opened, ValueError where its contents are not as they should be. No more
    is ever decompressed than the header announces, and a header that announces more than 1 GiB is refused.
    """
    raw, shape = _read_raw(path)
    array = np.frombuffer(raw, dtype=np.uint8, offset=len(raw) - math.prod(shape)).reshape(shape)
    if array.ndim == 1 and array.max() > 9:
        raise ValueError(f"{path}: got a label {array.max()}, needs labels 0-9")
    if sha256 is not None:
        got = hashlib.sha256(raw).hexdigest()
        if got != sha256:
            raise ValueError(f"{path}: got sha256 {got} of the decompressed bytes, needs {sha256} (official MNIST)")
    return array


def cache_dir():
    """The folder that downloads are kept in, the same as pooch.os_cache("npvae") but known without pooch.

    $XDG_CACHE_HOME/npvae or ~/.cache/npvae on Linux, ~/Library/Caches/npvae on macOS,
    %LOCALAPPDATA%\\npvae\\npvae\\Cache on Windows. ValueError where there is neither the variable nor a home directory.
    """
    chosen = os.environ.get(_cache_variable())
    default = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    try:
        folder = Path(chosen).expanduser() if chosen else Path.home() / default
    except RuntimeError:
        raise ValueError(f"no home directory is known here, where MNIST would be kept: set {_cache_variable()} to a folder, "
                         "or name that of the MNIST files with data_dir (--data-dir)") from None  # fmt: skip
    return folder / "npvae" / "npvae" / "Cache" if sys.platform == "win32" else folder / "npvae"


def _cache_variable():
    return "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"


def _find(folder, name):
    spellings = (name, name.replace("-idx", ".idx"))
    paths = [folder / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spellings]
    return next((path for path in paths if path.is_file()), None)


def _read_raw(path):
    """All bytes of an IDX file, decompressed, and the shape in its header, to which their number has been held."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            return _read_stream(gzip.GzipFile(fileobj=file) if packed else file, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: got damaged gzip data ({error}), needs an intact file") from error


def _read_stream(file, path):
    raw = _read_at_most(file, 4)
    magic = int.from_bytes(raw, "big")
    if magic not in (IMAGES, LABELS):
        raise ValueError(f"{path}: got the first bytes {raw.hex(' ') or '(none)'}, needs an IDX file of images "
                         f"({IMAGES:08x}) or labels ({LABELS:08x})")
    n_dims = 3 if magic == IMAGES else 1
    raw += _read_at_most(file, 4 * n_dims)
    if len(raw) < 4 + 4 * n_dims:
        raise ValueError(f"{path}: got {len(raw)} bytes, needs a header of {4 + 4 * n_dims}")
    shape = struct.unpack(f">{n_dims}I", raw[4:])
    n_bytes = len(raw) + math.prod(shape)
    if min(shape) == 0 or n_bytes > MAX_BYTES:
        raise ValueError(f"{path}: got a header that claims shape {shape}, needs 1 to {MAX_BYTES} bytes of data")
    # One byte more than announced: it shows trailing data, and its absence makes gzip verify its own checksum.
    raw += _read_at_most(file, n_bytes - len(raw) + 1)
    if len(raw) != n_bytes:
        got = "more" if len(raw) > n_bytes else f"only {len(raw)}"
        raise ValueError(f"{path}: got {got} bytes, needs the {n_bytes} of its header's shape {shape}")
    return raw, shape


def _read_at_most(file, n_bytes):
    """Up to n_bytes in bounded pieces, so that memory grows with what is there and not with what is claimed."""
    raw = bytearray()
    while len(raw) < n_bytes and (chunk := file.read(min(CHUNK, n_bytes - len(raw)))):
        raw += chunk
    return raw


def _read_cached(name, is_mapped=False):
    path = _find(cache_dir(), name)
    if path is None:
        return _download(name)
    try:
        return _read_or_map(path, name, is_mapped)
    except ValueError:
        with _writing_to_cache():
            path.unlink(missing_ok=True)  # a damaged copy of ours, which the mirrors can replace
        return _read_cached(name)


@contextlib.contextmanager
def _writing_to_cache():
    """An OSError that says what can be done where the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise OSError(f"the cache folder {cache_dir()} cannot be written ({error.strerror or error}): set {_cache_variable()} "
                      f"to one that can be, or {_by_hand()}") from error  # fmt: skip


def _by_hand():
    return f"download {', '.join(f'{file}.gz' for file in FILES)} from {MIRRORS[0]} by hand and pass their folder as " \
           "data_dir (--data-dir)"


def _download(name):
    """Fetch one file into the cache from the first mirror that serves the official bytes, and read it."""
    try:
        import pooch
    except ImportError as error:
        raise OSError(f"MNIST is not in {cache_dir()} and downloading it needs pooch: "
                      f"pip install 'npvae[data]', or {_by_hand()}") from error
    with _writing_to_cache():
        cache_dir().mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir()).close()

    def fetch(url, output_file, _):
        # Stored decompressed, so that pooch compares the official bytes before the file gets its name in the cache.
        pooch.HTTPDownloader(progressbar=is_terminal(sys.stderr))(url, output_file, None)
        raw, _ = _read_raw(output_file)
        Path(output_file).write_bytes(raw)

    failures = []
    for mirror in MIRRORS:
        try:
            path = pooch.retrieve(f"{mirror}{name}.gz", FILES[name], name, cache_dir(), downloader=fetch)
            return read_idx(path, sha256=FILES[name])
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            failures.append(f"{mirror}: {'not the official file' if isinstance(error, ValueError) else reason}")
    raise OSError(f"{name} could not be downloaded ({'; '.join(failures)}): try again later, or {_by_hand()}")
