"""Losses of critic and generator, and the penalty on the critic's slope: gradients, what the best critic is, duality."""

import math
from decimal import Decimal, localcontext

import naive
import numpy as np
import pytest

from npvae import kernels, ops
from npvae.gradcheck import complex_step_grad
from npvae.models import transport
from npvae.ops import adversarial, energy

CRITICS = {"logistic": adversarial.LOGISTIC, "wasserstein": adversarial.WASSERSTEIN}
GENERATORS = {name: adversarial.GENERATORS[name] for name in ("minimax", "non_saturating", "wasserstein")}
SMOOTH = [name for name in energy.DERIVATIVES if name != "identity"]
LEVELS = (0.0, 1e-3, 1.0, 20.0, 40.0, 100.0, 1e4)

critics = pytest.mark.parametrize("pair", CRITICS.values(), ids=CRITICS)
generators = pytest.mark.parametrize("pair", GENERATORS.values(), ids=GENERATORS)
tables = pytest.mark.parametrize("table", [ops, kernels], ids=["numpy", "numba"])


def outputs(B=5):
    """a of data, b of samples, and an upstream gradient, (B,) each."""
    return np.random.default_rng(0).standard_normal((3, B))


def assert_gradient(pair, which):
    """That with respect to argument `which` of the forward."""
    forward, backward = pair
    *arguments, dloss = outputs()
    arguments = arguments[1:] if pair in GENERATORS.values() else arguments
    grads = naive.as_tuple(backward(dloss, forward(*arguments)[1]))

    def loss(value):
        return (dloss * forward(*arguments[:which], value, *arguments[which + 1 :])[0]).sum()

    naive.assert_is_gradient(grads[which], loss, arguments[which])


def test_LOGISTIC_data_is_the_derivative():
    assert_gradient(adversarial.LOGISTIC, 0)


def test_LOGISTIC_samples_is_the_derivative():
    assert_gradient(adversarial.LOGISTIC, 1)


def test_WASSERSTEIN_data_is_the_derivative():
    assert_gradient(adversarial.WASSERSTEIN, 0)


def test_WASSERSTEIN_samples_is_the_derivative():
    assert_gradient(adversarial.WASSERSTEIN, 1)


def test_MINIMAX_is_the_derivative():
    assert_gradient(GENERATORS["minimax"], 0)


def test_SATURATING_is_the_derivative():
    assert_gradient(GENERATORS["non_saturating"], 0)


def test_WASSERSTEIN_generator_is_the_derivative():
    assert_gradient(GENERATORS["wasserstein"], 0)


@critics
def test_losses_of_the_critic_keep_the_contract_of_a_pair(pair):
    of_data, of_samples, dloss = outputs()
    naive.assert_pure_and_linear(pair[0], [of_data, of_samples], pair[1], [dloss])


@generators
def test_losses_of_the_generator_keep_the_contract_of_a_pair(pair):
    _, of_samples, dloss = outputs()
    naive.assert_pure_and_linear(pair[0], [of_samples], pair[1], [dloss])


# ---- logits of any size ----


def minus_log_sigmoid(logit):
    """−log σ of a number, in 80 digits."""
    with localcontext() as context:
        context.prec = 80
        return (1 + (-Decimal(logit)).exp()).ln()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("level", LEVELS)
def test_losses_are_exact_at_logits_of_any_size(level, dtype):
    a = np.array([level, -level], dtype)
    of_data, of_samples = np.repeat(a, 2), np.tile(a, 2)
    critic, _ = adversarial.logistic_critic_forward(of_data, of_samples)
    wanted = [float(minus_log_sigmoid(one) + minus_log_sigmoid(-other)) for one in a.tolist() for other in a.tolist()]
    tolerance = {"float64": 1e-15, "float32": 2e-7}[dtype]
    smallest = np.finfo(dtype).tiny
    for found, expected in [(critic, wanted),
                            (adversarial.minimax_generator_forward(a)[0], [-float(minus_log_sigmoid(-b)) for b in a.tolist()]),
                            (adversarial.non_saturating_generator_forward(a)[0],
                             [float(minus_log_sigmoid(b)) for b in a.tolist()])]:  # fmt: skip
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=smallest)


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_are_exact_at_logits_of_any_size(level):
    """±σ of each sign of the logit, whose relative error stays that of rounding where 1 − σ has no digits left."""
    a, ones = np.array([level, -level]), np.ones(2)
    with localcontext() as context:
        context.prec = 80
        up, down = [[float(1 / (1 + (-Decimal(sign * v)).exp())) for v in a.tolist()] for sign in (1, -1)]  # σ(v), σ(−v)
    _, cache = adversarial.logistic_critic_forward(a, a)
    of_data, of_samples = adversarial.logistic_critic_backward(ones, cache)
    tolerances = {"rtol": 4e-16, "atol": 5e-324}
    np.testing.assert_allclose(of_data, -np.array(down), **tolerances)
    np.testing.assert_allclose(of_samples, up, **tolerances)
    np.testing.assert_allclose(adversarial.minimax_generator_backward(ones, a), -np.array(up), **tolerances)
    np.testing.assert_allclose(adversarial.non_saturating_generator_backward(ones, a), -np.array(down), **tolerances)


