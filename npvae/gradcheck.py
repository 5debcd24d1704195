"""Is a hand-written gradient right? Five independent checks, each with the accuracy that it really reaches.

    check_pair          a forward/backward pair, every entry of every argument, by the complex step   1e-12
    directional_check   a model of any size, along random directions, by the complex step             1e-13
    adjoint_test        a linear map and its transpose, <A v, w> = <v, Aᵀ w>                          1e-14, float32 1e-6
    taylor_test         the remainder of a right gradient falls as h²; no complex arithmetic          order 1.9
    fd_check            central differences, the classic; kinks of f are found and left out           1e-6

The complex step, Im f(x + ih e_k)/h with h = 1e-20, subtracts nothing, so there is no cancellation and no step to tune: it is
a derivative to rounding (Squire & Trapp 1998; Martins, Sturdza & Alonso 2003). In return f must run on complex numbers:
branch on `.real`, and keep abs, norm, conj and sign away from what is differentiated. An f that loses imaginary parts is
refused with a ComplexStepError. Finite differences ask nothing of f, but a relative error of 1e-8 is below their sight.

To check a layer of your own:

    def scale_forward(x, gain):
        return x * gain, (x, gain)
    def scale_backward(dout, cache):
        return dout * cache[1], (dout * cache[0]).sum(axis=0)
    print(check_pair(scale_forward, scale_backward, np.random.randn(4, 3), np.random.randn(3)))

Every check returns a `Report`, and raises AssertionError with its text on failure unless assert_passed=False. theta and
grad are float64 arrays, or dicts name -> array; f then takes such a dict. Errors are relative to the gradient: where it
cancels to almost zero (a bias before a normalisation), rounding alone exceeds the thresholds. No check judges the forward:
the right gradient of a wrong loss passes.
"""

import inspect
import math
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass, field

import numpy as np

STEP = 1e-20  # of the complex step: h² vanishes beside 1, and h is far above underflow
FD_STEP = 1e-5  # near the cube root of the machine epsilon: truncation and rounding of a central difference balance
GUARD_STEP = 1e-6
EPS = np.finfo(np.float64).eps
PAIR_THRESHOLD = 1e-12
DIRECTIONAL_THRESHOLD = 1e-13
TAYLOR_THRESHOLD = 0.1  # by how much the observed order may fall short of 2
FD_THRESHOLD = 1e-6
ADJOINT_THRESHOLDS = {np.dtype(np.float64): 1e-14, np.dtype(np.float32): 1e-6}
REMEDY = (
    "The usual causes are abs, norm, conj, sign, .real, float() and writing into a real array. Write "
    "np.where(x.real < 0, -x, x) for abs and np.sqrt((x * x).sum()) for norm, branch on x.real, give buffers x's dtype."
)


class ComplexStepError(TypeError):
    """f does not carry imaginary parts through, so that the complex step says nothing about its gradient."""


@dataclass(frozen=True)
class Row:
    """One comparison: error against threshold, with the two numbers (of the worst entry, where index tells it)."""

    name: str
    shape: tuple
    error: float
    threshold: float
    index: tuple | None = None
    analytic: float | None = None
    reference: float | None = None
    note: str = ""
    details: dict = field(default_factory=dict)

    @property
    def passed(self):
        return bool(self.error <= self.threshold)  # False for NaN


@dataclass(frozen=True)
class Report:
    """What a check found: one row per tensor, and problems, sentences of which each one fails the check by itself."""

    check: str
    rows: list
    problems: list = field(default_factory=list)

    @property
    def passed(self):
        return bool(self.rows) and not self.problems and all(row.passed for row in self.rows)

    @property
    def error(self):
        return float(np.max([row.error for row in self.rows]))  # NaN if any is

    @property
    def threshold(self):
        return self.rows[0].threshold

    def __str__(self):
        """One line for one good row, otherwise a table."""
        if self.passed and len(self.rows) == 1:
            row = self.rows[0]
            verdict = f"error {row.error:.1e} <= {row.threshold:.0e}"
            return f"{self.check}: passed, {row.name} {row.shape}, {verdict}{row.note and ', ' + row.note}"
        lines = [["argument", "shape", "worst at", "analytic", "reference", "error", "threshold", "verdict", ""]]
        for row in self.rows:
            texts = ["" if value is None else f"{value:.14e}" for value in (row.analytic, row.reference)]
            index = "" if row.index is None else str(row.index)
            verdict = "ok" if row.passed else "WRONG"
            lines.append(
                [row.name, str(row.shape), index, *texts, f"{row.error:.1e}", f"{row.threshold:.0e}", verdict, row.note]
            )
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        title = f"{self.check}: {'passed' if self.passed else 'FAILED'}"
        return "\n  ".join([title, *table, *(f"! {problem}" for problem in self.problems)])

    def as_dict(self):
        """Plain values for json.dump; NaN and infinity, which JSON does not have, become strings."""
        rows = [{**asdict(row), "passed": row.passed} for row in self.rows]
        return _plain({**asdict(self), "rows": rows, "error": self.error, "threshold": self.threshold, "passed": self.passed})


