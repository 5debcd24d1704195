"""The bounds: against scalar loops and numerical derivatives, and as the bounds on log p(x) that they are."""

import math
from itertools import pairwise

import naive
import numpy as np
import pytest
import test_evaluate

import npvae
from npvae.gradcheck import complex_step_grad
from npvae.ops import bounds, latent

BETAS = [1.0, 0.3, np.array([0.5, 1.0, 2.0])]


def case(S=5, B=4, L=3):
    """nll (S, B), kl (B, L) and kl of the samples (S, B, L)."""
    rng = np.random.default_rng(0)
    return 2 * rng.standard_normal((S, B)) + 3, rng.random((B, L)), rng.standard_normal((S, B, L))


@pytest.mark.parametrize("beta", BETAS)
def test_elbo_is_the_scalar_loop(beta):
    nll, kl, _ = case()
    weights = np.broadcast_to(beta, 3)
    expected = sum(nll[s, b] / 5 for s in range(5) for b in range(4)) + sum(
        weights[l] * kl[b, l] for b in range(4) for l in range(3)
    )
    assert bounds.elbo_forward(nll, kl, beta)[0] == pytest.approx(expected / 4, rel=1e-14)
    assert bounds.elbo_forward(nll[0], kl, beta)[0] == pytest.approx(bounds.elbo_forward(nll[:1], kl, beta)[0], rel=1e-15)


@pytest.mark.parametrize("beta", BETAS)
def test_iwae_is_the_scalar_loop(beta):
    nll, _, kl = case()
    weights, expected = np.broadcast_to(beta, 3), 0.0
    for b in range(4):
        w = [math.exp(-nll[s, b] - sum(weights[l] * kl[s, b, l] for l in range(3))) for s in range(5)]
        expected -= math.log(sum(w) / 5)
    assert bounds.iwae_forward(nll, kl, beta)[0] == pytest.approx(expected / 4, rel=1e-13)


def gradient_of(pair, nll, kl, beta, dloss=1.7):
    forward, backward = pair
    return [dloss, lambda *parts: dloss * forward(*parts, beta)[0], *backward(dloss, forward(nll, kl, beta)[1])]


ELBO, IWAE = (bounds.elbo_forward, bounds.elbo_backward), (bounds.iwae_forward, bounds.iwae_backward)


@pytest.mark.parametrize("beta", BETAS)
def test_ELBO_nll_is_the_derivative(beta):
    nll, kl, _ = case()
    _, f, dnll, _ = gradient_of(ELBO, nll, kl, beta)
    naive.assert_is_gradient(dnll, lambda nll: f(nll, kl), nll)


@pytest.mark.parametrize("beta", BETAS)
def test_ELBO_kl_is_the_derivative(beta):
    nll, kl, _ = case()
    _, f, _, dkl = gradient_of(ELBO, nll, kl, beta)
    naive.assert_is_gradient(dkl, lambda kl: f(nll, kl), kl)


@pytest.mark.parametrize("beta", BETAS)
def test_IWAE_nll_is_the_derivative(beta):
    nll, _, kl = case()
    _, f, dnll, _ = gradient_of(IWAE, nll, kl, beta)
    naive.assert_is_gradient(dnll, lambda nll: f(nll, kl), nll)


@pytest.mark.parametrize("beta", BETAS)
def test_IWAE_kl_is_the_derivative(beta):
    nll, _, kl = case()
    _, f, _, dkl = gradient_of(IWAE, nll, kl, beta)
    naive.assert_is_gradient(dkl, lambda kl: f(nll, kl), kl)


@pytest.mark.parametrize(("options", "counts"), [({"per_dimension": 0.4}, [0, 1, 1]), ({"total": 2.4}, [1, 1, 1]),
                                                 ({"total": 2.8}, [0, 0, 0]), ({}, [1, 1, 1])])  # fmt: skip
def test_FREE_BITS_is_the_derivative(options, counts):
    mean_kl = np.array([0.1, 0.5, 2.0])
    _, cache = bounds.free_bits_forward(mean_kl, **options)
    dmean_kl = bounds.free_bits_backward(1.3, cache)
    np.testing.assert_array_equal(dmean_kl, 1.3 * np.array(counts))
    naive.assert_is_gradient(dmean_kl, lambda kl: 1.3 * bounds.free_bits_forward(kl, **options)[0], mean_kl)


def test_free_bits_per_dimension_and_in_total_are_two_things():
    """Of 1 nat in one dimension and nothing in two others, λ = 0.5 for each is exceeded once, λ = 0.9 in total as a whole."""
    mean_kl = np.array([1.0, 0.0, 0.0])
    assert bounds.free_bits_forward(mean_kl, per_dimension=0.5)[0] == 2.0
    assert bounds.free_bits_forward(mean_kl, total=0.9)[0] == 1.0
    assert bounds.free_bits_forward(mean_kl, total=1.5)[0] == 1.5
    assert bounds.free_bits_forward(mean_kl, per_dimension=1.0)[0] == 3.0  # on the edge: free
    np.testing.assert_array_equal(bounds.free_bits_forward(mean_kl, per_dimension=1.0)[1], [0, 0, 0])
    np.testing.assert_array_equal(bounds.free_bits_forward(mean_kl, total=1.0)[1], [0, 0, 0])


