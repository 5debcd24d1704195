"""The ops of variational diffusion: derivatives, and every density against one that is computed in another way."""

import math
from itertools import pairwise

import naive
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from npvae.ops import diffusion, noise_schedule

predictions = pytest.mark.parametrize("predicts", diffusion.PREDICTIONS)
LEVELS = np.arange(256) * 2 / 255 - 1


def case(B=4, D=3, seed=0):
    """x, eps, network output, upstream gradient (B, D); gamma, upstream gradient (B,)."""
    normal = np.random.default_rng(seed).standard_normal
    return (*normal((4, B, D)), 1.5 * normal(B), normal(B))


def rises(gamma):
    """Three levels above each other: (B,) each."""
    return gamma - 1.3, gamma, gamma + 0.7


def noise_of(gamma):
    return math.sqrt(1 / (1 + math.exp(-gamma)))


def signal_of(gamma):
    return math.sqrt(1 / (1 + math.exp(gamma)))


# ---- each labelled identity against numerical derivatives ----


def assert_gradient(forward, backward, inputs, dout, of):
    """The gradient, number `grad` of what backward returns, of inputs[argument], for each (argument, grad) of `of`."""
    grads = naive.as_tuple(backward(dout, forward(*inputs)[1]))
    for argument, grad in of:

        def loss(value, argument=argument):
            return (dout * forward(*(value if i == argument else inputs[i] for i in range(len(inputs))))[0]).sum()

        naive.assert_is_gradient(grads[grad], loss, inputs[argument])


def assert_diffuse(of):
    x, eps, _, dout, gamma, _ = case()
    assert_gradient(diffusion.diffuse_forward, diffusion.diffuse_backward, (x, eps, gamma), dout, of)


def test_DIFFUSE_x_is_the_derivative():
    assert_diffuse([(0, 0)])


def test_DIFFUSE_gamma_is_the_derivative():
    assert_diffuse([(2, 1)])


def assert_predict(of, predicts):
    x_t, _, output, dout, gamma, _ = case()
    assert_gradient(diffusion.predict_forward, diffusion.predict_backward, (x_t, output, gamma, predicts), dout, of)


@predictions
def test_PREDICT_x_is_the_derivative(predicts):
    assert_predict([(0, 0)], predicts)


@predictions
def test_PREDICT_output_is_the_derivative(predicts):
    assert_predict([(1, 1)], predicts)


@predictions
def test_PREDICT_gamma_is_the_derivative(predicts):
    assert_predict([(2, 2)], predicts)


def assert_denoising(of):
    eps, eps_hat, _, _, weight, dterm = case()
    assert_gradient(diffusion.denoising_forward, diffusion.denoising_backward, (eps_hat, eps, weight), dterm, of)


def test_DENOISING_eps_is_the_derivative():
    assert_denoising([(0, 0)])


def test_DENOISING_weight_is_the_derivative():
    assert_denoising([(2, 1)])


def test_WEIGHT_is_the_derivative():
    *_, gamma, dw = case()
    assert_gradient(diffusion.weight_forward, diffusion.weight_backward, rises(gamma)[:2], dw, [(0, 0), (1, 1)])


def test_PRIOR_gamma_is_the_derivative():
    x, *_, gamma, dkl = case()
    assert_gradient(diffusion.prior_kl_forward, diffusion.prior_kl_backward, (x, gamma), dkl, [(1, 0)])


def test_RECONSTRUCTION_is_the_derivative():
    x, *_, gamma, dnll = case()
    pair = diffusion.gaussian_reconstruction_forward, diffusion.gaussian_reconstruction_backward
    assert_gradient(*pair, (x, gamma), dnll, [(1, 0)])


