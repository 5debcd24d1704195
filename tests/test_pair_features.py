"""The drift of particles that can be exchanged: gradients, a scalar twin, and what symmetries change."""

import math
from itertools import pairwise

import naive
import numpy as np
import pytest

from npvae import kernels, ops
from npvae.gradcheck import complex_step_grad
from npvae.ops import pair_features

CENTRES = np.array([[0.3, -0.2], [-0.7, 0.5]])  # (A, d)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((4, 3, 2, 5)), RNG.standard_normal((4, 3, 2, 5))  # (B, N, A, d), (B, N, N − 1, d)
ALPHA, BETA, DU = RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 3, 5))
LENGTHS, DP = RNG.random((4, 3, 2)), RNG.standard_normal((4, 3, 2, 5))  # s (B, N, A); of p (B, N, N − 1, 2 A + 1)


def network(n_particles, centres=CENTRES, dtype="float64", is_bounded=True):
    """r (4, N 2), and the parameters that the op takes, with the layers of f, g and w first."""
    rng, A = np.random.default_rng(n_particles), len(centres)

    def layers(*widths, last):
        made = [(rng.standard_normal(pair).astype(dtype), rng.standard_normal(pair[1]).astype(dtype), "tanh")
                for pair in pairwise(widths)]  # fmt: skip
        return [*made[:-1], (*made[-1][:2], last)]

    several = n_particles > 1
    g, w = (layers(2 * A + 1, 6, 5, last="tanh"), layers(5, 1, last="identity")) if several else ([], [])
    f = layers(A + 5 * several, 4, A, last="identity")
    return rng.standard_normal((4, 2 * n_particles)).astype(dtype), (f, g, w, centres.astype(dtype), n_particles, is_bounded)


def with_array(parameters, network, i, j, value):
    """The parameters with array j (W or b) of layer i of a network (0 f, 1 g, 2 w) replaced."""
    parameters = [list(part) if isinstance(part, list) else part for part in parameters]
    parameters[network][i] = tuple(value if k == j else part for k, part in enumerate(parameters[network][i]))
    return parameters


# ---- labelled identities ----


def test_LENGTHS_is_the_derivative():
    ds = BETA
    dx = pair_features.lengths_backward(ds, pair_features.lengths_forward(X)[1])
    naive.assert_is_gradient(dx, lambda x: (ds * pair_features.lengths_forward(x)[0]).sum(), X)


def test_PAIR_s_is_the_derivative():
    """And that of the pairs' own distances, which are passed on."""
    ds, ds_of_pairs = pair_features.pair_features_backward(DP, pair_features.pair_features_forward(LENGTHS, BETA)[1])
    naive.assert_is_gradient(ds, lambda s: (DP * pair_features.pair_features_forward(s, BETA)[0]).sum(), LENGTHS)
    naive.assert_is_gradient(ds_of_pairs, lambda s: (DP * pair_features.pair_features_forward(LENGTHS, s)[0]).sum(), BETA)


def assert_push_gradient(place):
    arguments = [ALPHA, X, BETA, Y]
    grads = pair_features.pushes_backward(DU, pair_features.pushes_forward(*arguments)[1])

    def loss(value):
        changed = [value if i == place else argument for i, argument in enumerate(arguments)]
        return (DU * pair_features.pushes_forward(*changed)[0]).sum()

    naive.assert_is_gradient(grads[place], loss, arguments[place])


def assert_damped_gradient(place):
    arguments = [ALPHA, LENGTHS]
    grad = pair_features.damped_backward(BETA, pair_features.damped_forward(*arguments)[1])[place]

    def loss(value):
        return (BETA * pair_features.damped_forward(*(value if i == place else arguments[i] for i in range(2)))[0]).sum()

    naive.assert_is_gradient(grad, loss, arguments[place])


def test_DAMPED_strength_is_the_derivative():
    assert_damped_gradient(0)


def test_DAMPED_s_is_the_derivative():
    assert_damped_gradient(1)


def test_PUSH_alpha_is_the_derivative():
    assert_push_gradient(0)


def test_PUSH_x_is_the_derivative():
    assert_push_gradient(1)


def test_PUSH_beta_is_the_derivative():
    assert_push_gradient(2)


def test_PUSH_y_is_the_derivative():
    assert_push_gradient(3)


several = pytest.mark.parametrize("n_particles", [1, 2, 3])


@several
def test_EXCHANGE_r_is_the_derivative(n_particles):
    r, parameters = network(n_particles)
    du = np.random.default_rng(9).standard_normal(r.shape)
    dr, *_ = pair_features.exchangeable_backward(du, pair_features.exchangeable_forward(r, parameters)[1])
    naive.assert_is_gradient(dr, lambda r: (du * pair_features.exchangeable_forward(r, parameters)[0]).sum(), r)


@several
def test_EXCHANGE_q_is_the_derivative(n_particles):
    """Of every weight of all networks."""
    r, parameters = network(n_particles)
    du = np.random.default_rng(9).standard_normal(r.shape)
    _, *grads = pair_features.exchangeable_backward(du, pair_features.exchangeable_forward(r, parameters)[1])
    for which, (layers, of_layers) in enumerate(zip(parameters[:3], grads, strict=True)):
        assert len(of_layers) == len(layers)
        for i, layer in enumerate(layers):
            for j in range(2):

                def loss(value, at=(which, i, j)):
                    return (du * pair_features.exchangeable_forward(r, with_array(parameters, *at, value))[0]).sum()

                naive.assert_close(of_layers[i][j], complex_step_grad(loss, layer[j]), tolerance=1e-12)


