"""What several test files share: the folders of the helpers on the import path, how `pytest -n auto` shares the tests out, and
a small world for the command line."""

import contextlib
import functools
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "support")]

import faults  # noqa: E402

from npvae import VAE, data  # noqa: E402
from npvae.app import cli, commands, plots  # noqa: E402
from npvae.core.cores import cores_available  # noqa: E402

PICTURES = ["grid.png", "latent.png", "loss.png", "reconstructions.png", "samples.png"]  # of a VAE of images, two latents
SMALL = ["--hidden", "8", "--epochs", "2", "--batch-size", "50"]  # options of a run that takes no time
TRAIN = ["train", "--data", "x.npy", "--hidden", "6", "--batch-size", "10", "--epochs", "3", "--out", "run"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """As many processes as cores, but a few: each compiles what it meets first."""
    return min(cores_available(), 4)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay in one process, unless --dist says otherwise: many share what the first of them has computed."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.option.dist == "load" else None


def make_small(patch, folder):
    """A small embedded data set, small pictures, and a folder of one's own to work in."""
    patch.setattr(data, "ISING_ROWS", (40, 10))
    patch.setattr(plots, "save", functools.partial(plots.save, dpi=25))
    patch.chdir(folder)


def recorded(calls, *answers):
    """A function that notes its arguments and gives these answers in turn, the last of them for ever; errors are raised."""
    left = list(answers)

    def fake(*args, **options):
        calls.append((args, options))
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fake


@pytest.fixture
def small_world(monkeypatch, tmp_path):
    make_small(monkeypatch, tmp_path)


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take ten times as long as these runs; where a test looks at something else, none are drawn."""
    monkeypatch.setattr(commands, "draw_pictures", lambda *args: {})


@pytest.fixture
def no_pixels(monkeypatch):
    """Figures are made, but not written, which takes most of the time: for tests that look at what is drawn."""
    monkeypatch.setattr(plots, "save", lambda figure, path: figure() if callable(figure) else figure)


@pytest.fixture
def home(tmp_path, monkeypatch, no_pictures):
    """A folder of one's own with the rows of `faults` in x.npy, which TRAIN learns."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", faults.data())
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run folder with its pictures, and what was printed, made once by `npvae train` without --out."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        make_small(patch, folder)
        assert cli.main(["train", *SMALL]) == 0
    return folder / "runs/ising", out.getvalue()


@pytest.fixture
def run(small_world, finished, tmp_path):
    """A copy of the run folder to work with, `run` in the current one."""
    shutil.copytree(finished[0], tmp_path / "run")
    return Path("run")


@pytest.fixture
def error_of(capsys):
    """A function: the one line that a failing command prints."""

    def error_of(*argv, status=1):
        capsys.readouterr()
        try:
            code = cli.main(list(argv))
        except SystemExit as exit_:
            code = exit_.code
        out, err = capsys.readouterr()
        assert code == status
        assert err.count("\n") == 1, err
        assert err.startswith("npvae")
        assert "Traceback" not in out + err
        return err

    return error_of


@pytest.fixture
def few_cases(monkeypatch):
    """`npvae gradcheck` with few of npvae's own cases."""
    from npvae.checking import cases

    few = [case for case in cases.op_pairs() if case.name.startswith("affine")]
    monkeypatch.setattr(cases, "all_pairs", lambda: list(few))
    monkeypatch.setattr(cases, "cases", lambda: [*few, next(cases.cases_of(next(VAE.examples("numpy"))))])
