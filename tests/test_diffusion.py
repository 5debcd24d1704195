"""Variational diffusion: gradients, both decompositions of the ELBO, a closed form on Gaussian data, the limit T → ∞, sampling.

Data of N(0, diag(λ)) with the best denoiser, ε̂ = s x/(λ a² + s²) in each column, have E‖ε − ε̂‖² = Σ_d λ a²/(λ a² + s²), so that
every term of the ELBO is known in closed form, and for T → ∞ so is the integral over γ.
"""

import math

import naive
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.stats import kstest, multivariate_normal

import npvae
from npvae.models import Diffusion, diffusion, reverse_process
from npvae.models.protocol import Measure

VARIANCES = np.array([0.3, 1.8])
EXAMPLES = list(Diffusion.examples("numpy"))
BY_AUTODIFF = EXAMPLES[:4]


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


def noise_for(model, x, seed=0, **settings):
    return model.draw(np.random.default_rng(seed), x, **settings)


def network(predicts="noise", T=6, D=2, schedule="linear", ends=(-2.0, 1.5), time="fourier", hidden=(6,), **options):
    """A small model with generic parameters."""
    model = Diffusion(D, T, schedule, *ends, predicts, time, 2, hidden, "tanh", backend="numpy", dtype="float64", **options)
    model.theta += 0.3 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


# ---- gradients ----


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_gradient_by_the_complex_step(example):
    model, (x,), settings = example.model, example.batch, example.settings
    noise, twin = noise_for(model, x, **settings), model.copy(dtype="complex128")
    gradient = np.empty(model.theta.size)
    for k in range(gradient.size):
        twin.theta[k] += 1e-20j
        gradient[k] = twin.forward(x, noise, **settings)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    naive.assert_close(flat(model.backward(model.forward(x, noise, **settings)[1])), gradient, tolerance=1e-12)


def test_learned_ends_do_not_go_with_consistency_terms():
    model = network(schedule="learned")
    x = np.zeros((2, 2))
    with pytest.raises(ValueError, match='"consistency" takes a schedule whose ends are not learned'):
        model.forward(x, noise_for(model, x), objective="consistency")


def test_continuous_time_does_not_go_with_weights_for_each_step():
    model = network(time="steps")
    x = np.zeros((2, 2))
    with pytest.raises(ValueError, match='"continuous" needs a network for all times'):
        model.forward(x, noise_for(model, x), objective="continuous")


# ---- both decompositions ----


