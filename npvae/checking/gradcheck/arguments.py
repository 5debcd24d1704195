"""What the checks share: theta and its gradient as dicts of arrays, random directions, errors, and what a function modifies.

Below `as_problem`, theta, grad and the direction v are flat dicts name -> array, whatever the user's are: one array, a dict or
a list of arrays, or these nested.
"""

import math
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from .report import INCONCLUSIVE, Row

EPS = np.finfo(np.float64).eps  # rounding: the gap between 1 and the next float64
STREAM = 0x67726164636865636B  # mixed into every seed: no user's own generator gives the same numbers
NOISE = (
    "it draws noise by itself, or keeps state. Hand the noise in as an argument, or seed a generator as the first line "
    "inside, so that each call draws the same numbers, and each draw within a call others (a generator that is frozen to a "
    "constant hides that two draws stand where there should be one)"
)


def generator(seed, role):
    """A random generator of the checks' own: for a role, "dout" or "v", and the user's seed."""
    return np.random.default_rng([STREAM >> 32, STREAM & 0xFFFFFFFF, *role.encode(), seed])


def as_tuple(value):
    """What a function returned, as a tuple of its members: a single value becomes a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


# ------------------------------------------------------------------------------------------------------ structures of arrays


def leaves(value, name="", separator="."):
    """Path -> leaf of nested dicts, lists and tuples: {"a": [x, y]} gives {"a.0": x, "a.1": y}; a leaf alone has the name."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {name: value}
    found = {}
    for key, item in items:
        found.update(leaves(item, f"{name}{separator}{key}" if name else str(key), separator))
    return found


