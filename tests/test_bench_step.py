"""The benchmark of training steps: all contenders do the same arithmetic, and no time is printed of one that does not.

The peers run where PyTorch and JAX are installed (pip install '.[bench]').
"""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODELS = ("bernoulli", "gaussian_learned", "beta_binomial", "conditional")
WIDTHS, BATCH_SIZE, N_CLASSES = (16, 9, 8, 3), 12, 10
RNG = np.random.default_rng(0)
IMAGES = RNG.choice([0, 255, *range(256)], (300, 16), p=[0.15, 0.15, *[0.7 / 256] * 256]).astype(np.uint8)
LABELS = RNG.integers(0, N_CLASSES, 300)


@pytest.fixture
def bench_step(monkeypatch):
    """The script, with runs of a few steps."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("bench_step")
    monkeypatch.setattr(script, "VERIFY_STEPS", 8)
    monkeypatch.setattr(script, "SECONDS", 0)
    monkeypatch.setattr(script, "settled", lambda run, n: run(n))
    return script


def task_of(bench_step, model):
    if model == "conditional":
        return bench_step.Task("bernoulli", np.eye(N_CLASSES, dtype=np.float32)[LABELS])
    return bench_step.Task(model)


def peer_of(bench_step, name, task):
    """A peer with the weights of npvae's model; the test is skipped where its library is missing."""
    pytest.importorskip({"TorchEager": "torch", "JaxJit": "jax"}[name])
    theta = bench_step.model_of(WIDTHS, task, "numpy").parameters
    return getattr(importlib.import_module("peers"), name)(WIDTHS, theta, IMAGES, *task)


def losses_of(bench_step, task, **others):
    """The losses of npvae's back ends and of other contenders after the common steps."""
    theta = bench_step.model_of(WIDTHS, task, "numpy").parameters
    found = {f"npvae {backend}": bench_step.Npvae(WIDTHS, theta, IMAGES, backend, BATCH_SIZE, task=task)
             for backend in ("numba", "numpy")}  # fmt: skip
    found = {name: (contender, None) for name, contender in {**found, **others}.items()}
    return bench_step.verify(found, IMAGES, BATCH_SIZE, WIDTHS[-1], task)[0]


@pytest.mark.parametrize("model", MODELS)
def test_both_back_ends_take_the_same_steps(bench_step, model):
    losses = losses_of(bench_step, task_of(bench_step, model))
    assert losses["npvae numba"] == pytest.approx(losses["npvae numpy"], rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["TorchEager", "JaxJit"])
def test_a_peer_takes_the_same_steps(bench_step, name, model):
    task = task_of(bench_step, model)
    losses = losses_of(bench_step, task, peer=peer_of(bench_step, name, task))
    assert losses["peer"] == pytest.approx(losses["npvae numpy"], rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_a_peer_draws_the_batch_as_npvae_does(bench_step, model):
    """Grey levels / 255 with the condition of the same rows; for the Bernoulli likelihood zeros and ones, with these means."""
    task = task_of(bench_step, model)
    peer, batches = peer_of(bench_step, "TorchEager", task), []
    peer.step_with = lambda x, eps, condition: batches.append((x.numpy(), eps.numpy(), condition))
    rows = np.repeat([7, 3], 2000)
    peer.step(rows)
    (x, eps, condition), grey = batches[0], IMAGES[rows] / np.float32(255)
    assert eps.shape == (4000, WIDTHS[-1])
    if task.likelihood == "bernoulli":
        assert set(np.unique(x)) == {0, 1}
        np.testing.assert_allclose(x.reshape(2, 2000, -1).mean(axis=1), grey[[0, 2000]], atol=0.06)  # 5 standard errors
    else:
        np.testing.assert_array_equal(x, grey)
    if task.condition is None:
        assert condition is None
    else:
        np.testing.assert_array_equal(condition, task.condition[rows])


@pytest.mark.parametrize("model", MODELS)
def test_a_step_of_jax_moves_every_parameter(bench_step, model):
    peer = peer_of(bench_step, "JaxJit", task_of(bench_step, model))
    before = {name: np.array(value) for name, value in peer.state[0].items()}
    peer.step(np.arange(BATCH_SIZE))
    peer.finish()
    for name, value in peer.state[0].items():
        assert np.isfinite(value).all()
        assert (np.asarray(value) != before[name]).any(), name


class Off:
    """npvae's own steps, with a loss that is wrong by a factor."""

    def __init__(self, bench_step, factor):
        theta = bench_step.model_of(WIDTHS, bench_step.BERNOULLI, "numpy").parameters
        self.ours, self.factor = bench_step.Npvae(WIDTHS, theta, IMAGES, "numpy", BATCH_SIZE), factor

    def step_with(self, x, eps):
        return self.factor * self.ours.step_with(x, eps)


def test_no_time_of_a_contender_whose_loss_is_another(bench_step):
    assert "off" in losses_of(bench_step, bench_step.BERNOULLI, off=Off(bench_step, 1.0009))
    with pytest.raises(SystemExit, match=r"no times: after 8 steps the loss is .*'off'"):
        losses_of(bench_step, bench_step.BERNOULLI, off=Off(bench_step, 1.0011))
    with pytest.raises(SystemExit, match="'off': nan"):
        losses_of(bench_step, bench_step.BERNOULLI, off=Off(bench_step, float("nan")))


def test_a_row_says_which_model_it_is_of(bench_step, monkeypatch, capsys):
    monkeypatch.setattr(bench_step, "PEERS", ())
    sizes = (16, (8,), 3, BATCH_SIZE)
    rows = [bench_step.bench(model, sizes, IMAGES, LABELS, 1) for model in ("bernoulli", "conditional")]
    titles = ["16-8-3 @ 12", "16-8-3 @ 12, given the label"]
    assert [row["model"] for row in rows] == ["bernoulli", "conditional"]
    assert [line.split(" | ")[0] for line in bench_step.markdown({"rows": rows}).splitlines()[2:]] == [f"| {t}" for t in titles]
    figure = bench_step.draw({"rows": rows, "machine": {"cpu": "a processor", "cores": 2}})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["16-8-3\nbatch 12", "16-8-3\nbatch 12\ngiven the label"]
    for row in rows:
        bench_step.print_row(row)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  (")[0] for line in printed if line.startswith("16")] == titles


def test_the_floor_has_the_products_of_every_layer(bench_step, monkeypatch):
    shapes = []
    monkeypatch.setattr(np, "matmul", lambda a, b: shapes.append((a.shape, b.shape)))
    theta = bench_step.model_of((16, 9, 3), task_of(bench_step, "conditional"), "numpy").parameters
    bench_step.floor(theta, 5, 1)
    layers = [(26, 9), (9, 6), (13, 9), (9, 16)]  # the condition stands beside x and beside z
    forward = [((5, n_in), (n_in, n_out)) for n_in, n_out in layers]
    weights = [((n_in, 5), (5, n_out)) for n_in, n_out in layers]
    inputs = [((5, n_out), (n_out, n_in)) for n_in, n_out in layers[1:]]
    assert sorted(shapes) == sorted(forward + weights + inputs)
