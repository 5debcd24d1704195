"""The energy of a network, its score and its double backward; score matching and contrastive divergence; log Z's gradient."""

import math

import naive
import numpy as np
import pytest

from npvae import kernels, ops
from npvae.gradcheck import complex_step_grad
from npvae.ops import energy, langevin
from npvae.ops.layers import ACTIVATIONS

SMOOTH = [name for name in energy.DERIVATIVES if name != "identity"]
WIDTHS = {"linear": (3, 1), "one layer": (2, 5, 1), "three layers": (2, 5, 4, 3, 1)}
CONFINEMENT = 0.7

activations = pytest.mark.parametrize("activation", SMOOTH)
networks = pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
tables = pytest.mark.parametrize("table", [ops, kernels], ids=["numpy", "numba"])


def network(widths=WIDTHS["three layers"], activation="silu", B=4, dtype="float64"):
    """x (B, D), layers, upstream gradients of energy (B,) and score (B, D)."""
    rng = np.random.default_rng(3)
    names = [activation] * (len(widths) - 2) + ["identity"]
    layers = [(naive.draw(rng, (n_in, n_out), dtype), naive.draw(rng, n_out, dtype), name)
              for n_in, n_out, name in zip(widths, widths[1:], names)]  # fmt: skip
    x, dscore = (naive.draw(rng, (B, widths[0]), dtype) for _ in range(2))
    return x, layers, naive.draw(rng, B, dtype), dscore


def replaced(layers, i, part, value):
    """The layers with W (part 0) or b (1) of layer i replaced."""
    layers = [list(layer) for layer in layers]
    layers[i][part] = value
    return layers


# ---- activations with two derivatives ----


def assert_second_derivative(name):
    pre = np.array([[-30.0, -3.0, -0.7, -1e-3], [0.0, 0.3, 1.5, 30.0]])
    for table in (energy, kernels.energy):
        h, slope, curvature = table.DERIVATIVES[name](pre)
        forward, backward = ACTIVATIONS[name]
        naive.assert_close(h, forward(pre)[0])
        naive.assert_close(slope, backward(np.ones_like(pre), forward(pre)[1]))
        twice = complex_step_grad(lambda pre: table.DERIVATIVES[name](pre)[1].sum(), pre)  # noqa: B023
        np.testing.assert_allclose(curvature, twice, rtol=1e-12, atol=1e-17)
        single = table.DERIVATIVES[name](pre.astype("float32"))
        for value, wanted in zip(single, (h, slope, curvature)):
            naive.assert_close(value, wanted, "float32")


def test_TANH_second_is_the_derivative():
    assert_second_derivative("tanh")


def test_SIGMOID_second_is_the_derivative():
    assert_second_derivative("sigmoid")


def test_SOFTPLUS_second_is_the_derivative():
    assert_second_derivative("softplus")


def test_SILU_second_is_the_derivative():
    assert_second_derivative("silu")


# ---- energy and score ----


@activations
def test_the_energy_equals_its_twin(activation):
    x, layers, _, _ = network(activation=activation)
    h = x.tolist()
    for W, b, name in layers:
        h = naive.activation_forward(name, naive.affine_forward(h, W.tolist(), b.tolist()))
    wanted = [0.5 * CONFINEMENT * math.fsum(v * v for v in row) + f for row, (f,) in zip(x.tolist(), h)]
    naive.assert_close(energy.energy_forward(x, layers, CONFINEMENT)[0], wanted)


def test_ENERGY_x_is_the_derivative():
    x, layers, denergy, _ = network()
    dx, grads = energy.energy_backward(denergy, energy.energy_forward(x, layers, CONFINEMENT)[1])
    naive.assert_is_gradient(dx, lambda x: (denergy * energy.energy_forward(x, layers, CONFINEMENT)[0]).sum(), x)
    without, others = energy.energy_backward(denergy, energy.energy_forward(x, layers, CONFINEMENT)[1], need_dx=False)
    assert without is None
    np.testing.assert_array_equal(others[0][0], grads[0][0])


@tables
@networks
@activations
def test_the_score_is_minus_the_derivative_of_the_energy(activation, widths, table):
    x, layers, _, _ = network(widths, activation)
    (energies, score), _ = table.score_forward(x, layers, CONFINEMENT)
    naive.assert_close(energies, energy.energy_forward(x, layers, CONFINEMENT)[0])
    wanted = -complex_step_grad(lambda x: energy.energy_forward(x, layers, CONFINEMENT)[0].sum(), x)
    naive.assert_close(score, wanted, tolerance=1e-12)


def contracted(layers, x, denergy, dscore, table=ops):
    (energies, score), _ = table.score_forward(x, layers, CONFINEMENT)
    return (denergy * energies).sum() + (dscore * score).sum()


def backward_of(x, layers, denergy, dscore, table=ops):
    return table.score_backward(denergy, dscore, table.score_forward(x, layers, CONFINEMENT)[1])


