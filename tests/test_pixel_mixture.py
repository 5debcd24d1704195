"""The prior of a pixel and the noise that its noisy value then means: derivatives, and the mean against sums and integrals."""

import math
from itertools import pairwise

import naive
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from npvae import kernels
from npvae.gradcheck import complex_step_grad
from npvae.models import Diffusion
from npvae.ops import diffusion, pixel_mixture

SPACING = 2 / 255
LEVELS = np.arange(256) * SPACING - 1
regimes = pytest.mark.parametrize("gamma", [-11.0, -9.6, -2.0, 4.0])  # levels told apart, just not, and far from it


def case(gamma, B=3, D=2, seed=0):
    """x_t, output, gamma: the first pixel of each row black, the others near the mean of a Gaussian."""
    rng = np.random.default_rng(seed)
    x = LEVELS[rng.integers(0, 256, (B, D))]
    x[:, 0] = -1
    gamma = gamma + 0.1 * rng.standard_normal(B)
    x_t, _ = diffusion.diffuse_forward(x, rng.standard_normal((B, D)), gamma)
    output = rng.standard_normal((B, 7 * D))
    output[:, 3 * D : 4 * D] = x + 0.05 * output[:, 3 * D : 4 * D]
    output[:, 4 * D : 5 * D] = (x - 0.985) / 0.02 + output[:, 4 * D : 5 * D]
    output[:, 5 * D :] -= 4
    return x_t, output, gamma


def prior_of(output, d, D):
    """What one pixel's output says: weights (3,), means (2,), variances (2,)."""
    logits, n, u = output[: 3 * D][d::D], output[3 * D : 5 * D][d::D], output[5 * D :][d::D]
    weights = np.exp(logits) / np.exp(logits).sum()
    return weights, np.array([n[0], 0.985 + 0.02 * n[1]]), SPACING**2 / 4 + 1 / (1 + np.exp(-u))


# ---- each labelled identity against numerical derivatives ----


def assert_gradient(gamma, argument, grad, columns=slice(None)):
    """The gradient, number `grad` of what backward returns, of these columns of an argument."""
    inputs = case(gamma)
    dout = np.random.default_rng(1).standard_normal(inputs[0].shape)
    grads = pixel_mixture.pixel_mixture_backward(dout, pixel_mixture.pixel_mixture_forward(*inputs)[1])

    def loss(value):
        changed = [given.astype(value.dtype) for given in inputs]
        changed[argument][..., columns] = value
        return (dout * pixel_mixture.pixel_mixture_forward(*changed)[0]).sum()

    found, at = grads[grad][..., columns], inputs[argument][..., columns].copy()
    naive.assert_close(found, complex_step_grad(loss, at))
    step = 1e-7 if gamma < -5 else 1e-5  # far below the spacing of levels where these are told apart
    naive.assert_close(found, naive.central_difference_grad(loss, at, step), tolerance=1e-5)


@regimes
def test_MIXTURE_logit_is_the_derivative(gamma):
    assert_gradient(gamma, 1, 1, slice(0, 6))


@regimes
def test_MIXTURE_mean_is_the_derivative(gamma):
    assert_gradient(gamma, 1, 1, slice(6, 10))


@regimes
def test_MIXTURE_width_is_the_derivative(gamma):
    assert_gradient(gamma, 1, 1, slice(10, 14))


@regimes
def test_MIXTURE_x_is_the_derivative(gamma):
    assert_gradient(gamma, 0, 0)


@regimes
def test_MIXTURE_gamma_is_the_derivative(gamma):
    assert_gradient(gamma, 2, 2)


# ---- the mean of the noise ----


def normal(x, variance):
    return math.exp(-0.5 * x * x / variance) / math.sqrt(2 * math.pi * variance)


@regimes
def test_the_prediction_is_the_mean_of_the_noise(gamma):
    """Of every pixel: the sum over black and all levels where they are told apart, else black and an integral over all v."""
    x_t, output, gamma = case(gamma)
    eps_hat, _ = pixel_mixture.pixel_mixture_forward(x_t, output, gamma)
    B, D = x_t.shape
    for b in range(B):
        a, s = 1 / math.sqrt(1 + math.exp(gamma[b])), 1 / math.sqrt(1 + math.exp(-gamma[b]))
        for d in range(D):
            (w_0, *w), m, q = prior_of(output[b], d, D)

            def joint(v, w=w, m=m, q=q, y=x_t[b, d], a=a, s=s):
                return sum(w_k * normal(v - m_k, q_k) for w_k, m_k, q_k in zip(w, m, q)) * normal(y - a * v, s * s)

            def moment(n, joint=joint, m=m, q=q, y=x_t[b, d], a=a, s=s, b=b):
                if math.exp(0.5 * gamma[b]) < SPACING:
                    levels = LEVELS[0] + SPACING * np.arange(-100, 400)  # no level is left out at the ends
                    return sum(SPACING * joint(v) * ((y - a * v) / s) ** n for v in levels)
                peaks = [(y / a, s / a), *zip(m, np.sqrt(q))]
                cuts = sorted(mean + width * sigma for mean, sigma in peaks for width in (-9, -2, 0, 2, 9))
                return sum(quad(lambda v: joint(v) * ((y - a * v) / s) ** n, *ends, epsabs=0)[0] for ends in pairwise(cuts))

            black = w_0 * normal(x_t[b, d] + a, s * s)
            mean = (black * (x_t[b, d] + a) / s + moment(1)) / (black + moment(0))
            assert eps_hat[b, d] == pytest.approx(mean, rel=1e-7, abs=1e-8)


