"""The command line: what it leaves, what it prints, what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae import cli, data

SMALL = ["--hidden", "8", "--epochs", "2", "--batch-size", "50"]


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    """A small embedded data set, and a folder of one's own to work in."""
    monkeypatch.setattr(data, "ISING_ROWS", (40, 10))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run folder, made once for this file."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "ISING_ROWS", (40, 10))
        assert cli.main(["train", *SMALL, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(small_world, finished_run, tmp_path, capsys):
    """A copy of the run folder to work with, `run` in the current one."""
    capsys.readouterr()
    shutil.copytree(finished_run, tmp_path / "run")
    return Path("run")


def error_of(capsys, *argv, status=1):
    """The one line that a failing command prints."""
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


def test_train_leaves_the_run_folder(capsys):
    assert cli.main(["train", *SMALL]) == 0
    out = capsys.readouterr().out
    folder = Path("runs/ising")
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.npz", "config.json", "grid.png", "latent.png", "loss.png", "metrics.jsonl", "reconstructions.png",
        "samples.png",
    ]  # fmt: skip
    for path in folder.iterdir():
        assert path.name in out
        assert path.stat().st_size > 0
    assert "next: npvae evaluate runs/ising" in out
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert list(rows[0]) == ["epoch", "step", "seconds", "train_loss", "train_nll", "train_kl", "val_loss", "val_nll", "val_kl"]
    config = json.loads((folder / "config.json").read_text())
    assert config["arguments"]["hidden"] == [8]
    assert config["arguments"]["seed"] == 0
    assert config["model"]["n_features"] == 256
    assert config["versions"]["numpy"] == np.__version__
    assert config["blas"][0]["num_threads"] >= 1
    model = npvae.VAE.load(folder / "checkpoint.npz")
    assert model.config == config["model"]


def test_a_second_run_takes_the_next_free_folder(capsys):
    for _ in range(2):
        assert cli.main(["train", *SMALL]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["ising", "ising-2"]


def test_the_same_seed_repeats_the_run_and_another_does_not(capsys):
    for out, seed in [("a", "0"), ("b", "0"), ("c", "1")]:
        assert cli.main(["train", *SMALL, "--out", out, "--seed", seed, "--workers", "1"]) == 0
    a, b, c = (npvae.VAE.load(f"{out}/checkpoint.npz").theta for out in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    for picture in ("latent.png", "samples.png"):
        assert Path("a", picture).read_bytes() == Path("b", picture).read_bytes()


def test_resume_goes_on_to_the_same_result(capsys):
    options = ["--workers", "1", "--out"]
    assert cli.main(["train", *SMALL, "--epochs", "4", *options, "whole"]) == 0
    assert cli.main(["train", *SMALL, *options, "parts"]) == 0
    assert cli.main(["train", "--resume", "--epochs", "4", *options, "parts"]) == 0
    whole, parts = (npvae.VAE.load(f"{out}/checkpoint.npz").theta for out in ("whole", "parts"))
    np.testing.assert_array_equal(whole, parts)
    metrics = [[json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
               for out in ("whole", "parts")]  # fmt: skip
    for a, b in zip(*metrics, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert json.loads(Path("parts/config.json").read_text())["arguments"]["epochs"] == 4


def test_evaluate_prints_every_quantity_with_its_unit(run, capsys):
    assert cli.main(["evaluate", "run", "--samples", "20"]) == 0
    out = capsys.readouterr().out
    for words in ("ELBO", "nll", "kl", "log p(x)", "20 samples", "bits per dimension", "active units", "of 2", "nats", "z_1"):
        assert words in out


def test_evaluate_json_is_what_the_library_says(run, capsys):
    assert cli.main(["evaluate", "run", "--samples", "20", "--seed", "5", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    model = npvae.VAE.load(run / "checkpoint.npz")
    x = npvae.model_input(model, data.load("ising").x_val, 5)
    assert results["elbo"] == pytest.approx(-results["nll"] - results["kl"])
    assert results["log_likelihood"] == pytest.approx(npvae.evaluate.log_likelihood(model, x, 20, 5).mean())
    assert results["kl_per_dimension"] == pytest.approx(npvae.evaluate.kl_per_dimension(model, x).tolist())
    assert sum(results["kl_per_dimension"]) == pytest.approx(results["kl"], rel=1e-5)
    assert results["bits_per_dimension"]["elbo"] == pytest.approx(-results["elbo"] / 256 / np.log(2))
    assert results["log_likelihood"] >= results["elbo"]
    assert results["active_units"] in (0, 1, 2)


def test_sample_draws_a_picture_and_never_writes_over_one(run, capsys):
    assert cli.main(["sample", "run", "--count", "5"]) == 0
    assert cli.main(["sample", "run", "--count", "5"]) == 0
    assert (run / "draws.png").read_bytes() == (run / "draws-2.png").read_bytes()
    assert "draws-2.png" in capsys.readouterr().out
    assert "exists already" in error_of(capsys, "sample", "run", "--out", "run/draws.png")
    assert "--out must name a .png file" in error_of(capsys, "sample", "run", "--out", "x.pdf")


def test_own_data_with_labels_and_gaussian_likelihood(capsys, tmp_path):
    rng = np.random.default_rng(0)
    t = rng.random(60)
    x = np.sin(np.linspace(0, 6, 12) + 6 * t[:, None]) + 0.1 * rng.standard_normal((60, 12))
    np.savez("waves.npz", x=x, labels=t)
    assert cli.main(["train", *SMALL, "--data", "waves.npz", "--likelihood", "gaussian", "--latent", "1"]) == 0
    assert cli.main(["evaluate", "runs/waves", "--samples", "5"]) == 0
    assert cli.main(["sample", "runs/waves", "--count", "4"]) == 0
    out = capsys.readouterr().out
    assert "54 rows to train on, 6 to validate on" in out
    os.rename("waves.npz", "moved.npz")
    assert "waves.npz" in error_of(capsys, "evaluate", "runs/waves")


BAD = [
    (["train", "--data", "nothing"], "data must be ising, mnist or the path"),
    (["train", "--data", "nothing.npy"], "nothing.npy"),
    (["train", "--data", "mnist", "--data-dir", "."], "missing train-images-idx3-ubyte"),
    (["train", "--resume"], "--resume needs --out RUN"),
    (["train", "--resume", "--out", "nothing"], "nothing is not a run folder"),
    (["evaluate", "nothing"], "nothing is not a run folder"),
    (["sample", "nothing"], "nothing is not a run folder"),
]
BAD_USE = [
    ([], "COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train", "--epochs", "0"], "argument --epochs: must be an integer of at least 1; got '0'"),
    (["train", "--latent", "two"], "argument --latent: must be an integer of at least 1; got 'two'"),
    (["train", "--hidden", "5", "-5"], "argument --hidden"),
    (["train", "--learning-rate", "nan"], "argument --learning-rate: must be a number above 0; got 'nan'"),
    (["train", "--beta", "-1"], "argument --beta"),
    (["train", "--sigma", "0"], "argument --sigma"),
    (["train", "--activation", "gelu"], "argument --activation: invalid choice: 'gelu'"),
    (["train", "--likelihood", "poisson"], "argument --likelihood"),
    (["train", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["evaluate"], "RUN"),
    (["evaluate", "run", "--samples", "0"], "argument --samples"),
]


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_what_cannot_be_done_is_one_line(capsys, argv, message):
    assert message in error_of(capsys, *argv)
    assert not Path("runs").exists()


@pytest.mark.parametrize(("argv", "message"), BAD_USE)
def test_wrong_options_are_one_line(capsys, argv, message):
    assert message in error_of(capsys, *argv, status=2)


def test_a_used_run_folder_is_left_alone(run, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "already in use" in error_of(capsys, "train", *SMALL, "--out", "run")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_folder_that_cannot_be_made(capsys):
    Path("file").write_text("mine")
    assert "run folder file/run cannot be made" in error_of(capsys, "train", *SMALL, "--out", "file/run")
    assert "run folder file cannot be made" in error_of(capsys, "train", *SMALL, "--out", "file")
    assert Path("file").read_text() == "mine"


def test_resume_refuses_other_settings(run, capsys):
    message = error_of(capsys, "train", "--resume", "--out", "run", "--hidden", "9", "--learning-rate", "1")
    assert "leave out --hidden, --learning-rate" in message


def test_unusable_data_leave_no_folder(capsys):
    np.save("bad.npy", np.full((10, 4), 7.0))
    assert "must lie in [0, 1]" in error_of(capsys, "train", "--data", "bad.npy")
    np.save("one.npy", np.zeros((1, 4)))
    assert "at least 2 rows" in error_of(capsys, "train", "--data", "one.npy")
    np.save("nan.npy", np.full((10, 4), np.nan))
    assert "nan" in error_of(capsys, "train", "--data", "nan.npy", "--likelihood", "gaussian")
    np.save("huge.npy", np.zeros((10, 4)))
    assert "parameters" in error_of(capsys, "train", "--data", "huge.npy", "--hidden", "100000", "100000")
    assert not Path("runs").exists()


def test_training_that_diverges_is_one_line(capsys):
    message = error_of(capsys, "train", *SMALL, "--activation", "softplus", "--learning-rate", "1e30")
    assert "a lower learning rate may help" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"arguments": 3}'])
def test_a_damaged_config_is_named(run, capsys, content):
    (run / "config.json").write_text(content)
    assert "config.json: damaged" in error_of(capsys, "evaluate", "run")


def test_a_damaged_or_missing_checkpoint_is_named(run, capsys):
    npvae.VAE.load(run / "checkpoint.npz").save("model.npz")
    os.replace("model.npz", run / "checkpoint.npz")
    assert "holds a model but no training state" in error_of(capsys, "train", "--resume", "--out", "run")
    (run / "checkpoint.npz").write_bytes(b"PK\x03\x04 broken")
    assert "checkpoint.npz: not an npvae checkpoint, or damaged" in error_of(capsys, "evaluate", "run")
    (run / "checkpoint.npz").unlink()
    assert "checkpoint.npz does not exist" in error_of(capsys, "sample", "run")


def test_interrupt_is_one_line_and_130(capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "load", interrupt)
    assert "interrupted" in error_of(capsys, "train", status=130)


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["sample", "--help"]])
def test_help_teaches(capsys, argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: npvae")
    assert len(out.splitlines()) > 8


def test_python_m_npvae_is_the_command():
    result = subprocess.run([sys.executable, "-m", "npvae", "evaluate", "nothing"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("npvae: error: nothing is not a run folder")
