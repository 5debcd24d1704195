"""A condition beside the rows of a batch and its samples: against a scalar twin, numerical derivatives, the compiled twin."""

import naive
import numpy as np
import pytest

from npvae.kernels import vae as kernels
from npvae.ops import joining

SIZES = [(1, 1, 1, 1), (1, 4, 3, 2), (3, 4, 2, 5), (5, 1, 3, 1)]  # S, B, n, C
sizes = pytest.mark.parametrize("size", SIZES)


def case(size, dtype="float64"):
    """a (S B, n), its condition (B, C), and an upstream gradient dout (S B, n + C)."""
    S, B, n, C = size
    rng = np.random.default_rng(1)
    return [naive.draw(rng, shape, dtype) for shape in ((S * B, n), (B, C), (S * B, n + C))]


def naive_joined(a, condition):
    """Row s B + b is row s B + b of a, then the condition of datum b."""
    return [list(row) + list(condition[r % len(condition)]) for r, row in enumerate(a)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@sizes
def test_each_row_is_followed_by_its_datum_s_condition(size, dtype):
    a, condition, _ = case(size, dtype)
    expected = naive_joined(a.tolist(), condition.tolist())
    compiled = kernels.joined(a, condition, np.empty((len(a), a.shape[1] + condition.shape[1]), dtype))
    for out in (joining.joined(a, condition), joining.join_forward(a, condition)[0], compiled):
        assert out.dtype == dtype
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, expected)


@sizes
def test_backward_is_the_gradient(size):
    a, condition, dout = case(size)
    _, cache = joining.join_forward(a, condition)
    da = joining.join_backward(dout, cache)
    naive.assert_is_gradient(da, lambda a: (joining.joined(a, condition) * dout).sum(), a)
    assert da.flags.c_contiguous
    assert not np.shares_memory(da, dout)


def test_the_pair_is_pure_and_linear():
    a, condition, dout = case((3, 4, 2, 5))
    naive.assert_pure_and_linear(joining.join_forward, (a, condition), joining.join_backward, (dout,))
