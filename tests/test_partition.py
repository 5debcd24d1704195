"""log Z: the enumeration against sums and integrals that are written out, annealed importance sampling against it."""

import math

import numpy as np
import pytest
from scipy import integrate
from test_boltzmann import KINDS, machine, pair, rows, twin_energy

from npvae import kernels
from npvae.kernels import partition as compiled
from npvae.ops import boltzmann, partition
from npvae.ops.partition import states_of
from npvae.ops.uniforms import generators, normals, uniforms

TABLES = pytest.mark.parametrize("table", [partition, compiled], ids=["numpy", "numba"])


# ---- enumeration ----


@TABLES
@pytest.mark.parametrize(("V", "H"), [(4, 3), (3, 5), (1, 1), (2, 6)])
def test_the_enumeration_is_the_sum_over_both_layers(V, H, table):
    parameters = machine("binary", V, H)
    terms = [math.exp(-twin_energy(x, h, *parameters)) for x in states_of(0, 2**V, V) for h in states_of(0, 2**H, H)]
    assert table.enumerated_log_partition(*parameters) == pytest.approx(math.log(math.fsum(terms)), rel=1e-13)


@TABLES
def test_of_gaussian_units_it_is_the_integral(table):
    """V = 1 by adaptive quadrature, V = 2 by the trapezoidal rule, which is exact to rounding for such integrands."""
    parameters = machine("gaussian", 1, 3, scale=0.7)
    density = lambda x: math.exp(-pair("gaussian")[0](np.array([[x]]), *parameters)[0].item())  # noqa: E731
    integral = integrate.quad(density, -30, 30, epsabs=0, epsrel=1e-12, limit=200)[0]
    assert table.enumerated_log_partition(*parameters) == pytest.approx(math.log(integral), rel=1e-11)
    parameters = machine("gaussian", 2, 3, scale=0.7)
    line = np.linspace(-14, 14, 281)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    integral = np.exp(-pair("gaussian")[0](grid, *parameters)[0]).sum() * (line[1] - line[0]) ** 2
    assert table.enumerated_log_partition(*parameters) == pytest.approx(math.log(integral), rel=1e-12)


@TABLES
@pytest.mark.parametrize(("V", "H"), [(3, 14), (20, 13)])
def test_several_blocks_of_states_add_up(V, H, table):
    """Against the same machine with its layers exchanged, or against a sum without blocks."""
    a, b, W = machine("binary", V, H, scale=0.5)
    h = states_of(0, 2**H, H)
    log_terms = h @ b + np.logaddexp(0, a + h @ W.T).sum(axis=1)
    expected = np.logaddexp.reduce(log_terms)
    assert table.enumerated_log_partition(a, b, W) == pytest.approx(expected, rel=1e-13)
    assert table.enumerated_log_partition(b, a, np.ascontiguousarray(W.T)) == pytest.approx(expected, rel=1e-13)


@TABLES
def test_energies_far_beyond_the_range_of_exp_do_no_harm(table):
    a, b, W = machine("binary", 600, 3)
    for shift in (-900.0, 900.0):
        found = table.enumerated_log_partition(a + shift, b, W)
        h = states_of(0, 8, 3)
        expected = np.logaddexp.reduce(h @ b + np.logaddexp(0, a + shift + h @ W.T).sum(axis=1))
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-300)


@KINDS
def test_compiled_and_numpy_agree_for_float32_too(kind):
    parameters = machine(kind, 9, 7, "float32", scale=0.5)
    expected = partition.enumerated_log_partition(*parameters)
    assert kernels.enumerated_log_partition(*parameters) == pytest.approx(expected, rel=1e-12)
    widened = [value.astype(np.float64) for value in parameters]
    assert partition.enumerated_log_partition(*widened) == pytest.approx(expected, rel=1e-6)
    complex_ones = [value.astype(complex) for value in widened[:3]] + widened[3:]
    assert kernels.enumerated_log_partition(*complex_ones) == pytest.approx(expected, rel=1e-6)


# ---- annealed importance sampling ----


