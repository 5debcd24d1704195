"""Compressed arrays as files: the header, what the coder has written, and three checks.

An array (n, ...) is coded as symbols, uint8: zeros and ones, or the levels 0 to 255. What its values are in terms of the
symbols (`MEANINGS`) is kept with its dtype and shape, so that `values_of` gives the array back bit for bit.

A file (all numbers little-endian):

    7 bytes   MAGIC
    1 byte    VERSION
    8 bytes   checksum of all that follows, and of the version: BLAKE2b of 64 bits, as are those below
    8 bytes   digest of the model, without which there is no reading it
    8 bytes   check of the probabilities that reached the coder
    8 bytes   digest of the array
    1 byte    dtype, its place in DTYPES
    1 byte    meaning of the symbols, its place in MEANINGS; and 16 times the place in ORDERS of the order of the latents
    varints   number of axes, length of each axis, number of chains, number of words of each chain
    4 bytes   for each word of each chain

A varint is a whole number in groups of seven bits, the lowest first; the eighth bit of a byte says that another follows.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from npvae.ops.bit_swap import ORDERS

MAGIC, VERSION = b"\x89npvae\n", 1
DIGEST_BYTES = 8
MAX_AXES, MAX_BITS = 32, 63  # of a shape and of a number in a header
MEANINGS = ("symbol", "symbol / 255", "symbol · (1/255)", "255 · symbol")
ROWS_PER_PASS = 1000
NUMBERS = ("u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8")
DTYPES = ("|b1", "|u1", "|i1", *("<" + kind for kind in NUMBERS), *(">" + kind for kind in NUMBERS))  # as NumPy writes them


class Packed(NamedTuple):
    """The content of a file."""

    model: bytes  # digest
    probabilities: bytes  # the check
    array: bytes  # digest
    dtype: np.dtype
    shape: tuple
    meaning: str  # one of MEANINGS
    order: str  # one of ORDERS
    chains: list  # of uint32 arrays: the words of each chain


def to_bytes(packed):
    """The bytes of a file."""
    numbers = [len(packed.shape), *packed.shape, len(packed.chains), *map(len, packed.chains)]
    kinds = bytes([DTYPES.index(packed.dtype.str), MEANINGS.index(packed.meaning) + 16 * ORDERS.index(packed.order)])
    head = packed.model + packed.probabilities + packed.array + kinds + b"".join(map(varint, numbers))
    content = head + b"".join(words.astype("<u4").tobytes() for words in packed.chains)
    version = bytes([VERSION])
    return MAGIC + version + digest(version, content) + content


def from_bytes(file, name="the file"):
    """The content of a file's bytes; ValueError, calling it `name`, for what is foreign, of another version, cut or changed.
    Memory is used for what is there, not for what a header claims."""
    start = len(MAGIC) + 1
    if len(file) < start or not file.startswith(MAGIC):
        raise ValueError(f"{name} is not a file that npvae compress has written")
    if file[start - 1] != VERSION:
        raise ValueError(f"{name}: a file of version {file[start - 1]}, and this version of npvae reads version {VERSION}")
    content = memoryview(file)[start + DIGEST_BYTES :]
    if digest(file[start - 1 : start], content) != file[start : start + DIGEST_BYTES]:
        raise ValueError(f"{name} is damaged: it is not whole, or was changed (its checksum does not match)")
    try:
        return _parsed(content)
    except (IndexError, ValueError) as error:  # whoever made this knew the checksum
        raise ValueError(f"{name} is damaged: its header makes no sense ({error})") from None


def _parsed(content):
    """The Packed of what follows the checksum."""
    digests = [bytes(content[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]) for i in range(3)]
    at = 3 * DIGEST_BYTES
    dtype, (order, meaning) = np.dtype(DTYPES[content[at]]), divmod(content[at + 1], 16)
    meaning, order = MEANINGS[meaning], ORDERS[order]
    n_axes, at = read_varint(content, at + 2)
    if not 1 <= n_axes <= MAX_AXES:
        raise ValueError(f"{n_axes} axes")
    shape, at = _read_varints(content, at, n_axes)
    n_chains, at = read_varint(content, at)
    n_words, at = _read_varints(content, at, n_chains)
    if min(*shape, n_chains) < 1 or n_chains > shape[0] or math.prod(shape) > 2**MAX_BITS:
        raise ValueError(f"shape {shape} in {n_chains} chains")
    if 4 * sum(n_words) != len(content) - at:
        raise ValueError(f"{sum(n_words)} words in {len(content) - at} bytes")
    words = np.frombuffer(content[at:], "<u4").astype(np.uint32)
    chains = np.split(words, np.cumsum(n_words[:-1], dtype=np.intp))
    return Packed(*digests, dtype, tuple(shape), meaning, order, chains)


def varint(number):
    """A whole number, 0 or more, as bytes."""
    groups = []
    while number >= 128:
        groups.append(number % 128 + 128)
        number //= 128
    return bytes([*groups, number])


def read_varint(content, at):
    """The number at a place in bytes, and the place behind it; IndexError at their end, ValueError beyond 63 bits."""
    number, shift = 0, 0
    while True:
        byte = content[at]
        number += byte % 128 << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return number, at
        if shift >= MAX_BITS:
            raise ValueError("a number of more than 63 bits")


def _read_varints(content, at, count):
    numbers = []
    for _ in range(count):  # ends with the bytes, whatever the count
        number, at = read_varint(content, at)
        numbers.append(number)
    return numbers, at


def digest(*parts):
    """BLAKE2b of bytes and C-contiguous arrays, of 8 bytes."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        total.update(part)
    return total.digest()


