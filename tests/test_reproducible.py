"""Arithmetic with the same bits everywhere: its accuracy, its bits written down, compiled and not, and no fused operations."""

import hashlib
import math
import platform

import numba
import numpy as np
import pytest
from scipy import special

from npvae import ops
from npvae.kernels import reproducible as twins
from npvae.kernels.compile import STRICT
from npvae.ops import reproducible

needs_long_double = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
needs_compiler = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")
FUNCTIONS = ("exp", "log", "sigmoid", "relu", "tanh", "softplus", "silu", "normal_cdf")  # of one number
INF, NAN = np.inf, np.nan


def points(low, high, n=4000):
    """Evenly and randomly, without a random generator, so that they are the same everywhere: float64."""
    scattered = (np.arange(n) * 0.6180339887498949) % 1.0
    return np.concatenate([np.linspace(low, high, n), low + (high - low) * scattered])


def long(x):
    return x.astype(np.longdouble)


ACCURACY = {  # arguments, the true value in long double, the largest error allowed, of the value itself or absolute
    "exp": (points(-708, 709), lambda x: np.exp(long(x)), 2e-16, "relative"),
    "log": (np.concatenate([points(0.5, 2), np.ldexp(points(0.5, 1), np.arange(8000) % 2000 - 1000)]),
            lambda x: np.log(long(x)), 2e-16, "relative or absolute"),
    "sigmoid": (points(-700, 700), lambda x: 1 / (1 + np.exp(-long(x))), 4e-16, "relative"),
    "relu": (points(-1, 1), lambda x: np.maximum(long(x), 0), 0, "absolute"),
    "tanh": (points(-20, 20), lambda x: np.tanh(long(x)), 4e-16, "absolute"),
    "softplus": (points(-700, 100), lambda x: np.log1p(np.exp(long(x))), 4e-16, "relative"),
    "silu": (points(-700, 100), lambda x: long(x) / (1 + np.exp(-long(x))), 5e-16, "relative"),
}  # fmt: skip


@needs_long_double
@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy(name):
    x, true, limit, kind = ACCURACY[name]
    value, expected = getattr(reproducible, name)(x), true(x)
    error = np.abs(value - expected)
    if "relative" in kind:
        scale = np.abs(expected)
        error = error / (np.maximum(scale, 1) if "absolute" in kind else scale)
    assert error.max() <= limit, f"{error.max()} at {x[error.argmax()]!r}"


def test_accuracy_of_the_normal_distribution():
    """Against SciPy, whose tail is itself good to 1.1e-14 only, and against decimals."""
    x = points(-9, 9)
    np.testing.assert_allclose(reproducible.normal_cdf(x), special.ndtr(x), rtol=2e-14, atol=0)
    decimals = [9.47953482220331835e-18, 2.86651571879193912e-7, 0.158655253931457051, 0.691462461274013104]
    np.testing.assert_allclose(reproducible.normal_cdf(np.array([-8.5, -5, -1, 0.5])), decimals, rtol=5e-15, atol=0)
    p = np.concatenate([points(1e-3, 1 - 1e-3), 10.0 ** points(-15, -1)])
    np.testing.assert_allclose(reproducible.normal_quantile(p), special.ndtri(p), rtol=0, atol=1e-14)
    np.testing.assert_allclose(reproducible.normal_quantile(1 - p), special.ndtri(1 - p), rtol=0, atol=1e-14)


