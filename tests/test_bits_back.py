"""Bits-back coding of rows with a VAE: that they come back, what they cost, that both back ends write the same, and damage."""

import copy
import hashlib
import math
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy import stats

import npvae
from npvae.kernels import bits_back as compiled
from npvae.kernels import compile as compiling
from npvae.models.common import HIDDEN_ACTIVATIONS
from npvae.ops import bits_back, codes, rans, reproducible
from npvae.ops.bits_back import TOTALS
from npvae.ops.rans import CHECK, COUNT, DRAWN, FAULTS, HEAD

K = {"bernoulli": 2, "categorical": 256, "beta_binomial": 256}
COMPILED = not numba.config.DISABLE_JIT
DRAWS = 1500 if COMPILED else 200
KINDS = [("bernoulli", "diagonal"), ("bernoulli", "full"), ("categorical", "full"), ("beta_binomial", "diagonal")]
kinds = pytest.mark.parametrize(("likelihood", "posterior"), KINDS)


def model_of(likelihood="bernoulli", posterior="diagonal", activation="relu", hidden=(7,), n_features=12, n_latent=3):
    """A model whose parameters are the same on every machine, its z more certain than the prior."""
    model = npvae.VAE(n_features, n_latent, hidden, activation, likelihood, "numpy", "float64", posterior=posterior)
    model.theta[:] = ((np.arange(model.theta.size) * 7919) % 1009 - 504) / 896  # −0.56 to 0.56
    model.parameters["posterior.b"][n_latent : 2 * n_latent] -= 2
    return model


def coder_of(model, bits=bits_back.BUCKET_BITS):
    inputs = np.arange(K[model.likelihood]) / (K[model.likelihood] - 1)
    return bits_back.coder_of(model.encoder, model.decoder, model.likelihood, model.posterior, inputs, bits)


