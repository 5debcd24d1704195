"""Bits-back coding with a chain of latents: that rows come back in both orders, what they cost, how many bits there must be to
start with, and files."""

import hashlib
import math
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy import stats

import npvae
import npvae.kernels.bit_swap as compiled
from npvae.app import cli, compress
from npvae.data import packed
from npvae.models import HierarchicalVAE, bits_back, latent_chain
from npvae.ops import bit_swap, codes, rans
from npvae.ops import bits_back as one_latent
from npvae.ops.bit_swap import ORDERS, TOTALS
from npvae.ops.rans import CHECK, COUNT, DRAWN, FAULTS, HEAD

K = {"bernoulli": 2, "categorical": 256, "beta_binomial": 256}
COMPILED = not numba.config.DISABLE_JIT
DRAWS = 400 if COMPILED else 60
D = 12
KINDS = [
    *(("bernoulli", latent) for latent in ((3,), (3, 2), (3, 2, 4))),
    *(("beta_binomial", latent) for latent in ((3,), (3, 2), (2, 1, 3))),
    ("categorical", (2, 3)),
]
kinds = pytest.mark.parametrize(("likelihood", "latent"), KINDS)
orders = pytest.mark.parametrize("order", ORDERS)


def model_of(likelihood="bernoulli", latent=(3, 2, 4), hidden=(7,), depth=1, n_features=D, spread=-2.0, **options):
    """A model whose parameters are the same on every machine, its z more certain than the prior."""
    options = {"activation": "tanh", "backend": "numpy", "dtype": "float64", **options}
    model = HierarchicalVAE(n_features, latent, hidden, depth, likelihood=likelihood, **options)
    model.theta[:] = ((np.arange(model.theta.size) * 7919) % 1009 - 504) / 896  # −0.56 to 0.56
    for t, n_latent in enumerate(latent, 1):
        model.parameters[f"posterior.{t}.b"][n_latent:] += spread
    return model


def coder_of(model, order=ORDERS[0]):
    return bits_back.coder_of(model, order)