def complex_step_grad(f, x):
    """Gradient of the scalar function f at the float64 array x: Im f(x + ih e_k)/h for each entry k, h = 1e-20.

    One call of f per entry. Its error is the rounding of f itself, at most 1e-12 of the largest entry for any sane f.
    Squire & Trapp 1998; Martins, Sturdza & Alonso 2003.
    """
    x = _float64("x", x)
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
        _float64(names[p], args[p])
    douts, grads, problems = _run_pair(forward, backward, args, names, seed)
    if len(grads) != len(wrt):
        wanted = ", ".join(names[p] for p in wrt)
        raise ValueError(f"backward returned {len(grads)} gradients for {wanted}: say which by wrt=(name, ...)")
    rows = []
    for p, grad in zip(wrt, grads):
        if grad is not None:
            rows += _misfits({names[p]: args[p]}, {names[p]: grad}, PAIR_THRESHOLD) or [
                _compared(names[p], np.asarray(grad), complex_step_grad(_contraction(forward, args, p, douts), args[p]))
            ]
    if not rows:
        raise ValueError("there is no gradient to check: backward returned only None")
    return _conclude(Report(f"check_pair {getattr(forward, '__name__', '')}", rows, problems), assert_passed)


def directional_check(f, theta, grad, n_directions=5, seed=0, assert_passed=True):
    """Check Im f(θ + ihv)/h = Σ g_i v_i along random normal directions v, h = 1e-20, whatever the size of theta.

    With a dict, the directions lie in each tensor with the others held, and at last in all jointly.
    error = |Im f/h − Σ g_i v_i| / Σ|g_i v_i|, the worst of all directions, at most 1e-13. Where it is more, bisection of v
    leads to one wrong entry of the tensor, which is reported. Squire & Trapp 1998.
    """
    f, theta, grad = _as_dicts(f, theta, grad)
    rows = _misfits(theta, grad, DIRECTIONAL_THRESHOLD)
    if not rows:
        rng = np.random.default_rng(seed)
        groups = [[name] for name in theta] + ([list(theta)] if len(theta) > 1 else [])
        rows = [_directional_row(f, theta, grad, names, n_directions, rng) for names in groups]
    return _conclude(Report("directional_check", rows), assert_passed)


def taylor_test(f, theta, grad, seed=0, assert_passed=True):
    """Check that the remainder |f(θ + hv) − f(θ) − h g·v| falls as h² along a random direction v; with a wrong g it falls as h.

    The observed order is the log-log slope at the smallest steps, from 1e-2 down to 1e-8, that stand clear of rounding;
    error = 2 − order, at most 0.1. The negative control, the same with g × 1.01, must have order 1 ± 0.1, or the test proves
    nothing. Where f is linear along v only rounding remains, and there is no order: then the control alone shows that an
    error would be seen. Relative errors below about 1e-6 are not, nor which entry is wrong. Farrell et al. 2013.
    """
    f, theta, grad = _as_dicts(f, theta, grad)
    rows = _misfits(theta, grad, TAYLOR_THRESHOLD)
    if rows:
        return _conclude(Report("taylor_test", rows), assert_passed)
    v = _direction(theta, list(theta), np.random.default_rng(seed))
    slope = float(_products(grad, v).sum())
    steps = np.concatenate([10.0 ** -np.arange(2, 8.1, 0.5), 1e-13 * np.arange(1, 9)])  # the tiny ones measure rounding
    with np.errstate(all="ignore"):  # the large ones may leave f's domain
        change = np.array([_value(f, _moved(theta, h, v)) for h in steps]) - _value(f, theta)
        order, control = (_observed_order(steps, np.abs(change - steps * s)) for s in (slope, 1.01 * slope))
    note = f"order {order:.2f}, with gradient x 1.01 {control:.2f}"
    if order == math.inf:
        note = f"f is linear along v: only rounding remains, there is no order; with gradient x 1.01 {control:.2f}"
    problems = []
    if not abs(control - 1) <= 0.1:
        problems.append(f"inconclusive: the control, gradient x 1.01, has order {control:.2f} instead of 1; g·v = {slope:.1e}")
    shape, details = (sum(value.size for value in theta.values()),), {"order": order, "control_order": control}
    row = Row("theta", shape, 0.0 if order > 2 else 2 - order, TAYLOR_THRESHOLD, note=note, details=details)
    return _conclude(Report("taylor_test", [row], problems), assert_passed)


