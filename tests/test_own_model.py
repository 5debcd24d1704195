"""A model of one's own at the command line, `--model FILE.py`: nothing but the protocol, and no file is run unasked."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import mean_field
import numpy as np
import pytest
from conftest import SMALL

from npvae import data
from npvae.app import cli, commands, plots
from npvae.training import checkpoint

pytestmark = pytest.mark.usefixtures("small_world")


def checked(capsys, *argv):
    """The exit status and the lines of `npvae gradcheck`."""
    status = cli.main(["gradcheck", *argv])
    return status, capsys.readouterr().out.splitlines()


@pytest.fixture
def own(capsys):
    """A run with a model of one's own, as its folder, its file and what was printed."""
    np.save("bits.npy", np.random.default_rng(0).random((60, 9)) < 0.2)
    shutil.copy(mean_field.__file__, "mine.py")
    argv = ["train", "--model", "mine.py", "--data", "bits.npy", "--epochs", "2", "--batch-size", "10", "--first-logit", "-1"]
    assert cli.main(argv) == 0
    return SimpleNamespace(folder="runs/meanfield-bits", file="mine.py", out=capsys.readouterr().out)


def test_a_model_of_one_s_own_is_trained(own):
    config = json.loads(Path(own.folder, "config.json").read_text())
    model = f"{Path('mine.py').resolve()}:MeanField"
    assert (config["arguments"]["model"], config["arguments"]["first_logit"]) == (model, -1.0)
    assert config["model"]["class"] == "MeanField"
    assert "latent" not in config["arguments"]
    assert "model     MeanField(9 parameters)" in own.out
    assert "epoch 2/2  train loss " in own.out
    assert own.out.rstrip().endswith(f"next: npvae evaluate {own.folder} --model {model}")
    assert Path(own.folder, "loss.png").stat().st_size > 0


def test_a_model_of_one_s_own_is_resumed_to_the_same_bits(own):
    options = ["--model", "mine.py", "--batch-size", "10", "--first-logit", "-1", "--data", "bits.npy"]
    assert cli.main(["train", *options, "--epochs", "4", "--out", "whole"]) == 0
    assert cli.main(["train", "--resume", "--out", own.folder, "--epochs", "4", "--model", "mine.py"]) == 0
    whole, parts = (checkpoint.load_model(folder, kind=mean_field.MeanField).theta for folder in ("whole", own.folder))
    np.testing.assert_array_equal(whole, parts)
    assert (whole != -1).all()


