"""The checker, and other people's, on the gradients of `hand_written`: who passes what, and every false verdict by name.

    python tests/support/catalogue.py            prints the table, tests/support/catalogue.md
    python tests/support/catalogue.py WORD ...   prints what npvae's checks say to the cases with these words in their names

A check passes a gradient, rejects it, gives no verdict (inconclusive), or ends in an error (refused). A right gradient that is
rejected and a wrong one that is passed are false verdicts. Each case is built anew for each check.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # where hand_written and other_checks are

import other_checks
from hand_written import CASES, Pair
from hand_written.conversions import contracted, flattened

from npvae.checking import gradcheck

PASSED, INCONCLUSIVE, REFUSED, REJECTED = VERDICTS = "passed", "inconclusive", "refused", "rejected"
OURS = ("check_pair", "directional_check", "taylor_test", "fd_check", "assert_gradients")
SIGHT = {"taylor_test": 1e-5, "fd_check": 1e-6, **other_checks.SIGHT}  # the smallest relative errors that these claim to see
ABOUT = """\
Written by `python tests/support/catalogue.py`. {right} right and {wrong} wrong gradients, in the styles in which people write
them, are in [hand_written](hand_written). A case is a forward/backward pair, or a scalar function with its gradient; pairs
are contracted with fixed weights for the checks that take scalar functions. At a tie (relu at 0) each subgradient is right.
Of {unknowable} right ones no check can know, say because the function draws noise: *inconclusive* is the best verdict there.
A wrong gradient whose error is below what a check claims to see does not count for it ({sight}).
False verdicts are **bold**."""


def inputs(case, check):
    """What a check is handed: the pair, the scalar function, or a pair contracted to one; None if it does not apply."""
    given = case.build()
    if check == "check_pair":
        return given if isinstance(given, Pair) else None
    if isinstance(given, Pair) and check != "assert_gradients":
        return None if case.only_pair else contracted(given)
    return given


def our_verdict(case, check):
    """What npvae's check says to the case, and its text; None where it does not apply."""
    given = inputs(case, check)
    if given is None:
        return None
    first = (given.forward, given.backward, *given.args) if isinstance(given, Pair) else given[:3]
    options = given.options if check == "assert_gradients" else {**given.options, "assert_passed": False}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            report = getattr(gradcheck, check)(*first, **options)
    except AssertionError as error:
        return (INCONCLUSIVE if "inconclusive" in str(error).splitlines()[0] else REJECTED), str(error)
    except Exception as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    return {"wrong": REJECTED}.get(report.verdict, report.verdict), str(report)


def their_verdict(case, check):
    """What another project's check says to the case as a function of one flat vector, and its text."""
    if case.only_pair or other_checks.CHECKS[check] is None:
        return None
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return other_checks.CHECKS[check](*flattened(inputs(case, check)))
    except Exception as error:
        return REFUSED, f"{type(error).__name__}: {error}"


def verdicts(checks, cases=CASES):
    """check -> name of case -> (verdict, text)."""
    table = {check: {c.name: (our_verdict if check in OURS else their_verdict)(c, check) for c in cases} for check in checks}
    return {check: {name: found for name, found in row.items() if found} for check, row in table.items()}


def in_sight(case, check):
    """Whether what is wrong with a case is large enough for what the check claims to see."""
    return not case.wrong or case.error >= SIGHT.get(check, 0)


def is_false(case, verdict):
    """A right gradient called wrong, or a wrong one passed."""
    return verdict == (PASSED if case.wrong else REJECTED)


def is_good(case, verdict):
    """The verdict of a perfect check. Where no check can know, that is none."""
    return verdict == (REJECTED if case.wrong else PASSED) or (verdict == INCONCLUSIVE and bool(case.unknowable))


# -------------------------------------------------------------------------------------------------------- as Markdown


def as_markdown(table):
    """The text of tests/support/catalogue.md."""
    right, wrong = (sum(case.wrong == which for case in CASES) for which in (False, True))
    sight = ", ".join(f"{check.split('.')[0]} {error:.0e}".replace("e-0", "e-") for check, error in SIGHT.items())
    unknowable = sum(bool(case.unknowable) for case in CASES)
    lines = [
        "# The checks, judged on hand-written gradients", "",
        ABOUT.format(right=right, wrong=wrong, unknowable=unknowable, sight=sight), "",
        "| check | right: passed | inconclusive | refused | called wrong | wrong: rejected | inconclusive | refused | passed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(row_of(check, row) for check, row in table.items()), "",
        other_checks.NOTES, "",
        "## The cases", "", *topics(), "",
        "## Every false verdict, and what npvae's checks left open", "", *complaints(table),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def row_of(check, row):
    """A line of the table."""
    if not row:
        return f"| {check} | not installed | | | | | | | |"
    right, wrong = counts(row, False, check), counts(row, True, check)
    false = [f"**{n}**" if n else "0" for n in (right[REJECTED], wrong[PASSED])]
    cells = [right[PASSED], right[INCONCLUSIVE], right[REFUSED], false[0]]
    cells += [wrong[REJECTED], wrong[INCONCLUSIVE], wrong[REFUSED], false[1]]
    return f"| {check} | {' | '.join(map(str, cells))} |"


def counts(row, wrong, check):
    """Verdict -> how many of the right or wrong cases got it."""
    found = [row[case.name][0] for case in CASES if case.wrong == wrong and case.name in row and in_sight(case, check)]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def topics():
    """A table of the files of hand_written: what is in them, how many right and wrong ones."""
    lines = ["| file | | right | wrong |", "|---|---|--:|--:|"]
    modules = list(dict.fromkeys(case.build.__module__ for case in CASES))
    for module in modules:
        wrong = [case.wrong for case in CASES if case.build.__module__ == module]
        about = sys.modules[module].__doc__.strip().splitlines()[0]
        lines.append(f"| {module.split('.')[-1]} | {about} | {wrong.count(False)} | {wrong.count(True)} |")
    return lines


def complaints(table):
    """The names behind the numbers that are not as they should be; of other people's checks the false verdicts only."""
    lines = []
    for check, row in table.items():
        groups = {}
        for case in CASES:
            verdict = row.get(case.name, [None])[0]
            if verdict is None or not in_sight(case, check) or is_good(case, verdict):
                continue
            if is_false(case, verdict) or check in OURS:
                groups.setdefault(("wrong, " if case.wrong else "right, ") + verdict, []).append(case.name)
        lines += [f"* {check}, {what}: {'; '.join(names)}" for what, names in sorted(groups.items())]
    return lines


def show(words):
    """Print what npvae's checks say to the cases whose names hold all the words."""
    for case in CASES:
        if all(word in case.name for word in words):
            print(f"=== {case.name} ({'wrong' if case.wrong else 'right'}): {case.about}")
            for check in OURS:
                found = our_verdict(case, check)
                if found:
                    print(f"--- {check}: {found[0]}{'' if is_good(case, found[0]) else '   <----'}\n{found[1]}")


if __name__ == "__main__":
    if sys.argv[1:]:
        show(sys.argv[1:])
    else:
        print(as_markdown(verdicts([*OURS, *other_checks.CHECKS])), end="")
