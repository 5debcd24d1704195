"""The example of bits-back coding: its three terms, its messages with and without bits back, and the true p(x) of lattices."""

import importlib
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae.ops import bits_back as chain


@pytest.fixture
def example(monkeypatch):
    """The script on lattices of 3 × 3 spins, with the coder as it reads."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    monkeypatch.delitem(sys.modules, "bits_back", raising=False)
    script = importlib.import_module("bits_back")
    monkeypatch.delitem(sys.modules, "bits_back")
    for name, value in {"SIZE": 3, "N_LATENT": 2, "compiled": chain}.items():
        monkeypatch.setattr(script, name, value)
    return script


@pytest.fixture
def model():
    """One whose posteriors are narrower than the prior, and where z matters."""
    model = npvae.VAE(9, 2, (4,), "tanh", backend="numpy", dtype="float64")
    model.theta = 0.3 * np.random.default_rng(3).standard_normal(model.theta.size)
    model.parameters["posterior.b"][2:] = -1  # logvar
    for name, factor in [("posterior.W", [2, 2, 1, 1]), ("decoder.0.W", 3), ("likelihood.W", 2)]:
        model.parameters[name] *= factor
    return model


def draws_of(model, n):
    """Data of the model itself, so that posteriors and prior belong together: (n, 9) bool."""
    rng = np.random.default_rng(4)
    return rng.random((n, 9)) < model.decode(rng.standard_normal((n, 2)))


def test_the_true_probabilities_of_all_lattices_sum_to_one(example):
    x = np.array(list(itertools.product([False, True], repeat=9)))
    assert np.exp(-example.true_nll(x)).sum() == pytest.approx(1, rel=1e-12)


def test_the_three_terms_are_the_bound_and_a_finer_z_is_free(example, model):
    x = draws_of(model, 1000)
    bound = -npvae.evaluate.elbo(model, x.astype(float), 0, 20).elbo / np.log(2)
    coarse, fine = (example.terms_of(model, x, bits, np.random.default_rng(0)) for bits in (8, 14))
    for terms, bits in [(coarse, 8), (fine, 14)]:
        assert terms.prior == 2 * bits
        assert terms.nll + terms.prior - terms.posterior == pytest.approx(bound, abs=0.3)  # 0.08: noise of the draws of z
    assert fine.posterior - coarse.posterior == pytest.approx(2 * (14 - 8), abs=0.1)


def test_without_bits_back_the_message_has_two_terms(example, model):
    x = draws_of(model, 100)
    nll, prior, _ = example.terms_of(model, x, 5)
    assert example.sent(model, x, 5) == pytest.approx(nll + prior, abs=64 / 100)


def test_with_bits_back_the_message_has_the_size_of_the_bound(example, model):
    x = draws_of(model, 300)
    bound = -npvae.evaluate.elbo(model, x.astype(float), 0, 20).elbo / np.log(2)
    assert example.with_bits_back(model, x, 10) == pytest.approx(bound, abs=0.4)  # 0.1: noise of the draws of z


def test_files_that_do_not_come_back_are_noticed(example, model, monkeypatch):
    x = draws_of(model, 3)
    monkeypatch.setattr(example, "LENGTHS", (2, 3))
    assert [account.total > 0 for account in example.files_of(model, x)] == [True, True]
    monkeypatch.setattr(example.bits_back, "decompress", lambda model, content: x[:2])
    with pytest.raises(AssertionError, match="not come back"):
        example.files_of(model, x)


def test_the_script_prints_what_the_picture_shows(example, monkeypatch, capsys, tmp_path):
    small = {"N_TRAIN": 200, "N_TEST": 30, "HIDDEN": (4,), "EPOCHS": 1, "BITS": (1, 4), "N_SENT": 5, "LENGTHS": (1, 30)}
    for name, value in small.items():
        monkeypatch.setattr(example, name, value)
    numpy_model = lambda *args, **options: npvae.models.VAE(*args, backend="numpy", **options)  # noqa: E731
    monkeypatch.setattr(example.npvae, "VAE", numpy_model)
    monkeypatch.setattr("sys.argv", ["bits_back.py", "--out", str(tmp_path / "picture.png")])
    example.main()
    printed = capsys.readouterr().out
    rows = dict(line.rsplit(maxsplit=1) for line in printed.splitlines() if line.startswith(("−ELBO", "with bits", "one bit")))
    values = {name.strip(): float(value) for name, value in rows.items()}
    assert values["one bit per spin"] == 9
    assert values["−ELBO"] < values["with bits back, file of 30 lattices"]
    together, bound = map(float, re.search(r"together ([\d.]+); −ELBO ([\d.]+)", printed).groups())
    assert together == pytest.approx(bound, abs=1.5)  # 0.5: noise of the draws of z
    assert (tmp_path / "picture.png").stat().st_size > 0
