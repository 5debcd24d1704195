"""The command line: its options, what it refuses, its exit status."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import mean_field
import numpy as np
import pytest

import npvae
from npvae import data
from npvae.app import cli, commands, settings
from npvae.core import options
from npvae.core.options import Option

pytestmark = pytest.mark.usefixtures("small_world")
MODEL_FILE = mean_field.__file__
HERE = str(Path(__file__).parent)

BAD = [
    (["train", "--data", "nothing"], "data must be ising, mnist, toy:"),
    (["train", "--data", "nothing.npy"], "nothing.npy"),
    (["train", "--data", "mnist", "--data-dir", "."], "missing train-images-idx3-ubyte"),
    (["train", "--resume"], "--resume needs --out RUN"),
    (["train", "--resume", "--out", HERE], f"{HERE} is not a run folder: it has no config.json"),
    (["evaluate", "nothing"], "nothing is not a run folder"),
    (["sample", "nothing"], "nothing is not a run folder"),
    (["gradcheck", "nothing"], "nothing is not a run folder"),
    (["train", "--model", "gam"], "--model must be one of "),
    (["train", "--model", "gam"], "vae, or FILE.py, or FILE.py:CLASS; got 'gam'"),
    (["train", "--model", "nothing.py"], "--model: there is no file "),
    (["train", "--free-bits-total", "1", "--free-bits-per-dimension", "1"], "two different remedies: give one of them"),
    (["train", "--free-bits-total", "1", "--objective", "iwae"], "free bits need the objective elbo"),
]
BAD_USE = [
    ([], "COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train", "--epochs", "0"], "argument --epochs: must be an integer of at least 1; got '0'"),
    (["train", "--latent", "two"], "argument --latent: must be an integer of at least 1; got 'two'"),
    (["train", "--hidden", "5", "-5"], "argument --hidden"),
    (["train", "--learning-rate", "nan"], "argument --learning-rate: must be a number above 0; got 'nan'"),
    (["train", "--beta", "-1"], "argument --beta"),
    (["train", "--beta", "inf"], "argument --beta"),
    (["train", "--sigma", "0"], "argument --sigma"),
    (["train", "--seed", "-1"], "argument --seed: must be an integer of at least 0"),
    (["train", "--workers", "0"], "argument --workers: must be an integer of at least 1"),
    (["train", "--activation", "gelu"], "--activation: must be one of relu, tanh, sigmoid, softplus, silu; got 'gelu'"),
    (["train", "--likelihood", "poisson"], "argument --likelihood"),
    (["train", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["train", "--lat", "3"], "unrecognized arguments: --lat 3"),
    (["train", "--mod", "vae"], "unrecognized arguments: --mod vae"),
    (["train", "--max-gradient-norm", "0"], "argument --max-gradient-norm: must be a number above 0; got '0'"),
    (["train", "--learning-rate-schedule", "linear"], "argument --learning-rate-schedule: must be one of constant, step,"),
    (["train", "--early-stopping", "1.5"], "argument --early-stopping: must be an integer of at least 1; got '1.5'"),
    (["train", "--output-bias", "5"], "unrecognized arguments: 5"),
    (["train", "--model"], "argument --model: expected one argument"),
    (["train", "--model", MODEL_FILE, "--latent", "3"], "unrecognized arguments: --latent 3"),
    (["train", "--model", MODEL_FILE, "--first-logit", "x"], "argument --first-logit: must be a number at least -9; got 'x'"),
    (["evaluate"], "RUN"),
    (["evaluate", "run", "--samples", "0"], "argument --samples"),
    (["sample", "run", "--count", "0"], "argument --count"),
]


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_what_cannot_be_done_is_one_line(error_of, argv, message):
    assert message in error_of(*argv)
    assert not Path("runs").exists()


@pytest.mark.parametrize(("argv", "message"), BAD_USE)
def test_wrong_options_are_one_line(error_of, argv, message):
    assert message in error_of(*argv, status=2)


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [(KeyboardInterrupt, "interrupted", 130), (MemoryError, "not enough memory", 1), (OSError("two\nlines"), "two lines", 1)],
)
def test_accidents_are_one_line_and_a_status(error_of, monkeypatch, error, message, status):
    def stumble(*args, **kwargs):
        raise error

    monkeypatch.setattr(data, "load", stumble)
    assert f"npvae: error: {message}" in error_of("train", status=status)


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in ("train", "evaluate", "sample", "gradcheck"))])
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


def test_output_that_nobody_reads_is_no_error(run):
    command = [sys.executable, "-m", "npvae", "sample", "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_beta_zero_in_any_spelling():
    for text in ("0", "0.00", "0e0"):
        assert cli.build_parser().parse_args(["train", "--beta", text]).beta == 0


@pytest.mark.usefixtures("no_pictures", "few_cases")
def test_a_tilde_that_no_shell_expanded_is_the_home_directory(monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    np.save(home / "x.npy", np.eye(20))
    (home / "mine.py").write_text(Path(MODEL_FILE).read_text())
    model = ["--model", "~/mine.py"]
    assert cli.main(["train", *model, "--data", "~/x.npy", "--out", "~/run", "--epochs", "1"]) == 0
    assert (home / "run/config.json").is_file()
    assert cli.main(["train", *model, "--data", "x.npy", "--data-dir", "~", "--out", "~/other", "--epochs", "1"]) == 0
    for argv in (["evaluate", "~/run", "--data-dir", "~"], ["sample", "~/run", "--out", "~/a.png"], ["gradcheck", "~/run"]):
        assert cli.main([*argv, *model]) == 0
    assert cli.main(["train", "--resume", "--out", "~/run", *model]) == 0
    assert not Path("~").exists()


def help_of(capsys, *argv):
    """The help text of a command, in one line."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([*argv, "--help"])
    assert exit_.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", list(npvae.models.classes()))
