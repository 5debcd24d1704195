"""Stochastic differential equations: gradients, weak orders on processes with known moments, Girsanov's theorem, memory.

Two processes are known in closed form:

    Ornstein–Uhlenbeck   dz = −κ z dt + σ(t) dW: z(t) is normal
    Beneš 1981           dz = tanh(z) dt + dW: z(t) is a draw of N(z_0 + t, t) or N(z_0 − t, t), with odds e^z_0 : e^−z_0. Its
                         path measure has the density e^(−T/2) cosh z(T)/cosh z_0 with respect to Brownian motion.

A scheme's expectations are computed without random numbers: E[g(z_T)] backward in time, one step of the op at a time, over
Gauss–Hermite nodes of the noise, between the steps a spline through the values on a grid.
"""

import math
import tracemalloc

import naive
import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.stats import norm

from npvae.gradcheck import complex_step_grad
from npvae.ops import gaussian_kl, sde
from npvae.ops.sde import ZERO, Field

KAPPA, Z0 = 1.5, 0.5

schemes = pytest.mark.parametrize("scheme", sde.SCHEMES)


def polynomial(*coefficients):
    return Field(sde.polynomial_forward, sde.polynomial_backward, np.array(coefficients))


def tanh_forward(z, t, parameters):
    """v = a tanh(b z + c t), with the parameters (a, b, c) as an array."""
    a, b, c = parameters
    h = np.tanh(b * z + c * t)
    return a * h, (z, t, parameters, h)


def tanh_backward(dv, cache):
    z, t, (a, b, _), h = cache
    dpre = dv * a * (1 - h * h)
    return dpre * b, [np.array([(dv * h).sum(), (dpre * z).sum(), (dpre * t).sum()])]


def tanh(a=1.0, b=1.0, c=0.0):
    return Field(tanh_forward, tanh_backward, np.array([a, b, c]))


def hill_forward(z, t, parameters):
    """A potential V = a Σ_d cos(b z_d + t), with the parameters (a, b): (B, D) -> (B,)."""
    a, b = parameters
    return a * np.cos(b * z + t).sum(axis=1), (z, t, a, b)


def hill_backward(dV, cache):
    z, t, a, b = cache
    return -dV[:, None] * a * b * np.sin(b * z + t), []


HILL, HELD = Field(hill_forward, hill_backward, (1.3, 0.8)), tanh(-0.4, 1.1, 0.3)


def problem(sigma="per step", T=7, B=4, D=3, seed=1):
    """z, eps, times of unequal steps, sigma; upstream gradients of the states after steps 3 and 7, of energy and martingale."""
    rng = np.random.default_rng(seed)
    z, eps, times = rng.standard_normal((B, D)), rng.standard_normal((T, B, D)), np.cumsum(rng.uniform(0.05, 0.2, T + 1))
    strength = rng.uniform(0.5, 1.5, (T + 1, D))
    sigma = {"number": 0.8, "per step": strength[:, :1], "per column": strength}[sigma]
    douts = rng.standard_normal((2, B, D)), rng.standard_normal(B), rng.standard_normal(B)
    return (z, eps, times, sigma), douts


DRIFT, CONTROL, KEEP = polynomial(0.3, -1.2, 0.1, -0.4), tanh(0.9, 0.7, -0.5), (3, 7)


# ---- scalar twins ----


def twin_increment(z, dW, t, dt, sigma):
    """f dt + σ (v dt + dW), ½ v² dt and v dW of one number, for DRIFT and CONTROL."""
    f = sum(float(c) * z**k for k, c in enumerate(DRIFT.parameters))
    a, b, c = map(float, CONTROL.parameters)
    v = a * math.tanh(b * z + c * t)
    return f * dt + sigma * (v * dt + dW), v * v * dt / 2, v * dW


