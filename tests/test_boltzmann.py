"""Restricted Boltzmann machines: free energies by enumeration, gradients, the two phases, conditionals, Gibbs sampling."""

import itertools
import math

import naive
import numpy as np
import pytest
from scipy import stats

from npvae import kernels
from npvae.ops import boltzmann
from npvae.ops.layers import sigmoid_and_complement
from npvae.ops.partition import enumerated_log_partition, states_of
from npvae.ops.uniforms import generators

KINDS = pytest.mark.parametrize("kind", ["binary", "gaussian"])
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


def machine(kind, V=4, H=3, dtype="float64", seed=0, scale=1.0):
    """visible_bias, hidden_bias, W and, of a Gaussian machine, logvar."""
    rng = np.random.default_rng(seed)
    shapes = [(V,), (H,), (V, H)] + [(V,)] * (kind == "gaussian")
    return [(scale * naive.draw(rng, shape, dtype)).astype(dtype) for shape in shapes]


def rows(kind, n, V=4, dtype="float64", seed=1):
    rng = np.random.default_rng(seed)
    return (rng.random((n, V)) < 0.5).astype(dtype) if kind == "binary" else naive.draw(rng, (n, V), dtype)


def pair(kind, table=boltzmann):
    return tuple(getattr(table, f"{kind}_free_energy_{way}") for way in ("forward", "backward"))


# ---- the energies as the lecture writes them, one number at a time ----


def twin_energy(x, h, visible_bias, hidden_bias, W, logvar=None):
    """E of one x and one h, lists of numbers."""
    precision = [1.0] * len(x) if logvar is None else [math.exp(-value) for value in logvar]
    total = -math.fsum(b * unit for b, unit in zip(hidden_bias, h))
    for i in range(len(x)):
        own = -visible_bias[i] * x[i] if logvar is None else (x[i] - visible_bias[i]) ** 2 * precision[i] / 2
        total += own - math.fsum(x[i] * W[i][j] * h[j] * precision[i] for j in range(len(h)))
    return total


def twin_free_energy(x, *parameters):
    """−log Σ_h e^−E(x, h) of one x."""
    states = itertools.product((0, 1), repeat=len(parameters[1]))
    return -math.log(math.fsum(math.exp(-twin_energy(x, h, *parameters)) for h in states))


@KINDS
def test_the_energy_is_the_lecture_s(kind):
    parameters, x, h = machine(kind), rows(kind, 5), rows("binary", 5, 3, seed=2)
    listed = [value.tolist() for value in parameters]
    expected = [twin_energy(*pair, *listed) for pair in zip(x.tolist(), h.tolist())]
    naive.assert_close(boltzmann.energy(x, h, *parameters), expected)


@dtypes
@KINDS
def test_the_free_energy_sums_over_all_hidden_states(kind, dtype):
    parameters, x = machine(kind, dtype=dtype), rows(kind, 6, dtype=dtype)
    expected = [twin_free_energy(row, *(value.tolist() for value in parameters)) for row in x.tolist()]
    naive.assert_close(pair(kind)[0](x, *parameters)[0], expected, dtype)


@KINDS
@pytest.mark.parametrize("V", [4, 7])
def test_the_pair_is_pure_and_linear(kind, V):
    forward, backward = pair(kind)
    naive.assert_pure_and_linear(forward, [rows(kind, 5, V), *machine(kind, V)], backward, [np.linspace(-1, 2, 5)])


# ---- gradients ----


def assert_gradient(kind, name):
    """The gradient of Σ_b c_b F(x_b) with respect to one of the parameters."""
    names = ["visible_bias", "hidden_bias", "W", "logvar"]
    parameters, x, c = machine(kind), rows(kind, 5), np.linspace(-1, 2, 5)
    forward, backward = pair(kind)
    place = names.index(name)

    def loss(value):
        return c @ forward(x, *parameters[:place], value, *parameters[place + 1 :])[0]

    grads = backward(c, forward(x, *parameters)[1])
    assert len(grads) == len(parameters)
    naive.assert_is_gradient(grads[place], loss, parameters[place])


