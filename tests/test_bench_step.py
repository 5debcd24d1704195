"""The benchmark of training steps: all contenders do the same arithmetic, and no time is printed of one that does not.

The peers run where PyTorch and JAX are installed (pip install '.[bench]').
"""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BATCH_SIZE = 12
SIZES = {  # D, hidden, L or (L_1, L_2) or T, batch
    **dict.fromkeys(("bernoulli", "gaussian_learned", "beta_binomial", "conditional"), (16, (9, 8), 3, BATCH_SIZE)),
    "chain": (16, (9, 8), (4, 3), BATCH_SIZE),
    "diffusion": (2, (9, 8), 30, BATCH_SIZE),
    "diffusion_levels": (16, (9, 8), 30, BATCH_SIZE),
}
RNG = np.random.default_rng(0)
IMAGES = RNG.choice([0, 255, *range(256)], (300, 16), p=[0.15, 0.15, *[0.7 / 256] * 256]).astype(np.uint8)
LABELS = RNG.integers(0, 10, 300)
every_model = pytest.mark.parametrize("model", SIZES)


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
    return bench_step.task_of(model, SIZES[model], IMAGES, LABELS)


def peer_of(name, task):
    """A peer with the weights of npvae's model; the test is skipped where its library is missing."""
    pytest.importorskip("torch" if name.startswith("Torch") else "jax")
    return getattr(importlib.import_module("peers"), name)(task, task.model("numpy").parameters)


def losses_of(bench_step, task, **others):
    """The losses of npvae's back ends and of other contenders after the common steps."""
    theta = task.model("numpy").parameters
    found = {f"npvae {backend}": bench_step.Npvae(task, theta, backend, BATCH_SIZE) for backend in ("numba", "numpy")}
    found = {name: (contender, None) for name, contender in {**found, **others}.items()}
    return bench_step.verify(found, len(task.data[0]), BATCH_SIZE)[0]


def test_there_is_a_size_for_every_model(bench_step):
    assert list(SIZES) == list(bench_step.MODELS)
    assert {model for model, _ in bench_step.ROWS} == set(SIZES)


@every_model
def test_both_back_ends_take_the_same_steps(bench_step, model):
    losses = losses_of(bench_step, task_of(bench_step, model))
    assert losses["npvae numba"] == pytest.approx(losses["npvae numpy"], rel=1e-5)


@every_model
@pytest.mark.parametrize("name", ["TorchEager", "JaxJit"])
def test_a_peer_takes_the_same_steps(bench_step, name, model):
    task = task_of(bench_step, model)
    losses = losses_of(bench_step, task, peer=peer_of(name, task))
    assert losses["peer"] == pytest.approx(losses["npvae numpy"], rel=1e-4)


@every_model
def test_a_peer_draws_the_batch_as_npvae_does(bench_step, model):
    """Grey levels / 255 with the condition of the same rows; for the Bernoulli likelihood zeros and ones, with these means."""
    task = task_of(bench_step, model)
    peer, batches, (data, *condition) = peer_of("TorchEager", task), [], task.data
    peer.step_with = lambda x, noise, *condition: batches.append((x.numpy(), noise, *condition))
    rows = np.repeat([7, 3], 2000)
    peer.step(rows)
    (x, noise, *given), grey = batches[0], data[rows] / np.float32(255 if data.dtype == np.uint8 else 1)
    if task.config["likelihood"] == "bernoulli":
        assert set(np.unique(x)) == {0, 1}
        np.testing.assert_allclose(x.reshape(2, 2000, -1).mean(axis=1), grey[[0, 2000]], atol=0.06)  # 5 standard errors
    else:
        np.testing.assert_array_equal(x, grey)
    for drawn, whole in zip(given, condition, strict=True):
        np.testing.assert_array_equal(drawn, whole[rows])
    expected = task.model("numpy").draw(np.random.default_rng(0), grey)
    if task.kind == "Diffusion":  # at equal distances, and only the normal numbers that are used
        t, eps = np.sort(noise[0].numpy()), noise[1].numpy()
        np.testing.assert_allclose(np.diff(t), 1 / len(rows), atol=1e-6)
        assert eps.shape[1:] == expected[1].shape[1:]
        assert len(eps) == (2 if model == "diffusion_levels" else 1)
    else:
        eps = noise.numpy()
        assert eps.shape == expected.shape
    assert abs(eps.mean()) < 5 / np.sqrt(eps.size)
    assert abs(eps.std() - 1) < 5 / np.sqrt(2 * eps.size)


@every_model
@pytest.mark.parametrize("name", ["JaxJit", "JaxScanRbg"])
def test_a_step_of_jax_moves_every_parameter(bench_step, name, model):
    peer = peer_of(name, task_of(bench_step, model))
    before = {name: np.array(value) for name, value in peer.state[0].items()}
    peer.run(2 * [np.arange(BATCH_SIZE)])  # the last layer of a diffusion starts at 0, and stops the gradient of the others
    for name, value in peer.state[0].items():
        assert np.isfinite(value).all()
        assert (np.asarray(value) != before[name]).any(), name


