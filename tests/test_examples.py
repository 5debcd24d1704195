"""The examples run and say what they claim."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def one_file(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import vae_in_one_file

    return vae_in_one_file


def test_vae_in_one_file_runs_from_the_command_line():
    command = [sys.executable, EXAMPLES / "vae_in_one_file.py", "6"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    losses = [float(value) for value in re.findall(r"ELBO +([\d.]+) nats", out)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] < 144 * np.log(2)
    assert float(re.search(r"gradient: (\S+)", out)[1]) < 1e-12
    assert float(re.search(r"correlation (\S+)", out)[1]) > 0.9


def test_vae_in_one_file_imports_numpy_and_sys_only():
    tree = ast.parse((EXAMPLES / "vae_in_one_file.py").read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert sorted(imports) == ["numpy", "sys"]


def test_vae_in_one_file_simulates_the_ising_model(one_file):
    """The mean energy at each temperature is Kaufman's exact one of the finite lattice, within 5 standard errors."""
    temperatures, n, size = [1.5, 2.27, 4.0], 4000, 4
    spins = one_file.ising(temperatures, n, size, sweeps=60, rng=np.random.default_rng(1))
    assert spins.shape == (3 * n, size**2)
    assert set(np.unique(spins)) == {-1, 1}
    energy = npvae.data.ising.energy_per_spin(spins, size).reshape(3, n)
    expected = [npvae.data.ising.kaufman_energy(T, size) for T in temperatures]
    standard_error = energy.std(axis=1) / np.sqrt(n)
    assert np.all(np.abs(energy.mean(axis=1) - expected) < 5 * standard_error)
    assert abs(spins.mean()) < 0.05  # without a field, up is as likely as down


def test_vae_in_one_file_is_the_package_s_model(one_file):
    rng = np.random.default_rng(0)
    model = npvae.VAE(9, 2, (5,), "tanh", dtype="float64", backend="numpy")
    model.theta = rng.standard_normal(model.theta.size)
    p = dict(zip(["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4"], model.parameters.values()))
    x, eps = rng.integers(0, 2, (4, 9)).astype(float), rng.standard_normal((4, 2))
    loss, cache = one_file.forward(p, x, eps)
    terms, model_cache = model.forward(x, eps)
    assert loss == pytest.approx(terms.loss, rel=1e-13)
    grads = one_file.backward(p, cache)
    for name, expected in zip(p, model.backward(model_cache).values()):
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.fixture
def digits(monkeypatch):
    """In place of MNIST: 28 × 28 images of one bar each, grey."""
    monkeypatch.syspath_prepend(EXAMPLES)
    rng = np.random.default_rng(0)
    images = np.zeros((300, 28, 28), np.uint8)
    for image, row, column in zip(images, rng.integers(2, 24, 300), rng.integers(2, 24, 300)):
        image[row : row + 3, 4:24] = 200
        image[4:24, column : column + 2] = 100
    images = images.reshape(300, 784)
    labels = np.zeros(300, np.uint8)
    monkeypatch.setattr(npvae.data.mnist, "load", lambda data_dir: npvae.data.mnist.MNIST(images, labels, images, labels))


@pytest.mark.usefixtures("digits")
def test_probabilistic_pca_prints_both_likelihoods_and_draws(monkeypatch, tmp_path, capsys):
    import probabilistic_pca

    monkeypatch.setattr(probabilistic_pca, "EPOCHS", 3)
    monkeypatch.setattr(sys, "argv", ["probabilistic_pca.py", "--out", str(tmp_path / "a.png")])
    probabilistic_pca.main()
    out = capsys.readouterr().out
    exact, reached, less = map(float, re.search(r"closed form (\S+), the trained VAE (\S+) \((\S+) less\)", out).groups())
    assert exact - reached == pytest.approx(less, abs=2e-4)
    assert less > 0
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.usefixtures("digits")
def test_posterior_collapse_prints_a_row_for_every_remedy_and_draws(monkeypatch, tmp_path, capsys):
    import posterior_collapse

    monkeypatch.setattr(posterior_collapse, "EPOCHS", 2)
    monkeypatch.setattr(sys, "argv", ["posterior_collapse.py", "--out", str(tmp_path / "a.png")])
    posterior_collapse.main()
    rows = re.findall(r"^(\w.*?) {2,}(\d+) of 20 +(\S+) +(\S+) +(\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, *_ in rows] == list(posterior_collapse.remedies(10))
    for _, active, *values in rows:
        loss, nll, kl = map(float, values)
        assert loss == pytest.approx(nll + kl, abs=0.02)
        assert 0 <= int(active) <= 20
    assert (tmp_path / "a.png").stat().st_size > 10_000