def test_without_free_bits_the_kl_is_their_sum():
    kl, counts = bounds.free_bits_forward(np.array([0.1, 0.3]))
    assert kl == pytest.approx(0.4, rel=1e-15)
    np.testing.assert_array_equal(counts, [True, True])


# per_dimension and total, of which: some dimensions count, all, none, no floor
FREE_BITS = [(0.6, 0.0), (0.0, 1.2), (0.0, 9.0), (0.0, 0.0)]


def free_case(S=5, B=6):
    """nll (S, B) and kl (B, 3) whose means are about 0.1, 0.5 and 1.5."""
    rng = np.random.default_rng(4)
    return 2 * rng.standard_normal((S, B)) + 3, np.array([0.2, 1.0, 3.0]) * rng.random((B, 3))


@pytest.mark.parametrize(("per_dimension", "total"), FREE_BITS)
def test_elbo_with_free_bits_is_the_scalar_loop(per_dimension, total):
    nll, kl = free_case()
    means = [math.fsum(kl[b, l] for b in range(6)) / 6 for l in range(3)]
    cost = sum(max(per_dimension, m) for m in means) if per_dimension else max(total, sum(means))
    expected = math.fsum(nll.flat) / 30 + 0.7 * cost
    assert bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("per_dimension", "total"), FREE_BITS)
def test_elbo_with_free_bits_has_its_derivative(per_dimension, total):
    nll, kl = free_case()

    def loss(nll, kl):
        return 1.7 * bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)[0]

    _, cache = bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)
    dnll, dkl = bounds.free_bits_elbo_backward(1.7, cache)
    naive.assert_is_gradient(dnll, lambda nll: loss(nll, kl), nll)
    naive.assert_close(dkl, complex_step_grad(lambda kl: loss(nll, kl), kl), tolerance=1e-12)
    if total > 2:
        assert not dkl.any()  # none counts
    elif per_dimension:
        assert dkl.any(axis=0).tolist() == [False, False, True]


@pytest.mark.parametrize("rows", [[2, 4], [1, 2, 3], [6]])
@pytest.mark.parametrize(("per_dimension", "total"), FREE_BITS)
def test_shards_of_unequal_size_join_to_the_whole_batch(per_dimension, total, rows):
    """Loss and gradient, the latter by the complex step of the whole batch's loss."""
    nll, kl = free_case()
    whole, _ = bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)
    edges, weights = np.cumsum([0, *rows]), [n / 6 for n in rows]
    shards = [slice(a, b) for a, b in pairwise(edges)]
    caches = [bounds.free_bits_elbo_forward(nll[:, s], kl[s], 0.7, per_dimension, total)[1] for s in shards]
    loss, joined = bounds.free_bits_elbo_join(caches, weights)
    assert loss == pytest.approx(whole, rel=1e-14)
    grads = [bounds.free_bits_elbo_backward(weight, cache) for weight, cache in zip(weights, joined)]
    expected_nll = complex_step_grad(lambda nll: bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)[0], nll)
    expected_kl = complex_step_grad(lambda kl: bounds.free_bits_elbo_forward(nll, kl, 0.7, per_dimension, total)[0], kl)
    naive.assert_close(np.concatenate([dnll for dnll, _ in grads], axis=1), expected_nll, tolerance=1e-13)
    naive.assert_close(np.concatenate([dkl for _, dkl in grads]), expected_kl, tolerance=1e-13)


def test_a_shard_alone_would_count_other_dimensions_than_the_batch():
    """Without the join each shard decides by its own mean: the test above does see the difference."""
    nll, kl = free_case()
    order = np.argsort(kl[:, 1])  # the shard of the smallest KL is below the floor where the batch is above it
    kl, floor = kl[order], kl[:, 1].mean() - 0.01
    caches = [bounds.free_bits_elbo_forward(nll[:, s], kl[s], 1.0, floor, 0.0)[1] for s in (slice(2), slice(2, 6))]
    _, joined = bounds.free_bits_elbo_join(caches, [2 / 6, 4 / 6])
    alone, together = (bounds.free_bits_elbo_backward(1.0, cache)[1] for cache in (caches[0], joined[0]))
    assert not alone[:, 1].any()
    assert together[:, 1].all()


def test_of_one_sample_the_importance_weighted_bound_is_the_elbo_with_the_divergence_of_that_sample():
    nll, _, kl = case(S=1)
    assert bounds.iwae_forward(nll, kl, 1.0)[0] == pytest.approx(bounds.elbo_forward(nll, kl[0], 1.0)[0], rel=1e-14)