class Off:
    """npvae's own steps, with a loss that is wrong by a factor."""

    def __init__(self, bench_step, factor):
        task = task_of(bench_step, "bernoulli")
        self.ours, self.factor = bench_step.Npvae(task, task.model("numpy").parameters, "numpy", BATCH_SIZE), factor

    def step_with(self, x, eps):
        return self.factor * self.ours.step_with(x, eps)


def test_no_time_of_a_contender_whose_loss_is_another(bench_step):
    task = task_of(bench_step, "bernoulli")
    assert "off" in losses_of(bench_step, task, off=Off(bench_step, 1.0009))
    with pytest.raises(SystemExit, match=r"no times: after 8 steps the loss is .*'off'"):
        losses_of(bench_step, task, off=Off(bench_step, 1.0011))
    with pytest.raises(SystemExit, match="'off': nan"):
        losses_of(bench_step, task, off=Off(bench_step, float("nan")))


def test_a_row_says_which_model_it_is_of(bench_step, monkeypatch, capsys):
    monkeypatch.setattr(bench_step, "PEERS", ())
    rows = [bench_step.bench(model, SIZES[model], IMAGES, LABELS, 1) for model in ("bernoulli", "chain", "diffusion")]
    titles = ["16-9-8-3 @ 12", "16-9-9-(4)-8-8-(3) @ 12, chain of VAEs", "2-9-8 @ 12, diffusion of points"]
    assert [row["model"] for row in rows] == ["bernoulli", "chain", "diffusion"]
    assert [line.split(" | ")[0] for line in bench_step.markdown({"rows": rows}).splitlines()[2:]] == [f"| {t}" for t in titles]
    figure = bench_step.draw({"rows": rows, "machine": {"cpu": "a processor", "cores": 2}})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [title.replace(" @ ", "\nbatch ").replace(", ", "\n") for title in titles]
    for row in rows:
        bench_step.print_row(row)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  (")[0] for line in printed if line.split("-")[0] in ("2", "16")] == titles


def test_rows_that_are_measured_again_take_their_places_among_those_saved(bench_step, monkeypatch, tmp_path):
    """As the table's order has them; rows of another processor stay apart, and a first result needs none."""
    monkeypatch.setattr(bench_step, "RESULTS", tmp_path)
    info, calls = {"cpu": "a processor", "cores": 2}, []
    assert bench_step.saved_rows(info) == []
    monkeypatch.setattr(bench_step, "machine", lambda: info)
    monkeypatch.setattr(bench_step, "print_machine", lambda info: None)
    monkeypatch.setattr(bench_step.mnist, "load", lambda folder: SimpleNamespace(x_train=IMAGES, y_train=LABELS))
    monkeypatch.setattr(bench_step, "print_row", lambda row: None)
    monkeypatch.setattr(bench_step, "draw", lambda result: None)
    monkeypatch.setattr(bench_step, "save", lambda name, result, _: (tmp_path / "step.json").write_text(json.dumps(result)))

    def bench(model, size, images, labels, repeats):
        calls.append((model, size[-1]))
        return {"model": model, "size": bench_step.widths_of(model, size), "batch": size[-1], "number": len(calls)}

    monkeypatch.setattr(bench_step, "bench", bench)

    def rows_after(*only):
        monkeypatch.setattr("sys.argv", ["bench_step.py", "--only", *map(str, only)])
        bench_step.main()
        return [(row["model"], row["batch"], row["number"]) for row in json.loads((tmp_path / "step.json").read_text())["rows"]]

    assert rows_after(13, 0) == [("bernoulli", 32, 2), ("chain", 100, 1)]
    assert rows_after(14) == [("bernoulli", 32, 2), ("chain", 100, 1), ("chain", 20, 3)]
    assert rows_after(13) == [("bernoulli", 32, 2), ("chain", 100, 4), ("chain", 20, 3)]
    info["cpu"] = "another"
    with pytest.raises(SystemExit, match=r"^step\.json is of a processor, 2 cores, and this is another, 2 cores: measure all"):
        rows_after(1)


def test_the_floor_has_the_products_of_every_layer(bench_step, monkeypatch):
    shapes = []
    monkeypatch.setattr(np, "matmul", lambda a, b: shapes.append((a.shape, b.shape)))
    theta = bench_step.task_of("conditional", (16, (9,), 3, 5), IMAGES, LABELS).model("numpy").parameters
    bench_step.floor(theta, 5, 1)
    layers = [(26, 9), (9, 6), (13, 9), (9, 16)]  # the condition stands beside x and beside z
    forward = [((5, n_in), (n_in, n_out)) for n_in, n_out in layers]
    weights = [((n_in, 5), (5, n_out)) for n_in, n_out in layers]
    inputs = [((5, n_out), (n_out, n_in)) for n_in, n_out in layers[1:]]
    assert sorted(shapes) == sorted(forward + weights + inputs)