def adjoint_test(forward, backward, x_shape, dtype=np.float64, seed=0, assert_passed=True):
    """Check <A v, w> = <v, Aᵀ w> for random v, w, where forward(v) = A v and backward(w) = Aᵀ w: the check for float32 code.

    v has x_shape and dtype. forward must be linear (leave out a bias). error = |<A v, w> − <v, Aᵀ w>| / Σ|(A v)_i w_i| with dot
    products accumulated in float64, at most 1e-14 in float64 and 1e-6 in float32. It cannot say which entry is wrong.
    Claerbout 1992, the dot-product test.
    """
    if np.dtype(dtype) not in ADJOINT_THRESHOLDS:
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    threshold = ADJOINT_THRESHOLDS[np.dtype(dtype)]
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(x_shape).astype(dtype)
    Av = np.asarray(forward(v.copy()), dtype=np.float64)
    w = rng.standard_normal(Av.shape).astype(dtype)
    Atw = np.asarray(backward(w.copy()))
    problems = ["forward(0) is not 0: forward is not linear, leave out its bias"] if np.any(forward(np.zeros_like(v))) else []
    rows = _misfits({"x": v}, {"x": Atw}, threshold)
    if not rows:
        left, right = float((Av * w).sum()), float((v.astype(np.float64) * Atw).sum())
        error = _relative(abs(left - right), np.abs(Av * w).sum())
        rows = [Row("x", v.shape, error, threshold, None, right, left, "<v, Aᵀ w> and <A v, w>")]
    return _conclude(Report("adjoint_test", rows, problems), assert_passed)


def fd_check(f, theta, grad, kinks=None, assert_passed=True):
    """Check a gradient by central differences, g_fd = (f(θ + h e_k) − f(θ − h e_k)) / 2h for each entry k, h = 1e-5.

    error = ‖g_fd − g‖ / (‖g_fd‖ + ‖g‖) for each tensor, at most 1e-6. A step across a kink of f says nothing about g: such
    entries are left out and counted, and more than half of a tensor left out fails as inconclusive. kinks(theta), if given,
    returns the array that f branches on (say ReLU's pre-activations): sign changes tell a crossing exactly, and the distance
    min|kinks| is reported. Without it a crossing shows in f(θ + h e_k) − 2f(θ) + f(θ − h e_k), the one-sided differences'
    disagreement, which falls fourfold when h is halved if f is smooth. Karpathy, CS231n notes on gradient checks.
    """
    if kinks is not None and not isinstance(theta, dict):
        kinks = _of_dict(kinks)
    f, theta, grad = _as_dicts(f, theta, grad)
    rows, problems = _misfits(theta, grad, FD_THRESHOLD), []
    if rows:
        return _conclude(Report("fd_check", rows), assert_passed)
    for name in theta:
        reference, crossed = _central_differences(f, theta, name, kinks)
        rows.append(_fd_row(name, np.asarray(grad[name]), reference, crossed, kinks and float(np.abs(kinks(theta)).min())))
        if crossed.sum() > crossed.size / 2:
            problems.append(f"inconclusive: {crossed.sum()} of {crossed.size} entries of {name} step across a kink; move theta")
    return _conclude(Report("fd_check", rows, problems), assert_passed)


# From here on theta, grad and v are dicts name -> array.


def _conclude(report, assert_passed):
    if assert_passed and not report.passed:
        raise AssertionError(str(report))
    return report


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _float64(name, value):
    value = np.asarray(value)
    if value.dtype != np.float64 or value.size == 0:
        raise ValueError(f"{name} must be a float64 array with entries, got {value.dtype} {value.shape}: "
                         "convert with .astype(np.float64), since float32 rounding would hide errors")  # fmt: skip
    return value


def _of_dict(f):
    return lambda theta: f(theta["theta"])


def _as_dicts(f, theta, grad):
    if not isinstance(theta, dict):
        f, theta, grad = _of_dict(f), {"theta": theta}, {"theta": grad}
    return f, {name: _float64(name, value) for name, value in theta.items()}, grad


