"""Three rungs of one model: examples/vae_in_one_file.py, examples/learn/vae_in_pairs.py, npvae.VAE. The same losses, the same
gradients, and the same losses again after steps of Adam."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4"]  # in the order of the model's parameters
D, H, L, B = 9, 5, 2, 7


@pytest.fixture(params=["numpy", "numba"])
def rungs(request, monkeypatch):
    """The two scripts and a model, with common weights: (one file, pairs, model, p)."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES / "learn")
    one_file, pairs = (importlib.import_module(name) for name in ("vae_in_one_file", "vae_in_pairs"))
    model = npvae.VAE(D, L, (H,), "tanh", dtype="float64", backend=request.param)
    model.theta = np.random.default_rng(0).standard_normal(model.theta.size)
    return one_file, pairs, model, dict(zip(NAMES, model.parameters.values()))


def batches(n):
    """x and eps of n steps."""
    rng = np.random.default_rng(1)
    return [(rng.integers(0, 2, (B, D)).astype(float), rng.standard_normal((B, L))) for _ in range(n)]


def test_losses_and_gradients_of_the_three_are_equal(rungs):
    one_file, pairs, model, p = rungs
    for x, eps in batches(3):
        loss, cache = one_file.forward(p, x, eps)
        expected = one_file.backward(p, cache)
        pairs_loss, pairs_cache = pairs.forward(p, x, eps)
        terms, model_cache = model.forward(x, eps)
        assert [pairs_loss, terms.loss] == pytest.approx([loss, loss], rel=1e-12)
        fused = np.empty_like(model.theta)
        assert model.gradient(x, eps[None], out=fused)[0].loss == pytest.approx(loss, rel=1e-12)
        gradients = [pairs.backward(pairs_cache), dict(zip(NAMES, model.backward(model_cache).values()))]
        for found in gradients:
            assert set(found) == set(NAMES)
            for name in NAMES:
                np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12 * np.abs(expected[name]).max())
        flat = np.concatenate([expected[name].ravel() for name in NAMES])
        np.testing.assert_allclose(fused, flat, rtol=0, atol=1e-12 * np.abs(flat).max())


def test_losses_stay_equal_when_each_rung_trains(rungs):
    """Each with its own Adam: that of the one file, that of npvae.ops.updates, and npvae.Adam."""
    one_file, pairs, model, p = rungs
    start, ours, theirs = ({name: value.copy() for name, value in p.items()} for _ in range(3))
    moments = [{name: np.zeros_like(value) for name, value in p.items()} for _ in range(2)]
    flat_moments = [{name: np.zeros(value.size) for name, value in p.items()} for _ in range(2)]
    adam = npvae.Adam(1e-2)
    state = npvae.optim.initial_state(adam, model.theta)
    losses = []
    for t, (x, eps) in enumerate(batches(10), start=1):
        loss, cache = one_file.forward(ours, x, eps)
        one_file.adam(ours, one_file.backward(ours, cache), *moments, t, learning_rate=1e-2)
        pairs_loss, pairs_cache = pairs.forward(theirs, x, eps)
        for name, gradient in pairs.backward(pairs_cache).items():
            pairs.adam(theirs[name], gradient, flat_moments[0][name], flat_moments[1][name], t, learning_rate=1e-2)
        terms, model_cache = model.forward(x, eps)
        grads = model.backward(model_cache)
        adam.step(model.theta, np.concatenate([grad.ravel() for grad in grads.values()]), state)
        losses.append([loss, pairs_loss, terms.loss])
    first, second, third = np.transpose(losses)
    np.testing.assert_allclose(second, first, rtol=1e-12)
    np.testing.assert_allclose(third, first, rtol=1e-12)
    assert not np.allclose(model.theta, np.concatenate([value.ravel() for value in start.values()]))


def test_the_scripts_start_from_the_same_weights(rungs):
    one_file, pairs, *_ = rungs
    weights = [module.init(D, H, L, np.random.default_rng(3)) for module in (one_file, pairs)]
    assert list(weights[0]) == list(weights[1]) == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_the_pairs_run_from_the_command_line_and_learn(tmp_path):
    command = [sys.executable, "-W", "error", EXAMPLES / "learn" / "vae_in_pairs.py"]
    out = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", cwd=tmp_path).stdout
    losses = [float(loss) for loss in re.findall(r"ELBO +([\d.]+) nats", out)]
    assert len(losses) == 5
    assert losses[-1] < 0.6 * losses[0]


def test_the_pairs_need_nothing_but_numpy_and_the_ops():
    tree = ast.parse((EXAMPLES / "learn" / "vae_in_pairs.py").read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in names if not name.startswith("npvae.ops.")} == {"numpy"}
