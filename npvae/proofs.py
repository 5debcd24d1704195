"""The proof that the gradients are right: every op and the whole model, put before the checks of `npvae.gradcheck`.

`npvae gradcheck` prints what `prove` yields, the tests assert it, and the tests' deliberately wrong backward passes have to
fail it. An op is checked at generic arguments, and again in each regime where its formula or its rounding changes (below, at
and above a kink; inside and outside of the clip; saturated logits): a check that never visits a branch says nothing about it.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npvae import gradcheck, latent, layers, likelihood, optim
from npvae.backend import BACKENDS, load_ops
from npvae.gradcheck import Report, Row
from npvae.vae import LIKELIHOODS, VAE

ACTIVATIONS = tuple(name for name in layers.ACTIVATIONS if name != "identity")
LOGITS = (0.0, 1.0, 20.0, 40.0, 100.0, 1e4)
TARGETS = (0.0, 0.3, 1.0)
FLOAT32_THRESHOLD = 1e-5
LINEAR_THRESHOLD = 1e-13
CHECKS = ("complex step", "finite differences", "Taylor", "float32", "invariants")


class Pair(NamedTuple):
    """A forward/backward pair and the arguments that it is checked at."""

    name: str
    forward: Callable
    backward: Callable
    args: tuple
    wrt: tuple  # names of the arguments that backward differentiates
    on_kink: bool = False  # differences straddle a kink here, or drown in rounding: only the complex step can judge


class Outcome(NamedTuple):
    """What one check found of one subject."""

    subject: str
    check: str  # one of CHECKS
    report: Report


# ------------------------------------------------------------------------------------------------------ what is checked


def op_pairs():
    """The small pairs of layers, latent and likelihood, at generic arguments and in every regime."""
    normal = np.random.default_rng(0).standard_normal
    args = normal((5, 7)), normal((7, 3)), normal(3)
    pairs = [Pair("affine", layers.affine_forward, layers.affine_backward, args, ("x", "W", "b"))]
    kinked = np.array([[-1.5, -1e-9, 0.0, 1e-9, 2.0]])  # below, at and above the kink of relu
    for name in ACTIVATIONS:
        forward, backward = layers.ACTIVATIONS[name]
        pairs.append(Pair(name, forward, backward, (normal((4, 5)),), ("pre",)))
        pairs.append(Pair(f"{name}, below, at, above 0", forward, backward, (kinked,), ("pre",), True))
    for name in ("sigmoid", "softplus", "silu"):
        for level in (-40.0, 40.0):
            pair = Pair(f"{name} at {level:g}", *layers.ACTIVATIONS[name], (np.full((2, 2), level),), ("pre",), True)
            pairs.append(pair)
    clip = latent.clip_logvar_forward, latent.clip_logvar_backward
    low, high = latent.LOGVAR_MIN, latent.LOGVAR_MAX
    bounds = np.array([[low - 5, low, low + 1, 0.0, high - 1, high, high + 5]])
    pairs += [
        Pair("clip logvar", *clip, (normal((4, 3)),), ("raw",)),
        Pair("clip logvar, beyond, on, inside the bounds", *clip, (bounds,), ("raw",), True),
    ]
    mu, logvar = normal((4, 3)), normal((4, 3))
    sample = latent.reparameterize_forward, latent.reparameterize_backward
    kl = latent.gaussian_kl_forward, latent.gaussian_kl_backward
    pairs += [
        Pair("sampler", *sample, (mu, logvar, normal((4, 3))), ("mu", "logvar")),
        Pair("sampler, 5 samples", *sample, (mu, logvar, normal((5, 4, 3))), ("mu", "logvar")),
        Pair("sampler, 1 row, 1 sample", *sample, (mu[:1], logvar[:1], normal((1, 1, 3))), ("mu", "logvar")),
        Pair("Gaussian KL", *kl, (mu, logvar), ("mu", "logvar")),
    ]
    return pairs + nll_pairs("", likelihood)


def nll_pairs(prefix, ops):
    """The likelihoods of a module or a table of ops: generic, with samples, and every saturation of the logits."""
    rng = np.random.default_rng(1)
    bernoulli = ops.bernoulli_nll_forward, ops.bernoulli_nll_backward
    gaussian = ops.gaussian_nll_forward, ops.gaussian_nll_backward
    x, grey = rng.standard_normal((3, 7)), rng.random((3, 7))
    grey.flat[:2] = 0, 1
    pairs = [
        Pair(f"{prefix}Bernoulli nll", *bernoulli, (rng.standard_normal((3, 7)), grey), ("logits",)),
        Pair(f"{prefix}Bernoulli nll, 4 samples", *bernoulli, (rng.standard_normal((4, 3, 7)), grey), ("logits",)),
        Pair(f"{prefix}Gaussian nll", *gaussian, (rng.standard_normal((3, 7)), x, 0.3), ("mean",)),
        Pair(f"{prefix}Gaussian nll, 4 samples", *gaussian, (rng.standard_normal((4, 3, 7)), x, 2.0), ("mean",)),
    ]
    for level in LOGITS:
        for target in TARGETS:
            for sign in (-1, 1) if level else (1,):
                args = np.full((1, 2), sign * level), np.full((1, 2), target)
                pairs.append(
                    Pair(f"{prefix}Bernoulli nll, logit {sign * level:g}, x = {target:g}", *bernoulli, args, ("logits",), True)
                )
    return pairs


def composite_pairs(backend):
    """The composite ops of a back end's table."""
    ops = load_ops(backend)
    rng = np.random.default_rng(2)
    pairs = []
    for activation in layers.ACTIVATIONS:
        args = rng.standard_normal((5, 7)), rng.standard_normal((7, 3)), rng.standard_normal(3), activation
        pairs.append(Pair(f"{backend} dense {activation}", ops.dense_forward, ops.dense_backward, args, ("x", "W", "b")))
    posterior = rng.standard_normal((4, 6))
    clipped = posterior.copy()
    clipped[:, 3:] = [[-40, -30, 0], [20, 30, 1], [-31, 19, 21], [0.5, 2, -29]]
    latent_ops = ops.latent_forward, ops.latent_backward
    pairs += [
        Pair(f"{backend} latent", *latent_ops, (posterior, rng.standard_normal((4, 3))), ("posterior",)),
        Pair(f"{backend} latent, 5 samples", *latent_ops, (posterior, rng.standard_normal((5, 4, 3))), ("posterior",)),
        Pair(f"{backend} latent, clipped", *latent_ops, (clipped, np.full((4, 3), 1e-4)), ("posterior",), True),
    ]
    return pairs + nll_pairs(f"{backend} ", ops)


