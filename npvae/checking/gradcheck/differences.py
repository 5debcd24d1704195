"""The checks in real arithmetic: `taylor_test`, `fd_check` and `adjoint_test`."""

import math

import numpy as np

from .arguments import (
    EPS,
    as_dicts,
    entry_products,
    index_of_largest,
    misfits,
    moved,
    of_dict,
    random_direction,
    relative_error,
    scalar_value,
)
from .report import Report, Row, conclude

FD_STEP = 1e-5  # near the cube root of the machine epsilon: truncation and rounding of a central difference balance
TAYLOR_THRESHOLD = 0.1  # by how much the observed order may fall short of 2
FD_THRESHOLD = 1e-6
ADJOINT_THRESHOLDS = {np.dtype(np.float64): 1e-14, np.dtype(np.float32): 1e-6}


def taylor_test(f, theta, grad, seed=0, assert_passed=True):
    """Check that the remainder |f(θ + hv) − f(θ) − h g·v| falls as h² along a random direction v; with a wrong g it falls as h.

    The observed order is the log-log slope at the smallest steps, from 1e-2 down to 1e-8, that stand clear of rounding;
    error = 2 − order, at most 0.1. The negative control, the same with g × 1.01, must have order 1 ± 0.1, or the test proves
    nothing. Where f is linear along v only rounding remains, and there is no order: then the control alone shows that an
    error would be seen. Relative errors below about 1e-6 are not, nor which entry is wrong. Farrell et al. 2013.
    """
    f, theta, grad = as_dicts(f, theta, grad)
    rows = misfits(theta, grad, TAYLOR_THRESHOLD)
    if rows:
        return conclude(Report("taylor_test", rows), assert_passed)
    v = random_direction(theta, list(theta), np.random.default_rng(seed))
    slope = float(entry_products(grad, v).sum())
    steps = np.concatenate([10.0 ** -np.arange(2, 8.1, 0.5), 1e-13 * np.arange(1, 9)])  # the tiny ones measure rounding
    with np.errstate(all="ignore"):  # the large ones may leave f's domain
        change = np.array([scalar_value(f, moved(theta, h, v)) for h in steps]) - scalar_value(f, theta)
        order, control = (_observed_order(steps, np.abs(change - steps * s)) for s in (slope, 1.01 * slope))
    note = f"order {order:.2f}, with gradient x 1.01 {control:.2f}"
    if order == math.inf:
        note = f"f is linear along v: only rounding remains, there is no order; with gradient x 1.01 {control:.2f}"
    problems = []
    if not abs(control - 1) <= 0.1:
        problems.append(f"inconclusive: the control, gradient x 1.01, has order {control:.2f} instead of 1; g·v = {slope:.1e}")
    shape, details = (sum(value.size for value in theta.values()),), {"order": order, "control_order": control}
    row = Row("theta", shape, 0.0 if order > 2 else 2 - order, TAYLOR_THRESHOLD, note=note, details=details)
    return conclude(Report("taylor_test", [row], problems), assert_passed)


def fd_check(f, theta, grad, kinks=None, assert_passed=True):
    """Check a gradient by central differences, g_fd = (f(θ + h e_k) − f(θ − h e_k)) / 2h for each entry k, h = 1e-5.

    error = ‖g_fd − g‖ / (‖g_fd‖ + ‖g‖) for each tensor, at most 1e-6. A step across a kink of f says nothing about g: such
    entries are left out and counted, and more than half of a tensor left out fails as inconclusive. kinks(theta), if given,
    returns the array that f branches on (say ReLU's pre-activations): sign changes tell a crossing exactly, and the distance
    min|kinks| is reported. Without it a crossing shows in f(θ + h e_k) − 2f(θ) + f(θ − h e_k), the one-sided differences'
    disagreement, which falls fourfold when h is halved if f is smooth. Karpathy, CS231n notes on gradient checks.
    """
    if kinks is not None and not isinstance(theta, dict):
        kinks = of_dict(kinks)
    f, theta, grad = as_dicts(f, theta, grad)
    rows, problems = misfits(theta, grad, FD_THRESHOLD), []
    if rows:
        return conclude(Report("fd_check", rows), assert_passed)
    for name in theta:
        reference, crossed = _central_differences(f, theta, name, np.asarray(grad[name]), kinks)
        rows.append(_fd_row(name, np.asarray(grad[name]), reference, crossed, kinks and float(np.abs(kinks(theta)).min())))
        if crossed.sum() > crossed.size / 2:
            problems.append(f"inconclusive: {crossed.sum()} of {crossed.size} entries of {name} step across a kink; move theta")
    return conclude(Report("fd_check", rows, problems), assert_passed)


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
    rows = misfits({"x": v}, {"x": Atw}, threshold)
    if not rows:
        left, right = float((Av * w).sum()), float((v.astype(np.float64) * Atw).sum())
        error = relative_error(abs(left - right), np.abs(Av * w).sum())
        rows = [Row("x", v.shape, error, threshold, None, right, left, "<v, Aᵀ w> and <A v, w>")]
    return conclude(Report("adjoint_test", rows, problems), assert_passed)