def test_a_model_of_one_s_own_is_evaluated_by_its_terms(own, capsys):
    assert cli.main(["evaluate", own.folder, "--model", own.file, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    model = checkpoint.load_model(own.folder, kind=mean_field.MeanField)
    x = data.load("bits.npy").x_val.astype(float)
    assert results["loss"] == pytest.approx(model.forward(x)[0].loss, rel=1e-6)
    assert (results["rows"], results["units"]) == (6, {"loss": "per datum"})
    assert cli.main(["evaluate", own.folder, "--model", f"{own.file}:MeanField"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"run       {own.folder}, MeanField(9 parameters)\n")
    assert " ".join(out.split()).endswith(f"loss {results['loss']:.4f} per datum")


def test_a_model_of_one_s_own_is_sampled_where_it_can_be(own, capsys, error_of, monkeypatch):
    titles, samples = [], plots.samples
    monkeypatch.setattr(plots, "samples", lambda x, shape, title: titles.append(title) or samples(x, shape, title))
    assert cli.main(["sample", own.folder, "--model", own.file, "--count", "1"]) == 0
    assert f"{own.folder}/draws.png: 1 draw of MeanField(9 parameters)" in capsys.readouterr().out
    assert titles == ["draws of the model"]
    text = Path(own.file).read_text()
    Path(own.file).write_text(text[: text.index("    def sample")])
    assert "a model of class MeanField has no method sample" in error_of("sample", own.folder, "--model", own.file)


@pytest.mark.usefixtures("few_cases")
def test_the_gradients_of_a_model_of_one_s_own_are_checked(own, capsys):
    status, lines = checked(capsys, own.folder, "--model", own.file)
    assert status == 0
    assert [line.split()[0] for line in lines[1:3]] == ["affine", own.folder]
    status, lines = checked(capsys, "--model", own.file)  # its examples
    assert status == 0
    assert [line[:16].strip() for line in lines[1:4]] == ["affine", "numba mean field", "numpy mean field"]
    text = Path(own.file).read_text()
    Path(own.file).write_text(text.replace("/ (1 + np.exp(-self.theta)) - cache", "/ (1.1 + np.exp(-self.theta)) - cache"))
    status, lines = checked(capsys, own.folder, "--model", own.file)
    assert status == 1
    assert any("logits" in line and "WRONG" in line for line in lines)


def test_what_the_checks_need_of_a_model_of_one_s_own_is_said(own, error_of):
    text = Path(own.file).read_text()
    a, b = text.index("    @classmethod"), text.index("    def check")
    Path(own.file).write_text(text[:a] + text[b:])
    assert "MeanField has no classmethod examples(backend): give a run folder" in error_of("gradcheck", "--model", own.file)
    Path(own.file).write_text(text.replace("    copy = saved.copied\n", ""))
    assert "has no method copy(dtype=...)" in error_of("gradcheck", own.folder, "--model", own.file)


def test_without_its_code_a_run_says_what_to_do(own, error_of):
    model = f"{Path('mine.py').resolve()}:MeanField"
    for argv in (["evaluate", own.folder], ["sample", own.folder], ["gradcheck", own.folder],
                 ["train", "--resume", "--out", own.folder], ["evaluate", own.folder, "--model", "vae"]):  # fmt: skip
        expected = f"the model of {own.folder} is not one of npvae's: name the file with its code, as in --model {model}"
        assert expected in error_of(*argv)


def test_another_class_than_that_of_the_run_is_refused(own, run, error_of):
    Path("other.py").write_text(Path(own.file).read_text().replace("class MeanField", "class Other"))
    assert "other.py holds the models Other; name one of them" in error_of("evaluate", own.folder, "--model", "other.py")
    error = error_of("evaluate", own.folder, "--model", "other.py:Other")
    assert f"the model of {own.folder} is of class MeanField, not Other" in error
    assert "the model of run is vae: leave out --model mine.py" in error_of("evaluate", "run", "--model", "mine.py")
    error = error_of("train", "--resume", "--out", "run", "--model", "autoencoder", "--epochs", "3")
    assert "the model of run is vae: leave out --model autoencoder" in error


@pytest.mark.parametrize(("text", "message"), [
    ("1 +", "mine.py cannot be run (SyntaxError: invalid syntax (mine.py, line 1))"),
    ("import numpy\nimport nonsense", "mine.py, line 2 cannot be run (ModuleNotFoundError: No module named 'nonsense')"),
    ("1 / 0", "mine.py, line 1 cannot be run (ZeroDivisionError: division by zero)"),
    ("from npvae import VAE", "mine.py holds the models (none: a model is a class with an attribute Terms"),
    ("from npvae import VAE\nclass A(VAE): pass\nclass B(VAE): pass", "mine.py holds the models A, B; name one of them as"),
    ("class A:\n    Terms = None\n    def __init__(self, width): pass", "a model as A(n_features=..., seed=...), which failed"),
])  # fmt: skip
def test_a_file_without_a_model_is_one_line(error_of, text, message):
    Path("mine.py").write_text(text)
    assert message in error_of("train", "--model", "mine.py", *SMALL[2:])
    assert not Path("runs").exists()


@pytest.mark.usefixtures("no_pictures")
def test_one_of_several_models_in_a_file_is_named(capsys):
    np.save("bits.npy", np.eye(12))
    Path("mine.py").write_text("from npvae import VAE\nclass A(VAE): pass\nclass B(VAE): pass\n")
    assert cli.main(["train", "--model", "mine.py:B", "--data", "bits.npy", *SMALL, "--out", "run"]) == 0
    assert cli.main(["evaluate", "run", "--model", "mine.py", "--samples", "1"]) == 0  # the run knows which
    assert type(checkpoint.load_model("run", kind=commands.settings.model_class("mine.py:B"))).__name__ == "B"
