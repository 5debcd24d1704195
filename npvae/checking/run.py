"""The cases put before the checks of `npvae.gradcheck`.

`npvae gradcheck` prints what `run` finds, the tests assert it, and the tests' deliberately wrong backward passes have to fail
it. Beside the gradients themselves it checks what every backward pass owes: the same in float32, linear in its upstream
gradient, zero for zero, nothing modified, the same bits twice, and for a model the mean over the rows of the batch.
"""

import inspect
from typing import NamedTuple

import numpy as np

from npvae.checking import gradcheck
from npvae.checking.cases import Pair
from npvae.checking.gradcheck import Report, Row
from npvae.checking.gradcheck.arguments import as_tuple
from npvae.core.parameters import views_of

FLOAT32_THRESHOLD = 1e-5
LINEAR_THRESHOLD = 1e-13
MAX_ENTRIES = 2000  # finite differences entry by entry are for models of at most as many parameters
LEGEND = """
complex step         Im f(x + ih)/h, h = 1e-20: every entry, error over the largest at most 1e-12; models: along random
                     directions, tensor by tensor and jointly, at most 1e-13 of the sum of the terms
finite differences   central, extrapolated to h = 0, norm-wise at most 1e-6
Taylor               order at which the remainder of f(x + hv) falls, at least 1.9 (of a wrong gradient: 1); 2.00 where linear
float32              against float64, error over the largest entry at most 1e-5
invariants           linear in the upstream gradient, or mean of the rows' gradients and the same in one call: at most 1e-13;
                     zero for zero; nothing modified; the same bits twice"""
CHECKS = ("complex step", "finite differences", "Taylor", "float32", "invariants")


class Outcome(NamedTuple):
    """What one check found of one case."""

    case: str
    check: str  # one of CHECKS
    report: Report


def run(case):
    """The Outcomes of one Pair or ModelCase: a list, one per check that applies to it."""
    return run_pair(case) if isinstance(case, Pair) else run_model(case)


def run_pair(pair):
    """Put a pair before every check. Checks never raise AssertionError here: a failure is a Report that has not passed."""
    name, forward, backward, args, wrt, on_kink = pair
    reports = {"complex step": gradcheck.check_pair(forward, backward, *args, wrt=wrt, assert_passed=False, strict=True)}
    if not on_kink:
        f, theta, grad = contraction(pair)
        reports["finite differences"] = gradcheck.fd_check(f, theta, grad, assert_passed=False)
        reports["Taylor"] = gradcheck.taylor_test(f, theta, grad, assert_passed=False)
    reports["float32"] = float32_report(pair)
    reports["invariants"] = linearity_report(pair)
    return [Outcome(name, check, report) for check, report in reports.items()]


def contraction(pair):
    """C(theta) = Σ dout·out for fixed random dout, with theta a dict of the arguments in wrt, and its gradient by backward."""
    names = argument_names(pair)
    out, cache = pair.forward(*pair.args)
    douts = random_upstream(out, seed=5)
    grads = as_tuple(pair.backward(*[dout for dout in douts if dout is not None], cache))

    def C(theta):
        out, _ = pair.forward(*[theta.get(name, arg) for name, arg in zip(names, pair.args)])
        return sum((dout * part).sum() for dout, part in zip(douts, as_tuple(out)) if dout is not None)

    return C, {name: pair.args[names.index(name)] for name in pair.wrt}, dict(zip(pair.wrt, grads))


def float32_report(pair):
    """The gradients in float32 against those in float64 from the same (float32) arguments; the results must be float32."""
    rounded = [arg.astype(np.float32) if is_float(arg) else arg for arg in pair.args]
    grads = {}
    for dtype in (np.float32, np.float64):
        args = [arg.astype(dtype) if is_float(arg) else arg for arg in rounded]
        out, cache = pair.forward(*args)
        douts = [dout for dout in random_upstream(out, seed=6) if dout is not None]
        grads[dtype] = as_tuple(pair.backward(*douts, cache))
    rows = [float32_row(name, single, double) for name, single, double in zip(pair.wrt, grads[np.float32], grads[np.float64])]
    return Report("float32 against float64", rows)


def float32_row(name, single, double):
    """One tensor in float32 against float64: the largest difference over the largest entry."""
    if single.dtype != np.float32:
        return Row(name, double.shape, np.inf, FLOAT32_THRESHOLD, note=f"gradient is {single.dtype}, argument is float32")
    difference = np.abs(single - double)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    largest = max(np.abs(double).max(), np.finfo(np.float32).tiny)  # below it float32 has no digits left to agree with
    error, values = float(difference[index] / largest), (float(single[index]), float(double[index]))
    return Row(name, double.shape, error, FLOAT32_THRESHOLD, index, *values)