def _misfits(theta, grad, threshold):
    """A failed row for each gradient that is missing, too many, not finite, or not of its tensor's shape and dtype."""
    rows = []
    for name in [*theta, *(name for name in grad if name not in theta)]:
        has, needs = (f"{np.asarray(d[name]).dtype} {np.shape(d[name])}" if name in d else "nothing" for d in (grad, theta))
        if has != needs:
            note = f"gradient is {has}, argument is {needs}"
            rows.append(Row(name, np.shape(theta.get(name)), math.inf, threshold, note=note))
        elif not np.all(np.isfinite(grad[name])):
            k = _worst(np.where(np.isfinite(grad[name]), 0.0, np.inf))
            value = float(np.asarray(grad[name])[k])
            rows.append(Row(name, theta[name].shape, math.nan, threshold, k, value, note="gradient is not finite"))
    return rows


def _relative(difference, scale):
    return 0.0 if difference == 0 else math.inf if scale == 0 else float(difference) / float(scale)


def _worst(difference):
    """Index of the largest entry, and argmax takes NaN for the largest."""
    k = np.argmax(difference)
    return tuple(int(i) for i in np.unravel_index(k, np.shape(difference)))


def _moved(theta, h, v):
    return {name: theta[name] + h * v[name] for name in theta}


def _direction(theta, names, rng):
    return {name: rng.standard_normal(value.shape) if name in names else np.zeros(value.shape) for name, value in theta.items()}


def _products(grad, v):
    return np.concatenate([np.ravel(grad[name] * v[name]) for name in v if np.any(v[name])])


def _value(f, theta):
    value = f(theta)
    if np.shape(value) != ():
        raise ValueError(f"f must return a scalar, got an array of shape {np.shape(value)}")
    return value


# The complex step.