def test_only_the_minimax_loss_saturates_where_samples_are_known():
    """At b = −40 the critic is sure of a sample."""
    rejected, one = np.array([-40.0]), np.ones(1)
    assert -1e-17 < adversarial.minimax_generator_backward(one, rejected)[0] < 0
    assert adversarial.non_saturating_generator_backward(one, rejected)[0] == pytest.approx(-1, rel=1e-15)


# ---- what the best critic is, and what its loss is then ----


def two_gaussians():
    """Nodes x and step of a fine grid, and the densities p = N(1, 0.8²), q = N(−0.5, 1.3²) there."""
    x = np.linspace(-14, 14, 4001)
    p, q = (np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for m, s in [(1.0, 0.8), (-0.5, 1.3)])
    return x, x[1] - x[0], p, q


def mean_losses(logits, p, q, step):
    """The critic's loss for the densities p and q, from its logits on the grid, and its derivative at each point."""
    of_data, cache = adversarial.logistic_critic_forward(logits, np.full_like(logits, -1e4))  # log σ(−b) = 0
    of_samples, other = adversarial.logistic_critic_forward(np.full_like(logits, 1e4), logits)
    loss = ((p * of_data).sum() + (q * of_samples).sum()) * step
    derivative = adversarial.logistic_critic_backward(p, cache)[0] + adversarial.logistic_critic_backward(q, other)[1]
    return loss, derivative


def entropy(p, step):
    return -(p * np.log(p)).sum() * step


def test_the_best_critic_is_the_log_ratio_of_the_densities():
    """There the derivative vanishes at every point; any other critic has a larger loss."""
    x, step, p, q = two_gaussians()
    best, derivative = mean_losses(np.log(p / q), p, q, step)
    np.testing.assert_allclose(derivative, 0, atol=1e-16)
    for change in (0.01, 0.01 * x, 0.01 * np.sin(3 * x)):
        assert mean_losses(np.log(p / q) + change, p, q, step)[0] > best + 1e-6


def test_its_loss_is_log_4_minus_twice_the_Jensen_Shannon_divergence():
    """The divergence as a difference of entropies, by quadrature."""
    _, step, p, q = two_gaussians()
    divergence = entropy((p + q) / 2, step) - (entropy(p, step) + entropy(q, step)) / 2
    assert divergence > 0.1
    assert mean_losses(np.log(p / q), p, q, step)[0] == pytest.approx(math.log(4) - 2 * divergence, rel=1e-12)


def test_the_minimax_game_has_zero_sum():
    """What the generator gains the critic loses: their gradients at a sample are opposite."""
    of_data, of_samples, dloss = outputs()
    _, of_critic = adversarial.logistic_critic_backward(dloss, (of_data, of_samples))
    np.testing.assert_array_equal(of_critic, -adversarial.minimax_generator_backward(dloss, of_samples))
    value = adversarial.logistic_critic_forward(of_data, of_samples)[0] + adversarial.minimax_generator_forward(of_samples)[0]
    np.testing.assert_allclose(value, [float(minus_log_sigmoid(a)) for a in of_data.tolist()], rtol=1e-14)


# ---- duality ----


def critic_of_slope_at_most_1(rng, D, widths=(7, 6)):
    """Layers whose matrices have norm 1, with tanh, whose slope is at most 1."""
    layers, n_in = [], D
    for n_out, name in [*((width, "tanh") for width in widths), (1, "identity")]:
        W = rng.standard_normal((n_in, n_out))
        layers.append((W / np.linalg.norm(W, 2), rng.standard_normal(n_out), name))
        n_in = n_out
    return layers


def estimate(layers, x, samples):
    """−(the Wasserstein loss of a critic), mean over the rows."""
    of_data, of_samples = (ops.mlp_forward(rows, layers)[0][:, 0] for rows in (x, samples))
    return -adversarial.wasserstein_critic_forward(of_data, of_samples)[0].mean()


def test_no_critic_of_slope_1_estimates_more_than_the_distance():
    rng = np.random.default_rng(2)
    x, samples = rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) * [1.4, 0.5] + [0.7, 0]
    distance = transport.distance(x, samples)
    found = [estimate(critic_of_slope_at_most_1(rng, 2), x, samples) for _ in range(100)]
    assert max(found) > 0.1 * distance
    assert max(found) <= distance


def test_the_best_critic_of_a_shift_estimates_the_distance():
    """f(x) = x·v/|v| for samples x − v: no point goes further than the others."""
    x, v = np.random.default_rng(2).standard_normal((200, 3)), np.array([0.3, -1.2, 0.4])
    layers = [(v[:, None] / np.linalg.norm(v), np.zeros(1), "identity")]
    assert estimate(layers, x, x - v) == pytest.approx(np.linalg.norm(v), rel=1e-12)
    assert transport.distance(x, x - v) == pytest.approx(np.linalg.norm(v), rel=1e-12)


# ---- the penalty on the slope ----