def rebuilt(value, parts, name=""):
    """value with the leaves that parts names replaced; containers are new ones."""
    if isinstance(value, dict):
        return {key: rebuilt(item, parts, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [rebuilt(item, parts, f"{name}.{key}" if name else str(key)) for key, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return parts.get(name, value)


def float64_array(name, value):
    """value as a float64 array (integers are taken as the numbers they are), or ValueError under its name."""
    value = np.asarray(value)
    if value.dtype.kind in "iu" and value.size:
        return value.astype(np.float64)
    if value.dtype != np.float64 or value.size == 0:
        raise ValueError(f"{name} must be a float64 array with entries, got {value.dtype} {value.shape}: "
                         "convert with .astype(np.float64), since float32 rounding would hide errors")  # fmt: skip
    return value


def scalar_of(value):
    """A loss as a number: the first of (loss, gradient), the entry of an array of one; ValueError for anything larger."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if np.size(value) != 1:
        raise ValueError(f"f must return a scalar, got an array of shape {np.shape(value)}")
    return np.asarray(value).reshape(())[()]


class Problem(NamedTuple):
    """A scalar function with a gradient, as all checks see it."""

    f: Any  # of a flat dict name -> array; it is handed copies
    theta: dict
    grad: dict
    notes: list


def as_problem(f, theta, grad):
    """The Problem of a user's f, theta and grad; grad may be a function of theta, or None where f returns (loss, gradient)."""
    if isinstance(theta, (list, tuple)) and all(isinstance(item, (int, float)) for item in theta):
        theta = np.asarray(theta)
    single = not isinstance(theta, (dict, list, tuple))
    name = "theta" if single else ""
    flat = {key: float64_array(key, value) for key, value in leaves(theta, name).items()}
    if not flat:
        raise ValueError("theta has no arrays: there is no gradient to check")

    def evaluate(parts):
        return f(rebuilt(theta, {key: np.array(value) for key, value in parts.items()}, name))

    notes, given = [], {key: np.array(value) for key, value in flat.items()}
    first = f(rebuilt(theta, given, name))
    written = [key for key in flat if not same_bits(flat[key], given[key])]
    if written:
        notes.append(f"f writes into {', '.join(written)}: every call was handed a copy, and yours is as it was")
    if grad is None:
        if not (isinstance(first, (tuple, list)) and len(first) > 1):
            raise ValueError("there is no gradient to check: give grad, or an f that returns (loss, gradient)")
        grad = first[1]
    elif callable(grad):
        grad = grad(rebuilt(theta, {key: np.array(value) for key, value in flat.items()}, name))
    if isinstance(grad, (list, tuple)) and single:
        grad = grad[0] if len(grad) == 1 and np.ndim(grad[0]) == flat[name].ndim else np.asarray(grad)
    return Problem(lambda parts: scalar_of(evaluate(parts)), flat, leaves(grad, name), notes)


def noise_problem(first, second, culprit):
    """A sentence if two calls with the same arguments gave values that differ by more than the last bits, else None."""
    scale = max(np.max(np.abs(first), initial=0), np.max(np.abs(second), initial=0))
    same = np.shape(first) == np.shape(second)
    if same and (np.array_equal(first, second, equal_nan=True) or np.max(np.abs(np.subtract(first, second))) <= 1e-11 * scale):
        return None
    return f"{INCONCLUSIVE}{culprit} gives other values when called again: {NOISE}"


# --------------------------------------------------------------------------------------------------------------- comparisons


def precision_of(grad):
    """The rounding of a gradient's dtype, relative: that of float32 is 1e-7; integers and float64 count as exact."""
    dtype = np.asarray(grad).dtype
    return 8 * float(np.finfo(dtype).eps) if dtype.kind == "f" and dtype.itemsize < 8 else 0.0


def dtype_note(grad):
    """A remark where a gradient is not float64, "" where it is."""
    dtype = np.asarray(grad).dtype
    return "" if dtype == np.float64 else f"gradient is {dtype}, the argument float64: compared at its precision"


def misfits(theta, grad, threshold, strict=False):
    """A failed row for each gradient that is missing, too many, not finite, or not of its tensor's shape; strict: and dtype."""
    rows = []
    for name in [*theta, *(name for name in grad if name not in theta)]:
        has, needs = (f"{np.asarray(d[name]).dtype} {np.shape(d[name])}" if name in d else "nothing" for d in (grad, theta))
        numeric = name in grad and np.asarray(grad[name]).dtype.kind in "fiu"
        if not numeric or name not in theta or np.shape(grad[name]) != np.shape(theta[name]) or (strict and has != needs):
            note = f"gradient is {has}, argument is {needs}"
            rows.append(Row(name, np.shape(theta.get(name)), math.inf, threshold, note=note))
        elif not np.all(np.isfinite(grad[name])):
            k = index_of_largest(np.where(np.isfinite(grad[name]), 0.0, np.inf))
            value = float(np.asarray(grad[name])[k])
            rows.append(Row(name, theta[name].shape, math.nan, threshold, k, value, note="gradient is not finite"))
    return rows


def sizes(value):
    """The size of each entry, from which steps start: its modulus; that of the others where it is zero; 1 if all are."""
    size = np.abs(value)
    return np.where(size > 0, size, middle(size[size > 0]) if np.any(size > 0) else 1.0)


def middle(values):
    """The median, or the next larger number."""
    return float(np.sort(values, axis=None)[np.size(values) // 2])


def few_bits(value, bits=4):
    """value rounded to few bits: sums of theta and a step are then exact, so that the step is what it says."""
    mantissa, exponent = np.frexp(value)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent)


def random_direction(theta, names, rng, by_entry=False):
    """A random direction in the tensors of names, zero in the others: ± 0.5 to 2 times the size of the tensor's entries, of
    each entry by itself or of the typical one."""
    v = {name: np.zeros(value.shape) for name, value in theta.items()}
    for name in names:
        size = sizes(theta[name])
        signs = rng.choice([-1.0, 1.0], size.shape)
        v[name] = few_bits(signs * rng.uniform(0.5, 2, size.shape) * (size if by_entry else middle(size)), 8)
    return v


def nearby(theta, rng, relative):
    """theta with each entry moved by about so much of its size, at random; one unit in the last place for relative = EPS."""
    signs = {name: rng.choice([-1.0, 1.0], value.shape) * rng.uniform(0.5, 1, value.shape) for name, value in theta.items()}
    return {name: value + 2 * relative * signs[name] * (np.abs(value) if relative == EPS else sizes(value))
            for name, value in theta.items()}  # fmt: skip


def moved(theta, h, v):
    """θ + hv; complex for an imaginary h."""
    return {name: theta[name] + h * v[name] for name in theta}


def entry_products(grad, v):
    """The terms g_i v_i of the slope g·v, (n,), of the tensors in which v is not zero."""
    return np.concatenate([np.ravel(grad[name] * v[name]) for name in v if np.any(v[name])])


def relative_error(difference, scale):
    """difference / scale, where 0 / 0 is 0 (equal to the last bit) and anything else over 0 is infinite."""
    return 0.0 if difference == 0 else math.inf if scale == 0 else float(difference) / float(scale)


def explanation(grad, reference):
    """What is wrong with a gradient, where it is simple: a factor, a sign, a transpose, nothing at all; "" otherwise."""
    largest = np.abs(reference).max()
    if not np.any(grad):
        return "gradient is zero"
    counted = np.abs(reference) > 1e-3 * largest
    factors = grad[counted] / reference[counted] if largest > 0 else np.zeros(0)
    if factors.size > 1 and np.ptp(factors) <= 1e-6 * abs(factors[0]) and abs(factors[0] - 1) > 1e-6:
        opposite = "gradient has the opposite sign" if abs(factors[0] + 1) < 1e-6 else ""
        return opposite or f"gradient is {factors[0]:.6g} times the right one"
    for axes in ((-1, -2), None):
        fits = grad.ndim > 1 and turned(grad, axes).shape == reference.shape
        if fits and np.abs(turned(grad, axes) - reference).max() <= 1e-6 * largest:
            return "gradient is the transpose of the right one"
    return ""


def turned(grad, axes):
    return grad.T if axes is None else np.swapaxes(grad, *axes)


def index_of_largest(difference):
    """Index of the largest entry, as a tuple of int. NaN counts as the largest, as argmax has it."""
    k = np.argmax(difference)
    return tuple(int(i) for i in np.unravel_index(k, np.shape(difference)))


def modifications(culprit, names, before, after):
    """A sentence for each argument in which culprit, "forward" or "backward", has changed a bit."""
    return [f"{culprit} modifies {name}" for name, a, b in zip(names, before, after) if not same(a, b)]


def same_bits(a, b):
    """Whether two arrays have the same shape and bits. What is no array is not compared and counts as the same."""
    return not isinstance(a, np.ndarray) or (np.shape(a) == np.shape(b) and a.tobytes() == np.asarray(b).tobytes())


def same(a, b):
    """Whether two structures of arrays have the same bits; objects of classes are not looked into."""
    a, b = leaves(a), leaves(b)
    return list(a) == list(b) and all(same_bits(a[key], b[key]) and same_number(a[key], b[key]) for key in a)


def same_number(a, b):
    numbers = (int, float, complex, np.number)
    return not isinstance(a, numbers) or (isinstance(b, numbers) and bool(np.array_equal(a, b, equal_nan=True)))


def copied(value):
    """A deep copy, or the value itself where it cannot be copied (a generator, an open file)."""
    try:
        return deepcopy(value)
    except Exception:
        return value