def digest_of_array(x):
    """The digest of an array: dtype, shape and bytes."""
    total = hashlib.blake2b(f"{x.dtype.str} {x.shape};".encode(), digest_size=DIGEST_BYTES)
    for start in range(0, len(x), ROWS_PER_PASS):
        total.update(np.ascontiguousarray(x[start : start + ROWS_PER_PASS]))
    return total.digest()


# ------------------------------------------------------------------------------------------------------ values as symbols


def symbols_of(x, n_symbols, name="x"):
    """The symbols of an array and what they mean.

    x (n, ...) of bool, integers or floats of at most 64 bits. n_symbols is 2 or 256. The values of x must be the whole numbers
    below n_symbols; or, of 256 symbols, those divided by 255; or, of 2, nothing but 0 and 255. Returns (n, D) uint8, D the
    product of the further axes, and the meaning. ValueError, calling the array `name`, for any other value: nothing is rounded.
    """
    if x.dtype.str not in DTYPES:
        raise ValueError(f"{name} must be an array of bool, integers or floats of at most 64 bits; got dtype {x.dtype}")
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} must have at least one row; got shape {x.shape}")
    found = []
    for meaning in _candidates(x.dtype, n_symbols):
        symbols, other = _symbols(x, meaning, n_symbols)
        if other is None:
            return symbols, meaning
        found.append(other)
    raise ValueError(f"{name} must hold {_in_words(n_symbols)}; got {found[0]}")


def values_of(symbols, meaning, dtype, shape):
    """The array of these symbols (n, D): what `symbols_of` was given."""
    return table(meaning, dtype)[symbols].reshape(shape)


def table(meaning, dtype):
    """The values of the 256 symbols; where a value is none of the dtype, its entry is some other value."""
    symbols, native = np.arange(256), dtype.newbyteorder("=")
    if dtype.kind != "f":
        return (symbols * (255 if meaning == "255 · symbol" else 1)).astype(dtype)
    exact = symbols.astype(native)
    values = {"symbol": exact, "symbol / 255": exact / native.type(255), "symbol · (1/255)": exact * native.type(1 / 255),
              "255 · symbol": exact * native.type(255)}[meaning]  # fmt: skip
    return values.astype(dtype)


def _candidates(dtype, n_symbols):
    """The meanings that are tried for an array, the likeliest first: a float in [0, 1] is a level / 255 where there are 256."""
    if n_symbols == 2:
        return ["symbol"] if dtype.kind == "b" else ["symbol", "255 · symbol"]
    return ["symbol / 255", "symbol · (1/255)", "symbol"] if dtype.kind == "f" else ["symbol"]


def _symbols(x, meaning, n_symbols):
    """The symbols (n, D) under a meaning, and None; or None and the first value that is no symbol's."""
    values, scale = table(meaning, x.dtype), {"symbol": 1, "255 · symbol": 1 / 255}.get(meaning, 255)
    symbols = np.empty((len(x), x[0].size), np.uint8)
    bits = np.dtype(f"u{x.dtype.itemsize}")
    for start in range(0, len(x), ROWS_PER_PASS):
        rows = slice(start, start + ROWS_PER_PASS)
        part = np.ascontiguousarray(x[rows]).reshape(-1, symbols.shape[1])  # (n, ...) -> (n, D)
        with np.errstate(over="ignore"):
            nearest = np.rint(part * np.float64(scale))
        valid = (nearest >= 0) & (nearest < n_symbols)  # False for NaN
        symbols[rows] = np.where(valid, nearest, 0)
        wrong = values[symbols[rows]].view(bits) != part.view(bits)  # bits: −0.0 is not 0.0
        if wrong.any():
            return None, part[wrong][0]
    return symbols, None


def _in_words(n_symbols):
    return "zeros and ones (or 0 and 255)" if n_symbols == 2 else "whole numbers from 0 to 255, or those divided by 255"
