"""The complex step: `complex_step_grad`, and the checks that rest on it, `check_pair` and `directional_check`."""

import inspect
import math
import warnings
from copy import deepcopy

import numpy as np

from .arguments import (
    EPS,
    as_dicts,
    as_tuple,
    entry_products,
    float64_array,
    index_of_largest,
    misfits,
    modifications,
    moved,
    random_direction,
    relative_error,
    same_bits,
    scalar_value,
)
from .report import Report, Row, conclude

STEP = 1e-20  # of the complex step: h² vanishes beside 1, and h is far above underflow
GUARD_STEP = 1e-6  # of the one-sided differences that tell whether f loses imaginary parts
PAIR_THRESHOLD = 1e-12
DIRECTIONAL_THRESHOLD = 1e-13
REMEDY = (
    "The usual causes are abs, norm, conj, sign, .real, float() and writing into a real array. Write "
    "np.where(x.real < 0, -x, x) for abs and np.sqrt((x * x).sum()) for norm, branch on x.real, give buffers x's dtype."
)


class ComplexStepError(TypeError):
    """f does not carry imaginary parts through, so that the complex step says nothing about its gradient."""


def complex_step_grad(f, x):
    """Gradient of the scalar function f at the float64 array x: Im f(x + ih e_k)/h for each entry k, h = 1e-20.

    One call of f per entry. Its error is the rounding of f itself, at most 1e-12 of the largest entry for any sane f.
    Squire & Trapp 1998; Martins, Sturdza & Alonso 2003.
    """
    x = float64_array("x", x)
    _guard(lambda theta: f(theta["x"]), {"x": x}, ["x"])
    grad = np.empty(x.shape)
    for k in np.ndindex(x.shape):
        z = x.astype(np.complex128)
        z[k] += 1j * STEP
        grad[k] = _imaginary_part(f, z) / STEP
    return grad


def check_pair(forward, backward, *args, wrt=None, seed=0, assert_passed=True):
    """Check forward(*args) -> out, cache with backward(dout, cache) -> gradients, entry by entry with the complex step.

    out may be a tuple; backward then takes one dout for each floating-point member. backward returns one gradient for each
    floating-point array in args, or for those that wrt gives by name or position; None in place of one skips it. All other
    args (numbers, strings, integer arrays) are passed through.

    With random dout and C = Σ dout·out, error = max|dx − dC/dx| / max|dC/dx| for each argument x, at most 1e-12. Required as
    well: gradients have the shape and dtype of their arguments, no array handed over is modified, and a second backward gives
    the same bits. Squire & Trapp 1998.
    """
    names = list(inspect.signature(forward).parameters)[: len(args)]
    names += [f"arg{p}" for p in range(len(names), len(args))]  # of a forward(*args)
    if wrt is None:
        wrt = [p for p, arg in enumerate(args) if isinstance(arg, np.ndarray) and arg.dtype.kind in "fc"]
    wrt = [names.index(p) if isinstance(p, str) else p for p in ([wrt] if isinstance(wrt, (str, int)) else wrt)]
    if not wrt:
        raise ValueError("there is no gradient to check: no argument is a float64 array")
    for p in wrt:
        float64_array(names[p], args[p])
    douts, grads, problems = _run_pair(forward, backward, args, names, seed)
    if len(grads) != len(wrt):
        wanted = ", ".join(names[p] for p in wrt)
        raise ValueError(f"backward returned {len(grads)} gradients for {wanted}: say which by wrt=(name, ...)")
    rows = []
    for p, grad in zip(wrt, grads):
        if grad is not None:
            rows += misfits({names[p]: args[p]}, {names[p]: grad}, PAIR_THRESHOLD) or [
                _pair_row(names[p], np.asarray(grad), complex_step_grad(_contraction(forward, args, p, douts), args[p]))
            ]
    if not rows:
        raise ValueError("there is no gradient to check: backward returned only None")
    return conclude(Report(f"check_pair {getattr(forward, '__name__', '')}", rows, problems), assert_passed)


def directional_check(f, theta, grad, n_directions=5, seed=0, assert_passed=True):
    """Check Im f(θ + ihv)/h = Σ g_i v_i along random normal directions v, h = 1e-20, whatever the size of theta.

    With a dict, the directions lie in each tensor with the others held, and at last in all jointly.
    error = |Im f/h − Σ g_i v_i| / Σ|g_i v_i|, the worst of all directions, at most 1e-13. Where it is more, bisection of v
    leads to one wrong entry of the tensor, which is reported. Squire & Trapp 1998.
    """
    f, theta, grad = as_dicts(f, theta, grad)
    rows = misfits(theta, grad, DIRECTIONAL_THRESHOLD)
    if not rows:
        rng = np.random.default_rng(seed)
        groups = [[name] for name in theta] + ([list(theta)] if len(theta) > 1 else [])
        rows = [_directional_row(f, theta, grad, names, n_directions, rng) for names in groups]
    return conclude(Report("directional_check", rows), assert_passed)