def rows_of(model, n):
    return ((np.arange(n * model.n_features) ** 2 * 31 // 7) % K[model.likelihood]).reshape(n, -1).astype(np.uint8)


def bits_of(message):
    """log2 of the whole number that the message is."""
    return 32 * (int(message.registers[COUNT]) - int(message.registers[DRAWN])) + math.log2(message.registers[HEAD])


# ----------------------------------------------------------------------------------------------------------- round trips


@kinds
@orders
def test_rows_come_back_and_both_back_ends_write_the_same(order, likelihood, latent):
    """Encoded by either, decoded by the other."""
    model = model_of(likelihood, latent, (), 1) if latent == (3, 2) else model_of(likelihood, latent, (7,), 2)
    rows, coder = rows_of(model, 5 if likelihood == "bernoulli" else 2), coder_of(model, order)
    message, totals = bit_swap.encode(coder, rows, rans.new_message(1))
    twin, totals_of_twin = compiled.encode(coder, rows, rans.new_message(1))
    words = rans.written(message)
    np.testing.assert_array_equal(words, rans.written(twin))
    assert message.registers.tolist() == twin.registers.tolist()
    np.testing.assert_array_equal(totals, totals_of_twin)
    for table in (bit_swap, compiled):
        again, found = table.decode(coder, len(rows), rans.read(words, 1))
        np.testing.assert_array_equal(found, rows)
        assert rans.is_start(again)
        assert again.registers[[CHECK, DRAWN, FAULTS]].tolist() == [message.registers[CHECK], 0, 0]


@orders
@pytest.mark.parametrize("likelihood", ["bernoulli", "beta_binomial"])
def test_one_latent_is_coded_as_that_of_a_vae(likelihood, order):
    chain = model_of(likelihood, (3,))
    vae = npvae.VAE(D, 3, (7,), "tanh", likelihood, "numpy", "float64")
    vae.theta = chain.theta
    rows = rows_of(chain, 20)
    message, totals = compiled.encode(coder_of(chain, order), rows, rans.new_message(1))
    expected, of_vae = one_latent.encode(bits_back.coder_of(vae), rows[:3], rans.new_message(1))
    first, of_first = compiled.encode(coder_of(chain, order), rows[:3], rans.new_message(1))
    np.testing.assert_array_equal(rans.written(first), rans.written(expected))
    np.testing.assert_array_equal(of_first, of_vae)
    assert message.registers[COUNT] > first.registers[COUNT]
    assert totals[0] > of_first[0]


def test_the_words_are_written_down():
    """A change of these is a new file format."""
    found = {}
    for likelihood in ("bernoulli", "beta_binomial"):
        for order in ORDERS:
            model = model_of(likelihood)
            message, _ = compiled.encode(coder_of(model, order), rows_of(model, 40), rans.new_message(1))
            words = rans.written(message).astype("<u4")
            found[likelihood, order] = hashlib.sha256(words.tobytes()).hexdigest()[:16]
    assert found == WORDS


WORDS = {
    ("bernoulli", "interleaved"): "d2c6576d30b0adeb",
    ("bernoulli", "all_at_once"): "755cb89f78c6e091",
    ("beta_binomial", "interleaved"): "8b148fc8b0791a02",
    ("beta_binomial", "all_at_once"): "7d19d452b407693e",
}


def test_the_orders_are_those_of_the_paper():
    assert bit_swap.moves_of(3, "interleaved").tolist() == [1, -1, 2, -2, 3, -3]
    assert bit_swap.moves_of(3, "all_at_once").tolist() == [1, 2, 3, -1, -2, -3]


@orders
def test_blocks_of_rows_are_the_same_as_all_at_once(order):
    model = model_of()
    rows, coder = rows_of(model, 30), coder_of(model, order)
    whole, _ = compiled.encode(coder, rows, rans.new_message(1))
    message = rans.new_message(1)
    for first in range(0, 30, 7):
        message, _ = compiled.encode(coder, rows[first : first + 7], message)
    np.testing.assert_array_equal(rans.written(message), rans.written(whole))
    found = []
    for n in (4, 0, 13, 13):
        message, block = compiled.decode(coder, n, message)
        found.insert(0, block)
    np.testing.assert_array_equal(np.concatenate(found), rows)
    assert rans.is_start(message)


@orders
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_any_weights_whatever_code_without_loss(bad, order):
    """A model that is broken compresses badly, but it does not lose data."""
    model = model_of()
    model.theta[::9] = bad
    rows, found = rows_of(model, 3), []
    with np.errstate(all="ignore"):
        coder = coder_of(model, order)
        for table in (bit_swap, compiled):
            message, _ = table.encode(coder, rows, rans.new_message(1))
            found.append(rans.written(message))
            again, decoded = table.decode(coder, 3, rans.read(found[-1], 1))
            np.testing.assert_array_equal(decoded, rows)
            assert rans.is_start(again)
    np.testing.assert_array_equal(*found)


@orders
def test_another_model_or_message_shows(order):
    model = model_of()
    rows = rows_of(model, 20)
    message, _ = compiled.encode(coder_of(model, order), rows, rans.new_message(1))
    words = rans.written(message)
    for name in ("posterior.2.b", "prior.1.b", "prior.2.b"):
        other = model_of()
        other.parameters[name][0] += 1e-7  # a change of few slots, and of no symbol
        again, _ = compiled.decode(coder_of(other, order), 20, rans.read(words, 1))
        assert again.registers[CHECK] != message.registers[CHECK], name
    for i in range(0, len(words), 3):
        damaged = words.copy()
        damaged[i] ^= 1 << (i % 31)
        again, _ = compiled.decode(coder_of(model, order), 20, rans.read(damaged, 1))
        assert again.registers[DRAWN] or again.registers[FAULTS] or not rans.is_start(again)
    assert compiled.decode(coder_of(model, order), 30, rans.read(words, 1))[0].registers[DRAWN] > 0


# ----------------------------------------------------------------------------------------- the model's own probabilities


def latents_of(coder, message):
    """z (L,) of the row that was pushed last, popped downwards with what pops x in the end."""
    latents, top = bit_swap.new_latents(coder), len(coder.first) - 1
    x = np.zeros(D, np.uint8)
    codes.pop_uniform(message, bit_swap.part(latents.buckets, coder, top), coder.data.bits)
    bit_swap.part(latents.z, coder, top)[:] = coder.data.centres[bit_swap.part(latents.buckets, coder, top)]
    for t in coder.moves[::-1]:
        if t > 0:
            bit_swap.push_latent(coder, message, x, latents, t)
        else:
            bit_swap.pop_below(coder, message, x, latents, -t)
    return latents.z, x


def gaussians(model, x, z):
    """(mean, standard deviation) of q and of p of each latent at z (L,), by the model's own networks: two lists."""
    z = np.split(z[None], np.cumsum(model.latent)[:-1], axis=1)

    def gaussian(layers, state):
        mu, logvar = np.split(model.ops.mlp_forward(state, layers)[0][0], 2)
        return mu, np.exp(logvar / 2)

    q = [gaussian(layers, state) for layers, state in zip(model.encoders, [x, *z])]
    p = [gaussian(layers, state) for layers, state in zip(model.priors, z[1:])]
    return q, [*p, (np.zeros(model.latent[-1]), np.ones(model.latent[-1]))]


@orders
@pytest.mark.parametrize("likelihood", ["bernoulli", "beta_binomial"])
def test_totals_are_those_of_the_model(likelihood, order):
    """Row by row, at the z that was coded: nll, the KL of the topmost and log q/p of all others, in bits."""
    model = model_of(likelihood)
    coder = coder_of(model, order)
    for row in rows_of(model, 3):
        message, totals = compiled.encode(coder, row[None], rans.new_message(1))
        z, again = latents_of(coder, message)
        np.testing.assert_array_equal(again, row)
        x = coder.data.inputs[row][None]
        q, p = gaussians(model, x, z)
        ratios = [(stats.norm.logpdf(part, *of_q) - stats.norm.logpdf(part, *of_p)).sum()
                  for part, of_q, of_p in zip(np.split(z, np.cumsum(model.latent)[:-1]), q, p)]  # fmt: skip
        mu, sigma = q[-1]
        top = (mu**2 + sigma**2 - 1 - 2 * np.log(sigma)).sum() / 2
        expected = {"nll": model.nll(z[None, None], x).item(), "kl": sum(ratios[:-1]) + top, "log_ratio": sum(ratios)}
        for name, nats in expected.items():
            assert dict(zip(TOTALS, totals))[name] == pytest.approx(nats / math.log(2), rel=1e-9, abs=1e-9), name


@orders
def test_the_latents_are_drawn_from_the_posterior(order):
    """(z − mu)/sigma of many messages is standard normal in each dimension of each latent, and without correlation."""
    model = model_of(latent=(2, 1, 2))
    coder, eps = coder_of(model, order), []
    row = rows_of(model, 1)
    for seed in range(DRAWS):
        message, _ = compiled.encode(coder, row, rans.new_message(seed))
        z, _ = latents_of(coder, message)
        mu, sigma = (np.concatenate(part) for part in zip(*gaussians(model, coder.data.inputs[row], z)[0]))
        eps.append((z - mu) / sigma)
    eps = np.array(eps)
    assert all(stats.kstest(eps[:, l], "norm").pvalue > 1e-3 for l in range(5))
    assert np.abs(np.corrcoef(eps.T) - np.eye(5)).max() < 4 / math.sqrt(DRAWS)


def test_buckets_are_placed_by_draws_down_the_chain():
    """Of a linear chain the mean and the variance of z_1 and z_2 are known. (Of 100 draws they are known to some 10 %.)"""
    model = model_of(latent=(2, 2, 3), hidden=())
    for t, size in ((1, 2), (2, 2)):
        model.parameters[f"prior.{t}.W"][:, size:] = 0  # the variance does not depend on the latent above
        model.parameters[f"prior.{t}.b"][:] = [3, -2, 1.5, -1.5]
    mean, covariance = np.zeros(3), np.eye(3)
    coder = coder_of(model)
    for t in (2, 1):
        W, b = model.parameters[f"prior.{t}.W"], model.parameters[f"prior.{t}.b"]
        mean, covariance = mean @ W[:, :2] + b[:2], W[:, :2].T @ covariance @ W[:, :2] + np.diag(np.exp(b[2:]))
        deviation = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(bit_swap.part(coder.scale, coder, t) / 2, deviation, rtol=0.2)
        np.testing.assert_allclose((bit_swap.part(coder.centre, coder, t) - mean) / deviation, 0, atol=0.3)


# -------------------------------------------------------------------------------------------------------------- the cost


@orders
def test_the_message_grows_by_what_was_counted_which_is_the_bound(order):
    model = model_of()
    n = 200 if COMPILED else 20
    empty = rans.new_message(1)
    before = bits_of(empty)
    message, totals = compiled.encode(coder_of(model, order), rows_of(model, n), empty)
    nll, nll_coded, kl, log_ratio, bucket, bucket_coded = totals
    assert abs(bits_of(message) - before - nll_coded - bucket_coded) < 1e-3 * n  # what rANS loses
    assert abs(nll_coded - nll) < 1e-2 * n  # what whole numbers lose
    assert abs(bucket_coded - bucket) < 1e-2 * n
    assert abs(bucket - log_ratio) < 5e-2 * n  # what buckets lose
    assert abs(log_ratio - kl) < 5 * 3 * math.sqrt(n)  # the noise of z_T
    assert kl > 0.5 * n


@pytest.mark.parametrize("latent", [(3, 2), (3, 2, 4)])
def test_the_rate_is_that_of_the_bound_in_both_orders(latent):
    """Without start and header, within 0.01 bits per dimension of 5000 rows."""
    model, tolerance = model_of(latent=latent, spread=-1.0, backend="numba"), 0.01 if COMPILED else 0.1
    x = rows_of(model, 5000 if COMPILED else 60)
    found = latent_chain.draws(model, x.astype(float), 20, rng=0)
    bound = npvae.evaluate.bits_per_dimension((found.nll + found.kl).mean(), D)
    for order in ORDERS:
        content, account = bits_back.compress(model, x, order=order)
        assert account.total == pytest.approx(8 * len(content), abs=1e-6)
        rate = (8 * len(content) - account.start - account.heads - account.header) / x.size
        assert rate == pytest.approx(bound, abs=tolerance)
        assert account.bound / x.size == pytest.approx(bound, abs=tolerance)
        assert abs(account.discretisation) + abs(account.rounding) + abs(account.coder) < 1e-3 * x.size


def test_bits_to_start_with():
    """All at once they grow with the chain, interleaved they do not: words drawn for the first row, a mean over messages."""
    drawn = {}
    for latent in ((8,), (8, 8), (8, 8, 8)):
        model = model_of(latent=latent, n_features=40, spread=-4.0)
        rows = rows_of(model, 1)
        for order in ORDERS:
            coder = coder_of(model, order)
            messages = [compiled.encode(coder, rows, rans.new_message(seed))[0] for seed in range(10)]
            drawn[len(latent), order] = np.mean([int(message.registers[DRAWN]) for message in messages])
    assert drawn[1, "interleaved"] == drawn[1, "all_at_once"]
    assert drawn[2, "all_at_once"] > drawn[1, "all_at_once"] + 1
    assert drawn[3, "all_at_once"] > drawn[2, "all_at_once"] + 1
    assert max(drawn[t, "interleaved"] for t in (2, 3)) < drawn[1, "interleaved"] + 1


# ----------------------------------------------------------------------------------------------------------------- files


@orders
@pytest.mark.parametrize("likelihood", ["bernoulli", "beta_binomial"])
def test_a_file_depends_on_neither_back_end_nor_threads(likelihood, order):
    plain = model_of(likelihood)
    model, x = plain.copy(backend="numba"), rows_of(plain, 6).reshape(6, 3, 4)
    content, account = bits_back.compress(model, x, n_chains=2, workers=1, order=order)
    assert bits_back.compress(plain, x, n_chains=2, workers=2, order=order)[0] == content
    assert account.total == pytest.approx(8 * len(content), abs=1e-6)
    assert packed.from_bytes(content).order == order
    for reader in (plain, model):
        found = bits_back.decompress(reader, content)
        assert (found.dtype, found.shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(found, x)


def test_what_is_refused():
    model = model_of(backend="numba")
    x = rows_of(model, 20)
    content, _ = bits_back.compress(model, x)
    file = packed.from_bytes(content)
    with pytest.raises(ValueError, match=r"^order must be one of interleaved, all_at_once; got 'upwards'$"):
        bits_back.compress(model, x, order="upwards")
    with pytest.raises(ValueError, match=r"^x\.npvae cannot be restored"):
        bits_back.decompress(model, packed.to_bytes(file._replace(order="all_at_once")), name="x.npvae")
    with pytest.raises(ValueError, match=r"^x\.npvae was compressed with another model than HierarchicalVAE\(12-7-\(3\)-"):
        bits_back.decompress(model_of(latent=(3, 2, 3)), content, name="x.npvae")
    with pytest.raises(ValueError, match="the likelihood gaussian is a density"):
        bits_back.compress(model_of("gaussian"), x)


def test_models_are_told_apart_by_what_matters():
    model = model_of()
    others = [model_of(latent=(3, 4, 2)), model_of(activation="relu"), model_of("beta_binomial"), model_of(hidden=(6,)),
              model_of(depth=2), model_of(dtype="float32")]  # fmt: skip
    assert len({bits_back.digest_of(each) for each in (model, *others)}) == 7
    assert bits_back.digest_of(model.copy(backend="numba", sigma=3.0)) == bits_back.digest_of(model)


def test_commands_code_in_the_order_that_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = model_of(backend="numba")
    monkeypatch.setattr(compress.commands, "trained_model", lambda args: (model, {}, {"image_shape": None}))
    x = rows_of(model, 20)
    np.save("x.npy", x)
    for order, options in [("interleaved", []), ("all_at_once", ["--order", "all_at_once"])]:
        assert cli.main(["compress", "run", "x.npy", "--out", f"{order}.npvae", *options]) == 0
        assert packed.from_bytes(Path(f"{order}.npvae").read_bytes()).order == order
        assert cli.main(["decompress", "run", f"{order}.npvae"]) == 0
        np.testing.assert_array_equal(np.load(f"{order}.npy"), x)
    assert "HierarchicalVAE(12-7-(3)-7-(2)-7-(4)" in capsys.readouterr().out
