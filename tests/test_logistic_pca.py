"""A model written outside the package, in one file, goes everywhere that npvae's own models go: examples/logistic_pca.py."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae.app import cli
from npvae.checking import cases, run
from npvae.training import checkpoint

FILE = Path(__file__).parents[1] / "examples" / "logistic_pca.py"


@pytest.fixture
def model_class(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    monkeypatch.delitem(sys.modules, "logistic_pca", raising=False)
    import logistic_pca

    return logistic_pca.LogisticPCA


@pytest.fixture
def data_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "spins.npz", x=binary(80, 16), labels=np.arange(80.0))
    return tmp_path / "spins.npz"


def binary(n, d, seed=0):
    """Rows of zeros and ones with one collective variable."""
    rng = np.random.default_rng(seed)
    return rng.random((n, d)) < np.where(rng.random((n, 1)) < 0.5, 0.9, 0.1)


def test_it_is_one_file_of_at_most_150_lines_outside_of_the_package():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 150
    package = FILE.parents[1] / "npvae"
    assert not [path for path in package.rglob("*.py") if "logistic_pca" in path.read_text(encoding="utf-8").lower()]


def test_its_gradient_passes_the_checks_of_our_own_models(model_class):
    (example,) = model_class.examples("numpy")
    for case in cases.cases_of(example):
        for outcome in run.run(case):
            assert outcome.report.passed, outcome.report


def test_a_wrong_gradient_of_it_is_caught(model_class):
    class Wrong(model_class):
        def backward(self, cache, dloss=1.0, out=None):
            grads = super().backward(cache, dloss, out)
            grads["b"] *= 1 + 1e-9
            return grads

    (example,) = Wrong.examples("numpy")
    assert not all(outcome.report.passed for case in cases.cases_of(example) for outcome in run.run(case))


def test_its_loss_is_the_likelihood_of_the_projected_logits(model_class):
    model, x = model_class(6, 2, m=3.0, dtype="float64"), binary(5, 6).astype(float)
    model.theta = np.random.default_rng(2).standard_normal(model.theta.size)
    U, b = model.parameters["U"], model.parameters["b"]
    p = 1 / (1 + np.exp(-(b + (3 * (2 * x - 1) - b) @ U @ U.T)))
    assert model.forward(x)[0].loss == pytest.approx(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum() / 5, rel=1e-12)


def test_it_trains_on_several_workers_and_continues_bit_for_bit(model_class, tmp_path):
    x, options = binary(60, 12), {"batch_size": 16, "progress": False, "workers": 2, "optimizer": npvae.Adam(1e-2)}
    whole = model_class(12)
    history = npvae.fit(whole, x, x[:20], epochs=4, **options)
    assert history["val_loss"][-1] < history["val_loss"][0]
    states, model = [], model_class(12)
    npvae.fit(model, x, x[:20], epochs=2, on_epoch=states.append, **options)
    checkpoint.save_progress(tmp_path, model, states[-1])
    with pytest.raises(ValueError, match="class LogisticPCA, which is none of"):
        checkpoint.load_progress(tmp_path)
    model, state = checkpoint.load_progress(tmp_path, model_class)
    npvae.fit(model, x, x[:20], epochs=4, resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)


def test_from_the_command_line(data_file, capsys):
    train = ["train", "--model", str(FILE), "--data", str(data_file), "--out", "run", "--latent", "3", "--epochs", "2"]
    assert cli.main(train) == 0
    assert {path.name for path in Path("run").glob("*.png")} == {"loss.png", "reconstructions.png", "latent.png"}
    assert cli.main(["train", "--resume", "--out", "run", "--model", str(FILE), "--epochs", "3"]) == 0
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 3
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--model", str(FILE), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["nll"] == pytest.approx((1 - measured["explained"]) * measured["null_nll"])
    assert cli.main(["evaluate", "run"]) == 1
    error = capsys.readouterr().err
    assert "the model of run is not one of npvae's" in error
    assert "--model" in error
    assert cli.main(["sample", "run", "--model", str(FILE)]) == 1
    assert "LogisticPCA" in capsys.readouterr().err
