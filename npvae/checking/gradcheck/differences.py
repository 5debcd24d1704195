"""The checks in real arithmetic: `taylor_test`, `fd_check` and `adjoint_test`."""

import math
from dataclasses import replace

import numpy as np

from .arguments import (
    as_problem,
    entry_products,
    generator,
    misfits,
    moved,
    noise_problem,
    random_direction,
    rebuilt,
    relative_error,
)
from .derivatives import SURE, derivative, number
from .entries import OUTSIDE, WIDEST, ZERO, counted_twice, differences_row, ties_in
from .report import Report, Row, conclude

TAYLOR_THRESHOLD = 0.1  # by how much the observed order may fall short of 2
ABOVE = float(np.nextafter(TAYLOR_THRESHOLD, 1))  # the error of a wrong gradient whose order does not show it
TAYLOR_SIGHT = 1e-6  # a relative error that the remainders show
FD_THRESHOLD = 1e-6
ADJOINT_THRESHOLDS = {np.dtype(np.float64): 1e-14, np.dtype(np.float32): 1e-6}


def taylor_test(f, theta, grad=None, seed=0, assert_passed=True, threshold=None, atol=0.0):
    """Check that the remainder |f(θ + hv) − f(θ) − h g·v| falls as h² along a random direction v; with a wrong g it falls as h.

    Two directions, with entries of theta's typical size and of their own. The observed order is the log-log slope at the
    smallest steps, from 1e-2 down to 1e-8, that stand clear of rounding; error = 2 − order, at most 0.1. The negative control,
    the same with g × 1.01, must have order 1 ± 0.1, or the test proves nothing. Where f is linear along v only rounding remains
    and there is no order: then the control alone shows that an error would be seen. Where the order is below 1.9 or the
    control fails, f'(v) by extrapolated differences decides: g·v is wrong if it differs by more than threshold (1e-6) of
    Σ|g_i v_i|, than atol Σ|v_i|, and than ten times the error that the differences estimate. Relative errors below about
    1e-5 are not seen, nor which entry is wrong. Farrell et al. 2013.
    """
    problem = as_problem(f, theta, grad)
    f, theta, grad = problem.f, problem.theta, problem.grad
    rows, problems = misfits(theta, grad, TAYLOR_THRESHOLD), []
    problems += filter(None, [noise_problem(f(theta), f(theta), "f")])
    if not rows and not problems:
        rng = generator(seed, "v")
        for by_entry in (False, True):  # the typical size of a tensor's entries, and each entry's own
            v = random_direction(theta, list(theta), rng, by_entry)
            with np.errstate(all="ignore"):  # large steps may leave f's domain
                row = taylor_row(f, theta, grad, v, threshold or TAYLOR_SIGHT, atol)
                rows.append(without_ties(f, theta, grad, v, threshold or TAYLOR_SIGHT, atol) if row.details["tie"] else row)
        rows = [next((row for row in rows if row.wrong), next((row for row in rows if row.passed), rows[0]))]
    return conclude(Report("taylor_test", rows, problems, problem.notes), assert_passed)


def without_ties(f, theta, grad, v, sight, atol):
    """The Row of a direction that leaves out the entries at ties, after these have been looked at one by one."""
    found, twice = [], ""
    for name, value in theta.items():
        F, g = (lambda x, name=name: f({**theta, name: x})), np.asarray(grad[name], dtype=np.float64)
        here = ties_in(F, value, g)
        found += here
        for tie in here:
            v[name][tie.index] = 0
        twice = twice or (counted_twice(F, value, g)[1] if here else "")
    if not any(np.any(part) for part in v.values()):
        row = Row("theta", (sum(value.size for value in theta.values()),), 0.0, TAYLOR_THRESHOLD, details={"tie": False})
    else:
        row = taylor_row(f, theta, grad, v, sight, atol)
    wrong = next((tie.note for tie in found if tie.wrong), twice)
    note = f"{len(found)} entries at ties left out, {wrong or (found[0].note if found else '')}"
    doubt = row.doubt or (OUTSIDE if any(tie.outside for tie in found) else "")
    return replace(row, note="; ".join(filter(None, [note, row.note])), doubt=doubt, error=ABOVE if wrong else row.error)


def taylor_row(f, theta, grad, v, sight, atol):
    """The Row of one direction."""
    products = entry_products(grad, v)
    slope, scale = float(products.sum()), float(np.abs(products).sum())
    steps = np.concatenate([10.0 ** -np.arange(2, 8.1, 0.5), 1e-13 * np.arange(1, 9)])  # the tiny ones measure rounding
    change = np.array([number(lambda h: f(moved(theta, h, v)), h) for h in steps]) - number(f, theta)
    order, control = (observed_order(steps, np.abs(change - steps * s)) for s in (slope, 1.01 * slope))
    note = f"order {order:.2f}, with gradient x 1.01 {control:.2f}"
    if order == math.inf:
        note = f"f is linear along v: only rounding remains, there is no order; with gradient x 1.01 {control:.2f}"
    error, doubt = 0.0 if order > 2 else 2 - order, ""
    if not (error <= TAYLOR_THRESHOLD and abs(control - 1) <= 0.1):
        allowed = max(sight * scale, atol * sum(np.abs(part).sum() for part in v.values()))
        size = np.nanmax([0.0, abs(number(f, theta)), *np.abs(100 * change[:2])])
        wrong, doubt, said = decided(f, theta, grad, v, slope, scale, allowed, size)
        error, note = max(error, ABOVE) if wrong else 0.0, f"{note}; {said}"
        doubt = f"the control, gradient x 1.01, has order {control:.2f} instead of 1, and {doubt}" if doubt else ""
    details = {"order": order, "control_order": control, "tie": "; a tie," in note}
    shape = (sum(value.size for value in theta.values()),)
    return Row("theta", shape, error, TAYLOR_THRESHOLD, note=note, details=details, doubt=doubt)


