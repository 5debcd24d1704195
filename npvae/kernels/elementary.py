"""exp, expm1, log1p, tanh and sigmoid of a scalar, for use inside kernels: written so that LLVM vectorises the calling loop.

Numba calls libm once per element, which keeps a loop scalar. Here everything is arithmetic and selects, in three steps:

1. Range reduction (Cody & Waite 1980). x = k ln 2 + r with k an integer, |r| <= ln(2)/2. ln 2 is split into a short head,
   so that k * head is exact, and a tail. For log1p, 1 + x = 2^k (1 + f) with 1 + f in [√½, √2).
2. A polynomial in r, or in s = f/(2 + f) with log(1 + f) = 2 atanh(s) (fdlibm, Sun Microsystems 1993). The leading terms are
   exact and are added last (Tang 1989), head and tail apart where they may cancel: the error stays near half an ulp.
3. 2^k from its bits: adding 1.5 * 2^mantissa to a float rounds it to an integer and leaves that integer in its low bits;
   shifted left it is the exponent of a float.

Largest error: 1.0 ulp for exp and log1p, 1.2 for expm1, 1.4 for log1p_to_one, 1.95 for tanh and sigmoid. Zeros, infinities and
NaN give what NumPy gives, overflow inf, and where exp or sigmoid are no normal numbers they are within 1 of their ulps, then 0.

The types are those of the argument: float32, float64, and complex128 for the complex step. Uncompiled (NUMBA_DISABLE_JIT=1)
the functions are NumPy's.
"""

import math
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable


def exp(x):
    """e^x."""
    return np.exp(x)


def expm1(x):
    """e^x - 1, to full relative precision near 0."""
    return np.expm1(x)


def log1p(x):
    """log(1 + x), to full relative precision near 0."""
    return np.log1p(x)


def exp_minus_abs(x):
    """e^-|x|, in [0, 1]; compiled it is 0 where it is below four times the smallest normal number."""
    return np.exp(-x if x.real > 0 else x)


def log1p_to_one(x):
    """log(1 + x) of x in [0, 1], a polynomial without the range reduction of `log1p`."""
    return np.log1p(x)


def tanh(x):
    """Hyperbolic tangent."""
    return np.tanh(x)


def sigmoid(x):
    """Logistic sigmoid 1/(1 + e^-x), to full relative precision on both sides."""
    return sigmoid_and_complement(x)[0]


def sigmoid_and_complement(x):
    """`npvae.ops.layers.sigmoid_and_complement`: σ(x) and σ(-x) for one exponential, to 3 ulp."""
    t = exp_minus_abs(x)
    larger = 1 / (1 + t)
    smaller = t * larger
    return (larger, smaller) if x.real > 0 else (smaller, larger)