def twin_path(z, eps, times, sigma, scheme):
    """z (D,), eps (T, D), sigma (T + 1, D) -> the states (T + 1, D), energy and martingale: columns do not know each other."""
    states, energy, martingale = [list(z)], 0.0, 0.0
    for k in range(len(eps)):
        t, dt, state = times[k], times[k + 1] - times[k], []
        for d, old in enumerate(states[-1]):
            dW = math.sqrt(dt) * eps[k][d]
            first, of_energy, of_martingale = twin_increment(old, dW, t, dt, sigma[k][d])
            if scheme == "heun":
                second, of_end, _ = twin_increment(old + first, dW, t + dt, dt, sigma[k + 1][d])
                first, of_energy = (first + second) / 2, (of_energy + of_end) / 2
            state.append(old + first)
            energy, martingale = energy + of_energy, martingale + of_martingale
        states.append(state)
    return states, energy, martingale


@schemes
@pytest.mark.parametrize("sigma", ["number", "per step", "per column"])
def test_integration_equals_its_twin(scheme, sigma):
    (z, eps, times, sigma), _ = problem(sigma)
    (states, energy, martingale), _ = sde.integrate_forward(z, eps, times, sigma, DRIFT, CONTROL, scheme, range(1, 8))
    by_column = np.broadcast_to(sigma, (8, 3)).tolist()
    for b in range(len(z)):
        expected = twin_path(z[b].tolist(), eps[:, b].tolist(), times.tolist(), by_column, scheme)
        naive.assert_close(states[:, b], expected[0][1:])
        naive.assert_close(energy[b : b + 1], [expected[1]])
        naive.assert_close(martingale[b : b + 1], [expected[2]])


@schemes
def test_float32_stays_float32_and_integrals_are_summed_in_float64(scheme):
    (z, eps, times, _), (dstates, denergy, dmartingale) = problem()
    layers = [(np.ones((4, 3), np.float32), np.zeros(3, np.float32), "tanh")]
    control = Field(sde.network_forward, sde.network_backward, (layers, np.zeros((4, 0), np.float32)))
    arrays = z.astype("f4"), eps.astype("f4"), times, np.full((8, 1), 0.8, "f4")
    drift = DRIFT._replace(parameters=DRIFT.parameters.astype("f4"))
    (states, energy, martingale), cache = sde.integrate_forward(*arrays, drift, control, scheme, KEEP)
    assert (states.dtype, energy.dtype, martingale.dtype) == ("float32", "float64", "float64")
    results, _ = sde.increment_forward(arrays[0], arrays[1][0], 0.0, 0.1, 0.8, drift, control)
    assert [result.dtype for result in results] == ["float32", "float64", "float64"]
    dz, dsigma, ddrift, dcontrol = sde.integrate_backward(dstates.astype("f4"), denergy, dmartingale, cache)
    assert [d.dtype for d in (dz, dsigma, *ddrift, *dcontrol)] == ["float32"] * 5


# ---- labelled identities and gradients ----


def step_case():
    rng = np.random.default_rng(5)
    z, dW, sigma = rng.standard_normal((4, 3)), 0.3 * rng.standard_normal((4, 3)), np.array([0.5, 0.9, 1.4])
    return z, dW, sigma, (rng.standard_normal((4, 3)), rng.standard_normal(4), rng.standard_normal(4))


def dot(douts, outs):
    return sum((dout * out).sum() for dout, out in zip(douts, outs, strict=True))


def assert_increment_gradient(place, of):
    """`of` replaces one argument of the increment by a value; `place` says which gradient belongs to it."""
    z, dW, sigma, douts = step_case()
    arguments = {"z": z, "sigma": sigma, "drift": DRIFT, "control": CONTROL}

    def increment(**changed):
        a = arguments | changed
        return sde.increment_forward(a["z"], dW, 0.4, 0.1, a["sigma"], a["drift"], a["control"])

    dz, dsigma, (ddrift,), (dcontrol,) = sde.increment_backward(*douts, increment()[1])
    grad = {"z": dz, "sigma": dsigma, "drift": ddrift, "control": dcontrol}[place]
    value = getattr(arguments[place], "parameters", arguments[place])
    naive.assert_is_gradient(grad, lambda value: dot(douts, increment(**{place: of(value)})[0]), value)


