"""The updates and their compiled twins, called as they are: anchors, shares, blocks, subnormal numbers."""

import naive
import numpy as np
import pytest
from small_models import problem

from npvae.kernels import updates as kernels
from npvae.models.backend import load_ops
from npvae.ops import updates

# name of an update: how many arrays of state it changes, its hyperparameters, its scalar twin
UPDATES = {
    "sgd_step": (0, (0.03,), naive.sgd),
    "momentum_step": (1, (0.03, 0.8), naive.momentum),
    "adagrad_step": (1, (0.03, 1e-3), naive.adagrad),
    "rmsprop_step": (1, (0.03, 0.7, 1e-3), naive.rmsprop),
    "adam_step": (2, (0.03, 0.8, 0.95, 1e-3), naive.adam),
}


def python_adam_step(theta, grad, m, v, *numbers):
    """The kernel's loops, not compiled."""
    kernels._adam_blocks(theta, tuple(grad.reshape(-1, theta.size)), m, v, np.array(numbers))


ADAM_KERNELS = {"compiled": kernels.adam_step, "python": python_adam_step}

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])


ADAM_ANCHOR = [0.997824315228898, -0.9986722741046966, 0.5, -0.0014999999999999983]


@pytest.mark.parametrize(
    ("op", "rtol"),
    [(updates.adam_step, 4e-16), (ADAM_KERNELS["python"], 4e-16), (ADAM_KERNELS["compiled"], 1e-13)],
    ids=["numpy", "python", "compiled"],
)
def test_adam_anchor(op, rtol):
    """To the last bit; compiled, a power one bit off counts 1/(1 − β2ᵗ) times in 1 − β2ᵗ."""
    theta, m, v = np.array([1, -1, 0.5, 0]), np.zeros(4), np.zeros(4)
    for t, grad in enumerate(np.array([[0.1, -2, 0, 1e-8], [0.3, 1, 0, 1e-8], [-0.2, 0.5, 0, 1e-8]]), start=1):
        op(theta, grad, m, v, t, 1e-3, 0.9, 0.999, 1e-8)
    np.testing.assert_allclose(theta, ADAM_ANCHOR, rtol=rtol, atol=0)


@dtypes
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.3, 0.4)])
@pytest.mark.parametrize("kernel", ADAM_KERNELS)
def test_adam_kernel_equals_numpy(kernel, betas, dtype):
    """theta and both moments, entry by entry."""
    theta, grads = problem(101, dtype, steps=25)
    arrays = [theta, np.zeros_like(theta), np.zeros_like(theta)]  # theta, m, v
    twins = [array.copy() for array in arrays]
    for t, grad in enumerate(grads, start=1):
        hyperparameters = (t, 1e-2, *betas, 1e-8)
        updates.adam_step(arrays[0], grad, *arrays[1:], *hyperparameters)
        ADAM_KERNELS[kernel](twins[0], grad, *twins[1:], *hyperparameters)
    for array, twin in zip(arrays, twins):
        naive.assert_close(twin, array, dtype)


@dtypes
def test_rmsprop_kernel_with_a_short_memory_equals_numpy(dtype):
    theta, grads = problem(9, dtype)
    twin, mean_square, twin_mean_square = theta.copy(), np.zeros_like(theta), np.zeros_like(theta)
    for grad in grads:
        updates.rmsprop_step(theta, grad, mean_square, 1e-2, 0.3, 1e-4)
        kernels.rmsprop_step(twin, grad, twin_mean_square, 1e-2, 0.3, 1e-4)
    naive.assert_close(twin, theta, dtype)
    naive.assert_close(twin_mean_square, mean_square, dtype)


@dtypes
@pytest.mark.parametrize("kernel", ADAM_KERNELS)
def test_subnormal_moments_become_zero_and_the_smallest_normal_ones_stay(kernel, dtype):
    tiny = np.finfo(dtype).tiny
    # after the step, with no gradient: m is half of this, v three quarters
    m = np.array([1.9, -1.9, 2, -2, 2.5, -2.5, 0], dtype) * tiny
    v = np.array([1.2, 1.3, 4 / 3, 1.4, 1, 2, 0], dtype) * tiny
    halved, shrunk = m / 2, v * np.array(0.75, dtype)
    theta = np.ones(7, dtype)
    ADAM_KERNELS[kernel](theta, np.zeros((1, 7), dtype), m, v, 10, 1e-3, 0.5, 0.75, 1e-8)
    np.testing.assert_array_equal(m, np.where(np.abs(halved) >= tiny, halved, 0))
    np.testing.assert_array_equal(v, np.where(shrunk >= tiny, shrunk, 0))
    assert list(m != 0) == [False, False, True, True, True, True, False]
    np.testing.assert_allclose(theta, 1, atol=1e-25)


@dtypes
def test_subnormal_velocities_and_mean_squares_become_zero(dtype):
    tiny = np.finfo(dtype).tiny
    zeros, kept = np.zeros((1, 4), dtype), np.array([True, False, True, False])
    velocity = np.array([2, 1.9, -2, -1.9], dtype) * tiny
    halved = velocity / 2
    kernels.momentum_step(np.ones(4, dtype), zeros, velocity, 1e-3, 0.5)
    np.testing.assert_array_equal(velocity, np.where(kept, halved, 0))
    mean_square = np.array([2, 1.9, 4, 0], dtype) * tiny
    halved = mean_square / 2
    kernels.rmsprop_step(np.ones(4, dtype), zeros, mean_square, 1e-3, 0.5, 1e-8)
    np.testing.assert_array_equal(mean_square, np.where(kept, halved, 0))


@dtypes
@pytest.mark.parametrize("table", [updates, kernels], ids=["ops", "kernels"])
@pytest.mark.parametrize("shards", [None, 1, 3])
@pytest.mark.parametrize("name", UPDATES)
def test_an_update_equals_its_twin_with_the_gradient_whole_or_in_shares(name, shards, table, dtype):
    n_arrays, hyperparameters, twin = UPDATES[name]
    theta, grads = problem(33, dtype)
    expected = twin(theta.tolist(), grads.tolist(), *hyperparameters)
    state = [np.zeros_like(theta) for _ in range(n_arrays)]
    for t, grad in enumerate(grads, start=1):
        if shards is not None:
            halves = [grad * 0.5**k for k in range(1, shards)]  # exact
            grad = np.stack([*halves, grad * 0.5 ** (shards - 1)])
        grad.flags.writeable = False  # a write would raise
        getattr(table, name)(theta, grad, *state, *([t] if name == "adam_step" else []), *hyperparameters)
    naive.assert_close(theta, expected, dtype)


def test_both_tables_hold_the_same_updates():
    for name in UPDATES:
        assert getattr(updates, name) is not getattr(kernels, name)
        assert getattr(load_ops("numpy"), name) is getattr(updates, name)
        assert getattr(load_ops("numba"), name) is getattr(kernels, name)


def test_a_gradient_in_shares_is_summed():
    np.testing.assert_array_equal(updates.total(np.array([[1.0, 2], [10, 20], [0, 5]])), [11, 27])
    grad = np.array([1.0, 2])
    assert updates.total(grad) is grad