@tables
@networks
@activations
def test_the_double_backward_by_the_complex_step(activation, widths, table):
    """Of every weight: the mixed second derivative of E, and the first beside it."""
    x, layers, denergy, dscore = network(widths, activation)
    _, grads = backward_of(x, layers, denergy, dscore, table)
    for i in range(len(layers)):
        for part in (0, 1):
            wanted = complex_step_grad(
                lambda value, i=i, part=part: contracted(replaced(layers, i, part, value), x, denergy, dscore, table),
                layers[i][part])  # fmt: skip
            assert np.abs(grads[i][part] - wanted).max() <= 1e-12 * max(np.abs(wanted).max(), 1e-3)


def test_SCORE_W_is_the_derivative():
    """Where the network is linear, the score depends on W alone, and no pre on the way down is reached."""
    x, layers, denergy, dscore = network(WIDTHS["linear"])
    _, grads = backward_of(x, layers, 0 * denergy, dscore)
    naive.assert_is_gradient(grads[0][0], lambda W: contracted([(W, *layers[0][1:])], x, 0 * denergy, dscore), layers[0][0])


def test_SCORE_pre_is_the_derivative():
    """A bias reaches the score through a'(pre) alone."""
    x, layers, denergy, dscore = network()
    _, grads = backward_of(x, layers, 0 * denergy, dscore)
    for i in range(len(layers) - 1):
        naive.assert_is_gradient(
            grads[i][1], lambda b, i=i: contracted(replaced(layers, i, 1, b), x, 0 * denergy, dscore), layers[i][1]
        )
    assert not grads[-1][1].any()  # a constant in E has no score


def test_SCORE_down_is_the_derivative():
    """Without a gradient of the score it is the backward pass of the energy."""
    x, layers, denergy, dscore = network()
    dx, grads = backward_of(x, layers, denergy, 0 * dscore)
    wanted, others = energy.energy_backward(denergy, energy.energy_forward(x, layers, CONFINEMENT)[1])
    naive.assert_close(dx, wanted)
    for (dW, db), (dW_wanted, db_wanted) in zip(grads, others):
        naive.assert_close(dW, dW_wanted)
        naive.assert_close(db, db_wanted)


def test_SCORE_x_is_the_derivative():
    x, layers, denergy, dscore = network()
    dx, _ = backward_of(x, layers, denergy, dscore)
    naive.assert_is_gradient(dx, lambda x: contracted(layers, x, denergy, dscore), x)


@tables
def test_energy_and_score_keep_the_contract_of_a_pair(table):
    x, layers, denergy, dscore = network()

    def forward(x, *arrays):
        return table.score_forward(x, list(zip(arrays[::2], arrays[1::2], [name for *_, name in layers])), CONFINEMENT)

    def backward(denergy, dscore, cache):
        dx, grads = table.score_backward(denergy, dscore, cache)
        return dx, *(grad for layer in grads for grad in layer)

    arrays = [array for W, b, _ in layers for array in (W, b)]
    naive.assert_pure_and_linear(forward, [x, *arrays], backward, [denergy, dscore])


@tables
def test_single_precision_stays(table):
    x, layers, denergy, dscore = network(dtype="float32")
    (energies, score), cache = table.score_forward(x, layers, CONFINEMENT)
    dx, grads = table.score_backward(denergy, dscore, cache)
    assert {array.dtype.name for array in (energies, score, dx, *(g for layer in grads for g in layer))} == {"float32"}
    double = [(W.astype(float), b.astype(float), name) for W, b, name in layers]
    naive.assert_close(score, energy.score_forward(x.astype(float), double, CONFINEMENT)[0][1], "float32", 1e-5)


# ---- score matching ----


def test_MATCHING_is_the_derivative():
    rng = np.random.default_rng(0)
    score, eps, dloss = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)
    dscore = energy.score_matching_backward(dloss, energy.score_matching_forward(score, eps, 0.3)[1])
    naive.assert_is_gradient(dscore, lambda s: (dloss * energy.score_matching_forward(s, eps, 0.3)[0]).sum(), score)


def test_score_matching_equals_its_twin():
    score, eps = np.random.default_rng(0).standard_normal((2, 4, 3))
    wanted = [sum((0.3 * s + e) ** 2 for s, e in zip(*rows)) / 2 for rows in zip(score.tolist(), eps.tolist())]
    naive.assert_close(energy.score_matching_forward(score, eps, 0.3)[0], wanted)


