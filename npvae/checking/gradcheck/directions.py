"""`directional_check`: a model of any size, along random directions."""

import math
from dataclasses import replace

import numpy as np

from .arguments import (
    as_problem,
    dtype_note,
    entry_products,
    few_bits,
    generator,
    misfits,
    moved,
    noise_problem,
    precision_of,
    random_direction,
    relative_error,
    sizes,
)
from .complex_step import DIRECTIONS, STEP, ComplexStepError, complex_slope, confirmation, rounding_of
from .derivatives import SURE, derivative
from .entries import OUTSIDE, ROUNDINGS, WIDEST, ZERO, counted_twice, natural_slope, ties_in, wrong_at_tie
from .report import Report, Row, conclude

DIRECTIONAL_THRESHOLD = 1e-13
DIFFERENCES_THRESHOLD = 1e-10  # where the complex step cannot go


def directional_check(f, theta, grad=None, n_directions=5, seed=0, assert_passed=True, threshold=None, atol=0.0):
    """Check Im f(θ + ihv)/h = Σ g_i v_i along random normal directions v, h = 1e-20, whatever the size of theta.

    With a dict, the directions lie in each tensor with the others held, and at last in all jointly.
    error = |Im f/h − Σ g_i v_i| / Σ|g_i v_i|, the worst of all directions, at most threshold (1e-13) or what rounding theta in
    its last place changes, if that is more; a difference below atol times Σ|v_i| does not count. Where it is more, bisection of
    v leads to one wrong entry of the tensor, which is reported. Differences confirm first that f carries imaginary parts; where
    it does not, they are what g is compared with, at 1e-10 or what they reach. Squire & Trapp 1998.
    """
    problem = as_problem(f, theta, grad)
    rows = misfits(problem.theta, problem.grad, threshold or DIRECTIONAL_THRESHOLD)
    problems = list(filter(None, [noise_problem(problem.f(problem.theta), problem.f(problem.theta), "f")]))
    if not rows and not problems:
        rng = generator(seed, "v")
        names = list(problem.theta)
        groups = [[name] for name in names] + ([names] if len(names) > 1 else [])
        rows = [direction_row(problem, group, n_directions, rng, threshold, atol) for group in groups]
    return conclude(Report("directional_check", rows, problems, problem.notes), assert_passed)


def direction_row(problem, names, n_directions, rng, threshold, atol):
    """The Row for random directions in the tensors of names: by the complex step where it goes, else by differences."""
    found = confirmation(problem.f, problem.theta, names, directions=1 if len(problem.theta) > 1 else DIRECTIONS)
    if found.ok:
        try:
            row = Directions(problem, names, threshold or DIRECTIONAL_THRESHOLD, atol, complex_step=True).row(n_directions, rng)
            doubt = f"differences confirm the complex step to {found.sight:.0e} only: f may lose smaller imaginary parts"
            row.details["confirmed"] = found.sight
            return replace(row, doubt=row.doubt or (doubt if found.sight > WIDEST else ""))
        except ComplexStepError as error:
            found = found._replace(reason=str(error))
    row = Directions(problem, names, threshold or DIFFERENCES_THRESHOLD, atol, complex_step=False).row(n_directions, rng)
    return replace(row, note="; ".join(filter(None, [f"by differences, since {found.reason}", row.note])))


