"""The drift of particles that can be exchanged: gradients, a scalar twin, and what an exchange changes."""

import math

import naive
import numpy as np
import pytest

from npvae import kernels, ops
from npvae.gradcheck import complex_step_grad
from npvae.ops import pair_features

NUCLEI = np.array([[0.3, -0.2], [-0.7, 0.5]])  # (A, d)
RNG = np.random.default_rng(0)
PLACES, WEIGHTS = RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 3, 2, 9))  # (B, N, d); of p (B, N, N − 1, 2F + 1)
FEATURES = RNG.standard_normal((4, 3, 4))  # h (B, N, F)


def network(n_particles, positions=NUCLEI, dtype="float64"):
    """r (4, N 2), layers of f and of g, and the parameters that the op takes."""
    rng, F = np.random.default_rng(n_particles), 2 + len(positions)

    def layers(*widths, last):
        made = [(rng.standard_normal(pair).astype(dtype), rng.standard_normal(pair[1]).astype(dtype), "tanh")
                for pair in zip(widths, widths[1:])]  # fmt: skip
        return [*made[:-1], (*made[-1][:2], last)]

    g = layers(2 * F + 1, 6, 5, last="tanh") if n_particles > 1 else []
    f = layers(F + (5 if n_particles > 1 else 0), 4, 2, last="identity")
    r = rng.standard_normal((4, 2 * n_particles)).astype(dtype)
    return r, f, g, (f, g, n_particles, positions)


def with_layers(f, g, value, which, i, j):
    """The layers with array j (W or b) of layer i of f or of g replaced."""
    both = {"f": list(f), "g": list(g)}
    both[which][i] = tuple(value if k == j else part for k, part in enumerate(both[which][i]))
    return both["f"], both["g"]


# ---- labelled identities ----


def test_PARTICLE_r_is_the_derivative():
    dh = WEIGHTS[:, :, 0, :4]
    dr = pair_features.particle_features_backward(dh, pair_features.particle_features_forward(PLACES, NUCLEI)[1])
    naive.assert_is_gradient(dr, lambda r: (dh * pair_features.particle_features_forward(r, NUCLEI)[0]).sum(), PLACES)


def test_PAIR_h_is_the_derivative():
    dh, _ = pair_features.pair_features_backward(WEIGHTS, pair_features.pair_features_forward(FEATURES, PLACES)[1])
    naive.assert_is_gradient(dh, lambda h: (WEIGHTS * pair_features.pair_features_forward(h, PLACES)[0]).sum(), FEATURES)


def test_PAIR_r_is_the_derivative():
    _, dr = pair_features.pair_features_backward(WEIGHTS, pair_features.pair_features_forward(FEATURES, PLACES)[1])
    naive.assert_is_gradient(dr, lambda r: (WEIGHTS * pair_features.pair_features_forward(FEATURES, r)[0]).sum(), PLACES)


@pytest.mark.parametrize("n_particles", [1, 2, 3])
def test_EXCHANGE_m_is_the_derivative(n_particles):
    """Of the places, and of every weight of both networks."""
    r, f, g, parameters = network(n_particles)
    dv = np.random.default_rng(9).standard_normal(r.shape)
    dr, *grads = pair_features.exchangeable_backward(dv, pair_features.exchangeable_forward(r, parameters)[1])
    naive.assert_is_gradient(dr, lambda r: (dv * pair_features.exchangeable_forward(r, parameters)[0]).sum(), r)
    for which, layers, of_layers in zip("fg", (f, g), grads, strict=True):
        assert len(of_layers) == len(layers)
        for i, layer in enumerate(layers):
            for j in range(2):

                def loss(value, at=(which, i, j)):
                    layers = with_layers(f, g, value, *at)
                    return (dv * pair_features.exchangeable_forward(r, (*layers, n_particles, NUCLEI))[0]).sum()

                naive.assert_close(of_layers[i][j], complex_step_grad(loss, layer[j]), tolerance=1e-12)