def test_the_options_of_each_model_are_told_with_their_defaults(capsys, name):
    kind, text = npvae.models.classes()[name], help_of(capsys, "train", "--model", name.lower())
    assert f"model ({name}):" in text
    for option in kind.options:
        flag = "--" + option.name.replace("_", "-")
        assert f" {flag}" in text
        if option.check is not options.flag and option.many is False and option.default is not None:
            default = settings.in_words(getattr(kind, "defaults", {}).get(option.name, option.default))
            assert re.search(rf" {flag} [A-Z]+ (?!--).*?\(default: {re.escape(default)}\)", text), option.name


def test_the_options_of_a_model_of_one_s_own_are_told(capsys):
    text = help_of(capsys, "train", "--model", MODEL_FILE)
    assert "model (MeanField): --first-logit FIRST_LOGIT where each logit starts, 50 % is 0 (default: 0)" in text
    assert "--latent" not in text.partition("examples:")[0]
    assert "what is minimised" not in text


def test_the_examples_of_the_help_can_be_used():
    lines = [line.strip() for line in cli.TRAIN_EXAMPLES.splitlines() if line.startswith("  npvae train")]
    assert len(lines) > 3
    Path("my_model.py").write_text(Path(MODEL_FILE).read_text())
    for line in lines:
        argv = shlex.split(line)[1:]
        assert cli.build_parser(argv).parse_args(argv).run is commands.train


class Switched(mean_field.MeanField):
    options = (Option("centred", True, "start in the middle", options.flag, "centre", "start"),
               Option("bright", False, "start bright", options.flag, "brighten", "start"))  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "centred", "bright"), [([], None, None), (["--centred", "--bright"], True, True), (["--no-centred"], False, None)]
)
def test_switches_that_are_on_by_default_can_be_turned_off(monkeypatch, argv, centred, bright):
    monkeypatch.setattr(cli, "_kind_of", lambda argv: Switched)
    args = cli.build_parser().parse_args(["train", *argv])
    assert (args.centred, args.bright) == (centred, bright)


def test_warnings_are_one_line_on_stderr(run, capsys):
    (run / "checkpoint.npz").write_bytes(b"damaged")
    assert cli.main(["evaluate", "run", "--samples", "1"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("npvae: warning: run/checkpoint.npz: not an npvae checkpoint")
    assert err.count("\n") == 1