def test_INCREMENT_z_is_the_derivative():
    assert_increment_gradient("z", lambda z: z)


def test_INCREMENT_sigma_is_the_derivative():
    assert_increment_gradient("sigma", lambda sigma: sigma)


def test_INCREMENT_f_is_the_derivative():
    assert_increment_gradient("drift", lambda p: DRIFT._replace(parameters=p))


def test_INCREMENT_v_is_the_derivative():
    assert_increment_gradient("control", lambda p: CONTROL._replace(parameters=p))


def test_POLYNOMIAL_z_is_the_derivative():
    z, df, *_ = step_case()
    dz, _ = sde.polynomial_backward(df, sde.polynomial_forward(z, 0, DRIFT.parameters)[1])
    naive.assert_is_gradient(dz, lambda z: (df * sde.polynomial_forward(z, 0, DRIFT.parameters)[0]).sum(), z)


def test_POLYNOMIAL_c_is_the_derivative():
    z, df, *_ = step_case()
    _, (dc,) = sde.polynomial_backward(df, sde.polynomial_forward(z, 0, DRIFT.parameters)[1])
    naive.assert_is_gradient(dc, lambda c: (df * sde.polynomial_forward(z, 0, c)[0]).sum(), DRIFT.parameters)


def assert_step_gradient(scheme, place):
    """place: 0 the state, 1 and 2 σ at the beginning and at the end of the step."""
    z, dW, sigma, douts = step_case()
    forward, backward = sde.SCHEMES[scheme]
    arguments = [z, sigma, sigma[::-1].copy()]

    def loss(value):
        z, *sigmas = [value if i == place else arguments[i] for i in range(3)]
        return dot(douts, forward(z, dW, 0.4, 0.1, sigmas, DRIFT, CONTROL)[0])

    dz, dsigmas, _, _ = backward(*douts, forward(z, dW, 0.4, 0.1, arguments[1:], DRIFT, CONTROL)[1])
    naive.assert_is_gradient([dz, *dsigmas][place], loss, arguments[place])


def test_EULER_z_is_the_derivative():
    assert_step_gradient("euler", 0)


def test_HEUN_z_is_the_derivative():
    assert_step_gradient("heun", 0)


def test_HEUN_first_is_the_derivative():
    assert_step_gradient("heun", 1)


def test_HEUN_middle_is_the_derivative():
    assert_step_gradient("heun", 2)


def assert_costs_gradient(scheme, douts, tolerance=1e-12, **changed):
    """Of a step with a potential and a held control: the gradient of z by the complex step."""
    z, dW, sigma, _ = step_case()
    fields = {"drift": DRIFT, "control": CONTROL, "potential": HILL, "held": HELD, **changed}.values()
    forward, backward = sde.SCHEMES[scheme]
    dz, *_ = backward(*douts, forward(z, dW, 0.4, 0.1, (sigma, sigma), *fields)[1])
    naive.assert_is_gradient(dz, lambda z: dot(douts, forward(z, dW, 0.4, 0.1, (sigma, sigma), *fields)[0]), z)


@schemes
def test_INCREMENT_V_is_the_derivative(scheme):
    *_, (dincrement, denergy, dmartingale) = step_case()
    assert_costs_gradient(scheme, (0 * dincrement, denergy, 0 * dmartingale), control=ZERO)


@schemes
def test_INCREMENT_u_is_the_derivative(scheme):
    *_, (dincrement, denergy, dmartingale) = step_case()
    assert_costs_gradient(scheme, (0 * dincrement, 0 * denergy, dmartingale))