def linearity_report(pair):
    """A backward pass is linear in its upstream gradient, exactly zero for zero, and returns arrays of its own each time."""
    out, cache = pair.forward(*pair.args)
    first, second = (random_upstream(out, seed) for seed in (7, 8))
    first, second = [d for d in first if d is not None], [d for d in second if d is not None]
    of_sum = as_tuple(pair.backward(*[2 * a - 3 * b for a, b in zip(first, second)], cache))
    of_first, of_second = as_tuple(pair.backward(*first, cache)), as_tuple(pair.backward(*second, cache))
    of_zero = as_tuple(pair.backward(*[0 * a for a in first], cache))
    rows = []
    problems = [f"two backward passes return the same array for {name}"
                for name, a, b in zip(pair.wrt, of_first, of_second) if np.shares_memory(a, b)]  # fmt: skip
    for name, whole, a, b, zero in zip(pair.wrt, of_sum, of_first, of_second, of_zero):
        scale = np.abs(a).max() + np.abs(b).max()
        difference = np.abs(whole - (2 * a - 3 * b)).max()
        error = float(difference / scale) if scale else 0.0
        rows.append(Row(name, a.shape, error, LINEAR_THRESHOLD, note="linear in upstream"))
        if zero.any():
            problems.append(f"zero upstream gives a gradient of {name} that is not zero")
    return Report("invariants", rows, problems)


def run_model(case):
    """Put a model before every check; finite differences only for small ones."""
    model, f = case.model, loss_function(case)
    theta = {key: value.copy() for key, value in model.parameters.items()}
    grads = model.backward(model.forward(*case.batch, case.noise, **case.settings)[1])
    reports = {"complex step": gradcheck.directional_check(f, theta, grads, assert_passed=False)}
    if model.theta.size <= MAX_ENTRIES:
        reports["finite differences"] = gradcheck.fd_check(f, theta, grads, assert_passed=False)
    reports["Taylor"] = gradcheck.taylor_test(f, theta, grads, assert_passed=False)
    reports["float32"] = model_float32_report(case)
    rows = [*mean_rows(case, grads), *one_call_rows(case, grads)]
    reports["invariants"] = Report("invariants", rows, impurities(case, grads))
    return [Outcome(case.name, check, report) for check, report in reports.items()]


def loss_function(case):
    """The loss as a function of a dict like model.parameters, real or complex."""
    twins = {kind: case.model.copy(dtype=dtype) for kind, dtype in [("f", "float64"), ("c", "complex128")]}

    def loss(theta):
        twin = twins["c" if any(value.dtype.kind == "c" for value in theta.values()) else "f"]
        for name, value in theta.items():
            np.copyto(twin.parameters[name], value)
        return twin.forward(*case.batch, case.noise, **case.settings)[0].loss

    return loss


def model_float32_report(case):
    """The gradient of a float32 copy against that of float64 from the same rounded parameters, data and noise."""
    single = case.model.copy(dtype="float32")
    rounded = single.copy(dtype="float64")
    batch, noise = (of_arrays(lambda a: a.astype(np.float32) if is_float(a) else a, v) for v in (case.batch, case.noise))
    grads32 = single.backward(single.forward(*batch, noise, **case.settings)[1])
    grads64 = rounded.backward(rounded.forward(*batch, noise, **case.settings)[1])
    return Report("float32 against float64", [float32_row(key, grads32[key], grads64[key]) for key in grads64])


def impurities(case, grads):
    """What using the model between forward and backward, or a buffer to write into, changes: sentences, none if all is well."""
    model, noise, settings = case.model, case.noise, case.settings
    _, cache = model.forward(*case.batch, noise, **settings)
    other_noise = model.draw(np.random.default_rng(9), *case.others, **settings)
    model.forward(*case.others, other_noise, **settings)
    for name in ("encode", "reconstruct"):
        if hasattr(model, name):
            getattr(model, name)(*case.others)
    again, out = model.backward(cache), np.full_like(model.theta, np.nan)
    model.backward(cache, out=out)
    problems = [f"gradient of {key} changed when the model was used between forward and backward"
                for key in grads if not np.array_equal(again[key], grads[key])]  # fmt: skip
    problems += [f"two backward passes return the same array for {key}"
                 for key in grads if np.shares_memory(again[key], grads[key])]  # fmt: skip
    if not np.array_equal(out, np.concatenate([value.ravel() for value in again.values()])):
        problems.append("backward into a given buffer gives other gradients")
    if list(grads) != list(model.parameters):
        problems.append(f"gradients are {list(grads)}, parameters are {list(model.parameters)}")
    return problems