def test_weights_of_equal_samples_do_not_change_the_bound():
    nll, _, kl = case(S=1)
    one = bounds.iwae_forward(nll, kl, 1.0)[0]
    assert bounds.iwae_forward(np.repeat(nll, 7, axis=0), np.repeat(kl, 7, axis=0), 1.0)[0] == pytest.approx(one, rel=1e-14)


def test_samples_far_apart_do_not_overflow():
    nll = np.array([[1e4], [2e4], [-3e4]])
    loss, cache = bounds.iwae_forward(nll, np.zeros((3, 1, 2)), 1.0)
    assert loss == pytest.approx(-3e4 + math.log(3), rel=1e-15)
    np.testing.assert_array_equal(bounds.iwae_backward(1.0, cache)[0], [[0], [0], [1]])


def test_sums_of_float32_terms_are_in_float64():
    kl = np.full((1000, 4), 0.1, np.float32)
    loss, _ = bounds.elbo_forward(np.zeros(1000), kl, 1.0)
    assert loss == pytest.approx(4 * float(np.float32(0.1)), rel=1e-12)
    loss, _ = bounds.iwae_forward(np.zeros((1, 1)), kl.reshape(1, 1, -1), 1.0)
    assert loss == pytest.approx(4000 * float(np.float32(0.1)), rel=1e-12)
    loss, _ = bounds.free_bits_elbo_forward(np.zeros(1000), kl, 1.0, 0.05, 0.0)
    assert loss == pytest.approx(4 * float(np.float32(0.1)), rel=1e-12)


def test_bounds_rise_with_the_number_of_samples_towards_log_p_in_expectation():
    """The linear Gaussian model with a posterior that is not the exact one. Burda et al. 2016, theorem 1."""
    model, x, log_p = test_evaluate.linear_gaussian()
    model.parameters["posterior.b"][:2] += 0.5
    model.parameters["posterior.b"][2:] += 0.4
    rng = np.random.default_rng(1)
    means, errors = [], []
    for S in (1, 4, 16):
        draws = [-model.forward(x, rng.standard_normal((S, len(x), 2)), objective="iwae")[0].loss for _ in range(800)]
        means.append(np.mean(draws))
        errors.append(np.std(draws) / math.sqrt(len(draws)))
    elbo = -np.mean([model.forward(x, rng.standard_normal((16, len(x), 2)))[0].loss for _ in range(200)])
    assert means[0] == pytest.approx(elbo, abs=5 * errors[0])
    assert means[0] + 5 * errors[0] < means[1] < means[2] < log_p.mean()
    assert means[1] + 5 * errors[1] < means[2]
    assert log_p.mean() - means[2] < 0.25 * (log_p.mean() - means[0])


def test_terms_of_the_importance_weighted_bound():
    """nll and kl are means over the samples, kl of the samples themselves; the bound is at most their sum (Jensen)."""
    rng = np.random.default_rng(3)
    model = npvae.VAE(6, 2, (5,), "tanh", dtype="float64", backend="numpy", seed=1)
    x, eps = (rng.random((4, 6)) < 0.5).astype(float), rng.standard_normal((7, 4, 2))
    terms, _ = model.forward(x, eps, objective="iwae")
    assert terms.nll == pytest.approx(model.forward(x, eps)[0].nll, rel=1e-14)
    mu, logvar = model.encode(x)
    z = mu + np.exp(logvar / 2) * eps
    assert terms.kl == pytest.approx(latent.sampled_kl_forward(z, logvar, eps)[0].sum(axis=-1).mean(), rel=1e-12)
    assert terms.loss < terms.nll + terms.kl
    shares = [np.multiply(weight, model.forward(x[rows], eps[:, rows], 0.7, "iwae")[0])
              for weight, rows in [(1 / 4, slice(1)), (3 / 4, slice(1, 4))]]  # fmt: skip
    np.testing.assert_allclose(np.sum(shares, axis=0), model.forward(x, eps, 0.7, "iwae")[0], rtol=1e-13)


def test_noise_without_an_axis_of_samples_is_one_sample():
    model = npvae.VAE(6, 2, (5,), dtype="float64", backend="numpy")
    x, eps = np.ones((4, 6)), np.random.default_rng(0).standard_normal((4, 2))
    a, b = model.forward(x, eps, objective="iwae"), model.forward(x, eps[None], objective="iwae")
    assert a[0] == b[0]
    np.testing.assert_array_equal(model.backward(a[1])["posterior.W"], model.backward(b[1])["posterior.W"])


def test_an_unknown_objective_is_named():
    with pytest.raises(ValueError, match="objective must be one of elbo, iwae; got 'ELBO'"):
        npvae.VAE(6, 2, ()).forward(np.ones((1, 6)), np.ones((1, 2)), objective="ELBO")