def test_SLOPE_is_the_derivative():
    rng = np.random.default_rng(0)
    score, dloss = rng.standard_normal((4, 3)), rng.standard_normal(4)
    dscore = adversarial.slope_penalty_backward(dloss, adversarial.slope_penalty_forward(score, 0.7)[1])
    naive.assert_is_gradient(dscore, lambda s: (dloss * adversarial.slope_penalty_forward(s, 0.7)[0]).sum(), score)


def test_the_penalty_equals_its_twin_and_keeps_the_contract_of_a_pair():
    rng = np.random.default_rng(0)
    score, dloss = rng.standard_normal((4, 3)), rng.standard_normal(4)
    wanted = [0.7 * (math.dist(row, [0, 0, 0]) - 1) ** 2 for row in score.tolist()]
    naive.assert_close(adversarial.slope_penalty_forward(score, 0.7)[0], wanted)
    naive.assert_pure_and_linear(lambda s: adversarial.slope_penalty_forward(s, 0.7), [score],
                                 adversarial.slope_penalty_backward, [dloss])  # fmt: skip


def test_a_critic_without_a_slope_has_the_subgradient_zero():
    score = np.array([[0.0, 0.0], [3.0, 4.0]])
    penalty, cache = adversarial.slope_penalty_forward(score, 2.0)
    np.testing.assert_array_equal(penalty, [2, 32])
    np.testing.assert_allclose(adversarial.slope_penalty_backward(np.ones(2), cache), [[0, 0], [9.6, 12.8]], rtol=1e-15)


def network(widths, activation, B=4):
    """Points between x and samples (B, D), and layers."""
    rng = np.random.default_rng(3)
    names = [activation] * (len(widths) - 2) + ["identity"]
    layers = [(rng.standard_normal((n_in, n_out)), rng.standard_normal(n_out), name)
              for n_in, n_out, name in zip(widths, widths[1:], names)]  # fmt: skip
    x, samples = rng.standard_normal((2, B, widths[0]))
    return adversarial.between(x, samples, rng.random(B)), layers


def penalty_forward(points, layers, weight, table):
    (_, score), score_cache = table.score_forward(points, layers, 0.0)
    penalty, slope_cache = adversarial.slope_penalty_forward(score, weight)
    return penalty, (score_cache, slope_cache)


def penalty_backward(dloss, cache, table):
    """(dW, db) of each layer."""
    return table.score_backward(np.zeros_like(dloss), adversarial.slope_penalty_backward(dloss, cache[1]), cache[0])[1]


@pytest.mark.parametrize("activation", SMOOTH)
def test_the_slope_is_the_size_of_the_derivative(activation):
    points, layers = network((3, 5, 4, 1), activation)
    gradient = complex_step_grad(lambda x: ops.mlp_forward(x, layers)[0].sum(), points)
    wanted = 0.7 * (np.sqrt((gradient**2).sum(axis=1)) - 1) ** 2
    np.testing.assert_allclose(penalty_forward(points, layers, 0.7, ops)[0], wanted, rtol=1e-12)


@tables
@pytest.mark.parametrize("widths", [(3, 1), (2, 5, 1), (2, 5, 4, 1)])
@pytest.mark.parametrize("activation", SMOOTH)
def test_the_second_derivative_by_the_complex_step_of_the_first(activation, widths, table):
    """Of every weight and bias of the critic."""
    points, layers = network(widths, activation)
    dloss = np.random.default_rng(5).standard_normal(len(points))
    grads = penalty_backward(dloss, penalty_forward(points, layers, 0.7, table)[1], table)
    for i, layer in enumerate(layers):
        for part in (0, 1):

            def loss(value, i=i, part=part):
                changed = [list(each) for each in layers]
                changed[i][part] = value
                return (dloss * penalty_forward(points, changed, 0.7, table)[0]).sum()

            wanted = complex_step_grad(loss, layer[part])
            assert np.abs(grads[i][part] - wanted).max() <= 1e-12 * max(np.abs(wanted).max(), 1e-3)


def test_a_linear_critic_of_slope_1_pays_nothing():
    points, _ = network((3, 1), "tanh")
    direction = np.array([[2.0], [-3.0], [6.0]]) / 7
    for factor in (1.0, 2.5):
        layers = [(factor * direction, np.array([0.4]), "identity")]
        penalty, cache = penalty_forward(points, layers, 3.0, ops)
        np.testing.assert_allclose(penalty, 3 * (factor - 1) ** 2, atol=1e-15)
        (dW, db), = penalty_backward(np.ones(len(points)), cache, ops)
        np.testing.assert_allclose(dW, 2 * 3 * len(points) * (factor - 1) * direction, atol=1e-14)
        assert not db.any()


def test_points_between_lie_on_the_line():
    x, samples = np.random.default_rng(0).standard_normal((2, 3, 2))
    np.testing.assert_allclose(adversarial.between(x, samples, np.ones(3)), x, rtol=1e-15)
    np.testing.assert_array_equal(adversarial.between(x, samples, np.zeros(3)), samples)
    u = np.array([0.25, 0.5, 0.75])
    np.testing.assert_allclose(adversarial.between(x, samples, u), (u * x.T + (1 - u) * samples.T).T, rtol=1e-14)
