"""Compressed arrays as files: what is written is read, values come back bit for bit, and whatever is wrong is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npvae.data import packed
from npvae.data.packed import Packed

WORDS = [np.arange(5, dtype=np.uint32), np.full(3, 2**32 - 1, np.uint32), np.zeros(2, np.uint32)]
SMALL = Packed(b"modelmod", b"checkche", b"arrayarr", np.dtype("<f4"), (300, 2, 2), "symbol / 255", "all_at_once", WORDS)


def sealed(content):
    """Bytes behind a header that is right for them: what somebody who knows the checksum could make."""
    version = bytes([packed.VERSION])
    return packed.MAGIC + version + packed.digest(version, content) + content


def error_of(file):
    with pytest.raises(ValueError, match=r"^x\.npvae") as error:
        packed.from_bytes(file, "x.npvae")
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------------ files


def test_what_is_written_is_read():
    for meaning in packed.MEANINGS:
        for order in ("interleaved", "all_at_once"):
            small = SMALL._replace(meaning=meaning, order=order)
            found = packed.from_bytes(packed.to_bytes(small))
            assert found._replace(chains=None) == small._replace(chains=None)
    for one, other in zip(found.chains, WORDS, strict=True):
        assert one.dtype == np.uint32
        np.testing.assert_array_equal(one, other)


def test_a_header_is_short():
    """54 bytes for 10,000 images in two chains: 0.00006 bits for each of their pixels."""
    chains = [np.zeros(30_000, np.uint32)] * 2
    file = packed.to_bytes(SMALL._replace(dtype=np.dtype(np.uint8), shape=(10_000, 784), meaning="symbol", chains=chains))
    assert len(file) - 4 * 60_000 == 54


def test_a_file_that_is_cut_off_anywhere_is_refused():
    file = packed.to_bytes(SMALL)
    for n in range(len(file)):
        assert ("damaged" if n > len(packed.MAGIC) else "is not a file that npvae compress has written") in error_of(file[:n])


def test_any_flipped_bit_is_noticed():
    file = packed.to_bytes(SMALL)
    for bit in range(8 * len(file)):
        changed = bytearray(file)
        changed[bit // 8] ^= 1 << bit % 8
        error = error_of(bytes(changed))
        expected = "is not a file" if bit // 8 < 7 else "this version of npvae reads version 1" if bit // 8 == 7 else "checksum"
        assert expected in error


@pytest.mark.parametrize("foreign", [b"", b"hello", b"\x93NUMPY\x01\x00", b"PK\x03\x04" + bytes(100), packed.MAGIC])
def test_other_files_are_refused(foreign):
    assert "is not a file that npvae compress has written" in error_of(foreign)


def test_bytes_behind_the_end_are_refused():
    assert "checksum" in error_of(packed.to_bytes(SMALL) + b"\0")
    assert "words in 41 bytes" in error_of(sealed(packed.to_bytes(SMALL)[16:] + b"\0"))


def header(dtype=b"\3", meaning=b"\0", numbers=(1, 3, 1, 0)):
    return sealed(bytes(24) + dtype + meaning + b"".join(map(packed.varint, numbers)))


def test_the_header_of_these_tests_is_accepted():
    assert packed.from_bytes(header()).shape == (3,)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (sealed(b""), "makes no sense"),
        (header(dtype=b"\x15"), "makes no sense"),
        (header(meaning=b"\4"), "makes no sense"),
        (header(meaning=b"\x14"), "makes no sense"),
        (header(meaning=b"\x20"), "makes no sense"),
        (header(numbers=(0, 1, 0)), "0 axes"),
        (header(numbers=(10**6, 3, 1, 0)), "1000000 axes"),
        (header(numbers=(1, 0, 1, 0)), "shape"),
        (header(numbers=(2, 3, 0, 1, 0)), "shape"),
        (header(numbers=(2, 2**62, 2**62, 1, 0)), "shape"),
        (header(numbers=(1, 3, 0)), "in 0 chains"),
        (header(numbers=(1, 3, 4, 0, 0, 0, 0)), "in 4 chains"),
        (header(numbers=(1, 10**15, 10**14, 0)), "makes no sense"),
        (header(numbers=(1, 3, 1, 1)), "1 words in 0 bytes"),
        (header(numbers=(1, 3, 1, 2**62)), "words in 0 bytes"),
        (sealed(bytes(24) + b"\3\0" + b"\xff" * 20), "more than 63 bits"),
        (sealed(bytes(24) + b"\3\0" + b"\xff"), "makes no sense"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_headers_that_make_no_sense_are_refused(file, reason):
    error = error_of(file)
    assert "damaged" in error
    assert reason in error


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3))
@settings(max_examples=60, database=None, derandomize=True)
def test_varints(number, rest):
    written = packed.varint(number)
    assert packed.read_varint(written + rest, 0) == (number, len(written))
    assert len(written) == max(1, -(-number.bit_length() // 7))


def test_the_digest_of_an_array_tells_dtypes_shapes_and_values_apart():
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    others = [x.astype(np.int8), x.reshape(3, 2), np.vstack([x[:1], x[1:] + np.uint8(1)]), x[:, ::-1]]
    assert len({packed.digest_of_array(array) for array in (x, *others)}) == 5
    assert packed.digest_of_array(np.asfortranarray(x)) == packed.digest_of_array(x)


# ------------------------------------------------------------------------------------------------------ values as symbols

BITS = np.random.default_rng(0).integers(0, 2, (2500, 2, 3), dtype=np.uint8)  # rows for three passes
LEVELS = np.random.default_rng(1).integers(0, 256, (2500, 6), dtype=np.uint8)
ZERO_ONE = [BITS.astype(dtype) for dtype in ("?", "u1", "i1", "<i8", ">i2", "<f2", "<f4", ">f4", "<f8")]
WHOLE = [LEVELS.astype(dtype) for dtype in ("u1", "<i2", ">u4", "<f4", "<f8")]
PARTS = [LEVELS.astype(dtype) / np.dtype(dtype).type(255) for dtype in ("<f2", "<f4", "<f8")]
PARTS += [PARTS[1].astype(">f4"), (LEVELS / 255).astype(np.float32)]
PRODUCTS = [LEVELS.astype(dtype) * np.dtype(dtype).type(1 / 255) for dtype in ("<f4", "<f8")]


@pytest.mark.parametrize(
    ("x", "n_symbols", "symbols", "meaning"),
    [
        *((x, 2, BITS, "symbol") for x in ZERO_ONE),
        (255 * BITS, 2, BITS, "255 · symbol"),
        (255 * BITS.astype(np.float32), 2, BITS, "255 · symbol"),
        (np.asfortranarray(BITS), 2, BITS, "symbol"),
        *((x, 256, LEVELS, "symbol") for x in WHOLE),
        *((x, 256, LEVELS, "symbol / 255") for x in PARTS),
        *((x, 256, LEVELS, "symbol · (1/255)") for x in PRODUCTS),
        (BITS.astype(np.float32), 256, 255 * BITS, "symbol / 255"),
        (BITS, 256, BITS, "symbol"),
        (BITS[:, 0, 0], 2, BITS[:, 0, 0], "symbol"),
    ],
    ids=lambda value: f"{value.dtype.str} {value.shape}" if isinstance(value, np.ndarray) else str(value),
)
def test_values_become_symbols_and_come_back_bit_for_bit(x, n_symbols, symbols, meaning):
    found, found_meaning = packed.symbols_of(x, n_symbols)
    assert found_meaning == meaning
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, symbols.reshape(len(symbols), -1))
    again = packed.values_of(found, meaning, x.dtype, x.shape)
    assert (again.dtype, again.shape) == (x.dtype, x.shape)
    assert again.tobytes() == x.tobytes()


def with_one(value, dtype):
    """Zeros and ones but for one value in the last row."""
    x = BITS.astype(dtype)
    x[-1, 0, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "n_symbols", "got"),
    [
        (with_one(2, "u1"), 2, "2"),
        (with_one(-1, "i1"), 2, "-1"),
        (with_one(-1, "i1"), 256, "-1"),
        (with_one(256, "i8"), 256, "256"),
        (with_one(2**32, "i8"), 256, "4294967296"),
        (with_one(0.5, "f4"), 2, "0.5"),
        (with_one(np.nextafter(1, 0), "f8"), 2, "0.9999999999999999"),
        (with_one(1 / 3, "f8") * 0.3, 256, "0.3"),
        (with_one(np.nan, "f4"), 2, "nan"),
        (with_one(np.inf, "f4"), 256, "inf"),
        (with_one(1e308, "f8"), 256, "1e\\+308"),
        (with_one(-0.0, "f4"), 2, "-0.0"),
        (with_one(-0.0, "f8"), 256, "-0.0"),
    ],
)  # fmt: skip
def test_values_that_are_no_symbols_are_refused_and_never_rounded(x, n_symbols, got):
    with pytest.raises(ValueError, match=f"the data must hold .*; got {got}$"):
        packed.symbols_of(x, n_symbols, "the data")


@pytest.mark.parametrize("x", [np.zeros(3, complex), np.array(["a"]), np.zeros(2, object), np.zeros(2, np.longdouble),
                               np.float32(1), np.zeros((0, 3)), np.zeros((3, 0))])  # fmt: skip
def test_other_arrays_are_refused(x):
    with pytest.raises(ValueError, match=r"the data must (be an array of bool|have at least one row)"):
        packed.symbols_of(np.asarray(x), 2, "the data")