def test_RBM_a_is_the_derivative():
    assert_gradient("binary", "visible_bias")


@pytest.mark.parametrize("name", ["hidden_bias", "W"])
@KINDS
def test_hidden_bias_and_weights_get_the_layer_s_gradient(kind, name):
    assert_gradient(kind, name)


def test_GRBM_a_is_the_derivative():
    assert_gradient("gaussian", "visible_bias")


def test_GRBM_logvar_is_the_derivative():
    assert_gradient("gaussian", "logvar")


def centred(kind):
    """Parameters for `centre_forward`: a', b', W, logvar or None, the two offsets."""
    parameters = machine(kind)
    logvar = parameters[3] if kind == "gaussian" else None
    rng = np.random.default_rng(5)
    return [*parameters[:3], logvar, rng.standard_normal(4), rng.random(3)]


def assert_centre_gradient(kind, place, grad_place):
    arguments = centred(kind)
    da, db = np.random.default_rng(6).standard_normal(4), np.random.default_rng(7).standard_normal(3)

    def loss(value):
        (a, b), _ = boltzmann.centre_forward(*arguments[:place], value, *arguments[place + 1 :])
        return da @ a + db @ b

    grads = boltzmann.centre_backward(da, db, boltzmann.centre_forward(*arguments)[1])
    naive.assert_is_gradient(grads[grad_place], loss, arguments[place])


@KINDS
def test_CENTRE_W_is_the_derivative(kind):
    for place in (0, 1, 2):
        assert_centre_gradient(kind, place, place)


def test_CENTRE_logvar_is_the_derivative():
    assert_centre_gradient("gaussian", 3, 3)


@KINDS
def test_the_centred_energy_is_that_of_the_machine_up_to_a_constant(kind):
    """The formula of the docstring, against E with the biases that centre_forward gives."""
    a, b, W, logvar, mu, lam = centred(kind)
    x, h = rows(kind, 30), rows("binary", 30, 3, seed=2)
    precision = np.ones(4) if logvar is None else np.exp(-logvar)
    own = -(x - mu) @ a if logvar is None else 0.5 * (x - a) ** 2 @ precision
    written = own - (h - lam) @ b - ((((x - mu) * precision) @ W) * (h - lam)).sum(axis=1)
    (visible_bias, hidden_bias), _ = boltzmann.centre_forward(a, b, W, logvar, mu, lam)
    difference = written - boltzmann.energy(x, h, visible_bias, hidden_bias, W, logvar)
    np.testing.assert_allclose(difference, difference[0], atol=1e-12)
    assert np.ptp(written) > 1


def test_positive_and_negative_phase_are_the_gradient_of_the_exact_log_likelihood():
    """−∂F(x) + Σ_x' p(x') ∂F(x') over all x', against the complex step of −F(x) − log Z, of every parameter."""
    parameters, x = machine("binary", 4, 5), rows("binary", 3)
    forward, backward = pair("binary")
    states = states_of(0, 16, 4)
    F, cache = forward(states, *parameters)
    p = np.exp(-F - enumerated_log_partition(*parameters))
    assert p.sum() == pytest.approx(1, abs=1e-13)
    positive, negative = backward(np.full(3, 1 / 3), forward(x, *parameters)[1]), backward(p, cache)
    for place in range(3):

        def log_likelihood(value, place=place):
            changed = [*parameters[:place], value, *parameters[place + 1 :]]
            return -forward(x, *changed)[0].mean() - enumerated_log_partition(*changed)

        expected = naive.complex_step_grad(log_likelihood, parameters[place])
        naive.assert_close(negative[place] - positive[place], expected, tolerance=1e-12)