def _constants(real, unsigned, mantissa, bias, ln2_head, ln2_tail, **polynomials):
    """What differs between float32 and float64, each in the type itself: one float64 would promote float32 code."""
    ln2, one_unit_a_bit = float(np.log(2)), 2.0**mantissa  # floats in [2^mantissa, 2^(mantissa + 1)) count in their low bits
    floats = {
        **{"zero": 0, "one": 1, "half": 0.5, "quarter": 0.25, "two": 2, "root_2": 2**0.5, "infinity": np.inf, "nan": np.nan},
        **{"log2_e": 1 / ln2, "ln2_head": ln2_head, "ln2_tail": ln2_tail},
        "low": -(bias + mantissa + 2) * ln2,  # exp is 0 from here down,
        "high": (bias + 1.25) * ln2,  # and inf from here up, where k is still bias + 1
        "flat": (mantissa + 4) * ln2,  # expm1(-flat) is -1, tanh(flat/2) is 1
        **{"least": -(bias - 3) * ln2, "root_tiny": 2.0 ** (1 - bias // 2)},  # below, half of exp, a square are subnormal
        "tiny": 2.0 ** -(mantissa + 2),  # expm1(x) is x below
        "rounder": 1.5 * one_unit_a_bit + 2 * bias,  # x + rounder is an integer, with k + 2 * bias in the low bits
        "rounder_one": 1.5 * one_unit_a_bit + bias,
        "rounder_half": 1.5 * one_unit_a_bit + bias - 1,
        "counter_bias": one_unit_a_bit + bias,
    }
    integers = {
        "counter": real(one_unit_a_bit).view(unsigned),  # plus an integer n: the bits of the float one_unit_a_bit + n
        "inverter": 2 * bias + 2,  # minus the exponent bits of 2^k: those of 4 * 2^-k
        "mantissa": mantissa,
    }
    values = {name: real(value) for name, value in floats.items()} | {name: unsigned(n) for name, n in integers.items()}
    values |= {name: tuple(map(real, coefficients)) for name, coefficients in polynomials.items()}
    return namedtuple("Constants", values)(**values)


# ln2_head is so short that k * ln2_head is exact for every exponent k. exp_rest is (e^r - 1 - r)/r² in powers of r, atanh_rest
# is (2 atanh(s) - 2s)/s³ in powers of s², log1p_rest the same for 1 + x up to 2, and log1p_ratio is (log(1 + x) - x)/x² in
# powers of x up to 1, highest power first: minimax polynomials for the relative error of expm1(r), atanh(s) and log1p(x) (Remez
# exchange in 60 digits), rounded to the type.
_FLOAT32 = _constants(
    np.float32, np.uint32, mantissa=23, bias=127, ln2_head=0.693145751953125, ln2_tail=1.428606820309417e-06,
    exp_rest=(0.00019914212, 0.0013940998, 0.008333273, 0.041666355, 0.16666667, 0.5),
    atanh_rest=(0.2987173, 0.39977542, 0.66666776),
    log1p_ratio=(-0.0033184676, 0.020204563, -0.057664406, 0.10680552, -0.15355395, 0.196954, -0.24958587, 0.33330512,
                 -0.4999993),
)  # fmt: skip
_FLOAT64 = _constants(
    np.float64, np.uint64, mantissa=52, bias=1023, ln2_head=0.6931471805598903, ln2_tail=5.497923018708371e-14,
    exp_rest=(
        2.09244271270314e-09, 2.5109033575889995e-08, 2.755724281208411e-07, 2.755724421169338e-06, 2.480158736049478e-05,
        0.00019841269886131875, 0.001388888888886687, 0.008333333333321626, 0.0416666666666667, 0.16666666666666677, 0.5,
    ),
    atanh_rest=(
        0.14795952242710977, 0.15314050267745755, 0.18183564338548586, 0.22222198572919621, 0.285714287423904,
        0.39999999999414665, 0.6666666666666734,
    ),
    log1p_rest=(
        0.17009794310627047, 0.08344950072871461, 0.12104950111322028, 0.13301120673822425, 0.15386548450829257,
        0.18181744476085798, 0.22222223953740494, 0.28571428548116296, 0.40000000000155134, 0.6666666666666631,
    ),
)  # fmt: skip

# Not the kernels' flag set: `reassoc` would cancel the two-part sums. Code inlined from here keeps these flags.
_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True, "no_cfunc_wrapper": True}
_helper = register_jitable(**_OPTIONS)


@intrinsic
def _bit_cast(_, value, like):
    """The bits of `value` read as a number of the type of `like`; of a wider integer the low bits."""

    def generate(context, builder, signature, arguments):
        bits = arguments[0]
        if value.bitwidth > like.bitwidth:  # Numba computes with unsigned integers in 64 bits, also those of 32
            bits = builder.trunc(bits, ir.IntType(like.bitwidth))
        return builder.bitcast(bits, context.get_value_type(like))

    return like(value, like), generate


@_helper
def _power_of_two(biased, c):
    """2^k from the low bits of k + bias, which become the exponent; what stands above them falls off."""
    return _bit_cast(biased << c.mantissa, c.one)


@_helper
def _polynomial(z, coefficients):
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * z + coefficient
    return value


@_helper
def _reduce(x, rounder, c):
    """x = k ln 2 + r + error, where error is what rounding r to the type lost; returns k + rounder, r, error."""
    shifted = x * c.log2_e + rounder
    k = shifted - rounder
    head = x - k * c.ln2_head  # exact
    r = head - k * c.ln2_tail
    return shifted, r, (head - r) - k * c.ln2_tail


@_helper
def _half_expm1(x, c):
    """(e^x - 1)/2. Half, because 2^k overflows for the largest k while e^x does not."""
    shifted, r, error = _reduce(x, c.rounder_half, c)
    half_power = _power_of_two(_bit_cast(shifted, c.mantissa), c)  # 2^(k-1)
    large, small = half_power - c.half, half_power * r  # (e^x - 1)/2 = large + small + half_power (e^r - 1 - r)
    total = large + small
    lost = small - (total - large)
    return total + (lost + half_power * (r * r * _polynomial(r, c.exp_rest) + error))


def _implement(function, complex_implementation=None):
    """Give `function` its compiled versions: the decorated one, of (x, constants), for real x, and one for complex128."""

    def register(real_implementation):
        real_implementation = _helper(real_implementation)

        @overload(function, jit_options=_OPTIONS)
        def choose(x):
            return _version(x, real_implementation, complex_implementation or function)

        return real_implementation

    return register


def _version(x, real_implementation, complex_implementation):
    """What Numba is to compile for an argument of its type x; None where there is nothing for that type."""
    if x == types.complex128:
        return complex_implementation
    constants = {types.float32: _FLOAT32, types.float64: _FLOAT64}.get(x)
    return constants and (lambda x: real_implementation(x, constants))


@_implement(exp)
def _exp(x, c):
    x = c.low if x < c.low else x  # NaN passes
    x = c.high if x > c.high else x
    shifted, r, _ = _reduce(x, c.rounder, c)
    bits = _bit_cast(shifted, c.mantissa)
    lower_half = bits >> 1  # 2^k in two factors: 2^1024 is no float, and rounding to a subnormal result must come last
    power = c.one + (r + r * r * _polynomial(r, c.exp_rest))
    return power * _power_of_two(lower_half, c) * _power_of_two(bits - lower_half, c)


@_implement(exp_minus_abs)
def _exp_minus_abs(x, c):
    size = -abs(x)
    shifted, r, _ = _reduce(c.least if size < c.least else size, c.rounder_one, c)
    power = c.one + (r + r * r * _polynomial(r, c.exp_rest))
    return c.zero if size < c.least else power * _power_of_two(_bit_cast(shifted, c.mantissa), c)


@_helper
def _log1p_to_one_float32(x):
    return x + x * (x * _polynomial(x, _FLOAT32.log1p_ratio))


@_helper
def _log1p_to_one_float64(x):
    s = x / (x + _FLOAT64.two)
    square = (s if s > _FLOAT64.root_tiny else _FLOAT64.root_tiny) ** 2  # never subnormal
    return x - s * (x - square * _polynomial(square, _FLOAT64.log1p_rest))  # 2s = x - s x


@overload(log1p_to_one, jit_options=_OPTIONS)
def _choose_log1p_to_one(x):
    return {types.float32: _log1p_to_one_float32, types.float64: _log1p_to_one_float64, types.complex128: log1p_to_one}.get(x)


def _complex_expm1(x):
    return np.expm1(x.real) * np.cos(x.imag) - 2 * np.sin(x.imag / 2) ** 2 + 1j * np.exp(x).imag


@_implement(expm1, _complex_expm1)
def _expm1(x, c):
    bounded = -c.flat if x < -c.flat else x
    half = _half_expm1(c.high if bounded > c.high else bounded, c)
    return x if abs(x) < c.tiny else half + half


def _complex_tanh(x):
    """Numba's own loses the imaginary part, the derivative of the complex step, where tanh is nearly 1."""
    t, tangent = np.tanh(x.real), np.tan(x.imag)
    return (t * (1 + tangent**2) + 1j * (tangent / np.cosh(x.real) ** 2)) / (1 + (t * tangent) ** 2)


@_implement(tanh, _complex_tanh)
def _tanh(x, c):
    size = abs(x)
    half = _half_expm1(c.flat if size + size > c.flat else size + size, c)
    total = half + c.one
    lost = half - (total - c.one) if half < c.one else c.zero  # rounding up there would exceed 1
    ratio = half / total
    ratio -= ratio * lost * (c.one - ratio)  # 1 - ratio = 1/total
    return math.copysign(ratio, x)


@_implement(sigmoid)
def _sigmoid(x, c):
    positive = x > 0
    t = exp(-x if positive else x)
    total = c.one + t
    lost = t - (total - c.one)
    ratio = (c.one if positive else t) / total
    inverse = ratio if positive else c.one - ratio  # 1/total
    return ratio - ratio * lost * inverse


@_implement(sigmoid_and_complement)
def _sigmoid_and_complement(x, c):
    t = exp_minus_abs(x)
    larger = c.one / (c.one + t)
    smaller = t * larger
    return (larger, smaller) if x > 0 else (smaller, larger)


@_implement(log1p)
def _log1p(x, c):
    exponent = _bit_cast((c.one + x) * c.root_2, c.mantissa) >> c.mantissa  # k + bias, where 1 + x = 2^k (1 + f)
    k = _bit_cast(exponent + c.counter, c.one) - c.counter_bias
    four_powers = _power_of_two(c.inverter - exponent, c)  # 4 * 2^-k, since 2^-1024 has no exponent bits
    large, small = c.quarter * four_powers - c.one, c.quarter * (x * four_powers)
    f = large + small
    lost = small - (f - large)
    s = f / (f + c.two)
    square = s * s
    half_f2 = c.half * f * f
    rest = s * (half_f2 + square * _polynomial(square, c.atanh_rest)) - half_f2  # log(1 + f) - f
    k_head = k * c.ln2_head  # exact
    total = k_head + f
    lost += f - (total - k_head)
    value = total + (lost + k * c.ln2_tail + rest)
    value = math.copysign(value, x) if x < c.infinity else x  # the sign of -0
    return value if x > -c.one else (-c.infinity if x == -c.one else c.nan)