class Directions:
    """The comparison of slopes along random directions in some tensors of theta."""

    def __init__(self, problem, names, threshold, atol, complex_step):
        self.f, self.theta, self.names, self.atol, self.complex_step = problem.f, problem.theta, names, atol, complex_step
        self.given = problem.grad
        self.grad = {name: np.asarray(value, dtype=np.float64) for name, value in problem.grad.items()}
        self.threshold = max(threshold, *(precision_of(problem.grad[name]) for name in names))
        self.outside = False  # whether the gradient at one of these is outside of the slopes on both sides
        self.ties = {}  # entries at ties, (name, index) -> note: directions leave them out

    def slope(self, v):
        """The slope along v, and the estimated error of differences (0 for the complex step)."""
        if self.complex_step:
            return complex_slope(self.f, self.theta, v), 0.0
        found = self.differences(v)
        return found.value, found.error

    def differences(self, v, thorough=False):
        with np.errstate(all="ignore"):
            return derivative(lambda t: self.f(moved(self.theta, t, v)), 1.0, thorough=thorough)

    def allowed(self, v, error):
        """What rounding allows between slope and gradient along v."""
        if not self.complex_step:
            return SURE * error
        spread = rounding_of(lambda theta: complex_slope(self.f, theta, v), self.theta)
        truncation = abs(complex_slope(self.f, self.theta, v) - complex_slope(self.f, self.theta, v, STEP**2))
        return ROUNDINGS * max(spread, truncation)

    def of_tensor(self, name):
        return lambda x: self.f({**self.theta, name: x})

    def leave_out_ties(self):
        """Find the entries at ties that are not known yet; whether there are any. Wrong ones are not left out."""
        known = len(self.ties)
        for name in self.names:
            for tie in ties_in(self.of_tensor(name), self.theta[name], self.grad[name]):
                if not tie.wrong:
                    self.ties[name, tie.index] = tie.note
                    self.outside |= tie.outside
        return len(self.ties) > known

    def row(self, n_directions, rng):
        """The Row of the worst of the directions."""
        rows = []
        for i in range(n_directions):
            v = random_direction(self.theta, self.names, rng, by_entry=not self.complex_step and i % 2 == 0)
            rows.append(self.one(v))
        rows += self.tied_together()
        if self.outside:
            rows = [replace(row, doubt=row.doubt or OUTSIDE) for row in rows]
        return max(rows, key=lambda row: (row.wrong, bool(row.doubt), row.threshold, row.error))

    def one(self, v):
        """The Row of one direction; entries at ties are left out of it once they are found."""
        for name, k in self.ties:
            v[name][k] = 0
        if not any(np.any(part) for part in v.values()):  # all at ties
            return self.result(0.0, self.threshold, None, None, self.remark())
        slope, estimate = self.slope(v)
        products = entry_products(self.grad, v)
        analytic, scale = float(products.sum()), float(np.abs(products).sum())
        difference, floor = abs(slope - analytic), self.atol * sum(np.abs(part).sum() for part in v.values())
        error, limit, sight = relative_error(difference, scale), self.threshold, SURE * estimate
        if floor and difference <= floor:
            return self.result(error, max(limit, error), analytic, slope, self.remark())
        if not difference <= limit * scale:
            if not self.complex_step and self.differences(v, thorough=True).tie and self.leave_out_ties():
                return self.one(v)
            sight = self.allowed(v, estimate) if math.isfinite(difference) else 0.0
            if not difference <= sight and not self.complex_step and self.differences(v, thorough=True).supports(analytic):
                sight = difference
            excused = difference <= sight
            if not excused or (self.complex_step and sight > WIDEST * max(abs(slope), scale)):
                row = self.wrong(v, error, analytic, slope)
                if row is None:  # at a tie: once more without that entry
                    return self.one(v)
                if not excused:
                    return row
        if sight <= limit * scale:
            return self.result(error, limit, analytic, slope, self.remark())
        natural = self.natural(v)
        if max(abs(slope), scale) <= sight <= ZERO * natural:
            return self.result(difference / natural, limit, analytic, slope, f"zero to rounding, {sight:.0e}")
        limit = 10.0 ** math.ceil(math.log10(max(sight / scale, error))) if scale else math.inf
        note, doubt = "; ".join(filter(None, [self.remark(), f"rounding: errors below {limit:.0e} are not seen"])), ""
        if limit > max(WIDEST, self.threshold):
            doubt = f"rounding hides errors below {limit:.0e} of the gradient: compute in float64, or move theta"
        return self.result(error, limit, analytic, slope, note, doubt)

    def tied_together(self):
        """A Row if entries at ties add up to another slope than f has when all move together; none otherwise."""
        if not self.ties or len(self.names) > 1:
            return []
        name = self.names[0]
        error, note = counted_twice(self.of_tensor(name), self.theta[name], self.grad[name])
        return [self.result(error, self.threshold, None, None, note)] if error else []

    def remark(self):
        notes = [dtype_note(self.given[name]) for name in self.names]
        if self.ties:
            notes.append(f"{len(self.ties)} entries at ties: {next(iter(self.ties.values()))}")
        return "; ".join(filter(None, notes))

    def result(self, error, limit, analytic, slope, note, doubt="", index=None):
        only = len(self.names) == 1
        shape = self.theta[self.names[0]].shape if only else (sum(self.theta[name].size for name in self.names),)
        return Row(self.names[0] if only else "jointly", shape, error, limit, index, analytic, slope, note, {}, doubt)

    def wrong(self, v, error, analytic, slope):
        """The Row for a wrong direction: of one entry, found by bisection; None if that one is at a tie."""
        if len(self.names) > 1:
            return self.result(error, self.threshold, analytic, slope, "")
        name = self.names[0]
        k, analytic, reference = self.wrong_entry(name, v)
        unit = {key: np.zeros_like(value) for key, value in self.theta.items()}
        unit[name][k] = few_bits(sizes(self.theta[name])[k])
        found, g = self.differences(unit, thorough=True), analytic * unit[name][k]
        outside = found.tie and not found.supports(g)
        size = unit[name][k]
        one = found._replace(left=found.left / size, right=found.right / size, error=found.error / size)
        if found.tie and not (outside and wrong_at_tie(self.of_tensor(name), self.theta[name], k, one, analytic)):
            left, right = (side / unit[name][k] for side in (found.left, found.right))
            self.ties[name, k] = f"slopes {left:.4g} and {right:.4g} on the sides of {k}, gradient {analytic:.4g}"
            self.outside |= outside
            return None
        if self.complex_step and found.supports(g) and not found.supports(reference * unit[name][k]):
            raise ComplexStepError("finite differences speak against the complex step")
        return self.result(error, self.threshold, analytic, reference, "a wrong entry, by bisection", "", k)

    def wrong_entry(self, name, v):
        """Index, gradient and reference of a wrong entry, by bisection: of the two halves of v, the more wrong one is kept."""
        g, weights = np.ravel(self.grad[name]), v[name].ravel()

        def slope(entries):
            part = np.zeros_like(weights)
            part[entries] = weights[entries]
            return self.slope({**v, name: part.reshape(v[name].shape)})[0]

        entries = np.flatnonzero(weights)
        while entries.size > 1:
            halves = np.array_split(entries, 2)
            misfits_of = [abs(slope(half) - np.sum(g[half] * weights[half])) for half in halves]
            entries = halves[int(np.argmax(misfits_of))]  # NaN counts as the largest
        index = tuple(int(i) for i in np.unravel_index(entries[0], v[name].shape))
        return index, float(g[entries[0]]), slope(entries) / float(weights[entries[0]])

    def natural(self, v):
        """The size that a slope along v may well have: what zero is judged by."""
        return natural_slope(lambda t: self.f(moved(self.theta, t, v)))
