"""The benchmark of bits-back coding: it measures coders that restore the data, and its tables say what was measured."""

import importlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae.models import bits_back

RNG = np.random.default_rng(0)
IMAGES = (RNG.random((30, 16)) < 0.3).astype(np.uint8)
N_WORDS = 7  # of a file of the coder with constriction, in the made-up results


@pytest.fixture
def bench(monkeypatch):
    """The script, with short lengths."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    script = importlib.import_module("bench_bits_back")
    monkeypatch.setattr(script, "LENGTHS", (10, 30))
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    return script


@pytest.fixture
def model():
    model = npvae.VAE(16, 2, (5,), backend="numpy", seed=1)
    model.theta = 0.5 * RNG.standard_normal(model.theta.size)
    return model


def images_of(bench, x=IMAGES):
    return bench.Images(x, (4, 4), 2, ["--data", "mnist"])


def results_of(bench, model):
    return {"binary digits": bench.measure(images_of(bench), model, 1)}


def test_sizes_are_those_of_the_file_and_of_its_bound(bench, model):
    row = bench.measure(images_of(bench), model, 1)
    content, account = bits_back.compress(model, IMAGES)
    assert row["bytes"]["npvae"] == len(content)
    assert sum(row["account"].values()) == pytest.approx(8 * len(content), abs=1e-6)
    assert row["minus_elbo"] == pytest.approx(account.bound / IMAGES.size, rel=0.1)  # other draws of z
    assert row["bytes"]["gzip -9"] > 0
    assert {n: cost["bytes"] for n, cost in row["lengths"].items()} == {
        "10": len(bits_back.compress(model, IMAGES[:10])[0]), "30": len(content)}  # fmt: skip
    assert {name: len(values) for name, values in row["seconds"].items()} == {
        "encode 1": 1, "decode 1": 1, "encode 2": 1, "decode 2": 1}  # fmt: skip


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x.astype(np.int8), lambda x: x.reshape(-1, 4, 4)])
def test_no_seconds_of_a_decoder_that_does_not_restore_the_data(bench, model, change, monkeypatch):
    monkeypatch.setattr(bench, "LENGTHS", ())
    monkeypatch.setattr(bench.bits_back, "decompress", lambda *args, **options: change(IMAGES))
    with pytest.raises(AssertionError, match="not restored"):
        bench.measure(images_of(bench), model, 1)


def cells(table):
    """label -> the other cells of each line of a Markdown table."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {label: others for label, *others in lines}


def test_the_tables_say_what_was_measured(bench, model):
    results = results_of(bench, model)
    row = results["binary digits"]
    row["bytes"]["constriction"] = 4 * N_WORDS
    row["seconds"] = {"encode 1": [3.0, 1.0, 2.0], "encode 2": [1.0], "decode 1": [4.0], "decode 2": [2.5],
                      "constriction encode": [7.0], "constriction decode": [8.0]}  # fmt: skip
    size, n_bits = cells(bench.size_table(results)), 8 * row["bytes"]["npvae"]
    assert size["npvae, the whole file"] == [f"{n_bits / 480:.5f}"]
    excess = n_bits / 480 - row["minus_elbo"]
    assert size["above −ELBO"] == [f"{excess:+.5f} ({excess / row['minus_elbo']:+.2%})"]
    assert size["bits back with constriction"] == [f"{32 * N_WORDS / 480:.5f}"]
    account = cells(bench.account_table(results))
    assert account["the file"] == [f"{n_bits / 480:.6f}"]
    assert account["KL in closed form"] == [f"{row['account']['kl'] / 480:.6f}"]
    assert tuple(bench.ACCOUNT) == bits_back.Account._fields
    seconds = cells(bench.time_table(results))
    assert seconds["binary digits, 30 images"] == ["2.00", "1.00", "4.00", "2.50"]
    assert seconds["binary digits, bits back with constriction"] == ["7.00", "", "8.00", ""]
    row["lengths"] = {"10": {"bytes": 20, "encode": 1e-3, "decode": 2e-3}}
    assert cells(bench.length_table(results))["10"] == ["1.00000", "100.0", "200.0"]


@pytest.mark.parametrize(("epoch", "calls"), [(None, 1), (1, 1), (2, 0)])
def test_a_model_is_trained_unless_its_run_is_complete(bench, epoch, calls, monkeypatch, tmp_path):
    """epoch: that of the checkpoint, None without one; the run has two."""
    asked = []
    monkeypatch.setattr(bench.checkpoint, "has_progress", lambda folder: epoch is not None or asked)
    monkeypatch.setattr(bench.checkpoint, "load_progress", lambda folder: ("the model", Namespace(epoch=epoch)))
    monkeypatch.setattr(bench.cli, "main", lambda options: asked.append(options))
    found = bench.trained(images_of(bench), tmp_path, Namespace(workers=3, data_dir="somewhere"))
    assert found == "the model"
    assert len(asked) == calls
    for options in asked:
        assert "--resume" in options
        assert options[-2:] == ["--data-dir", "somewhere"]


def test_a_training_that_fails_ends_the_script(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(bench.cli, "main", lambda options: 1)
    with pytest.raises(SystemExit):
        bench.trained(images_of(bench), tmp_path, Namespace(workers=1, data_dir=None))


def test_the_coder_with_constriction_restores_the_data_at_the_rate_of_the_bound(bench, model):
    """With q(z|x) = p(z) and a decoder that does not see z, the KL is 0 and the nll the same for every z."""
    pytest.importorskip("constriction")
    for name in ("posterior.W", "posterior.b", "decoder.0.W"):
        model.parameters[name] = np.zeros_like(model.parameters[name])
    x = np.repeat(IMAGES, 20, axis=0)
    coder = bench.ConstrictionCoder(model)
    words = coder.encode(x)
    np.testing.assert_array_equal(coder.decode(words, len(x)), x)
    bound = -npvae.evaluate.elbo(model, x.astype(np.float32), 0).elbo / np.log(2)
    assert 32 * (len(words) - coder.START_WORDS) / len(x) == pytest.approx(bound, rel=0.005)