def base_draws(base_bias, n, rng, logvar=None):
    """n draws of the machine without weights, and generators for as many chains."""
    states = generators(rng, n)
    if logvar is None:
        return (uniforms(states, len(base_bias)) < 1 / (1 + np.exp(-base_bias))).astype(float), states
    return base_bias + np.exp(0.5 * logvar) * normals(states, len(base_bias)), states


def exact_draws(kind, parameters, n, rng):
    """n draws x of a machine by enumeration of its hidden states, then p(x|h)."""
    a, b, W, *logvar = parameters
    h, m = states_of(0, 2 ** len(b), len(b)), None
    m = h @ W.T
    if kind == "binary":
        log_p = h @ b + np.logaddexp(0, a + m).sum(axis=1)
    else:
        log_p = h @ b + (0.5 * m * (m + 2 * a) * np.exp(-logvar[0])).sum(axis=1)
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    mean = a + m[rng.choice(len(h), n, p=p / p.sum())]
    if kind == "binary":
        return (rng.random(mean.shape) < 1 / (1 + np.exp(-mean))).astype(float)
    return mean + np.exp(0.5 * logvar[0]) * rng.standard_normal(mean.shape)


def estimates(kind, parameters, n_chains, n_betas, seed):
    """log Z of a machine forwards and backwards, as Ratios of log Z, and the exact value."""
    rng, logvar = np.random.default_rng(seed), parameters[3] if kind == "gaussian" else None
    base = 0.3 * rng.standard_normal(len(parameters[0]))
    betas, base_log_z = np.linspace(0, 1, n_betas), partition.base_log_partition(base, parameters[1], logvar)
    x, states = base_draws(base, n_chains, rng, logvar)
    forward = partition.anneal(x, states, betas, base, *parameters)[0]
    x = exact_draws(kind, parameters, n_chains, rng)
    backward = partition.anneal(x, generators(rng, n_chains), betas[::-1], base, *parameters)[0]
    return base_log_z, forward, backward, partition.enumerated_log_partition(*parameters)


@KINDS
def test_annealing_is_within_three_standard_errors_of_exact_on_ten_machines_and_backwards_too(kind):
    deviations = []
    for seed in range(10):
        parameters = machine(kind, 8, 6, scale=0.8 if kind == "binary" else 0.4, seed=seed)
        base_log_z, forward, backward, exact = estimates(kind, parameters, 200, 60, seed)
        up, down = partition.log_ratio(forward), partition.log_ratio(backward)
        for distance, error in ((base_log_z + up.log_mean - exact, up.error), (base_log_z - down.log_mean - exact, down.error)):
            assert abs(distance) < 3 * error
            assert error < 0.2
            deviations.append(distance / error)
    assert 0.4 < np.mean(np.square(deviations)) < 1.9  # the errors are neither too small nor too large


@KINDS
def test_in_a_few_steps_the_means_of_log_weights_bracket_log_z(kind):
    """E[log w] is below log E[w], forwards and backwards: by more than ten standard errors here."""
    parameters = machine(kind, 10, 8, scale=1.0 if kind == "binary" else 0.5, seed=3)
    base_log_z, forward, backward, exact = estimates(kind, parameters, 400, 4, 0)
    lower, upper = base_log_z + forward, base_log_z - backward
    assert lower.mean() + 10 * lower.std() / 20 < exact < upper.mean() - 10 * upper.std() / 20