def decided(f, theta, grad, v, slope, scale, allowed, size):
    """Where the remainders do not tell: whether g·v, the slope, is wrong, why it may be open, and the numbers in words."""
    found = derivative(lambda t: f(moved(theta, t, v)), 1.0, thorough=True)
    said = f"f'(v) = {found.value:.10g} +- {found.error:.0e}, g·v = {slope:.10g}"
    if found.tie:
        said += f"; a tie, slopes {found.left:.4g} and {found.right:.4g} on its sides"
        return False, "theta lies on kinks: fd_check looks at each entry", said
    if not (abs(found.value - slope) <= allowed or found.supports(slope)):
        return True, "", said
    if abs(found.value - slope) > max(allowed, SURE * found.error):
        return False, "f has one slope at small steps and another at large ones (float32 inside?)", said
    if SURE * found.error <= max(allowed, WIDEST * scale):
        return False, "", said
    if max(abs(slope), abs(found.value)) <= SURE * found.error <= ZERO * size:
        return False, "", f"{said}; zero to rounding"
    return False, f"differences know f'(v) to {found.error:.0e} only, g·v = {slope:.1e}", said


def observed_order(steps, remainder):
    """Median log-log slope at the smallest steps whose remainder is 100 times that of the tiny ones; inf if there is none."""
    clear = ~(remainder[:-8] <= 100 * remainder[-8:].max())  # NaN is kept, and makes the order NaN
    h, r = steps[:-8][clear][-4:], remainder[:-8][clear][-4:]
    return float(np.median(np.diff(np.log(r)) / np.diff(np.log(h)))) if len(h) > 1 else math.inf


def fd_check(f, theta, grad=None, kinks=None, assert_passed=True, threshold=None, atol=0.0):
    """Check a gradient by central differences in each entry, extrapolated to h = 0 with an estimate of their error.

    error = ‖g_fd − g‖ / (‖g_fd‖ + ‖g‖) for each tensor, at most threshold (1e-6), or what the rounding of f hides, if that is
    more, up to 1e-3: beyond there is no verdict. Differences below atol do not count. Steps follow the size of theta's
    entries, and get smaller until they lie within the nearest kink. At a tie (a kink at theta itself) any slope between the
    two sides is right; the row counts such entries and shows the slopes. kinks(theta), if given, returns the array that f
    branches on (say ReLU's pre-activations): steps that change a sign in it are left out, and the distance min|kinks| is
    reported. Karpathy, CS231n notes on gradient checks; Ridders 1982.
    """
    problem, limit = as_problem(f, theta, grad), FD_THRESHOLD if threshold is None else threshold
    rows = misfits(problem.theta, problem.grad, limit)
    problems = list(filter(None, [noise_problem(problem.f(problem.theta), problem.f(problem.theta), "f")]))
    if not rows and not problems:
        branch = kinks and (lambda parts: np.asarray(kinks(rebuilt(theta, parts, "" if "theta" not in parts else "theta"))))
        rows = [fd_row(problem, name, limit, atol, branch) for name in problem.theta]
    return conclude(Report("fd_check", rows, problems, problem.notes), assert_passed)


def fd_row(problem, name, limit, atol, branch):
    """The Row of one tensor; branch(parts), or None, is what f branches on."""
    here = branch(problem.theta) if branch else np.ones(1)

    def F(x):
        return float(np.real(problem.f({**problem.theta, name: x})))

    def valid(x):
        return not np.any(branch({**problem.theta, name: x}) * here < 0)

    row = differences_row(F, problem.theta[name], name, np.asarray(problem.grad[name]), limit, atol, valid if branch else None)
    distance = float(np.abs(here).min()) if branch else None
    note = [row.note] + ([f"nearest kink at {distance:.1e}"] if branch else [])
    return replace(row, note="; ".join(filter(None, note)), details={**row.details, "kink_distance": distance})


def adjoint_test(forward, backward, x_shape, dtype=np.float64, seed=0, assert_passed=True):
    """Check <A v, w> = <v, Aᵀ w> for random v, w, where forward(v) = A v and backward(w) = Aᵀ w: the check for float32 code.

    v has x_shape and dtype. forward must be linear (leave out a bias). error = |<A v, w> − <v, Aᵀ w>| / Σ|(A v)_i w_i| with dot
    products accumulated in float64, at most 1e-14 in float64 and 1e-6 in float32. It cannot say which entry is wrong.
    Claerbout 1992, the dot-product test.
    """
    if np.dtype(dtype) not in ADJOINT_THRESHOLDS:
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    threshold = ADJOINT_THRESHOLDS[np.dtype(dtype)]
    v = generator(seed, "v").standard_normal(x_shape).astype(dtype)
    Av = np.asarray(forward(v.copy()), dtype=np.float64)
    w = generator(seed, "w").standard_normal(Av.shape).astype(dtype)
    Atw = np.asarray(backward(w.copy()))
    problems = ["forward(0) is not 0: forward is not linear, leave out its bias"] if np.any(forward(np.zeros_like(v))) else []
    rows = misfits({"x": v}, {"x": Atw}, threshold, strict=True)
    if not rows:
        left, right = float((Av * w).sum()), float((v.astype(np.float64) * Atw).sum())
        error = relative_error(abs(left - right), np.abs(Av * w).sum())
        rows = [Row("x", v.shape, error, threshold, None, right, left, "<v, Aᵀ w> and <A v, w>")]
    return conclude(Report("adjoint_test", rows, problems), assert_passed)