@schemes
def test_a_held_control_moves_nothing_and_has_no_gradient(scheme):
    """It is the martingale's alone. With the parameters of the control it changes no bit of a forward pass."""
    (z, eps, times, sigma), (dstates, denergy, dmartingale) = problem()
    arguments = z, eps, times, sigma, DRIFT, CONTROL, scheme, KEEP
    plain, plain_cache = sde.integrate_forward(*arguments)
    for held in (CONTROL, HELD):
        outs, cache = sde.integrate_forward(*arguments, held=held)
        for i in range(3 if held is CONTROL else 2):
            np.testing.assert_array_equal(outs[i], plain[i])
        zero = np.zeros_like(dmartingale)
        *_, (dcontrol,) = sde.integrate_backward(dstates, denergy, zero, cache)
        *_, (same,) = sde.integrate_backward(dstates, denergy, zero, plain_cache)
        np.testing.assert_array_equal(dcontrol, same)
    assert np.abs(outs[2] - plain[2]).min() > 1e-3
    z, dW, sigma, (dz, denergy, dmartingale) = step_case()
    forward, backward = sde.SCHEMES[scheme]
    _, cache = forward(z, dW, 0.4, 0.1, (sigma, sigma), DRIFT, CONTROL, HILL, HELD)
    *_, (dcontrol,) = backward(0 * dz, 0 * denergy, dmartingale, cache)
    assert not dcontrol.any()


@schemes
def test_a_potential_costs_its_integral_along_the_path(scheme):
    """And moves nothing: by the mean of both ends, the second of which is where Euler's step arrives."""
    (z, eps, times, sigma), _ = problem("number")
    arguments = z, eps, times, sigma, DRIFT, CONTROL, scheme, range(1, 8)
    (states, energy, martingale), _ = sde.integrate_forward(*arguments)
    (same, with_potential, other), _ = sde.integrate_forward(*arguments, potential=HILL)
    np.testing.assert_array_equal(same, states)
    np.testing.assert_array_equal(other, martingale)
    expected = 0
    for k, before in enumerate([z, *states[:-1]]):
        t, dt = times[k], times[k + 1] - times[k]
        V = hill_forward(before, t, HILL.parameters)[0]
        if scheme == "heun":
            dW = math.sqrt(dt) * eps[k]
            (euler, _, _), _ = sde.euler_step_forward(before, dW, t, dt, (sigma, sigma), DRIFT, CONTROL)
            V = (V + hill_forward(euler, t + dt, HILL.parameters)[0]) / 2
        expected = expected + V * dt
    naive.assert_close(with_potential - energy, expected, tolerance=1e-12)


@schemes
def test_the_gradient_through_100_steps_with_a_potential_and_a_held_control_by_the_complex_step(scheme):
    rng = np.random.default_rng(8)
    z, eps, times = rng.standard_normal((3, 2)), rng.standard_normal((100, 3, 2)), 0.02 * np.arange(101)
    douts = rng.standard_normal((1, 3, 2)), rng.standard_normal(3), rng.standard_normal(3)
    arguments = {"z": z, "drift": DRIFT.parameters, "control": CONTROL.parameters}

    def integrate(**changed):
        a = arguments | changed
        drift, control = DRIFT._replace(parameters=a["drift"]), CONTROL._replace(parameters=a["control"])
        return sde.integrate_forward(a["z"], eps, times, 0.8, drift, control, scheme, potential=HILL, held=HELD)

    dz, _, (ddrift,), (dcontrol,) = sde.integrate_backward(*douts, integrate()[1])
    for name, grad in [("z", dz), ("drift", ddrift), ("control", dcontrol)]:
        expected = complex_step_grad(lambda value: dot(douts, integrate(**{name: value})[0]), arguments[name])  # noqa: B023
        naive.assert_close(np.asarray(grad), expected, tolerance=1e-12)


