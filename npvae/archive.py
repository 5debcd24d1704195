"""Arrays in .npy files and .npz archives, read without trust: nothing is unpickled, and no memory is set aside for what a
header only claims."""

import math
import zipfile

from numpy.lib import format as npy_format

MAX_RATIO = 1032  # deflate cannot do better, so a member that claims more is a lie


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
