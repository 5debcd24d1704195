"""Affine coupling: against scalar twins and numerical derivatives, its inverse, and its log-determinant as that of a matrix."""

import math

import naive
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from npvae.ops import coupling

MAX_SCALE = 1.7
SHAPES = [(1, 1), (1, 3), (4, 1), (5, 3)]

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
layouts = pytest.mark.parametrize("layout", naive.LAYOUTS)
shapes = pytest.mark.parametrize("shape", SHAPES)


def case(shape, dtype="float64", layout="C"):
    """x, log_scale, shift, dy (B, D) and dlog_det (B,)."""
    rng = np.random.default_rng(1)
    return [naive.draw(rng, s, dtype, layout) for s in (shape, shape, shape, shape)] + [naive.draw(rng, shape[:1])]


def coupling_case(shape, dtype="float64", layout="C"):
    """x (B, D), the network's output (B, 2D), some of it far above the bound; dy (B, D), dlog_det (B,)."""
    x, _, _, dy, dlog_det = case(shape, dtype, layout)
    output = naive.draw(np.random.default_rng(2), (shape[0], 2 * shape[1]), dtype, layout)
    output[:, : shape[1]] *= 3
    return x, output, dy, dlog_det


def standardize_case(shape, dtype="float64", layout="C"):
    """x (B, D), log_scale, shift (D,), dy (B, D), dlog_det (B,)."""
    x, log_scale, shift, dy, dlog_det = case(shape, dtype, layout)
    return x, log_scale[0].copy(), shift[0].copy(), dy, dlog_det


# ---- the scalar twins: one number at a time ----


def twin_coupling(x, output, max_scale):
    """x (B, D), output (B, 2D) -> y (B, D), log_det (B,), as nested lists."""
    y, log_det = [], []
    for row, outputs in zip(x.tolist(), output.tolist()):
        raw, shift = outputs[: len(row)], outputs[len(row) :]
        scales = [math.exp(max_scale * math.tanh(r / max_scale)) for r in raw]
        y.append([value * scale + t for value, scale, t in zip(row, scales, shift)])
        log_det.append(math.log(math.prod(scales)))
    return y, log_det


def twin_coupling_backward(dy, dlog_det, x, output, max_scale):
    """dy (B, D), dlog_det (B,) -> dx (B, D), doutput (B, 2D)."""
    B, D = x.shape
    dx, doutput = np.zeros((B, D)), np.zeros((B, 2 * D))
    for b in range(B):
        for d in range(D):
            raw = float(output[b, d])
            scale = math.exp(max_scale * math.tanh(raw / max_scale))
            dscale_draw = scale / math.cosh(raw / max_scale) ** 2  # tanh' = 1/cosh²
            dx[b, d] = float(dy[b, d]) * scale
            doutput[b, d] = (float(dy[b, d]) * float(x[b, d]) + float(dlog_det[b]) / scale) * dscale_draw
            doutput[b, D + d] = float(dy[b, d])
    return dx, doutput


@dtypes
@layouts
@shapes
def test_coupling_equals_its_twin(shape, dtype, layout):
    x, output, dy, dlog_det = coupling_case(shape, dtype, layout)
    (y, log_det), cache = coupling.coupling_forward(x, output, MAX_SCALE)
    expected_y, expected_log_det = twin_coupling(x, output, MAX_SCALE)
    naive.assert_close(y, expected_y, dtype)
    naive.assert_close(log_det, expected_log_det, "float64", naive.TOLERANCE[dtype])
    grads = coupling.coupling_backward(dy, dlog_det, cache)
    for grad, expected in zip(grads, twin_coupling_backward(dy, dlog_det, x, output, MAX_SCALE), strict=True):
        naive.assert_close(grad, expected, dtype)


@dtypes
@layouts
@shapes
def test_standardize_equals_its_twin(shape, dtype, layout):
    x, log_scale, shift, dy, dlog_det = standardize_case(shape, dtype, layout)
    (y, log_det), cache = coupling.standardize_forward(x, log_scale, shift)
    B, D = shape
    expected = [[float(x[b, d] - shift[d]) / math.exp(log_scale[d]) for d in range(D)] for b in range(B)]
    naive.assert_close(y, expected, dtype)
    naive.assert_close(log_det, [-math.fsum(log_scale.tolist())] * B, "float64", naive.TOLERANCE[dtype])
    dx, dlog_scale, dshift = coupling.standardize_backward(dy, dlog_det, cache)
    naive.assert_close(dx, [[float(dy[b, d]) / math.exp(log_scale[d]) for d in range(D)] for b in range(B)], dtype)
    terms = [[-float(dy[b, d]) * expected[b][d] - float(dlog_det[b]) for b in range(B)] for d in range(D)]
    naive.assert_close(dlog_scale, [math.fsum(column) for column in terms], dtype)
    naive.assert_close(dshift, [-math.fsum(dy[:, d].tolist()) / math.exp(log_scale[d]) for d in range(D)], dtype)


