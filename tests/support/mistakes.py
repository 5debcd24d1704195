"""Backward passes that are wrong as people get them wrong, and whether `npvae.checking` notices.

A gradient check is worth what it catches. Each wrong function of `wrong_code` replaces a right one; the cases that it touches
are put before the checks, and at least one check has to fail. A second list holds mistakes in the probability: forward and
backward agree, so that no gradient check can see them, and the tests of samples, divergences and normalisation have to
(`probability_checks`).

    python tests/support/mistakes.py     prints the kill matrix, tests/support/kill_matrix.md
"""

import functools
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import numpy as np
from probability_checks import PROBABILITY_CHECKS
from wrong_code import MISTAKES, PROBABILITY_MISTAKES

from npvae import models, ops
from npvae.checking import cases, gradcheck, run
from npvae.checking.gradcheck import Report
from npvae.models import autoencoder, evaluate, latent_chain, objectives, vae
from npvae.ops import (
    adversarial,
    boltzmann,
    bounds,
    chains,
    convolution,
    cusps,
    diffusion,
    energy,
    langevin,
    latent,
    layers,
    likelihood,
    mlp,
    noise_schedule,
    pair_features,
    partition,
    pixel_mixture,
    potentials,
    sde,
)

# Whatever holds ops by name; `ops` is the table that the models call.
MODULES = (ops, layers, convolution, mlp, latent, likelihood, bounds, chains, diffusion, noise_schedule, pixel_mixture, sde,
           energy, langevin, adversarial, boltzmann, partition, potentials, cusps, pair_features, vae, autoencoder, evaluate,
           objectives, latent_chain)  # fmt: skip
TABLES = (layers.ACTIVATIONS, sde.SCHEMES, adversarial.CRITICS, adversarial.GENERATORS)  # name -> forward, backward
RAISES = "raises"  # an error in a check (mostly shapes that do not fit) gives a mistake away as well
GRADIENT_COLUMNS = (*run.CHECKS, RAISES)
SLOW = {"complex step": ("check_pair", "directional_check"), "finite differences": ("fd_check",), "Taylor": ("taylor_test",)}
TENSOR_BY_TENSOR = ("directional_check", "fd_check")


# --------------------------------------------------------------------------------------------------- who catches what


@contextmanager
def patched(wrong):
    """Put wrong functions, name -> function, wherever the package holds the right ones; put those back at the end. A method is
    called Class.method."""
    with ExitStack() as stack:
        for name, function in wrong.items():
            if "." in name:
                kind, method = name.split(".")
                stack.enter_context(mock.patch.object(models.classes()[kind], method, function))
            for module in MODULES:
                if name in vars(module):
                    stack.enter_context(mock.patch.object(module, name, function))
        for table in TABLES:
            pairs = {key: tuple(wrong.get(f.__name__, f) for f in pair) for key, pair in table.items()}
            stack.enter_context(mock.patch.dict(table, pairs))
        yield


@contextmanager
def shortened(failed):
    """Checks that have caught a mistake already are left out: what they say of another case adds nothing. The others stop at
    the first wrong tensor: it decides their verdict, and to find out what is wrong with it takes long."""
    with ExitStack() as stack:
        for check, names in SLOW.items():
            for name in names:
                right = getattr(gradcheck, name)
                if check in failed:
                    stack.enter_context(mock.patch.object(gradcheck, name, return_value=Report("left out", [])))
                elif name in TENSOR_BY_TENSOR:
                    stack.enter_context(mock.patch.object(gradcheck, name, functools.partial(to_the_first_wrong, right)))
        yield


def to_the_first_wrong(check, f, theta, grad, **options):
    """The report of one tensor that fails the check; where none does, that of all."""
    for name in theta if list(theta) == list(grad) else ():
        one = {name: theta[name]}, {name: grad[name]}
        report = check(lambda part: f({**theta, **part}), *one, **options)
        if not report.passed:
            return report
    return check(f, theta, grad, **options)


@functools.cache
def right_model_cases():
    """Those before which mistakes are put: built, and trained, by the right code."""
    before = tuple({prefix for m in MISTAKES + PROBABILITY_MISTAKES for prefix in m.put_before})
    examples = [example for kind in models.classes().values() for example in kind.examples("numpy")]
    asked = [e for e in examples if e.name.startswith(before) or any(prefix.startswith(e.name) for prefix in before)]
    return [case for example in asked for case in cases.cases_of(example)]


def cases_of(prefixes):
    """The cases whose names begin with one of the prefixes, made of the functions that are in place now."""
    pairs = [p for p in cases.op_pairs() + cases.composite_pairs("numpy") if p.name.startswith(prefixes)]
    return pairs + [copied(case) for case in right_model_cases() if case.name.startswith(prefixes)]