def rows_of(model, n):
    return ((np.arange(n * model.n_features) ** 2 * 31 // 7) % K[model.likelihood]).reshape(n, -1).astype(np.uint8)


def bits_of(message):
    """log2 of the whole number that the message is."""
    return 32 * (int(message.registers[COUNT]) - int(message.registers[DRAWN])) + math.log2(message.registers[HEAD])


def coded(model, rows, seed=1, table=bits_back, bits=bits_back.BUCKET_BITS):
    """The message of the rows, what was counted, and the bits that they cost."""
    empty = rans.new_message(seed)
    before = bits_of(empty)
    message, totals = table.encode(coder_of(model, bits), rows, empty)
    return message, dict(zip(TOTALS, totals)), bits_of(message) - before


def check_that_rows_come_back(model, rows, words, check, table, seed=1):
    message, again = table.decode(coder_of(model), len(rows), rans.read(words, seed))
    np.testing.assert_array_equal(again, rows)
    assert rans.is_start(message)
    assert message.registers[[CHECK, DRAWN, FAULTS]].tolist() == [check, 0, 0]


@kinds
@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
def test_rows_come_back_and_both_back_ends_write_the_same(activation, likelihood, posterior):
    """Encoded by either, decoded by the other; no and two hidden layers as well."""
    hidden = {"relu": (), "tanh": (6, 5)}.get(activation, (7,))
    model = model_of(likelihood, posterior, activation, hidden)
    rows = rows_of(model, 7)
    message, totals, _ = coded(model, rows)
    message_compiled, totals_compiled, _ = coded(model, rows, table=compiled)
    words = rans.written(message)
    np.testing.assert_array_equal(words, rans.written(message_compiled))
    assert message.registers.tolist() == message_compiled.registers.tolist()
    assert totals == totals_compiled
    assert message.registers[FAULTS] == 0
    check_that_rows_come_back(model, rows, words, message.registers[CHECK], bits_back)
    check_that_rows_come_back(model, rows, words, message.registers[CHECK], compiled)


def test_the_words_are_written_down():
    """A change of these is a new file format."""
    found = {}
    for likelihood, posterior in KINDS:
        model = model_of(likelihood, posterior, "softplus")
        words = rans.written(coded(model, rows_of(model, 40), table=compiled)[0])
        found[likelihood, posterior] = hashlib.sha256(words.astype("<u4").tobytes()).hexdigest()[:16]
    assert found == WORDS


WORDS = {
    ("bernoulli", "diagonal"): "58bfa646eaeb9d00",
    ("bernoulli", "full"): "be63888a2c7ea5da",
    ("categorical", "full"): "8ff07c0bd362d7b7",
    ("beta_binomial", "diagonal"): "6f5c7d0386b440c1",
}


@kinds
def test_networks_are_those_of_the_model(likelihood, posterior):
    for activation in HIDDEN_ACTIVATIONS:
        model = model_of(likelihood, posterior, activation, (6, 5))
        coder = coder_of(model)
        x = rows_of(model, 1)
        output = bits_back.run(coder.encoder, bits_back.looked_up(coder.inputs, x[0]))
        np.testing.assert_allclose(output, model.encoder_output(coder.inputs[x])[0], rtol=0, atol=1e-13)
        z = np.array([0.3, -1.7, 2.2])
        np.testing.assert_allclose(bits_back.run(coder.decoder, z), model.decoder_output(z[None])[0], rtol=0, atol=1e-13)


def test_weights_of_float32_are_taken_as_they_are():
    model = npvae.VAE(12, 3, (7,), backend="numpy", dtype="float32", seed=0)
    coder = coder_of(model)
    assert coder.encoder.weights.dtype == np.float64
    np.testing.assert_array_equal(np.concatenate([coder.encoder.weights, coder.decoder.weights]), model.theta)


def latent_of(coder, message):
    """The z that was pushed last, and is popped with this."""
    buckets = np.zeros(coder.decoder.widths[0], np.int64)
    codes.pop_uniform(message, buckets, coder.bits)
    return coder.centres[buckets][None]


@kinds
def test_totals_are_those_of_the_model(likelihood, posterior):
    """Row by row, at the z that was coded: nll, KL and log q/p in bits. (Levels are coded in pieces of 32 pixels.)"""
    model = model_of(likelihood, posterior, "tanh", n_features=40)
    coder = coder_of(model)
    for row in rows_of(model, 4):
        message, totals, _ = coded(model, row[None], table=compiled)
        x, z = coder.inputs[row][None], latent_of(coder, message)
        raw = model.encoder_output(x)
        (mu, spread), _ = (model.ops.full_posterior_forward if posterior == "full" else model.ops.posterior_forward)(raw)
        factor = spread[0] if posterior == "full" else np.diag(np.exp(spread[0] / 2))
        covariance = factor @ factor.T
        log_q = stats.multivariate_normal.logpdf(z[0], mu[0], covariance)
        log_p = stats.norm.logpdf(z).sum()
        kl = (mu @ mu.T + np.trace(covariance) - 3 - np.linalg.slogdet(covariance)[1]).item() / 2
        expected = {"nll": model.nll(z[None], x).item(), "kl": kl, "log_ratio": log_q - log_p}
        for name, nats in expected.items():
            assert totals[name] == pytest.approx(nats / math.log(2), rel=1e-9, abs=1e-9), name


@kinds
def test_the_message_grows_by_what_was_counted_which_is_the_bound(likelihood, posterior):
    model = model_of(likelihood, posterior)
    n = 200 if COMPILED else 20
    _, totals, bits = coded(model, rows_of(model, n), table=compiled)
    assert abs(bits - totals["nll_coded"] - totals["bucket_coded"]) < 1e-3 * n  # what rANS loses
    assert abs(totals["nll_coded"] - totals["nll"]) < 1e-2 * n  # what whole numbers lose
    assert abs(totals["bucket_coded"] - totals["bucket"]) < 1e-2 * n
    assert abs(totals["bucket"] - totals["log_ratio"]) < 5e-2 * n  # what buckets lose
    assert abs(totals["log_ratio"] - totals["kl"]) < 5 * 3 * math.sqrt(n)  # the noise of z, of some 3 bits a row
    assert totals["kl"] > 0.5 * n


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_z_is_drawn_from_the_posterior(posterior):
    """eps = F⁻¹ (z − mu) of many messages is standard normal, in each dimension and without correlation."""
    model = model_of("bernoulli", posterior)
    coder = coder_of(model)
    rows = rows_of(model, 1)
    raw = bits_back.run(coder.encoder, bits_back.looked_up(coder.inputs, rows[0]))
    (mu, spread), _ = (model.ops.full_posterior_forward if posterior == "full" else model.ops.posterior_forward)(raw[None])
    factor = spread[0] if posterior == "full" else np.diag(np.exp(spread[0] / 2))
    eps = []
    for seed in range(DRAWS):
        message, _ = compiled.encode(coder, rows, rans.new_message(seed))
        eps.append(np.linalg.solve(factor, (latent_of(coder, message) - mu)[0]))
    eps = np.array(eps)
    assert all(stats.kstest(eps[:, l], "norm").pvalue > 1e-3 for l in range(3))
    assert np.abs(np.corrcoef(eps.T) - np.eye(3)).max() < 4 / math.sqrt(DRAWS)


def test_blocks_of_rows_are_the_same_as_all_at_once():
    model = model_of()
    rows, coder = rows_of(model, 30), coder_of(model)
    whole, _, _ = coded(model, rows)
    message, totals = rans.new_message(1), np.zeros(6)
    for first in range(0, 30, 7):
        message, of_block = compiled.encode(coder, rows[first : first + 7], message)
        totals += of_block
    np.testing.assert_array_equal(rans.written(message), rans.written(whole))
    found = []
    for n in (4, 0, 13, 13):
        message, block = compiled.decode(coder, n, message)
        found.insert(0, block)
    np.testing.assert_array_equal(np.concatenate(found), rows)
    assert rans.is_start(message)


def test_the_start_costs_what_the_first_z_needs():
    """Only the first row finds no bits of others: the words drawn do not grow with the number of rows."""
    model = model_of(n_features=40, n_latent=8)
    drawn = [coded(model, rows_of(model, n), table=compiled)[0].registers[DRAWN] for n in (1, 10, 300)]
    assert drawn[0] >= 2
    assert drawn[2] <= drawn[0] + 1


def test_another_model_or_message_shows():
    model = model_of()
    rows = rows_of(model, 20)
    message, _, _ = coded(model, rows)
    words, check = rans.written(message), message.registers[CHECK]
    other = model_of()
    other.parameters["posterior.b"][0] += 1e-7  # a change of few slots, and of no symbol
    again, _ = compiled.decode(coder_of(other), 20, rans.read(words, 1))
    assert again.registers[CHECK] != check
    assert not rans.is_start(again)
    for i in range(len(words)):
        damaged = words.copy()
        damaged[i] ^= 1 << (i % 31)
        again, _ = compiled.decode(coder_of(model), 20, rans.read(damaged, 1))
        assert again.registers[DRAWN] or again.registers[FAULTS] or not rans.is_start(again)
    assert not rans.is_start(compiled.decode(coder_of(model), 20, rans.read(words, 2))[0])
    assert not rans.is_start(compiled.decode(coder_of(model), 19, rans.read(words, 1))[0])
    assert compiled.decode(coder_of(model), 30, rans.read(words, 1))[0].registers[DRAWN] > 0


@pytest.mark.parametrize("table", [bits_back, compiled], ids=["numpy", "numba"])
def test_any_words_give_rows_of_the_right_kind(table):
    """Nonsense, but within bounds: no index beyond an array, no endless loop."""
    rng = np.random.default_rng(0)
    for likelihood, posterior in KINDS:
        model = model_of(likelihood, posterior)
        message = rans.read(np.append(rng.integers(0, 2**32, 30, np.uint32), np.uint32(2**30)))
        message, rows = table.decode(coder_of(model), 10, message)
        assert rows.shape == (10, 12)
        assert rows.max() < K[likelihood]
        assert message.registers[DRAWN] or message.registers[FAULTS]


@pytest.mark.parametrize("table", [bits_back, compiled], ids=["numpy", "numba"])
def test_any_message_is_that_of_some_rows(table):
    """Decoded and encoded again it is the same, if no slot is missing. Here it grows meanwhile, as x has no information."""
    model = model_of(n_latent=8)
    model.theta[:] = 0
    model.parameters["posterior.b"][:8] = 2
    model.parameters["likelihood.b"][:] = -30
    words = np.append(np.random.default_rng(1).integers(0, 2**32, 60, np.uint32), np.uint32(2**30))
    coder = coder_of(model, 10)
    message, rows = table.decode(coder, 9, rans.read(words))
    assert message.registers[COUNT] > 61  # from 59
    assert message.registers[FAULTS] == 0
    message, _ = table.encode(coder, rows, message)
    np.testing.assert_array_equal(rans.written(message), words)


@kinds
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_any_weights_whatever_code_without_loss(bad, likelihood, posterior):
    """A model that is broken compresses badly, but it does not lose data."""
    model = model_of(likelihood, posterior)
    model.theta[:: 5 if likelihood == "bernoulli" else 700] = bad
    rows = rows_of(model, 4)
    with np.errstate(all="ignore"):
        words = [rans.written(coded(model, rows, table=table)[0]) for table in (bits_back, compiled)]
        np.testing.assert_array_equal(*words)
        message, again = compiled.decode(coder_of(model), 4, rans.read(words[0], 1))
    np.testing.assert_array_equal(again, rows)
    assert rans.is_start(message)


@pytest.mark.parametrize("table", [bits_back, compiled], ids=["numpy", "numba"])
def test_rows_that_cannot_be_coded_are_refused(table):
    coder = coder_of(model_of())
    for rows in (np.full((2, 12), 2, np.uint8), np.zeros((2, 11), np.uint8), np.zeros((2, 12)), np.zeros(12, np.uint8)):
        with pytest.raises(ValueError, match=r"rows must be uint8 of shape \(n, 12\) and below 2; got"):
            table.encode(coder, rows, rans.new_message())
    message, totals = table.encode(coder, np.zeros((0, 12), np.uint8), rans.new_message())
    assert rans.is_start(message)
    assert not totals.any()


def test_rows_of_any_layout():
    model = model_of()
    rows = rows_of(model, 6)
    words = rans.written(coded(model, rows)[0])
    read_only = rows.copy()
    read_only.flags.writeable = False
    for same in (rows, np.asfortranarray(rows), rows.repeat(2, axis=0)[::2], read_only):
        np.testing.assert_array_equal(rans.written(coded(model, same, table=compiled)[0]), words)
    assert not COMPILED or len(compiled.encode_rows.signatures) == 1  # each layout would be compiled anew


def test_the_cache_of_kernels_sees_changes_of_the_sources_in_ops(monkeypatch, tmp_path):
    (tmp_path / "npvae/ops").mkdir(parents=True)
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "npvae/kernels/compile.py"))
    digests = {compiling.sources()}
    for module in (bits_back, codes, rans, reproducible):
        (tmp_path / "npvae/ops" / Path(module.__file__).name).write_text("changed")
        digests.add(compiling.sources())
    assert len(digests) == 5


def test_twins_uncompiled():
    """So that their mutants can be run."""
    rng = np.random.default_rng(5)
    posterior = np.array([0.1, -0.2, 25.0, -35.0, 0.4])
    for twin, step, arguments in [
        (compiled._looked_up, bits_back.looked_up, (np.array([0.5, 2.0]), np.array([1, 0, 1]))),
        (compiled._bounded, bits_back.bounded, (np.array([1.0, np.nan, -np.inf, 2e9, -2e9, 1e8]),)),
        (compiled._spread_of, bits_back.spread_of, (posterior, 2)),
        (compiled._spread_of, bits_back.spread_of, (rng.standard_normal(8), 4)),
    ]:
        np.testing.assert_array_equal(twin(*map(copy.copy, arguments)), step(*arguments))
    logits, x = rng.normal(0, 4, 9), rng.integers(0, 2, 9).astype(np.uint8)
    counted = np.zeros((2, 6))
    compiled._count_bernoulli(logits, codes.bernoulli_table(logits), x, counted[0])
    bits_back.count_bernoulli(logits, codes.bernoulli_table(logits), x, counted[1])
    np.testing.assert_array_equal(counted[0], counted[1])