@dtypes
@layouts
@shapes
def test_standard_normal_nll_is_scipys(shape, dtype, layout):
    z, _, _, _, dnll = case(shape, dtype, layout)
    nll, cache = coupling.standard_normal_nll_forward(z)
    expected = -multivariate_normal(np.zeros(shape[1])).logpdf(z.astype(float))
    naive.assert_close(nll, np.reshape(expected, shape[:1]), "float64", naive.TOLERANCE[dtype])
    dz = coupling.standard_normal_nll_backward(dnll, cache)
    naive.assert_close(dz, [[float(d) * value for value in row] for d, row in zip(dnll, z.tolist())], dtype)


def test_sums_over_the_columns_run_in_float64():
    """In float32, 10⁸ + 1 is 10⁸."""
    row = np.array([[1e4, 1, 1, 1]], "float32")
    nll, _ = coupling.standard_normal_nll_forward(row)
    assert nll.item() == pytest.approx((1e8 + 3) / 2 + 2 * math.log(2 * math.pi), rel=1e-15)
    log_scale = np.array([[1e8, 1, 1, 1]], "float32")
    with np.errstate(over="ignore"):  # of the scale itself
        (_, log_det), _ = coupling.scale_and_shift_forward(np.ones_like(row), log_scale, row)
    assert log_det.item() == 1e8 + 3
    assert coupling.standardize_forward(row, log_scale[0], row[0])[0][1].item() == -1e8 - 3


def test_the_log_scale_stays_inside_its_bound_and_is_the_raw_one_near_zero():
    raw = np.array([-1e300, -40.0, -1e-9, 0.0, 1e-9, 40.0, np.inf])
    log_scale, cache = coupling.bound_scale_forward(raw, 2.0)
    np.testing.assert_allclose(log_scale, [-2, -2, -1e-9, 0, 1e-9, 2, 2], rtol=1e-15)
    np.testing.assert_array_equal(coupling.bound_scale_backward(np.ones(7), cache), [0, 0, 1, 1, 1, 0, 0])


def test_nan_shows():
    assert np.isnan(coupling.bound_scale_forward(np.array([np.nan]), 2.0)[0]).all()
    (y, log_det), _ = coupling.coupling_forward(np.ones((1, 1)), np.array([[np.nan, 0.0]]), 2.0)
    assert np.isnan(y).all()
    assert np.isnan(log_det).all()


# ---- each labelled identity against numerical derivatives ----


def coupling_loss(x, log_scale, shift, dy, dlog_det):
    (y, log_det), _ = coupling.scale_and_shift_forward(x, log_scale, shift)
    return (dy * y).sum() + (dlog_det * log_det).sum()


def assert_scale_and_shift_gradient(argument):
    *inputs, dy, dlog_det = case((4, 3))
    grads = coupling.scale_and_shift_backward(dy, dlog_det, coupling.scale_and_shift_forward(*inputs)[1])

    def loss(value):
        return coupling_loss(*(value if i == argument else inputs[i] for i in range(3)), dy, dlog_det)

    naive.assert_is_gradient(grads[argument], loss, inputs[argument])


def test_COUPLING_x_is_the_derivative():
    assert_scale_and_shift_gradient(0)


def test_COUPLING_scale_is_the_derivative():
    assert_scale_and_shift_gradient(1)


def test_COUPLING_shift_is_the_derivative():
    assert_scale_and_shift_gradient(2)


@pytest.mark.parametrize("max_scale", [0.5, 3.0])
def test_BOUND_is_the_derivative(max_scale):
    _, raw, _, dlog_scale, _ = case((4, 3))
    draw = coupling.bound_scale_backward(dlog_scale, coupling.bound_scale_forward(raw, max_scale)[1])
    naive.assert_is_gradient(draw, lambda raw: (dlog_scale * coupling.bound_scale_forward(raw, max_scale)[0]).sum(), raw)


def assert_standardize_gradient(argument):
    *inputs, dy, dlog_det = standardize_case((4, 3))
    grads = coupling.standardize_backward(dy, dlog_det, coupling.standardize_forward(*inputs)[1])

    def loss(value):
        (y, log_det), _ = coupling.standardize_forward(*(value if i == argument else inputs[i] for i in range(3)))
        return (dy * y).sum() + (dlog_det * log_det).sum()

    naive.assert_is_gradient(grads[argument], loss, inputs[argument])


def test_STANDARDIZE_x_is_the_derivative():
    assert_standardize_gradient(0)


def test_STANDARDIZE_scale_is_the_derivative():
    assert_standardize_gradient(1)


def test_STANDARDIZE_shift_is_the_derivative():
    assert_standardize_gradient(2)


def test_NORMAL_is_the_derivative():
    z, _, _, _, dnll = case((4, 3))
    dz = coupling.standard_normal_nll_backward(dnll, coupling.standard_normal_nll_forward(z)[1])
    naive.assert_is_gradient(dz, lambda z: (dnll * coupling.standard_normal_nll_forward(z)[0]).sum(), z)


