"""The benchmark of coding with several latents: what it measures, what its table says, which models it trains."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_bench_bits_back import cells

from npvae.models import HierarchicalVAE, bits_back

X = np.random.default_rng(0).integers(0, 256, (20, 5), dtype=np.uint8)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The script, with chains of five images and a results file of its own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    script = importlib.import_module("bench_chain_coder")
    monkeypatch.setattr(script, "IMAGES_PER_START", 5)
    monkeypatch.setattr(script, "FILE", tmp_path / "chain_coder.json")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    return script


def model_of(latent=(2, 1)):
    model = HierarchicalVAE(5, latent, (5,), 1, likelihood="beta_binomial", seed=1)
    model.theta = model.theta + 0.3 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def test_sizes_are_those_of_files_and_of_the_bound(bench):
    model = model_of()
    row = bench.measure(model, X)
    for order in bits_back.ORDERS:
        for name, n_chains in (("one", 1), ("hundreds", 4)):
            content, account = bits_back.compress(model, X, n_chains=n_chains, order=order)
            cost = row["orders"][order][name]
            assert cost == {"chains": n_chains, **account._asdict()}
            assert bench.rate(cost, X.size) == pytest.approx((8 * len(content) - account.header) / X.size)
        one, one_draw = row["orders"][order]["one"], np.sqrt(bench.ELBO_SAMPLES) * row["minus_elbo_standard_error"]
        assert abs(row["minus_elbo"] - (one["nll"] + one["kl"]) / X.size) < 3 * one_draw
    assert 0 < row["minus_elbo_standard_error"] < 0.2
    assert len(row["kl_of_each"]) == 2


def test_no_figures_of_a_decoder_that_does_not_restore_the_data(bench, monkeypatch):
    monkeypatch.setattr(bench.bits_back, "decompress", lambda *args, **options: X[::-1])
    with pytest.raises(AssertionError, match="not restored"):
        bench.measure(model_of(), X)


def test_the_table_says_what_was_measured(bench):
    row = bench.measure(model_of(), X)
    table = cells(bench.markdown({"2": row}))
    assert table["latents"] == ["1", "2", "4", "8"]
    assert table["−ELBO, bits per dimension"][1].startswith(f"{row['minus_elbo']:.4f} ± ")
    for order, label in bench.LABELS.items():
        of_order = row["orders"][order]
        assert table[f"{label}, 5 images"] == ["", f"{bench.rate(of_order['hundreds'], 100):.4f}", "", ""]
        assert table[f"{label}, all images"] == ["", f"{bench.rate(of_order['one'], 100):.4f}", "", ""]
        assert table[f"{label}, bits to start with"] == ["", f"{of_order['hundreds']['start'] / 4:.0f}", "", ""]
    assert table["Bit-Swap, 100 images, published"] == ["", "1.302", "1.291", "1.293"]


def test_models_without_figures_are_trained_and_measured(bench, monkeypatch):
    asked = []

    def trained(images, folder, args):
        asked.append((images.options[-2:], images.epochs, folder.name))
        return model_of((2, 1) if "32" in images.options else (2,))

    monkeypatch.setattr(bench, "trained", trained)
    monkeypatch.setattr(bench, "LATENTS", {"1": ["50"], "2": ["50", "32"]})
    monkeypatch.setattr(bench.mnist, "load", lambda folder: type("Digits", (), {"x_test": X}))
    monkeypatch.setattr(sys, "argv", ["bench_chain_coder.py", "--images", "10"])
    bench.main()
    assert asked == [(["--latent", "50"], 60, "latents-1"), (["50", "32"], 60, "latents-2")]
    results = json.loads(bench.FILE.read_text())
    assert [(name, row["images"]) for name, row in results.items()] == [("1", 10), ("2", 10)]
    bench.main()
    assert len(asked) == 2
    monkeypatch.setattr(sys, "argv", ["bench_chain_coder.py", "--again"])
    bench.main()
    assert len(asked) == 4