@pytest.mark.parametrize("shift", [-9, -6, 0])
def test_LEVELS_is_the_derivative(shift):
    """At noise of less than a level's spacing, of some levels, and of the whole range."""
    _, eps, *_, gamma, dnll = case()
    x = np.random.default_rng(1).choice(LEVELS, eps.shape)
    pair = diffusion.levels_nll_forward, diffusion.levels_nll_backward
    assert_gradient(*pair, (x, eps, 0.5 * gamma + shift), dnll, [(2, 0)])


def test_CONSISTENCY_is_the_derivative():
    x_s, x_u, eps_hat, _, gamma, dkl = case()
    pair = diffusion.consistency_forward, diffusion.consistency_backward
    assert_gradient(*pair, (eps_hat, x_s, x_u, *rises(gamma)), dkl, [(0, 0)])


@pytest.mark.parametrize("continuous", [False, True])
def test_SCHEDULE_is_the_derivative(continuous):
    u, below = np.array([0.0, 0.2, 0.9, 1.0]), None if continuous else np.array([0.0, 0.1, 0.7, 0.8])
    ends, douts = np.array([-3.0, 2.0]), np.random.default_rng(1).standard_normal((5, 4))
    levels, cache = noise_schedule.schedule_forward(ends, u, below, "learned")
    assert [level is None for level in levels] == [False, continuous, not continuous, False, False]
    arriving = [None if level is None else dout for level, dout in zip(levels, douts)]
    dends = noise_schedule.schedule_backward(*arriving, cache)

    def loss(ends):
        levels = noise_schedule.schedule_forward(ends, u, below, "learned")[0]
        return sum((dout * level).sum() for level, dout in zip(levels, douts) if level is not None)

    naive.assert_is_gradient(dends, loss, ends)


def assert_input(forward, backward, time, number, width):
    """The gradient with respect to x_t of what the network reads."""
    x_t, dread = case()[0], np.random.default_rng(1).standard_normal((4, width))
    dx_t = backward(dread, forward(x_t, time, number)[1])
    naive.assert_is_gradient(dx_t, lambda x_t: (dread * forward(x_t, time, number)[0]).sum(), x_t)


def test_FOURIER_is_the_derivative():
    pair = noise_schedule.fourier_input_forward, noise_schedule.fourier_input_backward
    assert_input(*pair, np.array([0.1, 0.4, 0.5, 1.0]), 2, 8)


def test_BLOCKS_is_the_derivative():
    pair = noise_schedule.blocks_input_forward, noise_schedule.blocks_input_backward
    assert_input(*pair, np.array([2, 0, 1, 1]), 3, 12)


# ---- the encoder ----


def test_levels_of_noise_are_the_products_of_the_steps():
    """ᾱ_t = Π α_i, and each q(x_t|x_0) is the last step after the one before: means, variances, from the data (γ = −∞) on."""
    gammas = np.array([-np.inf, -7.0, -2.0, 0.5, 6.0])
    mean, variance = 1.0, 0.0
    for below, above in pairwise(gammas):
        ratio, added = (value.item() for value in diffusion.transition(np.array([below]), np.array([above])))
        assert ratio**2 + added == pytest.approx(1, rel=1e-14)
        mean, variance = ratio * mean, ratio**2 * variance + added
        a, s = (value.item() for value in diffusion.signal_and_noise(np.array([above])))
        assert (mean, variance) == pytest.approx((a, s**2), rel=1e-13)
        assert -math.log(a**2 / s**2) == pytest.approx(above, rel=1e-14)


