"""`check_pair`: forward(*args) -> out, cache with backward(dout, cache) -> gradients."""

import inspect
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .arguments import (
    as_tuple,
    copied,
    dtype_note,
    explanation,
    float64_array,
    index_of_largest,
    leaves,
    misfits,
    nearby,
    precision_of,
    rebuilt,
    relative_error,
)
from .complex_step import ComplexStepError, complex_entries, confirmation
from .entries import WIDEST, counted_twice, differences_row
from .excuses import excused, excused_verdict, natural_size
from .report import Report, Row, conclude
from .usage import observed, outputs

PAIR_THRESHOLD = 1e-12
FALLBACK_THRESHOLD = 1e-8  # of differences, where the complex step cannot go


def check_pair(
    forward, backward, *args, wrt=None, seed=0, assert_passed=True, threshold=None, atol=0.0, strict=False
):  # fmt: skip
    """Check forward(*args) -> out, cache with backward(dout, cache) -> gradients, entry by entry.

    out may be a tuple; backward then takes one dout for each floating-point member. An argument may be an array, a dict or a
    list of arrays (nested as you like; its gradient then is too). backward returns one gradient for each argument with
    floating-point arrays, or for those that wrt gives by name or position; None in place of one skips it. All other args
    (numbers, strings, integer arrays unless wrt names them) are passed through.

    Compared: with random dout and C = Σ dout·out, error = max|dx − dC/dx| / max|dC/dx| for each array x, dC/dx by the complex
    step, at most threshold (1e-12) or what rounding x in its last place changes, if that is more; differences smaller than atol
    do not count. Differences along random directions confirm first that forward carries imaginary parts. Where it does not, the
    array is judged by differences, at 1e-8 or what they reach, and the row says so. At a tie (relu at 0) any slope between
    the two sides passes.

    Required as well: backward is linear in dout, nothing handed over is modified, and another call gives the same.
    State that an object keeps between forward and backward is noted; strict=True fails it, a slope of another branch than
    forward takes at a tie, and a gradient of another dtype. Squire & Trapp 1998.
    """
    names = argument_names(forward, args)
    check_dtypes(args, names, wrt)
    use = observed(forward, backward, args, names, seed, strict)
    report = Report(f"check_pair {getattr(forward, '__name__', '')}", [], use.problems, use.notes)
    if not use.douts:
        return conclude(report, assert_passed)
    settings = Settings(PAIR_THRESHOLD if threshold is None else threshold, threshold, atol, strict, seed)
    wrt, grads = matched(args, names, wrt, use.grads)
    for sentence in [f"forward modifies {name}" for p, name in enumerate(names) if p not in wrt and not strict]:
        if sentence in report.problems:  # running means, a generator: what has no gradient may be written into
            report.problems.remove(sentence)
            report.notes.append(sentence)
    for p, grad in zip(wrt, grads):
        if grad is not None:
            report.rows.extend(argument_rows(forward, args, p, names[p], grad, use.douts, settings))
    if not report.rows:
        raise ValueError("there is no gradient to check: backward returned only None")
    return conclude(report, assert_passed)


class Settings(NamedTuple):
    threshold: float  # of the complex step
    given: float | None  # the user's own, also for differences
    atol: float
    strict: bool
    seed: int


def argument_names(forward, args):
    """The names of forward's arguments; arg1, arg2, ... of a forward(*args) or one that cannot be asked."""
    try:
        names = list(inspect.signature(getattr(forward, "py_func", forward)).parameters)[: len(args)]
    except (TypeError, ValueError):
        names = []
    return names + [f"arg{p}" for p in range(len(names), len(args))]


def check_dtypes(args, names, wrt):
    """ValueError for a float32 or complex array among the arguments to check."""
    chosen = names if wrt is None else [wrt] if isinstance(wrt, (str, int)) else wrt
    for p, arg in enumerate(args):
        for key, leaf in leaves(arg, names[p]).items() if p in chosen or names[p] in chosen else ():
            if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc":
                float64_array(key, leaf)


def matched(args, names, wrt, grads):
    """Positions of the arguments to check and a gradient for each: from a tuple, a list or a dict by the arguments' names."""
    kinds = [{leaf.dtype.kind for leaf in leaves(arg).values() if isinstance(leaf, np.ndarray)} for arg in args]
    structured = [p for p, kind in enumerate(kinds) if "f" in kind or "c" in kind]
    arrays = [p for p in structured if isinstance(args[p], np.ndarray)]
    numbers = [p for p, kind in enumerate(kinds) if kind & set("fciu")]
    candidates = [structured, arrays, numbers]
    if wrt is not None:
        candidates = [[names.index(p) if isinstance(p, str) else p for p in ([wrt] if isinstance(wrt, (str, int)) else wrt)]]
    candidates = [c for c in candidates if c]
    if not candidates:
        raise ValueError("there is no gradient to check: no argument is a float64 array")
    alone = [args[c[0]] for c in candidates if len(c) == 1]
    if isinstance(grads, dict) and not any(isinstance(arg, dict) for arg in alone):
        wrt = [p for p, name in enumerate(names) if name in grads]
        return wrt, [grads[names[p]] for p in wrt]
    if isinstance(grads, (list, tuple)) and any(isinstance(arg, (list, tuple)) and len(arg) == len(grads) for arg in alone):
        grads = (grads,)
    grads = tuple(grads) if isinstance(grads, list) else as_tuple(grads)
    for wrt in candidates:
        if len(wrt) == len(grads):
            return wrt, grads
    wanted = ", ".join(names[p] for p in candidates[0])
    raise ValueError(f"backward returned {len(grads)} gradients for {wanted}: say which by wrt=(name, ...)")