def test_both_phases_of_gaussian_units_are_the_gradient_of_the_exact_log_likelihood():
    """The same with the integral over x' done in closed form: given h, x' is Gaussian, and F' is quadratic in it and h."""
    a, b, W, logvar = parameters = machine("gaussian", 2, 3, scale=0.7)
    x, h = rows("gaussian", 4, 2), states_of(0, 8, 3)
    forward, backward = pair("gaussian")
    positive = backward(np.full(4, 1 / 4), forward(x, *parameters)[1])
    var, m = np.exp(logvar), h @ W.T
    log_weight = h @ b + (0.5 * m * (m + 2 * a) / var).sum(axis=1)
    p = np.exp(log_weight) / np.exp(log_weight).sum()  # (8,) of the hidden states
    mean = a + m  # E[x'|h]
    negative = [-(p @ m) / var, -(p @ h), -np.einsum("k,ki,kj->ij", p, mean / var, h),
                p @ (-0.5 * (m * m + var) / var + mean * m / var)]  # fmt: skip
    for place in range(4):

        def log_likelihood(value, place=place):
            changed = [*parameters[:place], value, *parameters[place + 1 :]]
            return -forward(x, *changed)[0].mean() - enumerated_log_partition(*changed)

        expected = naive.complex_step_grad(log_likelihood, parameters[place])
        naive.assert_close(negative[place] - positive[place], expected, tolerance=1e-12)


# ---- conditionals and Gibbs sampling ----


def joint(parameters, V=4, H=3):
    """p(x, h) of a binary machine, (2^V, 2^H), by enumeration; and all states."""
    xs, hs = states_of(0, 2**V, V), states_of(0, 2**H, H)
    minus_energy = -np.array([[twin_energy(x, h, *parameters) for h in hs] for x in xs])
    p = np.exp(minus_energy - minus_energy.max())
    return p / p.sum(), xs, hs


def test_conditionals_are_those_of_the_joint_distribution():
    parameters = machine("binary")
    p, xs, hs = joint(parameters)
    of_h = sigmoid_and_complement(boltzmann.hidden_input(xs, *parameters[1:]))[0]
    naive.assert_close(of_h, (p @ hs) / p.sum(axis=1)[:, None])
    of_x = boltzmann.visible_mean(hs, parameters[0], parameters[2])
    naive.assert_close(of_x, (p.T @ xs) / p.sum(axis=0)[:, None])
    independent = np.prod(np.where(hs[None] == 1, of_h[:, None], 1 - of_h[:, None]), axis=2)
    naive.assert_close(independent, p / p.sum(axis=1)[:, None])


def test_given_h_gaussian_units_have_the_conditional_density():
    a, b, W, logvar = parameters = machine("gaussian")
    x, h = rows("gaussian", 40), np.tile([[1.0, 0.0, 1.0]], (40, 1))
    mean = boltzmann.visible_mean(h, a, W, logvar)
    log_p = stats.norm.logpdf(x, mean, np.exp(0.5 * logvar)).sum(axis=1)
    difference = log_p + boltzmann.energy(x, h, *parameters)
    np.testing.assert_allclose(difference, difference[0], atol=1e-12)
    of_h = sigmoid_and_complement(boltzmann.hidden_input(x, b, W, logvar))[0]
    one, other = h.copy(), h.copy()
    one[:, 1], other[:, 1] = 1, 0
    ratio = np.exp(boltzmann.energy(x, other, *parameters) - boltzmann.energy(x, one, *parameters))
    naive.assert_close(of_h[:, 1], ratio / (1 + ratio))


def transition_matrix(parameters):
    """T[x, x'] = Σ_h p(h|x) p(x'|h) of a binary machine."""
    p, *_ = joint(parameters)
    return (p / p.sum(axis=1)[:, None]) @ (p / p.sum(axis=0)).T, p.sum(axis=1)


