"""Hostile files: whatever the bytes, a reader returns what is sound or raises ValueError or OSError with one line that names
the file; it never hangs, and takes no memory for what a header only claims.

    NPVAE_FUZZ=20000 pytest tests/test_fuzz.py      so many inputs for each of the readers, in place of a few
"""

import contextlib
import gzip
import io
import json
import os
import resource
import struct
import warnings
import zipfile
from pathlib import Path

import faults
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import npvae
from npvae import data
from npvae.app import arguments as told
from npvae.app import run_folder
from npvae.app import settings as app_settings
from npvae.core import files
from npvae.data import arrays, mnist
from npvae.training import checkpoint

N_INPUTS = int(os.environ.get("NPVAE_FUZZ", 200))
MEMORY = 150e6  # bytes that all inputs of a reader together may add to the process' peak

fuzz = settings(
    max_examples=N_INPUTS,
    deadline=5000,  # milliseconds for one input
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@st.composite
def damaged(draw, valid):
    """Valid bytes with a few places overwritten, cut out, doubled or cut off; or bytes of no meaning at all."""
    content = bytearray(draw(st.sampled_from(valid)))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "write", "write", "number", "cut", "insert", "end"]))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            content[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "number":  # sizes that nobody has
            number = draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 10**12]))
            content[at : at + 8] = struct.pack(draw(st.sampled_from([">Q", "<Q"])), number)
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 50))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            del content[at:]
    return bytes(content)


def of(write):
    """The bytes that `write(file)` writes."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


IDX = [struct.pack(">4I", 2051, 3, 4, 5) + bytes(range(60)), struct.pack(">2I", 2049, 7) + bytes(range(7))]
ROWS = np.arange(12.0).reshape(3, 4)
NPY = [of(lambda f: np.save(f, ROWS)), of(lambda f: np.save(f, ROWS.astype(np.uint8)))]
NPZ = [of(lambda f: np.savez(f, x=ROWS, y=np.arange(3))), of(lambda f: np.savez_compressed(f, ROWS))]


@contextlib.contextmanager
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)  # kilobytes on Linux
    assert grown < MEMORY, f"{grown / 1e6:.0f} MB"


def sound_or_refused(read, path):
    """Let `read` return or raise what it may, with a message that is checked."""
    message = path.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", npvae.checks.NpvaeWarning)
        try:
            read(path)
        except (ValueError, OSError) as error:
            message = str(error)
    assert path.name in message
    assert "\n" not in message


def run_on(read, path, strategy):
    """Every input in the file `path`, before `read`."""
    path = Path(path)

    @fuzz
    @given(strategy)
    def one(content):
        path.write_bytes(content)
        sound_or_refused(read, path)

    with bounded_memory():
        one()


@pytest.mark.parametrize(
    ("name", "read", "valid"),
    [
        ("labels", mnist.read_idx, IDX),
        ("labels.gz", mnist.read_idx, [gzip.compress(content) for content in IDX]),
        ("x.npy", arrays.load, NPY),
        ("x.npz", arrays.load, NPZ),
    ],
)
def test_data_files(name, read, valid, tmp_path):
    run_on(read, tmp_path / name, damaged(valid))


def run_in(folder):
    """A run folder with a checkpoint in the middle of an epoch and a config."""
    faults.stopped_at(folder, 9)
    arguments = {**app_settings.defaults(npvae.VAE), "model": "vae", "data_dir": None, "workers": None}
    x = np.eye(12)
    scaling = data.Scaling(np.zeros(12), np.ones(12))
    dataset = data.Dataset("", x, x, None, "label", (3, 4), scaling, "0" * 64)
    run_folder.write_config(folder, arguments, npvae.VAE(12, 2, (6,)), dataset)
    return folder


def read_config(path):
    """All that a command reads of a config, and does with it before it looks at data or checkpoints."""
    kind, arguments, config = told.of_run(path.parent)
    run_folder.changes_since(config)
    if arguments["model"] == "vae":
        app_settings.step_settings(kind, arguments, 3)
        app_settings.learning_rate(arguments, 100)


def test_checkpoints(tmp_path):
    folder = run_in(tmp_path)
    whole = (folder / checkpoint.NEWEST).read_bytes()
    (folder / checkpoint.PREVIOUS).unlink()
    run_on(lambda path: checkpoint.load_progress(path.parent), folder / checkpoint.NEWEST, damaged([whole]))
    run_on(npvae.VAE.load, tmp_path / "model.npz", damaged([whole]))


def test_config(tmp_path):
    path = run_in(tmp_path) / "config.json"
    whole = path.read_bytes()
    run_on(read_config, path, damaged([whole]))


# Few letters: hypothesis builds tables of 200 MB to draw from all of Unicode.
TEXT = st.text(alphabet="aZ0_-. /\\\"\n\0é😀", max_size=5)
NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 2**31, 10**12, 10**30])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=4,
)


@st.composite
def changed(draw, whole):
    """A JSON value with a few of its parts replaced by others, or taken away."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        part = value
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(part[key], dict | list) and part[key] and draw(st.integers(0, 3)):
                part = part[key]
                continue
            if draw(st.integers(0, 4)) == 0:
                del part[key]
            else:
                part[key] = draw(JSON)
            break
    return value