def argument_rows(forward, args, p, name, grad, douts, settings):
    """A Row for each array of argument p that has a gradient or ought to have one."""
    nested = isinstance(args[p], (dict, list, tuple))
    grads = leaves(grad, name)
    arrays = {key: value for key, value in leaves(args[p], name).items()
              if not nested or (isinstance(value, np.ndarray) and value.dtype.kind == "f")}  # fmt: skip
    arrays = {key: float64_array(key, value) for key, value in arrays.items() if grads.get(key, 0) is not None}
    grads = {key: value for key, value in grads.items() if value is not None}
    rows = misfits(arrays, grads, settings.threshold, settings.strict)
    unfit = {row.name for row in rows}
    for key, x in arrays.items():
        if key not in unfit:
            rows.append(array_row(Contraction(forward, args, p, name, key, douts), x, key, np.asarray(grads[key]), settings))
    return rows


class Contraction:
    """C = Σ dout·out as a function of one array of the arguments."""

    def __init__(self, forward, args, p, name, key, douts):
        self.forward, self.args, self.p, self.name, self.key, self.douts = forward, args, p, name, key, douts

    def __call__(self, value):
        args = [copied(arg) for arg in self.args]
        args[self.p] = rebuilt(args[self.p], {self.key: value}, self.name)
        outs = outputs(self.forward(*args)[0])
        return sum(np.sum(dout * part) for dout, part in zip(self.douts, outs) if dout is not None)

    def rounded(self, rng):
        """The same with every floating-point array of the arguments rounded differently in its last place."""
        args = []
        for arg in self.args:
            parts = {k: v for k, v in leaves(arg, "x").items() if isinstance(v, np.ndarray) and v.dtype == np.float64}
            args.append(rebuilt(arg, nearby(parts, rng, np.finfo(np.float64).eps), "x"))
        return Contraction(self.forward, args, self.p, self.name, self.key, self.douts)


def array_row(C, x, name, grad, settings):
    """The Row of one array: by the complex step where it goes, else by differences."""
    found = confirmation(lambda theta: C(theta[name].copy()), {name: x}, [name], settings.seed)
    if found.ok:
        try:
            reference = complex_entries(C, x)
            return complex_row(C, x, name, grad, reference, found, settings)
        except ComplexStepError as error:
            found = found._replace(reason=str(error))
    threshold = FALLBACK_THRESHOLD if settings.given is None else settings.given
    row = differences_row(C, x, name, grad, threshold, settings.atol)
    return replace(row, note="; ".join(filter(None, [f"by differences, since {found.reason}", row.note])))


def complex_row(C, x, name, grad, reference, found, settings):
    """The Row of one array against the complex step's gradient, with what may excuse a difference: rounding, or a tie."""
    given, grad = grad, np.asarray(grad, dtype=np.float64)
    threshold = max(settings.threshold, precision_of(given))
    difference, scale = np.abs(grad - reference), float(np.abs(reference).max())
    k = index_of_largest(difference)
    error, limit, notes, doubt, details = relative_error(difference[k], scale), threshold, [dtype_note(given)], "", {}
    allowed = max(threshold * scale, settings.atol)
    if settings.atol and difference[k] <= allowed:
        error, limit = min(error, 1.0), max(threshold, min(error, 1.0))
    elif not difference[k] <= allowed and np.all(np.isfinite(difference)):
        excuses = excused(C, x, grad, reference, difference, allowed, settings)
        if excuses[-1].allowed >= difference[excuses[-1].index]:
            error, limit, note, doubt = excused_verdict(difference, grad, scale, threshold, excuses, natural_size(C, x))
            notes.append(note)
            details["ties"] = sum(e.tie for e in excuses)
        else:
            k = excuses[-1].index
            error, notes = relative_error(difference[k], scale), [*notes, simply_wrong(grad, reference, C.douts)]
    if found.tie and not settings.strict and error <= limit:
        twice, sentence = counted_twice(C, x, grad)
        error, notes = max(error, twice), [*notes, sentence]
    if found.sight > WIDEST and not doubt:
        doubt = f"differences confirm the complex step to {found.sight:.0e} only: f may lose imaginary parts smaller than that"
    details["confirmed"] = found.sight
    note = "; ".join(filter(None, notes))
    return Row(name, grad.shape, error, limit, k, float(grad[k]), float(reference[k]), note, details, doubt)


def simply_wrong(grad, reference, douts):
    """What is wrong with a gradient, where it is simple."""
    if len(douts) == 1 and np.ndim(douts[0]) == 0 and np.allclose(grad * douts[0], reference, rtol=1e-9, atol=0):
        return "dout is not used: the gradient is that for dout = 1"
    return explanation(grad, reference)