@pytest.mark.parametrize("table", [boltzmann, kernels], ids=["numpy", "numba"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_gibbs_sampling_has_the_transition_probabilities_and_leaves_p_stationary(n_steps, table):
    parameters = machine("binary")
    T, p = transition_matrix(parameters)
    np.testing.assert_allclose(p @ T, p, atol=1e-15)
    n, start = 4000, 5
    x = np.tile(states_of(start, start + 1, 4), (n, 1))
    x = table.gibbs(x, generators(np.random.default_rng(0), n), n_steps, *parameters)
    counts = np.bincount((x @ 2 ** np.arange(4)).astype(int), minlength=16)
    expected = n * np.linalg.matrix_power(T, n_steps)[start]
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("table", [boltzmann, kernels], ids=["numpy", "numba"])
def test_gibbs_sampling_leaves_gaussian_units_stationary(table):
    """From exact draws, the moments after two steps are those of the exact mixture of Gaussians."""
    a, b, W, logvar = parameters = machine("gaussian", 2, 3, scale=0.7)
    rng, n, hs = np.random.default_rng(3), 8000, states_of(0, 8, 3)
    m, var = hs @ W.T, np.exp(logvar)
    weight = np.exp(hs @ b + (0.5 * m * (m + 2 * a) / var).sum(axis=1))
    p = weight / weight.sum()
    x = a + m[rng.choice(8, n, p=p)] + np.sqrt(var) * rng.standard_normal((n, 2))
    x = table.gibbs(x, generators(rng, n), 2, *parameters)
    mean = p @ (a + m)
    second = p @ ((a + m) ** 2 + var)
    assert (np.abs(x.mean(axis=0) - mean) < 4 * x.std(axis=0) / np.sqrt(n)).all()
    assert (np.abs((x * x).mean(axis=0) - second) < 4 * (x * x).std(axis=0) / np.sqrt(n)).all()


def test_a_step_is_a_function_of_its_noise():
    a, b, W = machine("binary")
    x, noise = rows("binary", 6), np.random.default_rng(0).random((6, 7))
    stepped, h = boltzmann.gibbs_step(x, noise[:, :3], noise[:, 3:], a, b, W)
    for r in range(6):
        for j in range(3):
            assert h[r, j] == (noise[r, j] < 1 / (1 + math.exp(-b[j] - x[r] @ W[:, j])))
        for i in range(4):
            assert stepped[r, i] == (noise[r, 3 + i] < 1 / (1 + math.exp(-a[i] - W[i] @ h[r])))
    a, b, W, logvar = machine("gaussian")
    stepped, h = boltzmann.gibbs_step(x, noise[:, :3], noise[:, 3:], a, b, W, logvar)
    naive.assert_close(stepped, a + h @ W.T + np.exp(0.5 * logvar) * noise[:, 3:])


# ---- compiled twins ----


@KINDS
@pytest.mark.parametrize(("V", "H", "C"), [(5, 4, 7), (1, 1, 1), (120, 110, 6)])
def test_compiled_gibbs_sampling_draws_the_same(kind, V, H, C):
    """With few ones, both layers of the widest machine are sums of rows; else they are products."""
    for scale, shift in ((0.3, -3.0), (0.3, 0.0)):
        parameters = machine(kind, V, H, scale=scale)
        parameters[0] += shift if kind == "binary" else 0
        parameters[1] += shift
        x, states = rows(kind, C, V), generators(np.random.default_rng(C), C)
        given, twin = x.copy(), states.copy()
        expected = boltzmann.gibbs(x, states, 3, *parameters)
        found = kernels.gibbs(x, twin, 3, *parameters)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_array_equal(twin, states)
        np.testing.assert_array_equal(x, given)
        if kind == "binary":
            assert set(np.unique(found)) <= {0.0, 1.0}


@dtypes
@KINDS
@pytest.mark.parametrize(("V", "H"), [(5, 4), (30, 110)])
def test_compiled_free_energies_and_gradients_equal_their_twins(kind, dtype, V, H):
    x, parameters = rows(kind, 6, V, dtype), machine(kind, V, H, dtype, scale=0.3)
    x *= x > 0.5  # few non-zeros
    dF = np.linspace(-1, 2, 6).astype(dtype)
    (ours, theirs), tolerance = (pair(kind, table) for table in (kernels, boltzmann)), {"float64": 1e-13, "float32": 3e-6}
    F, cache = ours[0](x, *parameters)
    F_numpy, cache_numpy = theirs[0](x, *parameters)
    naive.assert_close(F, F_numpy, dtype, tolerance[dtype])
    for grad, expected in zip(ours[1](dF, cache), theirs[1](dF, cache_numpy), strict=True):
        naive.assert_close(grad, expected, dtype, tolerance[dtype])