def test_checkpoints_whose_metadata_say_something_else(tmp_path):
    """The arrays and their digest are sound; what is said about them need not be."""
    folder = run_in(tmp_path)
    path = folder / checkpoint.NEWEST
    contents, metadata = files.read(path)
    (folder / checkpoint.PREVIOUS).unlink()
    metadata = {name: metadata[name] for name in ("model", "training")}

    @fuzz
    @given(changed(metadata))
    def one(metadata):
        files.write(path, contents, metadata)
        sound_or_refused(lambda path: checkpoint.load_progress(path.parent), path)

    with bounded_memory():
        one()


def test_configs_that_say_something_else(tmp_path):
    path = run_in(tmp_path) / "config.json"
    whole = json.loads(path.read_text())

    @fuzz
    @given(changed(whole))
    def one(config):
        path.write_text(json.dumps(config))
        sound_or_refused(read_config, path)

    with bounded_memory():
        one()


# ------------------------------------------------------------------------------------------- sizes that are only claimed


def huge_npy(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + bytes(64)


def test_a_header_that_claims_10_to_the_12_images_is_refused_before_memory_is_taken(tmp_path):
    with bounded_memory():
        path = tmp_path / "images"
        path.write_bytes(struct.pack(">4I", 2051, 2**32 - 1, 250, 1) + bytes(1000))
        with pytest.raises(ValueError, match="images: got a header that claims shape"):
            mnist.read_idx(path)
        path = tmp_path / "x.npy"
        path.write_bytes(huge_npy((10**12, 784)))
        with pytest.raises(ValueError, match=r"x\.npy: cannot be used .*claims"):
            arrays.load(path)
        for name, read in [("x.npz", arrays.load), ("model.npz", npvae.VAE.load)]:
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr("x.npy", huge_npy((10**12, 784)))
            with pytest.raises(ValueError, match=f"{name}: .*claims"):
                read(tmp_path / name)


def test_a_bomb_stops_at_the_size_that_is_expected(tmp_path):
    """A gigabyte of zeros in a megabyte of gzip or zip."""
    zeros = bytes(2**20)
    with bounded_memory():
        path = tmp_path / "images.gz"
        path.write_bytes(gzip.compress(struct.pack(">4I", 2051, 2, 3, 4)) + 2**10 * gzip.compress(zeros))
        with pytest.raises(ValueError, match="got more bytes, needs the 40"):
            mnist.read_idx(path)
        path = tmp_path / "model.npz"
        archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open("metadata.npy", "w", force_zip64=True) as file:
            file.write(huge_npy((3,)))
            for _ in range(2**10):
                file.write(zeros)
        with pytest.raises(ValueError, match=r"model\.npz: .*claims"):
            npvae.VAE.load(path)


def test_a_model_larger_than_its_file_is_not_built(tmp_path):
    path = tmp_path / "model.npz"
    with bounded_memory():
        for n_features, hidden in [(10**9, []), (4, [30_000, 30_000])]:
            config = {"n_features": n_features, "n_latent": 2, "hidden": hidden}
            files.write(path, {"theta": np.zeros(50_000, np.float32)}, {"model": config})
            with pytest.raises(ValueError, match=r"model\.npz: not a saved npvae model"):
                npvae.VAE.load(path)