def test_quantiles_are_those_of_the_cdf_and_symmetric():
    p = np.arange(1, 256) / 256
    z = reproducible.normal_quantile(p)
    np.testing.assert_allclose(reproducible.normal_cdf(z), p, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(z[128:], -z[:127][::-1])
    assert abs(z[127]) < 1e-15


def test_beyond_the_range():
    """Nothing is infinite, and a NaN gives some number: what follows are indices of tables."""
    x = np.array([-INF, -1e300, 1e300, INF, NAN])
    exp = reproducible.exp(x)
    assert np.all(np.isfinite(exp))
    assert np.all(exp > 0)
    np.testing.assert_array_equal(exp[[0, 1, 4]], exp[0])
    np.testing.assert_array_equal(exp[2:4], np.exp(709.0))
    cdf = reproducible.normal_cdf(x)
    np.testing.assert_array_equal(cdf[2:4], 1)
    assert np.all(cdf[[0, 1, 4]] < 2e-19)
    assert np.all(cdf > 0)


def test_activations_are_those_of_the_layers():
    assert tuple(ops.ACTIVATIONS) == reproducible.ACTIVATIONS
    x = points(-30, 30, 100)
    for number, (forward, _) in enumerate(ops.ACTIVATIONS.values()):
        np.testing.assert_allclose(reproducible.activate(x, number), forward(x)[0], rtol=5e-16, atol=4e-16)


def digest(*arrays):
    return hashlib.sha256(b"".join(array.astype("<f8").tobytes() for array in arrays)).hexdigest()[:16]


def test_the_bits_are_written_down():
    """On every machine the same: a file of another one could not be read otherwise. A change here is a new file format."""
    x, p = points(-40, 40), points(0.001, 0.999)
    found = {name: digest(getattr(reproducible, name)(np.abs(x) + 0.5 if name == "log" else x)) for name in FUNCTIONS}
    found["normal_quantile"] = digest(reproducible.normal_quantile(p))
    W = points(-1, 1, 50)[:90].reshape(15, 6)
    found["dense"] = digest(*(reproducible.dense(x[:15], W, x[15:21], number) for number in range(6)))
    assert found == BITS


BITS = {
    "exp": "751b2cf9df09e783",
    "log": "8324a87676a62684",
    "sigmoid": "a2e76dab4ab2ee16",
    "relu": "685c8e984a01f465",
    "tanh": "350cf8101c9b4e4b",
    "softplus": "3b1a15662422bd49",
    "silu": "c1fe58d54fe58fd2",
    "normal_cdf": "21a4a20912072bfc",
    "normal_quantile": "6e9513d6df3d24f9",
    "dense": "72cbc301d00eda29",
}


# ---- compiled ----


compiled = numba.njit(**STRICT)  # as `strict_jit`, but not cached: of cached code the assembly cannot be seen


@compiled
def all_of_them(x, out):
    """Each function of FUNCTIONS, of every x."""
    for i in range(x.size):
        out[0, i] = reproducible.exp(x[i])
        out[1, i] = reproducible.log(abs(x[i]) + 0.5)
        out[2, i] = reproducible.sigmoid(x[i])
        out[3, i] = reproducible.relu(x[i])
        out[4, i] = reproducible.tanh(x[i])
        out[5, i] = reproducible.softplus(x[i])
        out[6, i] = reproducible.silu(x[i])
        out[7, i] = reproducible.normal_cdf(x[i])


@compiled
def layer(x, W, b, activation):
    return reproducible.dense(x, W, b, activation)


def edges():
    """Where range reductions step, with the floats beside them."""
    k = np.arange(-1024, 1024)
    powers = np.ldexp([[1.0], [0.5**0.5]], k - 1).ravel()
    steps = np.concatenate([k * np.log(2), (k + 0.5) * np.log(2), powers, [9.0, 708, 709]])
    near = np.concatenate([steps, np.nextafter(steps, INF), np.nextafter(steps, -INF)])
    return np.concatenate([near, -near, [0.0, -0.0, 5e-324]])


def test_compiled_they_have_the_same_bits():
    x = np.concatenate([points(-720, 720, 2000), points(-9.5, 9.5, 2000), edges()])[:: 97 if numba.config.DISABLE_JIT else 1]
    out = np.empty((len(FUNCTIONS), x.size))
    all_of_them(x, out)
    for name, row in zip(FUNCTIONS, out):
        expected = getattr(reproducible, name)(np.abs(x) + 0.5 if name == "log" else x)
        assert row.tobytes() == expected.tobytes(), name


def test_compiled_they_have_the_same_bits_beyond_the_range():
    x = np.array([INF, -INF, NAN])
    out = np.empty((len(FUNCTIONS), x.size))
    with np.errstate(all="ignore"):
        all_of_them(x, out)
        for name in ("exp", "sigmoid", "relu", "tanh", "softplus", "normal_cdf"):
            np.testing.assert_array_equal(out[FUNCTIONS.index(name)], getattr(reproducible, name)(x), name)


@pytest.mark.parametrize("number", range(6))
def test_layers_have_the_same_bits_compiled_and_one_addition_at_a_time(number):
    """Zeros left out or not, −0 among the biases, and a sum that depends on the order of its terms."""
    rng = np.random.default_rng(number)
    x, W, b = rng.standard_normal(41), rng.standard_normal((41, 21)), rng.standard_normal(21)
    x[rng.random(41) < 0.5] = 0
    x[:3], W[0], W[1], W[2], b[:2] = (1, 1e-16, -1), 1e16, 1.0, 1e16, -0.0
    pre = []
    for j in range(21):
        total = 0.0 + b[j]
        for k in range(41):
            total = total + float(x[k]) * float(W[k, j])
        pre.append(total)
    expected = reproducible.activate(np.array(pre), number)
    assert reproducible.dense(x, W, b, number).tobytes() == expected.tobytes()
    assert layer(x, W, b, number).tobytes() == expected.tobytes()
    nothing = layer(np.zeros(41), W, np.full(21, -0.0), number)
    assert nothing.tobytes() == reproducible.activate(np.zeros(21), number).tobytes()


@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
def test_nothing_is_fused_and_the_layers_are_vectorised():
    x = np.ones(5)
    all_of_them(x, np.empty((len(FUNCTIONS), 5)))
    layer(x, np.ones((5, 5)), x, 1)
    for kernel in (all_of_them, layer):
        assembly = "".join(kernel.inspect_asm().values())
        assert "mulsd" in assembly or "mulpd" in assembly
        assert "vfmadd" not in assembly
        assert "vfmsub" not in assembly
        assert "vfnmadd" not in assembly
    assert "mulpd" in assembly


@pytest.mark.parametrize("name", ["exp", "log", "sigmoid", "relu", "softplus", "normal_cdf"])
def test_twins_uncompiled(name):
    """So that their mutants can be run."""
    twin = getattr(twins, f"_{name}")
    x = np.concatenate([points(-40, 40, 60), points(-2, 2, 40), [0.0, -0.0, 0.5, 9.0, 9.5, -9.5, 710.0, -710.0]])
    x = np.abs(x) + 0.1 if name == "log" else x
    value = np.array([float(twin(float(argument))) for argument in x])
    assert value.tobytes() == getattr(reproducible, name)(x).tobytes()


@pytest.mark.parametrize("number", range(6))
def test_dense_twin_uncompiled(number):
    x, W, b = points(-1, 1, 3)[:5], points(-1, 1, 10)[:15].reshape(5, 3), points(-1, 1, 3)[:3]
    x[1] = 0
    assert twins._activate(b.copy(), number).tobytes() == reproducible.activate(b, number).tobytes()
    assert twins._dense(x, W, b, number).tobytes() == reproducible.dense(x, W, b, number).tobytes()
    assert math.isfinite(b.sum())