def test_score_matching_is_least_at_the_score_of_the_noisy_data():
    """Data of N(0, λ) and a score −c x: nodes of a quadrature give the mean of the loss without error, three values of c its
    parabola. Its minimum is at c = 1/(λ + σ²), and the least value is ½ λ/(λ + σ²)."""
    variance, sigma = 0.6, 0.5
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    x, eps = (a.ravel()[:, None] for a in np.meshgrid(math.sqrt(variance) * nodes, nodes))
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2

    def mean_loss(c):
        return energy.score_matching_forward(-c * (x + sigma * eps), eps, sigma)[0] @ weights

    at_minus, at_0, at_plus = mean_loss(0.5), mean_loss(1.0), mean_loss(1.5)
    best = 1 - 0.25 * (at_plus - at_minus) / (at_plus - 2 * at_0 + at_minus)
    assert best == pytest.approx(1 / (variance + sigma**2), rel=1e-12)
    assert mean_loss(best) == pytest.approx(0.5 * variance / (variance + sigma**2), rel=1e-12)


# ---- positive and negative phase ----


def contrastive_case():
    rng = np.random.default_rng(0)
    return rng.standard_normal(5), rng.standard_normal(5), rng.standard_normal(5)


def test_CONTRASTIVE_data_is_the_derivative():
    data, samples, dloss = contrastive_case()
    found, _ = energy.contrastive_backward(dloss, energy.contrastive_forward(data, samples, 0.2)[1])
    naive.assert_is_gradient(found, lambda e: (dloss * energy.contrastive_forward(e, samples, 0.2)[0]).sum(), data)


def test_CONTRASTIVE_samples_is_the_derivative():
    data, samples, dloss = contrastive_case()
    _, found = energy.contrastive_backward(dloss, energy.contrastive_forward(data, samples, 0.2)[1])
    naive.assert_is_gradient(found, lambda e: (dloss * energy.contrastive_forward(data, e, 0.2)[0]).sum(), samples)


def test_the_two_phases_are_the_gradient_of_log_p():
    """−log p(x) = E(x) + log Z with Z as a sum over a line: data with the weight 1, points of the line with −p."""
    _, layers, _, _ = network((1, 5, 4, 1), B=1)
    line, x = np.linspace(-9, 9, 400)[:, None], np.array([[0.4]])
    step = line[1, 0] - line[0, 0]

    def minus_log_p(W):
        changed = replaced(layers, 0, 0, W)
        E, _ = energy.energy_forward(line, changed, CONFINEMENT)
        return energy.energy_forward(x, changed, CONFINEMENT)[0][0] + np.log(np.exp(-E).sum() * step)

    E, cache = energy.energy_forward(line, layers, CONFINEMENT)
    p = np.exp(-E) / np.exp(-E).sum()
    of_data, of_samples = energy.contrastive_backward(np.ones(1), (np.zeros(1), np.zeros(1), 0.0))
    _, positive = energy.energy_backward(of_data, energy.energy_forward(x, layers, CONFINEMENT)[1])
    _, negative = energy.energy_backward(of_samples * p, cache)
    naive.assert_is_gradient(positive[0][0] + negative[0][0], minus_log_p, layers[0][0])


# ---- chains in the energy of a network ----


def chain_case(widths, activation, B, dtype="float64"):
    x, layers, _, _ = network(widths, activation, B, dtype)
    rng = np.random.default_rng(5)
    return x, layers, naive.draw(rng, (6, B, widths[0]), dtype), rng.random((6, B)).astype(dtype)


@tables
@networks
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_chains_are_those_of_the_sampler(temperature, widths, table):
    x, layers, eps, u = chain_case(widths, "silu", 5)

    def energy_and_score(y):
        return energy.score_forward(y, layers, CONFINEMENT)[0]

    start = x.copy()
    adjusted, share = table.energy_chain(x, layers, CONFINEMENT, eps, u, 0.4, temperature)
    wanted, wanted_share = langevin.adjusted_chain(energy_and_score, x, eps, u, 0.4, temperature)
    naive.assert_close(adjusted, wanted)
    np.testing.assert_array_equal(share, wanted_share)
    unadjusted, share = table.energy_chain(x, layers, CONFINEMENT, eps, None, 0.4, temperature)
    naive.assert_close(unadjusted, langevin.langevin_chain(energy_and_score, x, eps, 0.4, temperature))
    np.testing.assert_array_equal(share, 1)
    np.testing.assert_array_equal(x, start)


@pytest.mark.parametrize(("activation", "dtype"), [("silu", "float64"), ("silu", "float32"), ("tanh", "float64")])
def test_compiled_chains_equal_those_of_numpy(activation, dtype):
    """More rows than a block, and a block that is not full."""
    arguments = chain_case((3, 33, 28, 1), activation, kernels.energy.ROWS + 9, dtype)
    x, layers, eps, u = arguments
    layers = [(W / np.sqrt(np.float32(len(W))), b, name) for W, b, name in layers]
    for uniform in (u, None):
        ours, share = kernels.energy_chain(x, layers, CONFINEMENT, eps, uniform, 0.3)
        theirs, wanted = ops.energy_chain(x, layers, CONFINEMENT, eps, uniform, 0.3)
        naive.assert_close(ours, theirs, dtype, None if dtype == "float64" else 1e-5)
        np.testing.assert_array_equal(share, wanted)
    assert 0.3 < wanted.mean() <= 1