def _imaginary_part(f, z):
    """Im f(z), refusing an f that fails on complex numbers or answers with a real one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            value = _value(f, z)
    except (np.exceptions.ComplexWarning, TypeError) as error:
        raise ComplexStepError(f"f does not run on complex numbers: {error}. {REMEDY}") from error
    if not np.iscomplexobj(value):
        raise ComplexStepError(f"f returns a real number ({value}) for complex input: the imaginary part is lost. {REMEDY}")
    return value.imag if math.isfinite(value.real) else math.nan


def _slope(f, theta, v):
    return float(_imaginary_part(f, _moved(theta, 1j * STEP, v)) / STEP)


def _guard(f, theta, names):
    """Refuse an f whose complex-step slope disagrees with its one-sided differences along each of five directions.

    Loose, so that it never blames a sound f: twice the gap between the one-sided differences makes room for curvature,
    kinks and rounding. NaN counts as agreement here; the check itself fails on it.
    """
    rng = np.random.default_rng(0)
    for _ in range(5):
        v = _direction(theta, names, rng)
        slope = _slope(f, theta, v)
        with np.errstate(all="ignore"):
            before, here, after = (_value(f, _moved(theta, h, v)) for h in (-GUARD_STEP, 0, GUARD_STEP))
            ahead, behind = (after - here) / GUARD_STEP, (here - before) / GUARD_STEP
            rounding = 4 * EPS * abs(here) / GUARD_STEP
            tolerance = 1e-4 * (abs(slope) + abs(ahead) + abs(behind)) + 2 * abs(ahead - behind) + rounding
            if not abs(slope - (ahead + behind) / 2) > tolerance:
                return
    found = f"the complex step gives a slope of {slope:.6g}, finite differences give {ahead:.6g}"
    raise ComplexStepError(f"{found}: f loses imaginary parts. {REMEDY}")


def _directional_row(f, theta, grad, names, n_directions, rng):
    _guard(f, theta, names)
    worst = None
    for _ in range(n_directions):
        v = _direction(theta, names, rng)
        slope, products = _slope(f, theta, v), _products(grad, v)
        error = _relative(abs(slope - products.sum()), np.abs(products).sum())
        if worst is None or not error <= worst[0]:
            worst = error, v, float(products.sum()), slope
    error, v, analytic, slope = worst
    name, shape = (names[0], theta[names[0]].shape) if len(names) == 1 else ("jointly", (len(products),))
    if len(names) == 1 and not error <= DIRECTIONAL_THRESHOLD:
        index, analytic, slope = _wrong_entry(f, theta, grad, name, v)
        return Row(name, shape, error, DIRECTIONAL_THRESHOLD, index, analytic, slope, "a wrong entry, by bisection")
    return Row(name, shape, error, DIRECTIONAL_THRESHOLD, None, analytic, slope)


def _wrong_entry(f, theta, grad, name, v):
    """Index, gradient and reference of an entry where they differ: of the two halves of v, keep the one that is more wrong."""
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


def _contraction(forward, args, p, douts):
    """C = Σ dout·out as a function of argument p."""

    def C(value):
        out, _ = forward(*deepcopy(args[:p]), value, *deepcopy(args[p + 1 :]))
        outs = out if isinstance(out, tuple) else (out,)
        return sum((dout * out).sum() for dout, out in zip(douts, outs) if dout is not None)

    return C


def _run_pair(forward, backward, args, names, seed):
    """Run forward once and backward twice, on copies: the random douts, the gradients, and what was impure."""
    given = deepcopy(args)
    out, cache = forward(*given)
    problems = _modified("forward", names, args, given)
    outs = out if isinstance(out, tuple) else (out,)
    again, _ = forward(*deepcopy(args))
    if not all(_same_bits(first, second) for first, second in zip(outs, again if isinstance(out, tuple) else (again,))):
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
        problems += _modified("backward", [*names, *["dout"] * len(upstream)], [*before, *upstream], [*given, *given_upstream])
    if not all(_same_bits(first, second) for first, second in zip(*runs)):
        problems.append("a second backward from the same cache gives other bits")
    return douts, runs[0], list(dict.fromkeys(problems))


def _modified(culprit, names, before, after):
    return [f"{culprit} modifies {name}" for name, a, b in zip(names, before, after) if not _same_bits(a, b)]


def _same_bits(a, b):
    return not isinstance(a, np.ndarray) or (a.shape == b.shape and a.tobytes() == b.tobytes())


def _compared(name, grad, reference):
    difference = np.abs(grad - reference)
    k = _worst(difference)
    error = _relative(difference[k], np.abs(reference).max())
    return Row(name, grad.shape, error, PAIR_THRESHOLD, k, float(grad[k]), float(reference[k]))


def _observed_order(steps, remainder):
    """Median log-log slope at the smallest steps whose remainder is 100 times that of the tiny ones; inf if there is none."""
    clear = ~(remainder[:-8] <= 100 * remainder[-8:].max())  # NaN is kept, and makes the order NaN
    h, r = steps[:-8][clear][-4:], remainder[:-8][clear][-4:]
    return float(np.median(np.diff(np.log(r)) / np.diff(np.log(h)))) if len(h) > 1 else math.inf


def _central_differences(f, theta, name, kinks):
    """Central differences for one tensor, and where their steps cross a kink."""
    value, here = theta[name], _value(f, theta)
    reference, misfit = np.empty(value.shape), np.zeros(value.shape)
    crossed = np.zeros(value.shape, dtype=bool)
    for k in np.ndindex(value.shape):

        def at(h, k=k):
            moved = value.copy()
            moved[k] += h
            return {**theta, name: moved}

        if kinks:
            signs = np.sign(kinks(theta))
            crossed[k] = any(np.any(np.sign(kinks(at(h))) != signs) for h in (FD_STEP, -FD_STEP))
        steps = [FD_STEP] if kinks else [FD_STEP, FD_STEP / 2, FD_STEP / 4]
        ahead, behind = np.array([[_value(f, at(h)), _value(f, at(-h))] for h in steps]).T
        reference[k] = (ahead[0] - behind[0]) / (2 * FD_STEP)
        # h² f'' for smooth f; |f'₊ − f'₋| (h − d) once h exceeds the distance d of a kink
        bend = ahead - 2 * here + behind
        misfit[k] = np.abs(bend[:-1] - 4 * bend[1:]).max(initial=0) / FD_STEP
    if not kinks:
        crossed = misfit > 1e-7 * np.abs(reference).max() + 100 * EPS * abs(here) / FD_STEP
    return reference, crossed


def _fd_row(name, grad, reference, crossed, distance):
    difference = np.where(crossed, 0, grad - reference)
    k = _worst(np.abs(difference))
    norms = np.linalg.norm(reference[~crossed]) + np.linalg.norm(grad[~crossed])
    error = _relative(np.linalg.norm(difference), norms)
    left_out = int(crossed.sum())
    note = f"{left_out} of {crossed.size} entries left out at kinks" if left_out else ""
    if distance is not None:
        note += f"{'; ' if note else ''}nearest kink at {distance:.1e}"
    details = {"left_out": left_out, "kink_distance": distance}
    return Row(name, grad.shape, error, FD_THRESHOLD, k, float(grad[k]), float(reference[k]), note, details)