@schemes
@pytest.mark.parametrize("sigma", ["number", "per step", "per column"])
def test_the_gradient_of_a_whole_path_by_the_complex_step(scheme, sigma):
    (z, eps, times, sigma), douts = problem(sigma)
    arguments = {"z": z, "sigma": np.array(sigma), "drift": DRIFT.parameters, "control": CONTROL.parameters}

    def integrate(**changed):
        a = arguments | changed
        drift, control = DRIFT._replace(parameters=a["drift"]), CONTROL._replace(parameters=a["control"])
        return sde.integrate_forward(a["z"], eps, times, a["sigma"], drift, control, scheme, KEEP)

    dz, dsigma, (ddrift,), (dcontrol,) = sde.integrate_backward(*douts, integrate()[1])
    for name, grad in [("z", dz), ("sigma", dsigma), ("drift", ddrift), ("control", dcontrol)]:
        expected = complex_step_grad(lambda value: dot(douts, integrate(**{name: value})[0]), arguments[name])  # noqa: B023
        naive.assert_close(np.asarray(grad), expected, tolerance=1e-12)


@schemes
def test_the_gradient_of_a_network_as_control_by_the_complex_step(scheme):
    (z, eps, times, sigma), douts = problem()
    rng = np.random.default_rng(2)
    context, shapes = rng.standard_normal((4, 2)), [(6, 5), (5,), (5, 3), (3,)]  # inputs: 3 columns, the time, 2 of the context
    parameters = [rng.standard_normal(shape) for shape in shapes]

    def integrate(parameters):
        (W0, b0, W1, b1), drift = parameters, polynomial(0, -1.0)
        control = Field(sde.network_forward, sde.network_backward, ([(W0, b0, "tanh"), (W1, b1, "identity")], context))
        return sde.integrate_forward(z, eps, times, sigma, drift, control, scheme, KEEP)

    *_, grads = sde.integrate_backward(*douts, integrate(parameters)[1])
    for i, (grad, value) in enumerate(zip(grads, parameters, strict=True)):

        def loss(value, i=i):
            return dot(douts, integrate([*parameters[:i], value, *parameters[i + 1 :]])[0])

        naive.assert_close(grad, complex_step_grad(loss, value), tolerance=1e-12)


def test_the_input_of_a_network_are_state_time_and_context():
    z, *_ = step_case()
    W, context = np.random.default_rng(3).standard_normal((6, 3)), np.ones((4, 2))
    value, _ = sde.network_forward(z, 0.4, ([(W, np.zeros(3), "identity")], context))
    naive.assert_close(value, z @ W[:3] + 0.4 * W[3] + W[4] + W[5])


def test_what_is_added_up_is_a_copy():
    total, grads = [], [np.ones(2), np.ones((2, 1))]
    for _ in range(3):
        sde.accumulate(total, grads)
    assert [array.tolist() for array in total] == [[3, 3], [[3], [3]]]
    assert [array.tolist() for array in grads] == [[1, 1], [[1], [1]]]


@schemes
def test_checkpoints_change_no_bit_of_the_gradient(scheme):
    (z, eps, times, sigma), douts = problem()

    def gradient(segment):
        _, cache = sde.integrate_forward(z, eps, times, sigma, DRIFT, CONTROL, scheme, KEEP, segment)
        dz, dsigma, *lists = sde.integrate_backward(*douts, cache)
        return b"".join(grad.tobytes() for grad in [dz, dsigma, *lists[0], *lists[1]])

    assert {gradient(segment) for segment in (None, 1, 2, 3, 7, 20)} == {gradient(0)}


@schemes
@pytest.mark.parametrize("segment", [0, 3])
def test_integration_is_pure_and_linear(scheme, segment):
    inputs, douts = problem()

    def backward(*arguments):
        dz, dsigma, ddrift, dcontrol = sde.integrate_backward(*arguments)
        return dz, dsigma, *ddrift, *dcontrol

    def forward(*inputs):
        return sde.integrate_forward(*inputs, DRIFT, CONTROL, scheme, (7,), segment)

    (dstates, *rest) = douts
    dstates = dstates[:1]

    def one_state(dstate, *arguments):  # the linearity test turns upstream gradients round, along the paths
        return backward(dstate[None], *arguments)

    naive.assert_pure_and_linear(forward, inputs, one_state, (dstates[0], *rest))


