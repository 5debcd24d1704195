"""The example of Boltzmann machines and their benchmarks: what they print, and that the numbers are what they are called."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.data import mnist
from npvae.models import BoltzmannMachine, partition_function
from npvae.ops import partition

ROOT = Path(__file__).parents[1]


@pytest.fixture
def images(monkeypatch):
    """Few images of 6 × 6 pixels for MNIST: a dark half, on either side."""
    rng = np.random.default_rng(0)
    left = rng.random((140, 1)) < 0.5
    is_left = np.tile(np.arange(36) % 6 < 3, (140, 1))
    grey = np.where(left == is_left, 230, 20).astype(np.uint8)
    dataset = SimpleNamespace(x_train=grey[:100], x_test=grey[100:])
    monkeypatch.setattr(mnist, "load", lambda data_dir: dataset)
    return dataset


def script(monkeypatch, folder, name):
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(name)


def test_the_example_compares_trainings_by_the_exact_log_likelihood_and_brackets_log_z(images, monkeypatch, tmp_path, capsys):
    example = script(monkeypatch, "examples", "boltzmann")
    for name, value in {"N_HIDDEN": 3, "BATCH_SIZE": 10, "TEMPERATURES": (2, 50), "RUNS": 40, "CHAINS": 4,
                        "STEPS": (0, 1, 5), "IMAGE_SHAPE": (6, 6)}.items():  # fmt: skip
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(partition_function, "BURN_IN", 20)
    monkeypatch.setattr(sys, "argv", ["boltzmann.py", "--epochs", "5", "--out", str(tmp_path / "b.png")])
    example.main()
    text = capsys.readouterr().out
    rows = {row[0]: list(map(float, row[1:])) for row in re.findall(r"^(P?CD-\d+)" + r" +(-?[\d.]+)" * 5 + "$", text, re.M)}
    assert list(rows) == list(example.TRAININGS)
    for log_p, log_f, energy, log_z, divergence in rows.values():
        assert log_p == pytest.approx(-energy - log_z, abs=0.02)
        assert divergence == pytest.approx(log_f + energy + log_z, abs=0.02)
    assert len({row[0] for row in rows.values()}) == 4
    exact = float(re.search(r"log Z, exact (-?[\d.]+)", text)[1])
    assert exact in [row[3] for row in rows.values() if row[0] == max(r[0] for r in rows.values())]
    found = np.array(re.findall(r"^ +(\d+) +(-?[\d.]+) ± ([\d.]+) +(-?[\d.]+) ± ([\d.]+)$", text, re.M), float)
    np.testing.assert_array_equal(found[:, 0], [2, 50])
    _, up, up_error, down, down_error = found[-1]
    assert abs(up - exact) < 4 * up_error + 0.02
    assert abs(down - exact) < 4 * down_error + 0.02
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_the_mnist_benchmark_measures_what_it_says_and_goes_on_where_it_was(images, monkeypatch, tmp_path, capsys):
    bench = script(monkeypatch, "benchmarks", "boltzmann_mnist")
    monkeypatch.setattr(bench, "FILE", tmp_path / "boltzmann_mnist.json")
    monkeypatch.setattr(bench, "BoltzmannMachine", lambda _, *args, **options: BoltzmannMachine(36, *args, **options))
    trainings = {"16": bench.Training(3, 1, 2, "adam", 3e-3, -1.0), "500": bench.Training(22, 2, 2, "sgd", 0.01, -2.0)}
    monkeypatch.setattr(bench, "TRAININGS", trainings)
    monkeypatch.setattr(partition_function, "BURN_IN", 5)
    argv = ["boltzmann_mnist.py", "--runs", str(tmp_path / "runs"), "--chains", "10", "--finer", "0.01"]
    monkeypatch.setattr(sys, "argv", argv)
    bench.main()
    rows = json.loads(bench.FILE.read_text())["machines"]
    model = BoltzmannMachine.load(tmp_path / "runs" / "16" / "checkpoint.npz")
    x = bench.npvae.model_input(model, images.x_test, 0)
    assert rows["16"]["test"] == pytest.approx(model.log_likelihood(x).mean(), rel=1e-6)
    assert rows["16"]["log_z"]["method"] == "exact"
    assert "log_z_reverse" not in rows["16"]
    assert rows["500"]["log_z"]["method"] == "annealing"
    assert rows["500"]["log_z_reverse"]["method"] == "reverse"
    assert rows["500"]["temperatures"] == 145
    assert abs(rows["500"]["log_z"]["log_z"] - rows["500"]["log_z_reverse"]["log_z"]) < 3
    first = capsys.readouterr().out
    assert f"{rows['16']['test']:.2f} ±" in first
    bench.main()  # trained to the end: only measured again
    again = capsys.readouterr().out
    assert "epoch " not in again
    assert json.loads(bench.FILE.read_text())["machines"]["16"]["test"] == rows["16"]["test"]


def test_the_speed_benchmark_times_contenders_of_the_same_machine(images, monkeypatch, tmp_path, capsys):
    bench = script(monkeypatch, "benchmarks", "bench_rbm")
    for name, value in {"N_HIDDEN": 5, "N_ROWS": 10, "N_CHAINS": 8, "EPOCHS": 1, "SECONDS": 0.001}.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "BoltzmannMachine", lambda _, *args, **options: BoltzmannMachine(36, *args, **options))
    model, x = bench.start(None)
    found = bench.contenders(model, x)
    bench.verify(found, model, x)
    assert any(name.startswith("npvae, 1 ") for name in found)
    ours = found["npvae, 1 thread"]
    chains, theta = ours.model.chains.copy(), ours.model.theta.copy()
    assert ours.gibbs(3) > 0
    assert ours.update(2) > 0
    assert not np.array_equal(ours.model.theta, theta)
    assert not np.array_equal(ours.model.chains, chains)
    ours.model.parameters["visible_bias"] += 1
    with pytest.raises(SystemExit, match="free energies of npvae, 1 thread"):
        bench.verify(found, model, x)
    row = {what: {"median": 2000.0, "min": 1000.0, "max": 3000.0} for what in bench.WHAT}
    text = bench.markdown({"contenders": {"npvae, 1 thread": row}})
    assert text.splitlines()[-1] == "| npvae, 1 thread | 2,000 | 1,000 … 3,000 | 2,000 | 1,000 … 3,000 |"
    bench.draw({"npvae, 1 thread": row, "PyTorch, 1 thread": row}).savefig(tmp_path / "rbm.png", dpi=20)


def test_the_speed_benchmark_enumerates_the_machine_of_the_first_hidden_units(images, monkeypatch):
    bench = script(monkeypatch, "benchmarks", "bench_rbm")
    monkeypatch.setattr(bench, "BoltzmannMachine", lambda _, *args, **options: BoltzmannMachine(36, *args, **options))
    monkeypatch.setattr(partition_function, "BETAS", np.linspace(0, 1, 100))
    model = BoltzmannMachine(36, 6)
    model.theta = 0.3 * np.random.default_rng(0).standard_normal(model.theta.size)
    visible_bias, hidden_bias, W = model.machine
    found = bench.enumeration(model, (images.x_train > 99) * 1.0, 4)
    log_z = partition.enumerated_log_partition(visible_bias, hidden_bias[:4], W[:, :4])
    assert found["exact"]["log_z"] == pytest.approx(log_z, rel=1e-12)
    assert found["exact"]["error"] == 0
    assert abs(found["annealing"]["log_z"] - log_z) < 4 * found["annealing"]["error"] < 0.5
    row = {what: {"median": 2000.0, "min": 1000.0, "max": 3000.0} for what in bench.WHAT}
    last = bench.markdown({"contenders": {"npvae, 1 thread": row}, "enumeration": found}).splitlines()[-1]
    assert last.startswith(f"log Z of the first 4 hidden units, a sum over 2^4 states: {log_z:.3f}, exact, in ")