@pytest.mark.parametrize("likelihood", ["gaussian", "levels"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_both_decompositions_have_the_same_mean(schedule, likelihood):
    """Of one datum, by Gauss–Hermite nodes of a single column: no Monte Carlo error. A linear denoiser makes all integrands
    polynomials of degree two in the noise, for which three nodes are exact. With the KL of q(x_t|x_t-1) and p(x_t|x_t+1), as
    the lectures write it, this fails: see `ops.diffusion.consistency_forward`."""
    model = network(T=4, D=1, schedule=schedule, hidden=(), likelihood=likelihood)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    eps = np.array(np.meshgrid(nodes, nodes)).reshape(2, -1, 1)  # (2, 9, 1)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    x, n = np.full((9, 1), 0.6), model.n_steps - 1
    means = {}
    for objective in ("matching", "consistency"):
        losses = [row_losses(model, x, np.full(9, (i + 0.5) / n), eps, objective) for i in range(n)]
        means[objective] = np.mean(losses, axis=0) @ weights
    assert means["matching"] == pytest.approx(means["consistency"], rel=1e-12)


def row_losses(model, x, t, eps, objective):
    """The loss of each row alone, (B,), without what both objectives share, the reconstruction."""
    found = [model.forward(x[b : b + 1], (t[b : b + 1], eps[:, b : b + 1]), objective)[0] for b in range(len(x))]
    return np.array([terms.prior + terms.steps for terms in found])


def test_consistency_terms_spread_more_and_the_more_so_the_finer_the_steps():
    """The lecture's closing argument: one draw of the loss of a datum, in either decomposition."""
    ratios = []
    for T in (8, 32, 128):
        model = network(T=T, ends=(-4.0, 4.0))
        model.theta *= 0.1
        x = np.tile([[0.5, -0.8]], (1000, 1))
        spreads = []
        for objective in ("matching", "consistency"):
            t, eps = noise_for(model, x, times="independent")
            spreads.append(row_losses(model, x, t, eps, objective).std())
        ratios.append(spreads[1] / spreads[0])
    assert ratios[1] > 1.5 * ratios[0]
    assert ratios[2] > 2 * ratios[1] > 3


# ---- Gaussian data ----


def gaussian_bound(model, variances=VARIANCES):
    """E[−ELBO] of the best denoiser on data of N(0, diag(λ)), in closed form, of the model's T and schedule."""
    T = model.n_steps
    gamma = model.levels(np.arange(T) / (T - 1))[0]
    a2, s2 = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
    D = len(variances)
    reconstruction = D / 2 * (1 + math.log(2 * math.pi) + gamma[0])
    prior = 0.5 * (a2[-1] * (variances - 1) - math.log(s2[-1])).sum()
    missed = (variances * a2[:, None] / (variances * a2[:, None] + s2[:, None])).sum(axis=1)  # E‖ε − ε̂‖² at each step
    return reconstruction + prior + 0.5 * (np.expm1(np.diff(gamma)) * missed[1:]).sum()


def exact_entropy(variances=VARIANCES):
    return 0.5 * np.log(2 * math.pi * math.e * variances).sum()


def set_best_denoiser(model, variances=VARIANCES):
    """The weights of a model with time "steps", no hidden layers and predicts "noise"."""
    n, D = model.n_steps - 1, len(variances)
    gamma = model.levels(np.arange(1, n + 1) / n)[0]
    a2, s2 = (1 / (1 + np.exp(sign * gamma))[:, None] for sign in (1, -1))
    W = np.zeros((n, D + 1, D))
    W[:, range(D), range(D)] = np.sqrt(s2) / (variances * a2 + s2) - np.sqrt(s2)  # beside s x, which is added
    model.parameters["denoiser.W"], model.parameters["denoiser.b"] = W.reshape(-1, D), 0


def expected_loss(model, x_cov):
    """E[−ELBO] of any linear denoiser of time "steps" on data of N(0, x_cov), in closed form: ε − ε̂ is linear in x and ε."""
    n, D = model.n_steps - 1, model.n_features
    gamma = model.levels(np.arange(n + 1) / n)[0]
    total = D / 2 * (1 + math.log(2 * math.pi) + gamma[0])
    a2 = 1 / (1 + np.exp(gamma[-1]))
    total += 0.5 * (a2 * (np.trace(x_cov) - D) - D * math.log(1 - a2))
    W = model.parameters["denoiser.W"].astype(float).reshape(n, D + 1, D)
    for i in range(n):
        a, s = math.sqrt(1 / (1 + math.exp(gamma[i + 1]))), math.sqrt(1 / (1 + math.exp(-gamma[i + 1])))
        M, b = s * np.eye(D) + W[i, :D].T, W[i, D] + model.parameters["denoiser.b"].astype(float)
        of_eps, of_x = np.eye(D) - s * M, a * M
        missed = (of_eps**2).sum() + np.trace(of_x @ x_cov @ of_x.T) + b @ b
        total += 0.5 * math.expm1(gamma[i + 1] - gamma[i]) * missed
    return total


def test_the_elbo_of_the_best_linear_denoiser_is_the_closed_form():
    """By Monte Carlo through the model, with the spread of its estimate."""
    model = network(T=8, ends=(-5.0, 4.0), time="steps", hidden=())
    set_best_denoiser(model)
    assert expected_loss(model, np.diag(VARIANCES)) == pytest.approx(gaussian_bound(model), rel=1e-12)
    x = np.sqrt(VARIANCES) * np.random.default_rng(0).standard_normal((40_000, 2))
    x *= np.sqrt(VARIANCES / (x * x).mean(axis=0))  # so that the choice of the rows plays no part
    terms, losses = model.elbo(x, 10, 0)
    error = losses.std(ddof=1) / math.sqrt(10)
    assert error < 0.01
    assert terms.loss == pytest.approx(gaussian_bound(model), abs=5 * error)


@pytest.mark.parametrize("predicts", ["noise", "data", "score"])
def test_training_reaches_the_closed_form(predicts):
    model = Diffusion(2, 6, "linear", -2.0, 3.0, predicts, "steps", hidden=(), backend="numpy")
    x = np.sqrt(VARIANCES) * np.random.default_rng(0).standard_normal((20_000, 2))
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / len(x))).T * np.sqrt(VARIANCES)  # covariance diag(λ) to the last digit
    steps = 40 * 40
    npvae.fit(model, x.astype("float32"), epochs=40, batch_size=500, optimizer=npvae.Adam(npvae.schedules.Cosine(2e-2, steps)),
              workers=1, progress=False)  # fmt: skip
    if predicts != "noise":  # the same denoiser in terms of the noise
        gamma = model.levels(np.arange(1, 6) / 5)[0]
        k = -np.exp(-gamma / 2) if predicts == "data" else -np.sqrt(1 / (1 + np.exp(-gamma)))
        W, b = model.parameters["denoiser.W"].reshape(5, 3, 2).copy(), model.parameters["denoiser.b"].copy()
        W[:, 2] += b
        model.parameters["denoiser.W"], model.parameters["denoiser.b"] = (k[:, None, None] * W).reshape(-1, 2), 0
    best = gaussian_bound(model)
    assert best - 1e-6 <= expected_loss(model, np.diag(VARIANCES)) <= best + 1e-3