def _observed_order(steps, remainder):
    """Median log-log slope at the smallest steps whose remainder is 100 times that of the tiny ones; inf if there is none."""
    clear = ~(remainder[:-8] <= 100 * remainder[-8:].max())  # NaN is kept, and makes the order NaN
    h, r = steps[:-8][clear][-4:], remainder[:-8][clear][-4:]
    return float(np.median(np.diff(np.log(r)) / np.diff(np.log(h)))) if len(h) > 1 else math.inf


def _central_differences(f, theta, name, grad, kinks):
    """Central differences for one tensor of theta, and the entries whose steps cross a kink, as two arrays of its shape."""
    value, here = theta[name], scalar_value(f, theta)
    ahead, behind = np.empty(value.shape), np.empty(value.shape)
    crossed = np.zeros(value.shape, dtype=bool)

    def at(k, h):
        shifted = value.copy()
        shifted[k] += h
        return {**theta, name: shifted}

    for k in np.ndindex(value.shape):
        ahead[k], behind[k] = scalar_value(f, at(k, FD_STEP)), scalar_value(f, at(k, -FD_STEP))
    reference = (ahead - behind) / (2 * FD_STEP)
    if kinks:
        signs = np.sign(kinks(theta))
        for k in np.ndindex(value.shape):
            crossed[k] = any(np.any(np.sign(kinks(at(k, h))) != signs) for h in (FD_STEP, -FD_STEP))
        return reference, crossed
    # h² f'' for smooth f; |f'₊ − f'₋| (h − d) once h exceeds the distance d of a kink
    bend = ahead - 2 * here + behind
    tolerance = 1e-7 * np.abs(reference).max() + 100 * EPS * abs(here) / FD_STEP
    # Where the difference agrees with the gradient and f bends little, no kink matters: two calls of f do in place of six.
    suspect = (np.abs(reference - grad) > tolerance) | (np.abs(bend) > 1e4 * tolerance * FD_STEP)
    for k in np.ndindex(value.shape):
        if suspect[k]:
            halved = [scalar_value(f, at(k, h)) - 2 * here + scalar_value(f, at(k, -h)) for h in (FD_STEP / 2, FD_STEP / 4)]
            misfit = max(abs(bend[k] - 4 * halved[0]), abs(halved[0] - 4 * halved[1]))
            crossed[k] = misfit > tolerance * FD_STEP
    return reference, crossed


def _fd_row(name, grad, reference, crossed, distance):
    """The Row for one tensor, without the entries that crossed marks; distance is that of the nearest kink, or None."""
    difference = np.where(crossed, 0, grad - reference)
    k = index_of_largest(np.abs(difference))
    norms = np.linalg.norm(reference[~crossed]) + np.linalg.norm(grad[~crossed])
    error = relative_error(np.linalg.norm(difference), norms)
    left_out = int(crossed.sum())
    note = f"{left_out} of {crossed.size} entries left out at kinks" if left_out else ""
    if distance is not None:
        note += f"{'; ' if note else ''}nearest kink at {distance:.1e}"
    details = {"left_out": left_out, "kink_distance": distance}
    return Row(name, grad.shape, error, FD_THRESHOLD, k, float(grad[k]), float(reference[k]), note, details)