def copied(case):
    """A model's case in memory of its own: what a mistake writes into it does not reach the next one."""
    batch, noise, others = (run.of_arrays(np.copy, value) for value in (case.batch, case.noise, case.others))
    return case._replace(model=case.model.copy(), batch=batch, noise=noise, others=others)


def failed_gradient_checks(wrong, prefixes, how=lambda failed: nullcontext()):
    """The names in GRADIENT_COLUMNS of the checks that fail on the cases while `wrong` is in place; how: `shortened`, or in
    full."""
    right_model_cases()  # before anything is wrong
    failed = set()
    with patched(wrong), np.errstate(all="ignore"):
        for case in cases_of(prefixes):
            try:
                with how(failed):
                    failed |= {outcome.check for outcome in run.run(case) if not outcome.report.passed}
            except Exception:  # whatever the mistake makes of it
                failed.add(RAISES)
    return failed


def failed_probability_checks(wrong):
    """The names of the PROBABILITY_CHECKS that fail while `wrong` is in place."""
    failed = set()
    with patched(wrong), np.errstate(all="ignore"):
        for name, check in PROBABILITY_CHECKS.items():
            try:
                check()
            except AssertionError:
                failed.add(name)
    return failed


def kill_matrix():
    """Who catches what: mistake -> failed checks, of MISTAKES, and of PROBABILITY_MISTAKES by either kind of check."""
    gradient = {m.name: failed_gradient_checks(m.build(), m.put_before, shortened) for m in MISTAKES}
    gradient |= {m.name: failed_gradient_checks(m.build(), m.put_before) for m in PROBABILITY_MISTAKES}
    probability = {m.name: failed_probability_checks(m.build()) for m in PROBABILITY_MISTAKES}
    return gradient, probability


def false_alarms():
    """The failed checks of the right code, on every case that a mistake was put before."""
    prefixes = {prefix for m in MISTAKES + PROBABILITY_MISTAKES for prefix in m.put_before}
    return failed_gradient_checks({}, tuple(prefixes)) | failed_probability_checks({})


# -------------------------------------------------------------------------------------------------------- as Markdown


def summary(gradient, probability, alarms):
    """The result in one sentence."""
    caught = sum(bool(gradient[m.name]) for m in MISTAKES)
    unseen = sum(not gradient[m.name] and bool(probability[m.name]) for m in PROBABILITY_MISTAKES)
    return (
        f"Wrong gradients caught: {caught} of {len(MISTAKES)} ({100 * caught / len(MISTAKES):.3g} %). Wrong probabilities that "
        f"no gradient check sees, caught by a test of the probability: {unseen} of {len(PROBABILITY_MISTAKES)} "
        f"({100 * unseen / len(PROBABILITY_MISTAKES):.3g} %). False alarms on the right code: {len(alarms)}."
    )


def as_markdown(gradient, probability, alarms):
    """The kill matrix as the text of tests/support/kill_matrix.md."""
    lines = [
        "# Who catches what",
        "",
        "Written by `python tests/support/mistakes.py`. ● where a check fails on the mistake, as it should. Each mistake is",
        "put before the cases of `npvae.checking.cases` whose names begin as given. *raises*: a check ends in an error, mostly",
        "of shapes.",
        "",
        summary(gradient, probability, alarms),
        "",
        "## Wrong gradients",
        "",
        *table(MISTAKES, gradient, GRADIENT_COLUMNS),
        "",
        "## Wrong probabilities, right gradients",
        "",
        *table(PROBABILITY_MISTAKES, probability, PROBABILITY_CHECKS),
    ]
    return "\n".join(lines) + "\n"


def table(mistakes, failed, columns):
    """A row per mistake, then how many each check catches, and how many it alone catches."""
    rows = [["mistake", "how it is made", "put before", *columns, "caught by"]]
    rows.append(["---"] * 3 + [":-:"] * len(columns) + ["--:"])
    for m in mistakes:
        marks = ["●" if column in failed[m.name] else "" for column in columns]
        rows.append([m.name, m.how, "; ".join(m.put_before), *marks, str(len(failed[m.name]))])
    sets = [failed[m.name] for m in mistakes]
    rows.append(["**caught**", "", "", *(str(sum(c in s for s in sets)) for c in columns), str(sum(map(bool, sets)))])
    rows.append(["**caught by it alone**", "", "", *(str(sum(s == {c} for s in sets)) for c in columns), ""])
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    print(as_markdown(*kill_matrix(), false_alarms()), end="")