def mean_rows(case, grads):
    """The gradient of a batch is the mean of its rows' gradients (joined before the backward pass where the loss couples
    rows)."""
    model, settings, n = case.model, case.settings, n_rows(case.batch, case.noise)
    shards = [model.forward(*rows_of(case.batch, i), rows_of(case.noise, i), **settings) for i in range(n)]
    if not shards:
        return []
    terms, caches = zip(*shards)
    if hasattr(model, "couples_rows") and model.couples_rows(**settings):
        _, caches = model.join(terms, caches, [1 / n] * n)
    rows = [model.backward(cache) for cache in caches]
    report_rows = []
    for key, whole in grads.items():
        mean, scale = np.mean([row[key] for row in rows], axis=0), np.max([np.abs(row[key]) for row in rows])
        error = float(np.abs(whole - mean).max() / scale) if scale else 0.0
        report_rows.append(Row(key, whole.shape, error, LINEAR_THRESHOLD, note="mean of the rows' gradients"))
    return report_rows


def one_call_rows(case, grads):
    """`model.gradient`, where there is one, equals forward, then backward, for any upstream gradient."""
    model, settings = case.model, case.settings
    if not hasattr(model, "gradient"):
        return []
    space = None
    if hasattr(model, "workspace"):  # larger than need be, and used twice
        space = model.workspace(n_rows(case.batch, case.noise) + 2, **settings)
    flat, other_noise = np.full_like(model.theta, np.nan), model.draw(np.random.default_rng(9), *case.batch, **settings)
    for noise in (other_noise, case.noise):
        model.gradient(*case.batch, noise, **settings, dloss=-0.5, out=flat, workspace=space)
    report_rows = []
    for key, value in views_of(flat, {key: grad.shape for key, grad in grads.items()}).items():
        error = float(np.abs(value / -0.5 - grads[key]).max() / (np.abs(grads[key]).max() or 1))
        report_rows.append(Row(key, value.shape, error, LINEAR_THRESHOLD, note="forward and backward in one call"))
    return report_rows


# ------------------------------------------------------------------------------------------------------------- helpers


def of_arrays(function, value):
    """A function of each array of a batch or of noise: an array, a tuple of such, or None."""
    if value is None:
        return None
    return tuple(of_arrays(function, part) for part in value) if isinstance(value, tuple) else function(value)


def n_rows(batch, noise):
    """How many rows a batch has, or without data its noise; 0 without either."""
    if batch:
        return len(batch[0])
    arrays = []
    of_arrays(arrays.append, noise)
    return arrays[0].shape[0 if arrays[0].ndim == 1 else -2] if arrays else 0


def rows_of(value, i):
    """Row i of a batch or of noise, kept as an axis."""
    return some_rows(value, slice(i, i + 1))


def some_rows(value, part):
    """A slice of the rows of a batch or of noise: the last axis but one of an array, the only one of a 1-D array."""
    return of_arrays(lambda a: a[part] if a.ndim == 1 else a[..., part, :], value)


def is_float(arg):
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def argument_names(pair):
    """The names of the forward's arguments, of the Python function where it is compiled."""
    return list(inspect.signature(getattr(pair.forward, "py_func", pair.forward)).parameters)


def random_upstream(out, seed):
    """A random gradient for each floating-point member of a forward's output, of its dtype, None for the others. The numbers
    are such as float32 can hold, so that the same ones go into float32 and float64 (an nll is float64 in either)."""
    rng = np.random.default_rng(seed)
    parts = [np.asarray(part) for part in as_tuple(out)]
    return [rng.standard_normal(part.shape).astype(np.float32).astype(part.dtype) if part.dtype.kind == "f" else None
            for part in parts]  # fmt: skip


def table(outcomes):
    """The outcomes as lines of text: one per op or model (the part of a case's name before the first comma), with the worst
    error of each check over its cases, and for Taylor the lowest order."""
    groups = {}
    for outcome in outcomes:
        groups.setdefault(outcome.case.split(",")[0], []).append(outcome)
    lines = [["op or model", "cases", *CHECKS, "verdict"]]
    for name, members in groups.items():
        cells = [worst_of([o.report for o in members if o.check == check], check) for check in CHECKS]
        verdict = "ok" if all(o.report.passed for o in members) else "WRONG"
        lines.append([name, str(len({o.case for o in members})), *cells, verdict])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def worst_of(reports, check):
    """One cell of the table."""
    if not reports:
        return ""
    worst = max(report.error for report in reports)
    if check == "Taylor":
        return f"order {2 - worst:.2f}"
    return f"{worst:.1e}" if worst else "0"