def test_the_prediction_is_the_score_of_the_noisy_pixels():
    """Tweedie: ε̂ = −s d log p(x_t)/dx_t, of p(x_t) = w_0 N(−a, s²) + Σ w_k N(a m_k, a² q_k + s²), by the complex step."""
    x_t, output, gamma = case(1.0)
    eps_hat, _ = pixel_mixture.pixel_mixture_forward(x_t, output, gamma)
    for b in range(3):
        a2, s2 = 1 / (1 + math.exp(gamma[b])), 1 / (1 + math.exp(-gamma[b]))
        for d in range(2):
            w, m, q = prior_of(output[b], d, 2)
            x, mean, variance = x_t[b, d] + 1e-20j, math.sqrt(a2) * np.array([-1, *m]), a2 * np.array([0, *q]) + s2
            log_p = np.log((w / np.sqrt(variance) * np.exp(-0.5 * (x - mean) ** 2 / variance)).sum())
            assert eps_hat[b, d] == pytest.approx(-math.sqrt(s2) * log_p.imag / 1e-20, rel=1e-12)


@pytest.mark.parametrize("table", [pixel_mixture, kernels])
@pytest.mark.parametrize("gamma", [-14.0, -10.0, -3.0, 6.0])
def test_float32_keeps_the_digits_that_x_t_has(gamma, table):
    """Of x_t, near 1, float32 keeps 6e-8; divided by s it is what is lost of ε̂, and gradients lose it times dm's 1/√q."""
    x_t, output, gamma = (given.astype("float32") for given in case(gamma, 20, 10))
    dout = np.ones_like(x_t)
    eps_hat, cache = table.pixel_mixture_forward(x_t, output, gamma)
    exact, exact_cache = pixel_mixture.pixel_mixture_forward(*(given.astype("float64") for given in (x_t, output, gamma)))
    lost = 6e-7 * (1 + math.exp(-0.5 * gamma.min()))
    np.testing.assert_allclose(eps_hat, exact, rtol=0, atol=lost)
    doutput = table.pixel_mixture_backward(dout, cache)[1]
    wanted = pixel_mixture.pixel_mixture_backward(dout.astype("float64"), exact_cache)[1]
    assert eps_hat.dtype == doutput.dtype == np.float32
    np.testing.assert_allclose(doutput, wanted, rtol=0, atol=10 * lost)


@pytest.mark.parametrize("table", [pixel_mixture, kernels])
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_outputs_far_away_stay_finite(size, table):
    output = size * np.random.default_rng(0).choice([-1.0, 1.0], (40, 14)).astype("float32")
    output[:, 6:10] = np.sign(output[:, 6:10]) * min(size, 1e3)
    for gamma in (-14.0, -10.0, 0.0, 6.0):
        x_t = np.random.default_rng(1).standard_normal((40, 2), "float32")
        eps_hat, cache = table.pixel_mixture_forward(x_t, output, np.full(40, gamma, "float32"))
        for found in (eps_hat, *table.pixel_mixture_backward(np.ones_like(x_t), cache)):
            assert np.isfinite(found).all()


# ---- the compiled twin ----


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_compiled_pair_is_the_same(dtype):
    parts = zip(*(case(gamma, 5, 9, seed) for seed, gamma in enumerate((-12.0, -9.6, -2.0, 4.0))))
    x_t, output, gamma = (np.concatenate(part).astype(dtype) for part in parts)
    dout = np.random.default_rng(1).standard_normal(x_t.shape).astype(dtype)
    tolerance = {"float64": 1e-12, "float32": 1e-4}[dtype]  # in float32 what x_t/s has lost differs by as much
    found = [(eps_hat, *table.pixel_mixture_backward(dout, cache)) for table in (kernels, pixel_mixture)
             for eps_hat, cache in [table.pixel_mixture_forward(x_t, output, gamma)]]  # fmt: skip
    for ours, theirs in zip(*found):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_complex_arguments_take_the_op():
    inputs = case(-2.0)
    moved = inputs[0], inputs[1] + 1e-20j, inputs[2]
    for ours, theirs in zip(*(table.pixel_mixture_forward(*moved)[:1] for table in (kernels, pixel_mixture))):
        np.testing.assert_array_equal(ours, theirs)