# ---- values ----


def of_layers(h, layers):
    """The output of dense layers for one row, a list of numbers."""
    for W, b, activation in layers:
        pre = [sum(h[i] * float(W[i, j]) for i in range(len(h))) + float(b[j]) for j in range(len(b))]
        h = [math.tanh(value) for value in pre] if activation == "tanh" else pre
    return h


def twin(r, f, g, w, centres, _, is_bounded):
    """u of one walker, r a list of places."""
    s = [[math.dist(place, centre) for centre in centres] for place in r]
    pushes = []
    for i, place in enumerate(r):
        others = [j for j in range(len(r)) if j != i]
        messages = [of_layers([*s[i], *s[j], math.dist(place, r[j])], g) for j in others]
        alpha = of_layers(s[i] + [sum(column) / len(others) for column in zip(*messages)], f)
        beta = [of_layers(message, w)[0] for message in messages]
        if is_bounded:
            alpha = [a / (1 + distance) for a, distance in zip(alpha, s[i])]
            beta = [b / (1 + math.dist(place, r[j])) for b, j in zip(beta, others)]
        pushes += [sum(a * (place[c] - centre[c]) for a, centre in zip(alpha, centres))
                   + sum(b * (place[c] - r[j][c]) for b, j in zip(beta, others)) for c in range(len(place))]  # fmt: skip
    return pushes


@pytest.mark.parametrize("n_particles", [1, 2, 4])
@pytest.mark.parametrize(("n_centres", "is_bounded"), [(1, False), (2, True), (1, True)])
def test_the_drift_equals_its_twin(n_particles, n_centres, is_bounded):
    r, parameters = network(n_particles, CENTRES[:n_centres], is_bounded=is_bounded)
    u, _ = pair_features.exchangeable_forward(r, parameters)
    naive.assert_close(u, [twin(places.reshape(n_particles, 2).tolist(), *parameters) for places in r], tolerance=1e-13)


def test_where_particles_are_exchanged_so_are_their_drifts_and_nothing_else_changes():
    r, parameters = network(4)
    u, _ = pair_features.exchangeable_forward(r, parameters)
    assert np.abs(u[:, :2] - u[:, 2:4]).min() > 1e-3  # the particles are at different places
    for order in ([1, 0, 2, 3], [3, 1, 0, 2]):
        moved = r.reshape(4, 4, 2)[:, order].reshape(4, -1)
        expected = u.reshape(4, 4, 2)[:, order].reshape(4, -1)
        naive.assert_close(pair_features.exchangeable_forward(moved, parameters)[0], expected, tolerance=1e-13)


def test_where_everything_is_turned_and_mirrored_so_is_the_drift():
    r, (*layers, centres, N, is_bounded) = network(3)
    u, _ = pair_features.exchangeable_forward(r, (*layers, centres, N, is_bounded))
    turn = np.array([[0.6, 0.8], [0.8, -0.6]])
    everything = (r.reshape(4, 3, 2) @ turn).reshape(4, -1), (*layers, centres @ turn, N, is_bounded)
    turned, _ = pair_features.exchangeable_forward(*everything)
    naive.assert_close(turned, (u.reshape(4, 3, 2) @ turn).reshape(4, -1), tolerance=1e-13)


def test_every_particle_sees_the_others_and_the_centres():
    r, (*layers, centres, N, is_bounded) = network(2)
    u, _ = pair_features.exchangeable_forward(r, (*layers, centres, N, is_bounded))
    shifted = r + np.array([0, 0, 0.1, 0])  # the second particle
    assert np.abs((pair_features.exchangeable_forward(shifted, (*layers, centres, N, is_bounded))[0] - u)[:, :2]).min() > 1e-5
    assert np.abs(pair_features.exchangeable_forward(r, (*layers, centres + 0.1, N, is_bounded))[0] - u).min() > 1e-5


def test_where_it_is_bounded_no_push_grows_with_the_distance():
    r, parameters = network(2)
    far, further = (np.abs(pair_features.exchangeable_forward(scale * r, parameters)[0]).max() for scale in (1e3, 1e6))
    assert further == pytest.approx(far, rel=0.01)


def test_the_op_is_pure_and_linear():
    r, parameters = network(3)

    def backward(du, cache):
        dr, *of_networks = pair_features.exchangeable_backward(du, cache)
        return dr, *(grad for layers in of_networks for layer in layers for grad in layer)

    du = np.random.default_rng(9).standard_normal(r.shape)
    naive.assert_pure_and_linear(lambda r: pair_features.exchangeable_forward(r, parameters), (r,), backward, (du,))


@pytest.mark.parametrize("n_particles", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_both_back_ends_agree_and_float32_stays_float32(n_particles, dtype, tolerance):
    r, parameters = network(n_particles, dtype=dtype)
    du, results = np.random.default_rng(9).standard_normal(r.shape).astype(dtype), []
    for table in (ops, kernels):
        u, cache = pair_features.exchangeable_forward(r, parameters, table.mlp_forward)
        dr, *of_networks = pair_features.exchangeable_backward(du, cache, table.mlp_backward)
        results.append([u, dr, *(grad for layers in of_networks for layer in layers for grad in layer)])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