def test_without_a_control_the_paths_are_those_of_the_drift_and_both_integrals_are_zero():
    (z, eps, times, sigma), _ = problem()
    (states, energy, martingale), _ = sde.integrate_forward(z, eps, times, sigma, DRIFT)
    (same, _, _), _ = sde.integrate_forward(z, eps, times, sigma, ZERO, drift_as_control(sigma, times), "euler")
    (euler, _, _), _ = sde.integrate_forward(z, eps, times, sigma, DRIFT, scheme="euler")
    assert not energy.any()
    assert not martingale.any()
    assert states.shape == (1, 4, 3)
    naive.assert_close(euler, same)


def drift_as_control(sigma, times):
    """The control v = f/σ for the drift f: with it alone the same paths."""

    def forward(z, t, parameters):
        k = np.argmin(np.abs(times - t))
        return sde.polynomial_forward(z, t, DRIFT.parameters)[0] / sigma[k], None

    return Field(forward, None)


# ---- weak orders, against moments that are known ----

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
GRID = np.linspace(-9, 9, 241)


def expectation(g, T, scheme, drift, control, sigma):
    """E[g(z_T)] and E[energy] of a scheme from Z0 over the time 1, T steps; sigma(t)."""
    times = np.linspace(0, 1, T + 1)
    z, eps = np.repeat(GRID, 16)[:, None], np.tile(NODES, len(GRID))[None, :, None]
    values, costs = g(GRID), np.zeros_like(GRID)
    for k in reversed(range(T)):
        step = times[k : k + 2]
        (states, energy, _), _ = sde.integrate_forward(z, eps, step, sigma(step)[:, None], drift, control, scheme)
        values, costs = (
            (CubicSpline(GRID, after)(states[0, :, 0]) + more).reshape(-1, 16) @ WEIGHTS
            for after, more in [(values, 0), (costs, energy)])  # fmt: skip
    return float(CubicSpline(GRID, values)(Z0)), float(CubicSpline(GRID, costs)(Z0))


