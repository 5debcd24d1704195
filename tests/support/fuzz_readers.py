"""Coverage-guided fuzzing of the readers of files, by atheris (Linux, `pip install atheris`); test_fuzz.py needs no more than
hypothesis.

    python tests/support/fuzz_readers.py -runs=200000 -max_len=8192 -rss_limit_mb=1500 -timeout=10

The first byte of an input chooses the reader, the others are its file. Anything but ValueError or OSError with one line is a
crash, which atheris reports together with the input. The inputs start from intact files.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["npvae", "zipfile", "numpy.lib"]):
    import test_fuzz

    import npvae
    from npvae.data import arrays, mnist
    from npvae.training import checkpoint

FOLDER = Path(tempfile.mkdtemp())
READERS = [
    ("labels", mnist.read_idx),
    ("x.npy", arrays.load),
    ("x.npz", arrays.load),
    ("model.npz", npvae.VAE.load),
    (checkpoint.NEWEST, lambda path: checkpoint.load_progress(path.parent)),
    ("config.json", test_fuzz.read_config),
]


def one_input(content):
    name, read = READERS[content[0] % len(READERS) if content else 0]
    path = FOLDER / name
    path.write_bytes(content[1:])
    test_fuzz.sound_or_refused(read, path)


def corpus(folder):
    """Intact files, each behind the byte that chooses its reader."""
    run = test_fuzz.run_in(folder / "run")
    whole, config = (run / checkpoint.NEWEST).read_bytes(), (run / "config.json").read_bytes()
    files = [test_fuzz.IDX, test_fuzz.NPY, test_fuzz.NPZ, [whole], [whole], [config]]
    for reader, contents in enumerate(files):
        for i, content in enumerate(contents):
            (folder / f"{reader}-{i}").write_bytes(bytes([reader]) + content)


if __name__ == "__main__":
    warnings.simplefilter("ignore", npvae.checks.NpvaeWarning)
    seeds = Path(tempfile.mkdtemp())
    (seeds / "run").mkdir()
    corpus(seeds)
    atheris.Setup([*sys.argv, str(seeds)], one_input)
    atheris.Fuzz()