def test_the_pair_is_pure_and_linear():
    inputs = case(-2.0)
    douts = (np.random.default_rng(1).standard_normal(inputs[0].shape),)
    naive.assert_pure_and_linear(pixel_mixture.pixel_mixture_forward, inputs, pixel_mixture.pixel_mixture_backward, douts)


# ---- the bound ----


START = np.array([0.5, 0.0, -0.5, -0.2, -4.0, -4.5, -9.0])  # outputs for a pixel


def probabilities(output):
    """Of the 256 levels, of the prior that these outputs for one pixel say: (256,)."""
    (w_0, *w), m, q = prior_of(output, 0, 1)
    p = SPACING * sum(w_k * norm.pdf(LEVELS, m_k, math.sqrt(q_k)) for w_k, m_k, q_k in zip(w, m, q))
    p[0] += w_0
    assert p.sum() == pytest.approx(1, abs=1e-6)
    return p / p.sum()


def test_what_is_missed_at_all_levels_of_noise_adds_up_to_the_entropy():
    """∫ ½ E(ε − ε̂)² dγ = −E log p(x), of levels drawn from the prior (Guo, Shamai & Verdú 2005): on a grid of γ and one of ε,
    for all levels with their probabilities. So a pixel costs what its prior says."""
    p, eps, h = probabilities(START), np.linspace(-5.5, 5.5, 34), 0.25
    gamma = np.arange(-13.5, 9, h) + h / 2
    rows = np.tile(eps, (len(gamma), 256))
    x_t, _ = diffusion.diffuse_forward(np.repeat(LEVELS, len(eps)), rows, gamma)
    output = np.broadcast_to(np.repeat(START, rows.shape[1]), (len(gamma), 7 * rows.shape[1]))
    missed = (rows - pixel_mixture.pixel_mixture_forward(x_t, output, gamma)[0]) ** 2
    missed = missed.reshape(len(gamma), 256, len(eps)) @ (norm.pdf(eps) * (eps[1] - eps[0])) @ p  # -> (len(gamma),)
    assert 0.5 * h * missed.sum() == pytest.approx(-np.log(p) @ p, abs=4e-3)


def test_the_elbo_of_an_exact_prior_is_its_entropy():
    """The same through a model without hidden layers, whose pixels are independent, by Monte Carlo."""
    model, p = model_of_one_prior(6), probabilities(START)
    x = np.random.default_rng(0).choice(256, (3000, 6), p=p) / 255
    terms, losses = model.elbo(x, 12, 0)
    error = losses.std(ddof=1) / math.sqrt(12) / 6
    assert error < 0.02
    assert terms.loss / 6 == pytest.approx(-np.log(p[np.rint(255 * x).astype(int)]).mean(), abs=4 * error)


def model_of_one_prior(D):
    """A model of D independent pixels with the same prior."""
    ends = {"gamma_min": -13.5, "gamma_max": 9.0}
    model = Diffusion(D, 4000, **ends, predicts="mixture", likelihood="levels", hidden=(), dtype="float64")
    model.parameters["denoiser.b"] = np.repeat(START, D)
    return model


def test_a_new_model_has_the_prior_of_written_digits():
    model = Diffusion(3, predicts="mixture", likelihood="levels", backend="numpy", hidden=(4,))
    w, m, q = prior_of(model.parameters["denoiser.b"].astype(float), 1, 3)
    assert 0.7 < w[0] < 0.9
    np.testing.assert_allclose(m, [0, 0.98], atol=0.02)
    assert 0.3 < q[0] < 0.5
    assert math.sqrt(q[1]) < 2 * SPACING
    assert not model.parameters["denoiser.W"].any()


def test_draws_and_the_flow_of_a_prior_are_its_levels():
    """Ancestral, deterministic and along the probability flow: as many black ones as the prior says."""
    model, p = model_of_one_prior(2).copy(n_steps=150), probabilities(START)
    for method in ("ancestral", "deterministic", "flow"):
        drawn = model.sample(500, 0, method)
        black = (drawn < 0.5 / 255).mean()
        assert black == pytest.approx(p[0], abs=4 * math.sqrt(p[0] * (1 - p[0]) / 1000) + 0.02), method
    with pytest.raises(ValueError, match='needs the likelihood "gaussian"'):
        model.log_likelihood(drawn)


def test_a_prior_of_pixels_is_for_grey_levels():
    with pytest.raises(ValueError, match='predicts "mixture" is for grey levels'):
        Diffusion(2, predicts="mixture")