class ModelCase(NamedTuple):
    """A model in float64 with the batch, the noise and the weight of the KL that it is checked at."""

    name: str
    model: VAE
    x: np.ndarray
    eps: np.ndarray
    beta: float


def model_cases(backend):
    """Depths 0 to 3, every activation, both likelihoods, one and several rows and samples, fresh and trained parameters."""
    cases = []
    settings = [  # hidden, activation, B, S, beta
        ((), "relu", 1, None, 1.0),
        ((6,), "relu", 4, None, 1.0),
        ((6,), "tanh", 3, 4, 0.5),
        ((6, 4), "sigmoid", 3, 1, 2.0),
        ((6, 4), "softplus", 4, None, 1.0),
        ((5, 4, 3), "silu", 3, 2, 1.0),
        ((5, 4, 3), "relu", 3, None, 1.0),
    ]
    for kind in LIKELIHOODS:
        for hidden, activation, B, S, beta in settings:
            for n_steps in (0, 100):
                model, x, eps = model_at(hidden, activation, kind, backend, B, S, n_steps)
                age = f"after {n_steps} steps" if n_steps else "fresh"
                widths = "-".join(map(str, [7, *hidden, 2]))
                cases.append(
                    ModelCase(f"{backend} VAE {widths} {activation} {kind}, B {B}, S {S or 1}, {age}", model, x, eps, beta)
                )
    return cases


def model_at(hidden, activation, kind, backend, B, S, n_steps):
    """A small float64 model with generic biases after n_steps of Adam, with data and noise."""
    rng = np.random.default_rng(3)
    model = VAE(7, 2, hidden, activation, kind, backend, "float64", seed=4, sigma=0.5)
    model.theta += 0.2 * rng.standard_normal(model.theta.size)
    x = rng.integers(0, 2, (B, 7)).astype(float) if kind == "bernoulli" else rng.standard_normal((B, 7))
    noise = rng.standard_normal((n_steps + 1, S or 1, B, 2))
    optimizer, state = optim.Adam(1e-2), optim.initial_state(optim.Adam(), model.theta)
    grad = np.empty_like(model.theta)
    for eps in noise[1:]:
        model.backward(model.forward(x, eps)[1], out=grad)
        optimizer.step(model.theta, grad, state)
    return model, x, noise[0] if S else noise[0, 0]


# ----------------------------------------------------------------------------------------------------- how it is checked


def subjects(backends=BACKENDS):
    """Everything that `prove` checks: the small pairs, then each back end's composites and models."""
    pairs = op_pairs() + [pair for backend in backends for pair in composite_pairs(backend)]
    return pairs + [case for backend in backends for case in model_cases(backend)]


def prove(subject):
    """The Outcomes of one Pair or ModelCase: a list, one per check that applies to it."""
    return prove_pair(subject) if isinstance(subject, Pair) else prove_model(subject)


