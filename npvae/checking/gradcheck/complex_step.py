"""The complex step: `complex_step_grad`, the confirmation that a function carries imaginary parts, and its rounding."""

import math
import warnings
from typing import NamedTuple

import numpy as np

from .arguments import EPS, float64_array, generator, moved, nearby, random_direction, scalar_of
from .derivatives import derivative, number
from .entries import WIDEST

STEP = 1e-20  # of the complex step, relative to theta's entries along a direction: h² vanishes beside 1, h is above underflow
DIRECTIONS = 2  # along which differences confirm the complex step
REMEDY = (
    "The usual causes are abs, norm, conj, sign, .real, float(), np.var, np.std, linalg.cholesky, slogdet, scipy's and "
    "compiled functions, and writing into a real array. Write np.where(x.real < 0, -x, x) for abs, np.sqrt((x * x).sum()) "
    "for norm, ((x - x.mean()) ** 2).mean() for var, branch on x.real, give buffers x's dtype; or use fd_check, taylor_test "
    "or the other checks, which go on with differences."
)


class ComplexStepError(TypeError):
    """f does not carry imaginary parts through, so that the complex step says nothing about its gradient."""


class Confirmation(NamedTuple):
    """Whether differences confirm the complex step of a function, and how well they can see."""

    ok: bool
    sight: float  # relative to the slope: a smaller part that is lost would not be seen
    tie: bool  # a kink exactly here: confirmed at a point nearby
    reason: str  # why not


def complex_step_grad(f, x):
    """Gradient of the scalar function f at the float64 array x: Im f(x + ih e_k)/h for each entry k, h = 1e-20.

    One call of f per entry, and some 60 to confirm by differences that f carries imaginary parts; a ComplexStepError where it
    does not. Its error is the rounding of f itself, at most 1e-12 of the largest entry for any sane f.
    Squire & Trapp 1998; Martins, Sturdza & Alonso 2003.
    """
    x = float64_array("x", x)
    scalar_of(f(x.copy()))  # its own errors come first
    found = confirmation(lambda theta: scalar_of(f(theta["x"].copy())), {"x": x}, ["x"])
    if not found.ok:
        raise ComplexStepError(f"{found.reason}. {REMEDY}")
    return complex_entries(lambda z: scalar_of(f(z)), x)


def complex_entries(F, x):
    """Im F(x + ih e_k)/h for each entry of x."""
    grad = np.empty(x.shape)
    for k in np.ndindex(x.shape):
        grad[k] = complex_entry(F, x, k)
    return grad


def complex_entry(F, x, k, h=STEP):
    """Im F(x + ih e_k)/h."""
    z = x.astype(np.complex128)
    z[k] += 1j * h
    return imaginary_part(F, z) / h


def imaginary_part(F, z):
    """Im F(z), refusing an F that fails on complex numbers or answers with a real one."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            value = F(z)
    except Exception as error:  # compiled code raises what it likes; the same call with real numbers has run before
        said = str(error).strip().split("\n")[0]
        raise ComplexStepError(f"f does not run on complex numbers: {said}") from error
    if not np.iscomplexobj(value):
        raise ComplexStepError(f"f returns a real number ({value}) for complex input: the imaginary part is lost")
    return float(value.imag) if math.isfinite(value.real) else math.nan


def complex_slope(f, theta, v, h=STEP):
    """Derivative of f at theta along v, Im f(θ + ihv)/h."""
    return imaginary_part(f, moved(theta, 1j * h, v)) / h


def confirmation(f, theta, names, seed=0, directions=DIRECTIONS):
    """Compare the complex step with differences along random directions, each to the accuracy that differences reach there."""
    rng, sight, tie = generator(seed, "confirm"), 0.0, False
    here = {**theta}
    for _ in range(directions):
        v = random_direction(theta, names, rng, by_entry=True)
        try:
            slope = complex_slope(f, here, v)
            agree, seen, differences = agreement(f, here, v, slope)
            if not agree and not tie:  # a kink exactly here? Then nearby there is none.
                tie, there = True, {**theta, **nearby({name: theta[name] for name in names}, rng, 1e-3)}
                agree, seen, _ = agreement(f, there, v, complex_slope(f, there, v))
                here = there if agree else here
        except ComplexStepError as error:
            return Confirmation(False, math.inf, False, str(error))
        if agree and seen > WIDEST:
            seen = seen_elsewhere(f, here, names, rng, seen)
        if not agree:
            found = f"the complex step gives a slope of {slope:.6g}, finite differences give {differences}"
            return Confirmation(False, math.inf, False, f"{found}: f loses imaginary parts")
        sight = max(sight, seen)
    return Confirmation(True, sight, tie, "")


def seen_elsewhere(f, theta, names, rng, seen):
    """How well differences confirm the complex step where they see more than at theta (sigmoid at 40 is 1 to rounding): the
    first of some points between theta and 0, or seen if they see nothing there."""
    for factor in (0.5, 0.2, 0.05):
        there = {**theta, **nearby({name: factor * theta[name] for name in names}, rng, 0.1)}
        try:
            v = random_direction(there, names, rng, by_entry=True)
            agree, better, _ = agreement(f, there, v, complex_slope(f, there, v))
        except ComplexStepError:
            continue
        if agree and better <= WIDEST:
            return better
    return seen


def agreement(f, theta, v, slope):
    """Whether differences along v support a slope, how well they see it, and what they say."""

    def phi(t):
        return f(moved(theta, t, v))

    with np.errstate(all="ignore"):
        found = derivative(phi, 1.0, good=1e-11 * abs(slope))
        if found.tie or not found.supports(slope):
            found = derivative(phi, 1.0, thorough=True)
        here, there = (abs(number(phi, t)) for t in (0.0, 0.1))
    if not math.isfinite(found.value):
        return not math.isfinite(here), 0.0, f"{found.value:.6g}"  # a value that is not finite fails the check itself
    size = np.nanmax([0.0, abs(slope), abs(found.value), 1e-3 * here, 1e-2 * abs(there - here)])  # where it cancels, that of f
    seen = found.error / size if size else 0.0
    if found.tie:
        return False, seen, f"{found.left:.6g} on one side and {found.right:.6g} on the other"
    return math.isfinite(slope) and found.supports(slope), seen, f"{found.value:.6g} +- {found.error:.0e}"


def rounding_of(slope_at, theta, seed=0, samples=6):
    """How much a derivative changes where theta is rounded in its last place: slope_at(theta) at some such neighbours."""
    rng = generator(seed, "rounding")
    try:
        here = slope_at(theta)
        values = [abs(slope_at(nearby(theta, rng, EPS)) - here) for _ in range(samples)]
    except Exception:  # outside of f's domain
        return 0.0
    return float(np.max([value for value in values if np.isfinite(value)], initial=0.0))