@pytest.mark.parametrize("argument", [0, 1])
def test_coupling_gradient_by_numerical_derivatives(argument):
    *inputs, dy, dlog_det = coupling_case((4, 3))
    grads = coupling.coupling_backward(dy, dlog_det, coupling.coupling_forward(*inputs, MAX_SCALE)[1])

    def loss(value):
        changed = [value if i == argument else inputs[i] for i in range(2)]
        (y, log_det), _ = coupling.coupling_forward(*changed, MAX_SCALE)
        return (dy * y).sum() + (dlog_det * log_det).sum()

    naive.assert_is_gradient(grads[argument], loss, inputs[argument])


# ---- inverse, log-determinant, density ----


@shapes
def test_the_inverse_undoes_the_forward_pass(shape):
    x, output, _, _ = coupling_case(shape)
    (y, _), _ = coupling.coupling_forward(x, output, MAX_SCALE)
    naive.assert_close(coupling.coupling_inverse(y, output, MAX_SCALE), x, tolerance=1e-14)
    x, log_scale, shift, _, _ = standardize_case(shape)
    (y, _), _ = coupling.standardize_forward(x, log_scale, shift)
    naive.assert_close(coupling.standardize_inverse(y, log_scale, shift), x, tolerance=1e-14)


def jacobian(f, x):
    """∂f/∂x of one row x (1, D) by the complex step: (D, D)."""
    columns = []
    for d in range(x.size):
        stepped = x.astype(complex)
        stepped[0, d] += 1e-20j
        columns.append(f(stepped).imag[0] / 1e-20)
    return np.stack(columns, axis=1)


def test_the_log_determinant_is_that_of_the_jacobian_matrix():
    """The whole layer: two columns are kept and read by a small network, three are moved."""
    rng = np.random.default_rng(3)
    W, x = rng.standard_normal((2, 6)), rng.standard_normal((1, 5))

    def layer(x):
        (y, log_det), _ = coupling.coupling_forward(x[:, 2:], np.sin(x[:, :2] @ W), MAX_SCALE)
        return np.hstack([x[:, :2], y]), log_det

    sign, expected = np.linalg.slogdet(jacobian(lambda x: layer(x)[0], x))
    assert sign == 1
    naive.assert_close(layer(x)[1], [expected], tolerance=1e-13)


def test_the_log_determinant_of_the_first_layer_is_that_of_the_jacobian_matrix():
    x, log_scale, shift, _, _ = standardize_case((1, 4))
    sign, expected = np.linalg.slogdet(jacobian(lambda x: coupling.standardize_forward(x, log_scale, shift)[0][0], x))
    assert sign == 1
    naive.assert_close(coupling.standardize_forward(x, log_scale, shift)[0][1], [expected], tolerance=1e-13)


@dtypes
def test_standardized_data_have_mean_0_and_variance_1(dtype):
    x = (np.random.default_rng(4).standard_normal((500, 3)) * [1e-3, 1, 1e3] + [0, 5, -2e3]).astype(dtype)
    (y, _), _ = coupling.standardize_forward(x, np.log(x.std(axis=0)), x.mean(axis=0))
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-13 if dtype == "float64" else 2e-6)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-13 if dtype == "float64" else 2e-6)


def test_density_of_a_standardized_normal_variable_is_the_normal_density():
    """With the log-determinant's sign wrong, or 2π forgotten, this fails; a gradient check would pass."""
    x, log_scale, shift, _, _ = standardize_case((6, 3))
    (z, log_det), _ = coupling.standardize_forward(x, log_scale, shift)
    nll = coupling.standard_normal_nll_forward(z)[0] - log_det
    naive.assert_close(-nll, multivariate_normal(shift, np.diag(np.exp(2 * log_scale))).logpdf(x))


# ---- the contract of a pair ----


def test_bound_scale_is_pure_and_linear():
    _, raw, _, dlog_scale, _ = case((5, 3))
    naive.assert_pure_and_linear(coupling.bound_scale_forward, (raw, 2.0), coupling.bound_scale_backward, (dlog_scale,))


def test_scale_and_shift_is_pure_and_linear():
    *inputs, dy, dlog_det = case((5, 3))
    douts = (dy, dlog_det)
    naive.assert_pure_and_linear(coupling.scale_and_shift_forward, inputs, coupling.scale_and_shift_backward, douts)


def test_coupling_is_pure_and_linear():
    x, output, dy, dlog_det = coupling_case((5, 3))
    inputs, douts = (x, output, MAX_SCALE), (dy, dlog_det)
    naive.assert_pure_and_linear(coupling.coupling_forward, inputs, coupling.coupling_backward, douts)


def test_standardize_is_pure_and_linear():
    *inputs, dy, dlog_det = standardize_case((5, 3))
    naive.assert_pure_and_linear(coupling.standardize_forward, inputs, coupling.standardize_backward, (dy, dlog_det))


def test_standard_normal_nll_is_pure_and_linear():
    z, _, _, _, dnll = case((5, 3))
    naive.assert_pure_and_linear(coupling.standard_normal_nll_forward, (z,), coupling.standard_normal_nll_backward, (dnll,))