def prove_pair(pair):
    """Put a pair before every check. Checks never raise AssertionError here: a failure is a Report that has not passed."""
    name, forward, backward, args, wrt, on_kink = pair
    reports = {"complex step": gradcheck.check_pair(forward, backward, *args, wrt=wrt, assert_passed=False)}
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
    douts = random_upstream(out, np.float64, seed=5)
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
        douts = [d.astype(np.float32).astype(d.dtype) for d in random_upstream(out, dtype, seed=6) if d is not None]
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
    """A backward pass is linear in its upstream gradient, and exactly zero for zero."""
    out, cache = pair.forward(*pair.args)
    first, second = (random_upstream(out, np.float64, seed) for seed in (7, 8))
    first, second = [d for d in first if d is not None], [d for d in second if d is not None]
    of_sum = as_tuple(pair.backward(*[2 * a - 3 * b for a, b in zip(first, second)], cache))
    of_first, of_second = as_tuple(pair.backward(*first, cache)), as_tuple(pair.backward(*second, cache))
    of_zero = as_tuple(pair.backward(*[0 * a for a in first], cache))
    rows, problems = [], []
    for name, whole, a, b, zero in zip(pair.wrt, of_sum, of_first, of_second, of_zero):
        scale = np.abs(a).max() + np.abs(b).max()
        difference = np.abs(whole - (2 * a - 3 * b)).max()
        error = float(difference / scale) if scale else 0.0
        rows.append(Row(name, a.shape, error, LINEAR_THRESHOLD, note="linear in upstream"))
        if zero.any():
            problems.append(f"zero upstream gives a gradient of {name} that is not zero")
    return Report("invariants", rows, problems)


def prove_model(case):
    """Put a model before every check; with more than 2000 parameters finite differences entry by entry are left out."""
    name, model, x, eps, beta = case
    f = loss_function(model, x, eps, beta)
    theta = {key: value.copy() for key, value in model.parameters.items()}
    grads = model.backward(model.forward(x, eps, beta)[1])
    reports = {"complex step": gradcheck.directional_check(f, theta, grads, assert_passed=False)}
    if model.theta.size <= 2000:
        reports["finite differences"] = gradcheck.fd_check(f, theta, grads, assert_passed=False)
    reports["Taylor"] = gradcheck.taylor_test(f, theta, grads, assert_passed=False)
    single = model.copy(dtype="float32")
    grads32 = single.backward(single.forward(x, eps, beta)[1])
    rounded = single.copy(dtype="float64")  # the same rounded parameters, exactly
    grads64 = rounded.backward(rounded.forward(x.astype(np.float32), eps.astype(np.float32), beta)[1])
    rows = [float32_row(key, grads32[key], grads64[key]) for key in grads64]
    reports["float32"] = Report("float32 against float64", rows)
    reports["invariants"] = model_invariants(case, grads)
    return [Outcome(name, check, report) for check, report in reports.items()]


def loss_function(model, x, eps, beta):
    """The loss as a function of a dict like model.parameters, real or complex."""
    twins = {kind: model.copy(dtype=dtype) for kind, dtype in [("f", "float64"), ("c", "complex128")]}

    def loss(theta):
        twin = twins["c" if any(value.dtype.kind == "c" for value in theta.values()) else "f"]
        for name, value in theta.items():
            twin.parameters[name][...] = value
        return twin.forward(x, eps, beta)[0].loss

    return loss


def model_invariants(case, grads):
    """The gradient of a batch is the mean of its rows' gradients; using the model in between changes no bit of it."""
    _, model, x, eps, beta = case
    _, cache = model.forward(x, eps, beta)
    model.encode(x[:1])
    model.decode(np.ones((2, model.n_latent)))
    model.forward(x[:1], 3 * eps[..., :1, :], 5.0)
    again = model.backward(cache)
    problems = [f"gradient of {key} changed when the model was used between forward and backward"
                for key in grads if not np.array_equal(again[key], grads[key])]  # fmt: skip
    if list(grads) != list(model.parameters):
        problems.append(f"gradients are {list(grads)}, parameters are {list(model.parameters)}")
    rows = [model.backward(model.forward(x[i : i + 1], eps[..., i : i + 1, :], beta)[1]) for i in range(len(x))]
    report_rows = []
    for key, whole in grads.items():
        mean, scale = np.mean([row[key] for row in rows], axis=0), np.max([np.abs(row[key]) for row in rows])
        error = float(np.abs(whole - mean).max() / scale) if scale else 0.0
        report_rows.append(Row(key, whole.shape, error, LINEAR_THRESHOLD, note="mean of the rows' gradients"))
    return Report("invariants", report_rows, problems)


# ------------------------------------------------------------------------------------------------------------- helpers


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def is_float(arg):
    return isinstance(arg, np.ndarray) and arg.dtype.kind == "f"


def argument_names(pair):
    """The names of the forward's arguments, of the Python function where it is compiled."""
    return list(inspect.signature(getattr(pair.forward, "py_func", pair.forward)).parameters)


def random_upstream(out, dtype, seed):
    """A random gradient for each floating-point member of a forward's output, None for the others."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(np.shape(part)).astype(dtype) if np.asarray(part).dtype.kind == "f" else None
            for part in as_tuple(out)]  # fmt: skip
