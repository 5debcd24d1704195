"""Steep, oscillating and broken functions, edges of domains, large offsets, small errors, and iterations."""

import numpy as np
from scipy.integrate import solve_ivp

from hand_written import Pair, Scalar, normal, right, wrong

# --------------------------------------------------------------------------------------------- steep, oscillating


def waves(k, factor=1.0):
    t = np.array([0.3, 1.1, -0.7])
    return Scalar(lambda t: np.sin(k * t).sum(), t, factor * k * np.cos(k * t))


@right
def waves_of_1000():
    """Σ sin(1000 t)."""
    return waves(1e3)


@right
def waves_of_a_million():
    """Σ sin(1e6 t)."""
    return waves(1e6)


@wrong
def waves_without_the_inner_derivative():
    """The factor 1000 is forgotten."""
    return waves(1e3, 1e-3)


@right
def steep_step():
    """tanh((t − 1)/1e-4) near its centre: the scale of f is not that of t."""
    t = np.array([1.00002, 0.99995])
    return Scalar(lambda t: np.tanh((t - 1) / 1e-4).sum(), t, 1e4 * (1 - np.tanh((t - 1) / 1e-4) ** 2))


@wrong
def steep_step_off_by_half():
    """The same, one entry half as large."""
    f, t, grad, _ = steep_step()
    return Scalar(f, t, grad * [1.0, 0.5])


@right
def zero_weights():
    """Weights that are all zero, as at the start of a logistic regression."""
    X = normal(6, 3)
    return Scalar(lambda w: np.log1p(np.exp(X @ w)).sum(), np.zeros(3), 0.5 * X.sum(axis=0))


@wrong
def zero_weights_without_half():
    """σ(0) taken for 1."""
    X = normal(6, 3)
    return Scalar(lambda w: np.log1p(np.exp(X @ w)).sum(), np.zeros(3), X.sum(axis=0))


@right
def huge_values():
    """exp(t) up to 1e130."""
    t = np.array([300.0, 299.0, 298.0])
    return Scalar(lambda t: np.exp(t).sum(), t, np.exp(t))


# ---------------------------------------------------------------------------------------------- edges of domains


@right
def root_near_zero():
    """Σ √t at 1e-12."""
    t = np.array([1.0, 1e-12])
    return Scalar(lambda t: np.sqrt(t).sum(), t, 0.5 / np.sqrt(t))


@right
def logarithm_near_its_edge():
    """log(1 − t) at 1 − 1e-9: a step of 1e-5 leaves the domain."""
    t = np.array([0.5, 1 - 1e-9])
    return Scalar(lambda t: np.log(1 - t).sum(), t, -1 / (1 - t))


@wrong
def logarithm_near_its_edge_with_a_sign():
    """The inner derivative's minus sign is forgotten in the entry at the edge."""
    t = np.array([0.5, 1 - 1e-9])
    return Scalar(lambda t: np.log(1 - t).sum(), t, np.array([-1, 1]) / (1 - t))


@right
def arcsine_near_its_edge():
    """arcsin at 1 − 1e-6."""
    t = np.array([0.2, 1 - 1e-6])
    return Scalar(lambda t: np.arcsin(t).sum(), t, 1 / np.sqrt(1 - t * t))


@right
def function_that_raises_outside_its_domain():
    """A probability must be in (0, 1), or a ValueError is raised."""

    def f(p):
        if np.any(p <= 0) or np.any(p >= 1):
            raise ValueError("p must be in (0, 1)")
        return -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum()

    p = np.array([0.5, 1e-7, 0.3])
    return Scalar(f, p, np.log1p(-p) - np.log(p))


@right(unknowable="f is defined on one side of theta only")
def power_at_the_edge():
    """Σ t^1.5 at t = 0, NaN for negative t."""
    t = np.array([1.0, 0.0])
    return Scalar(lambda t: (t**1.5).sum(), t, 1.5 * np.sqrt(t))


# --------------------------------------------------------------------------------------------- broken on purpose


@wrong
def rounding_passed_straight_through():
    """np.round in forward, the identity in backward, as in quantised networks."""
    return Pair(lambda x: (np.round(4 * x) / 4, None), lambda d, _: d, (normal(4, 3),))


@right
def rounding_has_slope_zero():
    """np.round, whose derivative is zero."""
    return Pair(lambda x: (np.round(4 * x) / 4 + x, None), lambda d, _: d, (normal(4, 3),))


@wrong
def binary_step_with_a_window():
    """A step function with the slope 1 for |x| < 1 as its gradient."""
    return Pair(lambda x: (1.0 * (x > 0), x), lambda d, x: d * (np.abs(x) < 1), (normal(4, 3),))


@wrong
def gradient_clipped():
    """np.clip(grad, −1, 1), left over from a search for exploding gradients."""
    t = 2 * normal(5)
    return Scalar(lambda t: (t**2).sum(), t, np.clip(2 * t, -1, 1))


