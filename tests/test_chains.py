"""The ops of a chain of latents: against SciPy's densities, numerical derivatives, and one sample of one row at a time."""

from itertools import pairwise

import naive
import numpy as np
import pytest
import scipy.stats

from npvae import gradcheck, ops
from npvae.ops import chains, gaussian_kl, latent

SHAPES = [(1, 1, 1), (1, 4, 3), (2, 1, 3), (3, 4, 2)]  # (S, B, L)
shapes = pytest.mark.parametrize("shape", SHAPES)
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
TRANSITION = chains.transition_forward, chains.transition_backward
KL = chains.transition_kl_forward, chains.transition_kl_backward


def case(shape, dtype="float64"):
    """posterior (B, 2L), prior (S B, 2L), with a log-variance of each beyond a bound, and z, eps (S, B, L)."""
    rng = np.random.default_rng(1)
    S, B, L = shape
    posterior, prior, z, eps = (naive.draw(rng, s, dtype) for s in ((B, 2 * L), (S * B, 2 * L), shape, shape))
    posterior[0, L], prior[-1, -1] = -31, 21
    return posterior, prior, z, eps


@dtypes
@shapes
def test_the_sample_is_that_of_the_distribution(shape, dtype):
    posterior, _, _, eps = case(shape, dtype)
    L = shape[2]
    (z, logvar), _ = chains.transition_forward(posterior, eps)
    expected = np.array(naive.clip_forward(posterior[:, L:].tolist()))
    naive.assert_close(logvar, expected, dtype)
    naive.assert_close(z, naive.reparameterize_forward(posterior[:, :L].tolist(), expected.tolist(), eps.tolist()), dtype)


@dtypes
@shapes
def test_the_divergence_of_a_sample_is_the_ratio_of_two_densities(shape, dtype):
    posterior, prior, _, eps = case(shape, dtype)
    L = shape[2]
    (z, logvar), _ = chains.transition_forward(posterior, eps)
    kl, _ = chains.transition_kl_forward(z, logvar, eps, prior)
    assert kl.dtype == dtype
    clipped = np.clip(prior[:, L:], -30, 20)
    mu_p, sigma_p = (part.reshape(shape).astype(float) for part in (prior[:, :L], np.exp(clipped / 2)))
    mu_q, sigma_q = posterior[:, :L].astype(float), np.exp(logvar.astype(float) / 2)
    log_q = scipy.stats.norm.logpdf(mu_q + sigma_q * eps, mu_q, sigma_q)
    log_p = scipy.stats.norm.logpdf(mu_q + sigma_q * eps, mu_p, sigma_p)
    np.testing.assert_allclose(kl, log_q - log_p, **{"float32": {"rtol": 1e-5, "atol": 1e-5}, "float64": {"rtol": 1e-9}}[dtype])


def test_its_mean_over_the_noise_is_the_kl_of_two_gaussians():
    rng, n = np.random.default_rng(2), 200_000
    posterior, prior = rng.standard_normal((1, 6)), rng.standard_normal((1, 6))
    eps = rng.standard_normal((n, 1, 3))
    (z, logvar), _ = chains.transition_forward(posterior, eps)
    kl, _ = chains.transition_kl_forward(z, logvar, eps, np.repeat(prior, n, axis=0))
    expected, _ = gaussian_kl.pair_kl_forward(posterior[0, :3], logvar[0], prior[0, :3], prior[0, 3:])
    assert (np.abs(kl.mean(axis=(0, 1)) - expected) < 5 * kl.std(axis=(0, 1)) / np.sqrt(n)).all()


@shapes
def test_each_gradient_is_right_by_the_complex_step(shape):
    posterior, prior, z, eps = case(shape)
    logvar = posterior[:, shape[2] :]
    for pair, args, wrt in [(TRANSITION, (posterior, eps), ("posterior",)),
                            (KL, (z, logvar, eps, prior), ("z", "logvar", "prior"))]:  # fmt: skip
        report = gradcheck.check_pair(*pair, *args, wrt=wrt, strict=True)
        assert all(row.threshold == 1e-12 for row in report.rows)
        assert {row.name for row in report.rows} >= set(wrt)


def test_the_check_finds_a_transition_without_the_gradient_of_its_log_variance():
    posterior, _, _, eps = case((2, 4, 3))

    def wrong(dz, dlogvar, cache):
        return chains.transition_backward(dz, 0 * dlogvar, cache)

    report = gradcheck.check_pair(chains.transition_forward, wrong, posterior, eps, wrt=("posterior",), assert_passed=False)
    assert not report.passed


@shapes
def test_both_are_pure_and_linear(shape):
    posterior, prior, z, eps = case(shape)
    dz, dkl, dlogvar = z + 1, eps + 1, posterior[:, : shape[2]].copy()
    naive.assert_pure_and_linear(TRANSITION[0], (posterior, eps), TRANSITION[1], (dz, dlogvar))
    naive.assert_pure_and_linear(KL[0], (z, dlogvar.copy(), eps, prior), KL[1], (dkl,))


# ---- the whole chain ----


def chain(widths, rng):
    """Two layers for each transition up, and down from the topmost to z_1: widths D, L_1, ..., L_T."""

    def layers(n_in, n_out):
        return [(rng.standard_normal((n_in, 4)), rng.standard_normal(4), "tanh"),
                (rng.standard_normal((4, n_out)), rng.standard_normal(n_out), "identity")]  # fmt: skip

    encoders = [layers(below, 2 * above) for below, above in pairwise(widths)]
    return encoders, [layers(above, 2 * below) for below, above in pairwise(widths[1:])]


def passes(x, encoders, priors, noise, latent_forward):
    (z, of_q, _), _ = chains.ascend(ops, x, encoders, noise, latent_forward)
    (kls, _), _ = chains.descend(ops, z, of_q, noise, priors)
    return z, kls


@pytest.mark.parametrize("latent_forward", [latent.latent_forward, latent.latent_sampled_forward])
@pytest.mark.parametrize("latents", [(3,), (3, 2), (3, 2, 4)])
def test_samples_and_rows_do_not_meet(latents, latent_forward):
    """All S samples of all B rows at once are what each sample of each row is alone."""
    rng, S, B = np.random.default_rng(3), 3, 4
    encoders, priors = chain([5, *latents], rng)
    x, eps = rng.standard_normal((B, 5)), [rng.standard_normal((S, B, L)) for L in latents]
    noise = [eps[0], *(e.reshape(1, S * B, -1) for e in eps[1:])]
    z, kls = passes(x, encoders, priors, noise, latent_forward)
    for s in range(S):
        for b in range(B):
            alone = [e[s, b].reshape(1, 1, -1) for e in eps]
            z_alone, kls_alone = passes(x[b : b + 1], encoders, priors, alone, latent_forward)
            for t in range(len(latents)):
                np.testing.assert_allclose(z[t].reshape(S, B, -1)[s, b], z_alone[t].ravel(), rtol=1e-12)
                of_row = kls[t].reshape(-1, B, latents[t])  # of one latent in closed form, the same for all samples
                np.testing.assert_allclose(of_row[s % len(of_row), b], kls_alone[t].ravel(), rtol=1e-11, atol=1e-13)