@TABLES
@KINDS
def test_in_one_step_a_log_weight_is_the_difference_of_the_free_energies(kind, table):
    parameters = machine(kind)
    logvar = parameters[3] if kind == "gaussian" else None
    base, x = np.linspace(-1, 1, 4), rows(kind, 6)
    parts = [logvar] * (kind == "gaussian")
    F_base = pair(kind)[0](x, base, 0 * parameters[1], 0 * parameters[2], *parts)[0]
    F = pair(kind)[0](x, *parameters)[0]
    log_weights, end = table.anneal(x, generators(np.random.default_rng(0), 6), [0.0, 1.0], base, *parameters)
    np.testing.assert_allclose(log_weights, F_base - F, atol=1e-12)
    expected = boltzmann.gibbs(x, generators(np.random.default_rng(0), 6), 1, *parameters)
    np.testing.assert_allclose(end, expected, atol=1e-12)
    reverse, _ = table.anneal(x, generators(np.random.default_rng(0), 6), [1.0, 0.0], base, *parameters)
    np.testing.assert_allclose(reverse, F - F_base, atol=1e-12)
    middle = [0.75 * base + 0.25 * parameters[0], 0.25 * parameters[1], 0.25 * parameters[2], *parts]
    log_weights, end = table.anneal(x, generators(np.random.default_rng(0), 6), [0.0, 0.25], base, *parameters)
    np.testing.assert_allclose(log_weights, F_base - pair(kind)[0](x, *middle)[0], atol=1e-12)
    expected = boltzmann.gibbs(x, generators(np.random.default_rng(0), 6), 1, *middle)
    np.testing.assert_allclose(end, expected, atol=1e-12)


@KINDS
@pytest.mark.parametrize(("V", "H", "C"), [(5, 4, 7), (120, 110, 3), (6, 5, 120)])
def test_compiled_annealing_equals_its_twin(kind, V, H, C):
    parameters, x = machine(kind, V, H, scale=0.2), rows(kind, C, V)
    given, states = x.copy(), generators(np.random.default_rng(0), C)
    twin, betas, base = states.copy(), np.linspace(0, 1, 6), np.linspace(-1, 0, V)
    expected = partition.anneal(x, states, betas, base, *parameters)
    found = kernels.anneal(x, twin, betas, base, *parameters)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)
    np.testing.assert_array_equal(twin, states)
    np.testing.assert_array_equal(x, given)


@KINDS
def test_annealing_in_float32_keeps_the_weights_in_float64(kind):
    parameters = machine(kind, 12, 7, "float32", scale=0.3)
    x, base = rows(kind, 5, 12, "float32"), np.zeros(12)
    found, end = kernels.anneal(x, generators(np.random.default_rng(0), 5), [0.0, 0.001], base, *parameters)
    assert (found.dtype, end.dtype) == (np.float64, np.float32)
    widened = [value.astype(np.float64) for value in parameters]
    expected, _ = partition.anneal(x.astype(float), generators(np.random.default_rng(0), 5), [0.0, 0.001], base, *widened)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@KINDS
def test_the_base_machine_has_the_partition_function_of_independent_units(kind):
    parameters = machine(kind)
    logvar = parameters[3:]
    expected = partition.enumerated_log_partition(parameters[0], 0 * parameters[1], 0 * parameters[2], *logvar)
    assert partition.base_log_partition(parameters[0], parameters[1], *logvar) == pytest.approx(expected, rel=1e-13)


# ---- what weights say ----


def test_the_ratio_is_the_logarithm_of_the_mean_weight_and_its_error_the_relative_one():
    rng = np.random.default_rng(0)
    for shift in (0.0, 2000.0, -2000.0):
        weights = np.exp(rng.standard_normal(500))
        found = partition.log_ratio(np.log(weights) + shift)
        error = weights.std(ddof=1) / math.sqrt(500)
        expected = math.log(weights.mean()), error / weights.mean(), math.log(weights.mean() - 3 * error)
        assert found.log_mean == pytest.approx(expected[0] + shift, rel=1e-12)
        assert found.error == pytest.approx(expected[1], rel=1e-12)
        assert found.low == pytest.approx(expected[2] + shift, rel=1e-12)
        assert found.high == pytest.approx(math.log(weights.mean() + 3 * error) + shift, rel=1e-12)


def test_weights_of_which_one_dominates_have_no_lower_end():
    found = partition.log_ratio(np.array([0.0, -50.0, -50.0, -50.0]))
    assert found.low == -math.inf
    assert found.log_mean == pytest.approx(-math.log(4))
    assert found.error == pytest.approx(1)
    assert math.isinf(partition.log_ratio(np.zeros(1)).error)