# ---- values ----


def of_layers(h, layers):
    """The output of dense layers for one row, a list of numbers."""
    for W, b, activation in layers:
        pre = [sum(h[i] * float(W[i, j]) for i in range(len(h))) + float(b[j]) for j in range(len(b))]
        h = [math.tanh(value) for value in pre] if activation == "tanh" else pre
    return h


def twin(r, f, g, positions):
    """v of one walker, r a list of places."""
    h = [[*place, *(math.dist(place, nucleus) for nucleus in positions)] for place in r]
    drifts = []
    for i, place in enumerate(r):
        messages = [of_layers([*h[i], *h[j], math.dist(place, r[j])], g) for j in range(len(r)) if j != i]
        drifts += of_layers(h[i] + [sum(column) / len(messages) for column in zip(*messages)], f)
    return drifts


@pytest.mark.parametrize("n_particles", [1, 2, 4])
@pytest.mark.parametrize("positions", [NUCLEI, NUCLEI[:0]], ids=["nuclei", "none"])
def test_the_drift_equals_its_twin(n_particles, positions):
    r, f, g, parameters = network(n_particles, positions)
    v, _ = pair_features.exchangeable_forward(r, parameters)
    expected = [twin(places.reshape(n_particles, 2).tolist(), f, g, positions.tolist()) for places in r]
    naive.assert_close(v, expected, tolerance=1e-13)


def test_where_particles_are_exchanged_so_are_their_drifts_and_nothing_else_changes():
    r, *_, parameters = network(4)
    v, _ = pair_features.exchangeable_forward(r, parameters)
    assert np.abs(v[:, :2] - v[:, 2:4]).min() > 1e-3  # the particles are at different places
    for order in ([1, 0, 2, 3], [3, 1, 0, 2]):
        moved = r.reshape(4, 4, 2)[:, order].reshape(4, -1)
        naive.assert_close(pair_features.exchangeable_forward(moved, parameters)[0].reshape(4, 4, 2), v.reshape(4, 4, 2)[:, order],
                           tolerance=1e-14)  # fmt: skip


def test_every_particle_sees_the_others_and_the_nuclei():
    r, f, g, parameters = network(2)
    v, _ = pair_features.exchangeable_forward(r, parameters)
    shifted = r + np.array([0, 0, 0.1, 0])  # the second particle
    assert np.abs((pair_features.exchangeable_forward(shifted, parameters)[0] - v)[:, :2]).min() > 1e-4
    assert np.abs(pair_features.exchangeable_forward(r, (f, g, 2, NUCLEI + 0.1))[0] - v).min() > 1e-5


def test_the_op_is_pure_and_linear():
    r, *_, parameters = network(3)

    def backward(dv, cache):
        dr, f_grads, g_grads = pair_features.exchangeable_backward(dv, cache)
        return dr, *(grad for layer in f_grads + g_grads for grad in layer)

    dv = np.random.default_rng(9).standard_normal(r.shape)
    naive.assert_pure_and_linear(lambda r: pair_features.exchangeable_forward(r, parameters), (r,), backward, (dv,))


@pytest.mark.parametrize("n_particles", [1, 3])
def test_both_back_ends_agree_and_float32_stays_float32(n_particles):
    for dtype, tolerance in [("float64", 1e-13), ("float32", 1e-5)]:
        r, *_, parameters = network(n_particles, dtype=dtype)
        results = []
        for table in (ops, kernels):
            v, cache = pair_features.exchangeable_forward(r, parameters, table.mlp_forward)
            dr, f_grads, g_grads = pair_features.exchangeable_backward(np.ones_like(v), cache, table.mlp_backward)
            results.append([v, dr, *(grad for layer in f_grads + g_grads for grad in layer)])
        for one, other in zip(*results, strict=True):
            assert one.dtype == other.dtype == dtype
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())