def benes(g):
    """E[g(z(1))] of the Beneš process from Z0, exact to rounding."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    return sum(math.exp(s * Z0) * (g(Z0 + s + x) @ w) for s in (1, -1)) / (2 * math.cosh(Z0) * w.sum())


def variance_of_ornstein_uhlenbeck(sigma):
    """∫ σ(t)² e^(−2κ(1 − t)) dt over the time 1."""
    t, w = np.polynomial.legendre.leggauss(40)
    t = (t + 1) / 2
    return (w / 2 * sigma(t) ** 2 * np.exp(-2 * KAPPA * (1 - t))).sum()


def assert_order(errors, order):
    """The error falls as dt^order: the slope between the two smallest dt."""
    assert abs(math.log2(abs(errors[-2] / errors[-1])) - order) < 0.12, errors


ORDERS = pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("heun", 2)])
STEPS = (16, 32)


def constant(t):
    return np.full_like(t, 0.7)


def rising(t):
    return 0.7 * (1 + t)


@ORDERS
@pytest.mark.parametrize("sigma", [constant, rising])
def test_weak_order_on_the_ornstein_uhlenbeck_process(scheme, order, sigma):
    mean = Z0 * math.exp(-KAPPA)
    second = mean**2 + variance_of_ornstein_uhlenbeck(sigma)
    for g, exact in [(lambda z: z, mean), (np.square, second)]:
        assert_order([expectation(g, T, scheme, polynomial(0, -KAPPA), ZERO, sigma)[0] - exact for T in STEPS], order)


@ORDERS
@pytest.mark.parametrize("as_control", [False, True])
def test_weak_order_on_the_benes_process(scheme, order, as_control):
    fields = (ZERO, tanh()) if as_control else (tanh(), ZERO)
    for g, exact in [(np.square, Z0**2 + 2 + 2 * Z0 * math.tanh(Z0)), (np.cos, benes(np.cos))]:
        assert benes(g) == pytest.approx(exact, rel=1e-12)
        assert_order([expectation(g, T, scheme, *fields, np.ones_like)[0] - exact for T in STEPS], order)


@ORDERS
def test_weak_order_on_a_process_that_is_driven(scheme, order):
    """dz = (sin 3t − κ z) dt + σ(t) dW: a drift that depends on time, at both ends of a step."""
    t, w = np.polynomial.legendre.leggauss(40)
    t = (t + 1) / 2
    mean = Z0 * math.exp(-KAPPA) + (w / 2 * np.sin(3 * t) * np.exp(-KAPPA * (1 - t))).sum()
    second = mean**2 + variance_of_ornstein_uhlenbeck(rising)
    drift = Field(lambda z, t, parameters: (math.sin(3 * t) - KAPPA * z, None), None)
    for g, exact in [(lambda z: z, mean), (np.square, second)]:
        assert_order([expectation(g, T, scheme, drift, ZERO, rising)[0] - exact for T in STEPS], order)


def test_paths_of_random_numbers_have_the_moments_of_the_process():
    """Mean, variance and correlation over time, within 5 standard errors, with steps whose own error is below a tenth of it."""
    n, T = 20_000, 20
    eps = np.random.default_rng(3).standard_normal((T, n, 1))
    z = np.full((n, 1), Z0)
    (states, _, _), _ = sde.integrate_forward(z, eps, np.linspace(0, 1, T + 1), 0.7, polynomial(0, -KAPPA), keep=(10, 20))
    half, end = states[:, :, 0]
    var_half, var_end = (0.49 * (1 - math.exp(-2 * KAPPA * t)) / (2 * KAPPA) for t in (0.5, 1.0))
    assert abs(end.mean() - Z0 * math.exp(-KAPPA)) < 5 * math.sqrt(var_end / n)
    assert abs(end.var() - var_end) < 5 * var_end * math.sqrt(2 / n)
    covariance = var_half * math.exp(-KAPPA / 2)
    assert abs(np.cov(half, end)[0, 1] - covariance) < 5 * math.sqrt((var_half * var_end + covariance**2) / n)


# ---- Girsanov's theorem ----


def steps_of(z, states):
    return np.concatenate([z[None], states[:-1]]), states


def chain(sigma="per column"):
    """All states of an Euler path with a control, both integrals, and the mean of each step with and without the control."""
    (z, eps, times, sigma), _ = problem(sigma)
    (states, energy, martingale), _ = sde.integrate_forward(z, eps, times, sigma, DRIFT, CONTROL, "euler", range(1, 8))
    before, after = steps_of(z, states)
    dt, strength = np.diff(times)[:, None, None], sigma[:-1, None]
    f = np.array([sde.polynomial_forward(b, 0, DRIFT.parameters)[0] for b in before])
    v = np.array([tanh_forward(b, t, CONTROL.parameters)[0] for b, t in zip(before, times)])
    return before + f * dt, before + (f + strength * v) * dt, strength * np.sqrt(dt), after, energy, martingale


def test_the_energy_is_the_kl_of_each_gaussian_step_of_the_two_chains():
    """KL(N(z + (f + σ v) dt, σ² dt) ‖ N(z + f dt, σ² dt)), by the KL of two Gaussians, summed over the steps."""
    mean_p, mean_q, scale, _, energy, _ = chain()
    logvar = np.broadcast_to(2 * np.log(scale), mean_p.shape)
    kl, _ = gaussian_kl.pair_kl_forward(mean_q, logvar, mean_p, logvar)
    naive.assert_close(energy, kl.sum(axis=(0, 2)))


def test_both_integrals_add_up_to_the_log_ratio_of_the_two_chains_densities():
    mean_p, mean_q, scale, after, energy, martingale = chain()
    log_ratio = norm.logpdf(after, mean_q, scale) - norm.logpdf(after, mean_p, scale)
    naive.assert_close(energy + martingale, log_ratio.sum(axis=(0, 2)), tolerance=1e-12)


def test_weights_have_the_mean_one_and_turn_controlled_paths_into_free_ones():
    """E_Q[dP/dQ] = 1 and E_Q[dP/dQ g(z_T)] = E_P[g(z_T)] within 5 standard errors; the martingale's mean is 0."""
    n, T = 20_000, 10
    eps, z = np.random.default_rng(4).standard_normal((T, n, 1)), np.full((n, 1), Z0)
    times, drift = np.linspace(0, 1, T + 1), polynomial(0, -KAPPA)
    (states, energy, martingale), _ = sde.integrate_forward(z, eps, times, 0.7, drift, tanh(), "euler")
    weights = np.exp(-energy - martingale)
    mean = Z0 * (1 - KAPPA / T) ** T  # of the free chain
    for values, expected in [(weights, 1), (weights * states[0, :, 0], mean), (martingale, 0)]:
        assert abs(values.mean() - expected) < 5 * values.std() / math.sqrt(n)
    assert abs(states[0].mean() - mean) > 0.1  # the control has moved them


