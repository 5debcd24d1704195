"""The examples run and say what they claim."""

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