@wrong
def learning_rate_in_the_gradient():
    """Multiplied by the learning rate already."""
    t = normal(5)
    return Scalar(lambda t: np.cosh(t).sum(), t, 1e-3 * np.sinh(t))


# -------------------------------------------------------------------------------------- offsets and small errors


@right
def large_offset():
    """1e8 + Σ t²: f's rounding is 1e-8."""
    t = normal(5)
    return Scalar(lambda t: 1e8 + (t**2).sum(), t, 2 * t)


@wrong(error=0.01)
def large_offset_off_by_a_percent():
    """The same, one entry 1 % off."""
    t = normal(5)
    return Scalar(lambda t: 1e8 + (t**2).sum(), t, 2 * t * [1, 1, 1.01, 1, 1])


@wrong(error=5e-9)
def constant_of_eight_digits():
    """√(2/π) typed with eight digits in backward only."""
    c = np.sqrt(2 / np.pi)
    return Pair(lambda x: (np.tanh(c * x), x), lambda d, x: d * 0.79788457 * (1 - np.tanh(c * x) ** 2), (normal(4, 3),))


@wrong(error=1e-8)
def float32_rounding_in_backward():
    """The cached activations are float32."""
    return Pair(lambda x: (np.tanh(x), np.tanh(x).astype(np.float32)), lambda d, h: d * (1 - h**2), (normal(4, 3),))


def many(off):
    t = normal(15, 20)
    g = np.cos(t)
    g[7, 11] *= 1 + off
    return Scalar(lambda t: np.sin(t).sum(), t, g)


@right
def many_entries():
    """300 entries."""
    return many(0)


@wrong(error=0.005)
def one_wrong_entry_among_300():
    """One entry is 10 % off."""
    return many(0.1)


@wrong
def one_sign_among_300():
    """One entry has the wrong sign."""
    return many(-2)


# ----------------------------------------------------------------------------------------------------- iterations


def equilibrium(W, x):
    h = np.zeros(len(x))
    for _ in range(200):
        h = np.tanh(W @ h + x)
    return h


def of_equilibrium(implicit):
    """h = tanh(W h + x), iterated until it stands."""

    def forward(W, x):
        h = equilibrium(W, x)
        return h, (W, h)

    def backward(dh, cache):
        W, h = cache
        slope = 1 - h**2
        dpre = slope * (np.linalg.solve(np.eye(len(h)) - W.T * slope, dh) if implicit else dh)
        return np.outer(dpre, h), dpre

    return Pair(forward, backward, (0.3 * normal(4, 4), normal(4, seed=1)))


@right
def equilibrium_network():
    """A fixed point and its implicit derivative."""
    return of_equilibrium(True)


@wrong
def equilibrium_network_of_one_step():
    """The derivative of the last iteration alone."""
    return of_equilibrium(False)


def decay(k):
    end = solve_ivp(lambda t, x: -k[0] * x + k[1] * np.cos(t), (0, 1), [1.0], rtol=1e-9, atol=1e-11)
    return end.y[0, -1]


def decay_grad(k):
    def both(t, s):
        x, a, b = s
        return [-k[0] * x + k[1] * np.cos(t), -k[0] * a - x, -k[0] * b + np.cos(t)]

    return solve_ivp(both, (0, 1), [1.0, 0.0, 0.0], rtol=1e-9, atol=1e-11).y[1:, -1]


@right
def adaptive_integrator():
    """solve_ivp with rtol = 1e-9 and its sensitivities, judged with threshold=1e-5."""
    k = np.array([0.7, 0.4])
    return Scalar(decay, k, decay_grad(k), {"threshold": 1e-5})


@wrong
def adaptive_integrator_with_a_sign():
    """The sensitivity to the rate has the wrong sign; threshold=1e-5."""
    k = np.array([0.7, 0.4])
    return Scalar(decay, k, decay_grad(k) * [-1, 1], {"threshold": 1e-5})


def stopped(implicit):
    """A fixed point, iterated until it changes by less than 1e-10; threshold=1e-6."""
    _, backward, args, _ = of_equilibrium(implicit)

    def stopping(W, x):
        h = np.zeros(len(x))
        for _ in range(500):
            new = np.tanh(W @ h + x)
            if np.abs(new - h).max() < 1e-10:
                break
            h = new
        return new, (W, new)

    return Pair(stopping, backward, args, {"threshold": 1e-6})


@right
def equilibrium_network_stopped_by_a_tolerance():
    """The same, iterated to a tolerance of 1e-10, judged with threshold=1e-6."""
    return stopped(True)


@wrong
def equilibrium_network_stopped_and_of_one_step():
    """The same without the implicit derivative."""
    return stopped(False)


@wrong(error=1e-3)
def gradient_after_the_step():
    """theta has been updated already when the gradient is taken."""
    t = normal(5)
    return Scalar(lambda t: np.sinh(t).sum(), t, np.cosh(t - 1e-2 * np.cosh(t)))