def _imaginary_part(f, z):
    """Im f(z), refusing an f that fails on complex numbers or answers with a real one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            value = scalar_value(f, z)
    except (np.exceptions.ComplexWarning, TypeError) as error:
        raise ComplexStepError(f"f does not run on complex numbers: {error}. {REMEDY}") from error
    if not np.iscomplexobj(value):
        raise ComplexStepError(f"f returns a real number ({value}) for complex input: the imaginary part is lost. {REMEDY}")
    return value.imag if math.isfinite(value.real) else math.nan


def _slope(f, theta, v):
    """Derivative of f at theta along v, Im f(θ + ihv)/h."""
    return float(_imaginary_part(f, moved(theta, 1j * STEP, v)) / STEP)


def _guard(f, theta, names):
    """Refuse an f whose complex-step slope disagrees with its one-sided differences along each of five directions.

    Loose, so that it never blames a sound f: twice the gap between the one-sided differences makes room for curvature,
    kinks and rounding. NaN counts as agreement here; the check itself fails on it.
    """
    rng = np.random.default_rng(0)
    for _ in range(5):
        v = random_direction(theta, names, rng)
        slope = _slope(f, theta, v)
        with np.errstate(all="ignore"):
            before, here, after = (scalar_value(f, moved(theta, h, v)) for h in (-GUARD_STEP, 0, GUARD_STEP))
            ahead, behind = (after - here) / GUARD_STEP, (here - before) / GUARD_STEP
            rounding = 4 * EPS * abs(here) / GUARD_STEP
            tolerance = 1e-4 * (abs(slope) + abs(ahead) + abs(behind)) + 2 * abs(ahead - behind) + rounding
            if not abs(slope - (ahead + behind) / 2) > tolerance:
                return
    found = f"the complex step gives a slope of {slope:.6g}, finite differences give {ahead:.6g}"
    raise ComplexStepError(f"{found}: f loses imaginary parts. {REMEDY}")


def _run_pair(forward, backward, args, names, seed):
    """Run forward and backward on copies, both repeatedly: the random douts, the gradients, and sentences on what is impure."""
    given = deepcopy(args)
    out, cache = forward(*given)
    problems = modifications("forward", names, args, given)
    outs = as_tuple(out)
    again, _ = forward(*deepcopy(args))
    if not all(same_bits(first, second) for first, second in zip(outs, as_tuple(again))):
        problems.append("forward gives other values when called again: pass the noise as an argument")
    forward(*[np.flip(arg).copy() if isinstance(arg, np.ndarray) else arg for arg in args])  # must leave this cache alone
    rng = np.random.default_rng(seed)
    douts = [rng.standard_normal(np.shape(o)) if np.asarray(o).dtype.kind == "f" else None for o in outs]
    upstream = [dout for dout in douts if dout is not None]
    runs = []
    for _ in range(2):
        before, given_upstream = deepcopy(given), deepcopy(upstream)
        grads = backward(*given_upstream, cache)
        runs.append(deepcopy(grads if isinstance(grads, (tuple, list)) else (grads,)))
        handed = [*names, *["dout"] * len(upstream)]
        problems += modifications("backward", handed, [*before, *upstream], [*given, *given_upstream])
    if not all(same_bits(first, second) for first, second in zip(*runs)):
        problems.append("a second backward from the same cache gives other bits")
    return douts, runs[0], list(dict.fromkeys(problems))


def _contraction(forward, args, p, douts):
    """C = Σ dout·out as a function of argument p."""

    def C(value):
        out, _ = forward(*deepcopy(args[:p]), value, *deepcopy(args[p + 1 :]))
        return sum((dout * part).sum() for dout, part in zip(douts, as_tuple(out)) if dout is not None)

    return C


def _pair_row(name, grad, reference):
    """The Row for one argument: the largest difference over the largest entry of the reference."""
    difference = np.abs(grad - reference)
    k = index_of_largest(difference)
    error = relative_error(difference[k], np.abs(reference).max())
    return Row(name, grad.shape, error, PAIR_THRESHOLD, k, float(grad[k]), float(reference[k]))


def _directional_row(f, theta, grad, names, n_directions, rng):
    """The Row for random directions in the tensors of names: of the direction with the largest error."""
    _guard(f, theta, names)
    worst = None
    for _ in range(n_directions):
        v = random_direction(theta, names, rng)
        slope, products = _slope(f, theta, v), entry_products(grad, v)
        error = relative_error(abs(slope - products.sum()), np.abs(products).sum())
        if worst is None or not error <= worst[0]:
            worst = error, v, float(products.sum()), slope
    error, v, analytic, slope = worst
    name, shape = (names[0], theta[names[0]].shape) if len(names) == 1 else ("jointly", (len(products),))
    if len(names) == 1 and not error <= DIRECTIONAL_THRESHOLD:
        index, analytic, slope = _wrong_entry(f, theta, grad, name, v)
        return Row(name, shape, error, DIRECTIONAL_THRESHOLD, index, analytic, slope, "a wrong entry, by bisection")
    return Row(name, shape, error, DIRECTIONAL_THRESHOLD, None, analytic, slope)


def _wrong_entry(f, theta, grad, name, v):
    """Index, gradient and reference of a wrong entry, by bisection: of the two halves of v, the more wrong one is kept."""
    g, weights = np.ravel(grad[name]), v[name].ravel()

    def slope(entries):
        part = np.zeros_like(weights)
        part[entries] = weights[entries]
        return _slope(f, theta, {**v, name: part.reshape(v[name].shape)})

    def discrepancy(entries):
        return abs(slope(entries) - np.sum(g[entries] * weights[entries]))

    entries = np.arange(weights.size)
    while entries.size > 1:
        entries = max(np.array_split(entries, 2), key=discrepancy)
    index = tuple(int(i) for i in np.unravel_index(entries[0], v[name].shape))
    return index, float(g[entries[0]]), slope(entries) / float(weights[entries[0]])