def test_the_bound_tends_to_the_entropy_with_T():
    """What is missing falls as 1/T: the steps are rectangles under the integral of continuous time. At T → ∞ only what lies
    beyond the two ends of the schedule is missing."""
    model = network(ends=(-14.0, 9.0))
    gaps = [gaussian_bound(model.copy(n_steps=T)) - exact_entropy() for T in (501, 1001, 2001)]
    assert min(gaps) > 0
    orders = np.log2(np.array(gaps)[:-1] / gaps[1:])
    np.testing.assert_allclose(orders, 1, atol=0.02)
    assert gaussian_bound(model.copy(n_steps=400_001)) == pytest.approx(exact_entropy(), abs=5e-4)


def test_the_continuous_loss_is_the_limit_of_the_discrete_one_in_first_order():
    """Of a generic network, at the same noise: the mean over a fine grid of times, whose own error is far smaller."""
    model = network(ends=(-4.0, 3.0))
    x, eps = np.array([[0.5, -0.8]]), np.random.default_rng(0).standard_normal((2, 1, 2))

    def steps(T):
        """All T − 1 steps with the same ε; the integral itself (T = None) at 4096 midpoints."""
        n = 4096 if T is None else T - 1
        t, rows = (np.arange(n) + 0.5) / n, np.tile(x, (n, 1))
        objective = "continuous" if T is None else "matching"
        return model.copy(n_steps=n + 1).forward(rows, (t, np.tile(eps, (1, n, 1))), objective)[0].steps

    limit = steps(None)
    gaps = np.array([steps(T) - limit for T in (33, 65, 129, 257)])
    np.testing.assert_allclose(np.log2(gaps[:-1] / gaps[1:]), 1, atol=0.1)