@ORDERS
def test_the_kl_of_the_chain_tends_to_that_of_the_path_measures(scheme, order):
    """Both processes against Brownian motion. Beneš: KL = E[log cosh z(1)] − log cosh z_0 − ½ by its density. For the other
    KL = ½ κ² ∫ E[z²] dt. The energy of Euler's scheme is the KL of the chains, so this is the order of their limit in dt."""
    exact = benes(lambda z: np.log(np.cosh(z))) - math.log(math.cosh(Z0)) - 0.5
    assert_order([expectation(np.cos, T, scheme, ZERO, tanh(), np.ones_like)[1] - exact for T in STEPS], order)
    s = 1 / (2 * KAPPA)  # the stationary variance
    exact = 0.5 * KAPPA**2 * (s + (Z0**2 - s) * (1 - math.exp(-2 * KAPPA)) * s)
    control = polynomial(0, -KAPPA)
    assert_order([expectation(np.cos, T, scheme, ZERO, control, np.ones_like)[1] - exact for T in STEPS], order)


@schemes
def test_the_log_ratio_of_a_path_tends_to_that_of_its_ends_for_the_benes_process(scheme):
    """log dQ/dP = log cosh z(T) − log cosh z_0 − T/2 path by path, with an error of order √dt."""
    errors = []
    for T in (100, 400):
        eps, z = np.random.default_rng(6).standard_normal((T, 2000, 1)), np.full((2000, 1), Z0)
        (states, energy, martingale), _ = sde.integrate_forward(z, eps, np.linspace(0, 1, T + 1), 1.0, ZERO, tanh(), scheme)
        of_ends = np.log(np.cosh(states[0, :, 0])) - math.log(math.cosh(Z0)) - 0.5
        errors.append(np.sqrt(np.mean((energy + martingale - of_ends) ** 2)))
    assert errors[0] < 0.06
    assert 1.7 < errors[0] / errors[1] < 2.3


# ---- memory ----


def peak_bytes(T, segment):
    """What forward and backward of T steps take beside their arguments, at most."""
    rng = np.random.default_rng(0)
    layers = [(rng.standard_normal((2, 64)), np.zeros(64), "tanh"), (rng.standard_normal((64, 1)), np.zeros(1), "identity")]
    control = Field(sde.network_forward, sde.network_backward, (layers, np.zeros((50, 0))))
    z, eps, times = np.zeros((50, 1)), rng.standard_normal((T, 50, 1)), np.linspace(0, 1, T + 1)
    tracemalloc.start()
    try:
        _, cache = sde.integrate_forward(z, eps, times, 1.0, ZERO, control, "euler", segment=segment)
        sde.integrate_backward(np.ones((1, 50, 1)), np.ones(50), np.zeros(50), cache)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_as_the_square_root_of_the_steps_with_checkpoints_and_as_the_steps_without():
    peak_bytes(9, None)  # what the first call allocates once
    with_checkpoints, without = ([peak_bytes(T, segment) for T in (25, 225)] for segment in (None, 0))
    assert 8 < without[1] / without[0] < 9.5
    assert 2 < with_checkpoints[1] / with_checkpoints[0] < 3.6
    assert with_checkpoints[1] < without[1] / 7