def test_a_step_between_near_levels_keeps_its_digits():
    gamma = np.array([-13.3])
    _, variance = diffusion.transition(gamma, gamma + 1e-6)
    assert variance.item() == pytest.approx(1e-6 / (1 + math.exp(13.3)), rel=2e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_rise_from_end_to_end_and_the_slope_is_the_derivative(schedule):
    u = np.linspace(0, 1, 11)
    gamma, slope = noise_schedule.level(u, (-10.0, 5.0), schedule)
    assert gamma[[0, -1]] == pytest.approx([-10, 5], rel=1e-12)
    assert (np.diff(gamma) > 0).all()
    stepped, _ = noise_schedule.level(u + 1e-20j, (-10.0, 5.0), schedule)
    np.testing.assert_allclose(stepped.imag / 1e-20, slope, rtol=1e-12)
    if schedule == "cosine":
        phi = np.arccos([signal_of(g) for g in gamma])
        np.testing.assert_allclose(np.diff(phi, 2), 0, atol=1e-13)


def test_a_network_is_told_the_time():
    x_t = case()[0]
    read = noise_schedule.fourier_input_forward(x_t, np.array([0.0, 0.25, 0.5, 1.0]), 2)[0]
    np.testing.assert_array_equal(read[:, :3], x_t)
    np.testing.assert_allclose(read[1, 3:], [-0.5, math.sqrt(0.5), 1, math.sqrt(0.5), 0], atol=1e-15)
    assert noise_schedule.fourier_input_forward(x_t.astype("float32"), np.zeros(4), 2)[0].dtype == np.float32
    blocks = noise_schedule.blocks_input_forward(x_t, np.array([1, 0, 1, 0]), 2)[0]
    np.testing.assert_array_equal(blocks[0], [0, 0, 0, 0, *x_t[0], 1])
    np.testing.assert_array_equal(blocks[1], [*x_t[1], 1, 0, 0, 0, 0])


# ---- predictions ----


@predictions
@pytest.mark.parametrize("want", diffusion.PREDICTIONS)
def test_predictions_convert_into_each_other_and_back(predicts, want):
    """Each means the same x_t = a x̂_0 + s ε̂, and the score is that of N(x_t; a x̂_0, s²) at x_t."""
    x, eps, _, _, gamma, _ = case()
    x_t, _ = diffusion.diffuse_forward(x, eps, gamma)
    s = np.array([[noise_of(g)] for g in gamma])
    exact = {"noise": eps, "data": x, "score": -(x_t - np.array([[signal_of(g)] for g in gamma]) * x) / s**2}
    found = diffusion.convert(exact[predicts], x_t, gamma, predicts, want)
    np.testing.assert_allclose(found, exact[want], rtol=1e-12, atol=1e-13)


@predictions
def test_an_output_is_what_is_added_to_the_prediction_for_standard_normal_data(predicts):
    """For data of N(0, I): E[ε|x_t] = s x_t, E[x_0|x_t] = a x_t, score −x_t."""
    x_t, _, output, _, gamma, _ = case()
    eps_hat, _ = diffusion.predict_forward(x_t, output, gamma, predicts)
    s, a = (np.array([[f(g)] for g in gamma]) for f in (noise_of, signal_of))
    known = {"noise": s * x_t, "data": a * x_t, "score": -x_t}[predicts]
    said = diffusion.convert(eps_hat, x_t, gamma, "noise", predicts)
    np.testing.assert_allclose(said, known + output, rtol=1e-12, atol=1e-13)


# ---- divergences and densities ----


def kl_of_normals(mean_q, variance_q, mean_p, variance_p):
    """Over the columns: Σ_d ½ [v_q/v_p − 1 − log v_q/v_p + (m_q − m_p)²/v_p]."""
    return 0.5 * sum(variance_q / variance_p - 1 - math.log(variance_q / variance_p) + (q - p) ** 2 / variance_p
                     for q, p in zip(mean_q, mean_p))  # fmt: skip


def posterior(x_0, x_t, gamma_s, gamma_t):
    """q(x_s|x_t, x_0) by Bayes' rule: the product of q(x_s|x_0) and q(x_t|x_s), both Gaussian in x_s; precisions add up."""
    ratio = signal_of(gamma_t) / signal_of(gamma_s)
    precision_0, precision_t = 1 / noise_of(gamma_s) ** 2, ratio**2 / (1 - ratio**2)
    variance = 1 / (precision_0 + precision_t)
    mean = [variance * (precision_0 * signal_of(gamma_s) * x + precision_t * y / ratio) for x, y in zip(x_0, x_t)]
    return mean, variance


def test_the_step_back_is_bayes_rule():
    x, eps, _, _, gamma, _ = case()
    low, _, high = rises(gamma)
    x_t, _ = diffusion.diffuse_forward(x, eps, high)
    mean, variance, _ = diffusion.backward_step(x_t, eps, low, high)
    for b in range(len(x)):
        wanted, wanted_variance = posterior(x[b], x_t[b], low[b], high[b])
        np.testing.assert_allclose(mean[b], wanted, rtol=1e-12, atol=1e-14)
        assert variance[b, 0] == pytest.approx(wanted_variance, rel=1e-12)


def test_a_denoising_term_is_the_divergence_of_two_steps_back():
    x, eps, eps_hat, _, gamma, _ = case()
    low, _, high = rises(gamma)
    x_t, _ = diffusion.diffuse_forward(x, eps, high)
    predicted = diffusion.convert(eps_hat, x_t, high, "noise", "data")
    term, _ = diffusion.denoising_forward(eps_hat, eps, diffusion.weight_forward(low, high)[0])
    for b in range(len(x)):
        q, p = (posterior(x_0[b], x_t[b], low[b], high[b]) for x_0 in (x, predicted))
        assert term[b] == pytest.approx(kl_of_normals(*q, *p), rel=1e-11)


def log_normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


@pytest.mark.parametrize("from_data", [False, True])
def test_a_consistency_term_is_a_mean_over_the_latent_between(from_data):
    """Of one column, by Gauss–Hermite nodes of x_t: its density is q(x_t|x_s) q(x_u|x_t) up to a constant, a product of two
    Gaussians of x_t, and log q(x_t|x_s) − log p(x_t|x_u) is integrated, with the mean of the first over q(x_t|x_s) itself."""
    x_s, x_u, eps_hat, _, gamma, _ = case(4, 1)
    s, t, u = rises(gamma)
    s = np.full(4, -np.inf) if from_data else s
    term, _ = diffusion.consistency_forward(eps_hat, x_s, x_u, s, t, u)
    predicted = diffusion.convert(eps_hat, x_u, u, "noise", "data")
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # exact for the square
    weights = weights / weights.sum()
    for b in range(4):
        to_t = signal_of(t[b]) / (1 if from_data else signal_of(s[b]))
        to_u = signal_of(u[b]) / signal_of(t[b])
        first, second = 1 / (1 - to_t**2), to_u**2 / (1 - to_u**2)  # precisions of x_t from either neighbour
        mean = (first * to_t * x_s[b, 0] + second * x_u[b, 0] / to_u) / (first + second)
        (m,), v = posterior(predicted[b], x_u[b], t[b], u[b])
        x_t = mean + nodes / math.sqrt(first + second)
        wanted = -0.5 * (1 + math.log(2 * math.pi / first)) - log_normal(x_t, m, v) @ weights
        assert term[b] == pytest.approx(wanted, rel=1e-11)


def test_prior_terms_are_the_divergences_from_the_standard_normal():
    x, *_, gamma, _ = case()
    low, _, high = rises(gamma)
    kl, last = diffusion.prior_kl_forward(x, gamma)[0], diffusion.last_step_kl(x, low, high)
    for b in range(len(x)):
        a, s = signal_of(gamma[b]), noise_of(gamma[b])
        assert kl[b] == pytest.approx(kl_of_normals(a * x[b], s**2, 0 * x[b], 1), rel=1e-12)
        ratio = signal_of(high[b]) / signal_of(low[b])
        assert last[b] == pytest.approx(kl_of_normals(ratio * x[b], 1 - ratio**2, 0 * x[b], 1), rel=1e-12)


def test_gaussian_reconstruction_is_the_mean_of_the_density():
    """E over q(x_1|x) of −log N(x; x_1/a, (s/a)² I), by Gauss–Hermite nodes, which are exact for a square."""
    x, gamma = case(1, 2)[0], np.array([-1.0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    a, s = signal_of(-1), noise_of(-1)
    nll = [-norm(a * value / a + s * nodes / a, s / a).logpdf(value) @ weights / weights.sum() for value in x[0]]
    assert diffusion.gaussian_reconstruction_forward(x, gamma)[0].item() == pytest.approx(sum(nll), rel=1e-13)


@pytest.mark.parametrize("gamma", [-13.0, -9.0, -4.0, 2.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_grey_levels_have_probabilities_that_add_up_to_one(gamma, dtype):
    """For one x_1, all 256 levels: each is q(x_1|v_k) over the sum of all, although only levels nearby are added."""
    x_1 = signal_of(gamma) * LEVELS[100] + noise_of(gamma) * 0.7
    eps = ((x_1 - signal_of(gamma) * LEVELS) / noise_of(gamma)).astype(dtype)[:, None]  # of each level as x, the same x_1
    near = np.abs(eps[:, 0]) < 6  # a level so unlikely that its own summand is lost has no finite −log p
    nll = diffusion.levels_nll_forward(LEVELS.astype(dtype)[near][:, None], eps[near], np.full(near.sum(), gamma, dtype))[0]
    log_q = multivariate_normal.logpdf((x_1 - signal_of(gamma) * LEVELS) / noise_of(gamma))
    log_p = log_q - np.log(np.exp(log_q - log_q.max()).sum()) - log_q.max()
    tolerance = 1e-11 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(-nll, log_p[near], rtol=tolerance, atol=tolerance)
    assert np.exp(-nll).sum() == pytest.approx(1, abs=1e-6 if dtype == "float64" else 1e-3)


# ---- back without noise ----


def test_the_deterministic_step_keeps_data_and_noise():
    x, eps, _, _, gamma, _ = case()
    low, _, high = rises(gamma)
    x_s = diffusion.deterministic_step(diffusion.diffuse_forward(x, eps, high)[0], eps, low, high)
    np.testing.assert_allclose(x_s, diffusion.diffuse_forward(x, eps, low)[0], rtol=1e-12, atol=1e-14)


@predictions
def test_the_flow_goes_along_the_deterministic_steps(predicts):
    """dx/dγ is the derivative of x_s of a short deterministic step, by the complex step."""
    x_t, _, output, _, gamma, _ = case()
    eps_hat, _ = diffusion.predict_forward(x_t, output, gamma, predicts)
    stepped = diffusion.deterministic_step(x_t, eps_hat, gamma + 1e-20j, gamma).imag / 1e-20
    rate, factor = diffusion.flow_velocity(output, gamma, predicts)
    np.testing.assert_allclose(rate, stepped, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(rate, factor * output, rtol=1e-15)


# ---- the contract of a pair ----


def test_pairs_are_pure_and_linear():
    x, eps, output, dout, gamma, dterm = case()
    low, middle, high = rises(gamma)
    grey = np.random.default_rng(1).choice(LEVELS, eps.shape)
    for name, inputs, upstream in [
        ("diffuse", (x, eps, gamma), dout), ("predict", (x, output, gamma, "data"), dout),
        ("denoising", (eps, output, gamma), dterm), ("weight", (low, high), dterm), ("prior_kl", (x, gamma), dterm),
        ("gaussian_reconstruction", (x, gamma), dterm), ("levels_nll", (grey, eps, gamma - 6), dterm),
        ("consistency", (x, eps, output, low, middle, high), dterm),
    ]:  # fmt: skip
        forward, backward = (getattr(diffusion, f"{name}_{way}") for way in ("forward", "backward"))
        naive.assert_pure_and_linear(forward, inputs, backward, (upstream,))