def test_the_loss_in_continuous_time_depends_on_the_schedule_through_its_ends_alone():
    """Kingma et al. 2021, section 5.1: the same integral over γ. The network knows nothing of the time."""
    losses = []
    for schedule in ("linear", "cosine"):
        model = Diffusion(2, 2, schedule, -6.0, 4.0, "noise", "fourier", 0, (), backend="numpy", dtype="float64")
        model.parameters["denoiser.W"][:2] = 0.3 * np.eye(2)
        model.parameters["denoiser.W"][2] = 0
        t = (np.arange(20_000) + 0.5) / 20_000
        x, eps = np.tile([[0.5, -0.8]], (len(t), 1)), np.tile([[[0.3, 1.2]]], (2, len(t), 1))
        losses.append(model.forward(x, (t, eps), "continuous")[0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)


# ---- sampling, and the probability flow ----


@pytest.mark.parametrize("method", ["ancestral", "deterministic", "flow"])
def test_a_new_model_draws_standard_normal_data(method):
    model = Diffusion(2, 300, backend="numpy", hidden=(4,), gamma_max=9.0)
    drawn = model.sample(1000, 0, method)
    assert drawn.shape == (1000, 2)
    assert drawn.dtype == np.float32
    assert min(kstest(column, "norm").pvalue for column in drawn.T) > 1e-3
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.13


def gaussian_model(T=40, **options):
    """The best denoiser of data of N(0, diag(λ)) at every one of T steps."""
    model = Diffusion(2, T, "linear", -9.0, 9.0, "noise", "steps", hidden=(), backend="numpy", dtype="float64", **options)
    if T <= 40:
        set_best_denoiser(model)
    return model


def variance_of_draws(model, method):
    """Of each column, step by step by hand: each is multiplied by a number, and noise is added to it. The best denoiser says
    E[x_0|x_t] = x_t λ a_t/(λ a_t² + s_t²) and E[ε|x_t] = x_t s_t/(λ a_t² + s_t²)."""
    gamma = model.levels(np.linspace(0, 1, model.n_steps))[0]
    a, s = np.sqrt(1 / (1 + np.exp(gamma))), np.sqrt(1 / (1 + np.exp(-gamma)))
    variance = np.ones(2)
    for t in range(model.n_steps - 1, 0, -1):
        data, noise = VARIANCES * a[t], s[t]
        data, noise = (part / (VARIANCES * a[t] ** 2 + s[t] ** 2) for part in (data, noise))
        added = 1 - a[t] ** 2 / a[t - 1] ** 2
        if method == "ancestral":
            factor = (a[t] / a[t - 1] * s[t - 1] ** 2 + a[t - 1] * added * data) / s[t] ** 2
            variance = factor**2 * variance + added * s[t - 1] ** 2 / s[t] ** 2
        else:
            variance = (a[t - 1] * data + s[t - 1] * noise) ** 2 * variance
    return variance / a[0] ** 2


@pytest.mark.parametrize("method", ["ancestral", "deterministic"])
def test_draws_have_the_covariance_of_the_chain_which_tends_to_that_of_the_data(method):
    drawn = gaussian_model(20).sample(10_000, 0, method)
    wanted = variance_of_draws(gaussian_model(20), method)
    np.testing.assert_allclose(drawn.var(axis=0), wanted, rtol=5 * math.sqrt(2 / 10_000))
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.05
    missing = [np.abs(variance_of_draws(gaussian_model(T), method) - VARIANCES).max() for T in (20, 200, 2000)]
    assert missing[0] > 4 * missing[1] > 16 * missing[2]


def test_ancestral_draws_differ_and_deterministic_ones_follow_their_start():
    model = gaussian_model(20)
    first, again, other = (model.chain(5, seed, "deterministic") for seed in (0, 0, 1))
    assert first.shape == (21, 5, 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    ancestral = model.chain(5, 0)
    np.testing.assert_array_equal(ancestral[0], first[0])
    for states in (first, ancestral):  # the data, at the end, in their own units
        np.testing.assert_allclose(states[-1], states[-2] * math.sqrt(1 + math.exp(-9)), rtol=1e-12)
    assert not np.array_equal(ancestral[1], first[1])


def linear_flow(scale=0.4):
    """A network without hidden layers that does not look at the time: its flow is linear, a matrix exponential its map."""
    model = Diffusion(2, 2, "linear", -8.0, 5.0, "noise", "fourier", 0, (), backend="numpy", dtype="float64")
    M = scale * np.array([[0.5, 0.8], [-0.3, -0.2]])
    model.parameters["denoiser.W"][:2], model.parameters["denoiser.W"][2] = M, 0
    integral = quad(lambda gamma: 0.5 / math.sqrt(1 + math.exp(-gamma)), -8, 5, epsabs=1e-13)[0]  # ∫ ½ s dγ
    return model, expm(integral * M.T)


def test_the_density_of_a_linear_flow_is_that_of_its_gaussian():
    """x(1) = E x(0) and x(0) = a x, so that x is Gaussian with covariance (a² EᵀE)⁻¹."""
    model, E = linear_flow()
    x = np.random.default_rng(0).standard_normal((5, 2))
    a2 = 1 / (1 + math.exp(-8))
    np.testing.assert_allclose(model.to_noise(x), math.sqrt(a2) * x @ E.T, rtol=1e-7)
    wanted = multivariate_normal(np.zeros(2), np.linalg.inv(a2 * E.T @ E)).logpdf(x)
    np.testing.assert_allclose(model.log_likelihood(x), wanted, rtol=0, atol=1e-7)


@pytest.mark.parametrize("predicts", ["noise", "data", "score"])
def test_the_density_of_the_flow_is_the_change_of_variables(predicts):
    """log |det| by the complex step through the whole integration, and the way back undoes it."""
    model = network(predicts, ends=(-4.0, 3.0))
    x, n_steps = np.array([[0.5, -0.8]]), 40
    twin, columns = model.copy(dtype="complex128"), []
    a = 1 / math.sqrt(1 + math.exp(-4))
    for d in range(2):
        stepped = a * x + 0j
        stepped[0, d] += 1e-20j
        columns.append(reverse_process.integrate_flow(twin, stepped, 0.0, 1.0, n_steps, False)[0].imag[0] / 1e-20)
    sign, log_det = np.linalg.slogdet(np.array(columns))
    z = model.to_noise(x, n_steps)
    wanted = multivariate_normal(np.zeros(2)).logpdf(z[0]) + log_det + 2 * math.log(a)
    assert sign == 1
    assert model.log_likelihood(x, 200)[0] == pytest.approx(wanted, abs=2e-5)
    np.testing.assert_allclose(model.from_noise(model.to_noise(x, 200), 200), x, atol=1e-6)


def test_the_density_of_the_flow_has_the_integral_one():
    model = network(ends=(-5.0, 4.0))
    line = np.linspace(-9, 9, 73)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert np.exp(model.log_likelihood(grid, 20)).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=2e-3)


def test_what_has_no_flow_is_refused():
    x = np.zeros((2, 2))
    with pytest.raises(ValueError, match='needs the likelihood "gaussian"'):
        network(likelihood="levels").log_likelihood(x)
    with pytest.raises(ValueError, match='time "fourier"'):
        gaussian_model(5).log_likelihood(x)


# ---- noise, levels, measures ----


def test_spread_times_are_uniform_and_evenly_spread():
    model, x = network(), np.zeros((50, 2))
    t, eps = noise_for(model, x)
    assert eps.shape == (2, 50, 2)
    np.testing.assert_allclose(np.diff(np.sort(t)), 1 / 50, rtol=1e-9)
    starts = [noise_for(model, x[:1], seed)[0][0] for seed in range(300)]
    assert kstest(starts, "uniform").pvalue > 1e-3
    independent = np.sort(noise_for(model, x, times="independent")[0])
    assert np.diff(independent).std() > 0.01


def test_every_step_is_looked_at_alike():
    model = network(T=5)
    at = model.times_of(np.array([0.0, 0.24, 0.25, 0.6, 0.99, 1.0]), "matching")
    np.testing.assert_array_equal(at.step, [0, 0, 1, 2, 3, 3])
    np.testing.assert_allclose(at.u, [0.25, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(at.below, [0, 0, 0.25, 0.5, 0.75, 0.75])


def test_the_control_variate_has_the_mean_zero_and_takes_most_of_the_spread():
    model = Diffusion(2, 100, backend="numpy", dtype="float64")  # of N(0, I): what is left is x alone
    x = np.random.default_rng(0).standard_normal((500, 2))
    plain = [model.forward(x, noise_for(model, x, seed))[0].loss for seed in range(200)]
    known = [reverse_process.length_of_noise(model, noise_for(model, x, seed), "matching") for seed in range(200)]
    assert abs(np.mean(known)) < 4 * np.std(known) / math.sqrt(200)
    assert np.std(np.subtract(plain, known)) < 0.5 * np.std(plain)
    assert model.elbo(x, 20, 0)[0].loss == pytest.approx(np.mean(np.subtract(plain, known)), abs=0.05)


def test_grey_levels_are_put_on_the_chain_and_back():
    model = network(likelihood="levels", ends=(-12.0, 4.0))
    x = np.array([[0.0, 1.0], [0.2, 0.6]])
    np.testing.assert_allclose(model.centred(x), [[-1, 1], [-0.6, 0.2]])
    np.testing.assert_allclose(model.in_data_units(model.centred(x)), x)
    drawn = model.sample(50, 0)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    with pytest.raises(ValueError, match="x must"):
        model.forward(x + 0.001, noise_for(model, x))


def test_the_bound_of_grey_levels_is_a_bound():
    """A model that knows nothing of uniform levels, of 8 bits each, needs more bits for them, but not many more."""
    model = Diffusion(3, 300, gamma_min=-12.0, likelihood="levels", backend="numpy", dtype="float64")
    x = np.random.default_rng(0).integers(0, 256, (2000, 3)) / 255
    bits = model.elbo(x, 10, 0)[0].loss / 3 / math.log(2)
    assert 8 < bits < 9.5


def test_measures_are_the_bound_and_the_flow():
    model = network(ends=(-5.0, 4.0))
    x = np.random.default_rng(0).standard_normal((20, 2))
    found = {measure.name: measure.value for measure in model.measure(x, 10)}
    assert all(isinstance(measure, Measure) for measure in model.measure(x, 2))
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["prior"] - found["steps"])
    assert found["log_likelihood"] == pytest.approx(model.log_likelihood(x).mean())
    assert "log_likelihood" not in {measure.name for measure in network(likelihood="levels").measure(x * 0, 2)}


def test_wrong_arguments_are_refused():
    wrong = {"n_steps": 1, "gamma_max": -10.0, "predicts": "x", "schedule": "x", "time": "x", "likelihood": "x"}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            Diffusion(2, **{name: value})
    model, x = network(), np.zeros((3, 2))
    t, eps = noise_for(model, x)
    for noise in [(t[:2], eps), (t + 1, eps), (t, eps[:1]), (t, eps[:, :2])]:
        with pytest.raises(ValueError, match="noise must be"):
            model.forward(x, noise)


def test_a_copy_with_other_steps_has_the_same_network():
    model = network()
    twin = model.copy(n_steps=50)
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert diffusion.Terms._fields[0] == "loss"
