"""assert_gradients: which checks are run, with which options, and whose report is raised."""

import numpy as np
import pytest

from npvae.checking.gradcheck import Report, Row, assert_gradients, assertions

PASSED, WRONG, OPEN = "passed", "wrong", "inconclusive"


def report(name, verdict):
    error, doubt = {PASSED: (0.0, ""), WRONG: (1.0, ""), OPEN: (0.0, "nobody knows")}[verdict]
    return Report(name, [Row(name, (3,), error, 0.5, doubt=doubt)], notes=[f"from {name}"])


def answers(monkeypatch, directional, entries):
    """Let the two checks give these reports; what they are called with is kept in the list that is returned."""
    calls = []
    for name, given in (("directional_check", directional), ("fd_check", entries)):

        def check(*args, name=name, given=given, **options):
            calls.append((name, args, options))
            return given

        monkeypatch.setattr(assertions, name, check)
    return calls


@pytest.mark.parametrize(("directional", "entries", "shown"), [
    (PASSED, PASSED, "directional"),
    (PASSED, OPEN, "directional"),
    (PASSED, WRONG, "entries"),
    (OPEN, PASSED, "entries"),
    (OPEN, OPEN, "entries"),
    (OPEN, WRONG, "entries"),
    (WRONG, PASSED, "directional"),
    (WRONG, OPEN, "directional"),
    (WRONG, WRONG, "directional"),
])  # fmt: skip
def test_a_wrong_report_counts_first_and_entries_decide_what_directions_leave_open(monkeypatch, directional, entries, shown):
    answers(monkeypatch, report("directional", directional), report("entries", entries))
    verdict = {"directional": directional, "entries": entries}[shown]
    if verdict == PASSED:
        found = assert_gradients(np.sum, np.ones(3), np.ones(3))
        assert (found.check, found.rows[0].name, found.notes) == ("assert_gradients", shown, [f"from {shown}"])
    else:
        with pytest.raises(AssertionError, match=rf"assert_gradients: FAILED(.|\n)*{shown}(.|\n)*from {shown}"):
            assert_gradients(np.sum, np.ones(3), np.ones(3))


@pytest.mark.parametrize(("options", "of_entries"), [
    ({}, {}),
    ({"threshold": None}, {}),
    ({"threshold": 1e-4, "seed": 3}, {"threshold": 1e-4}),
    ({"atol": 1e-3, "n_directions": 2, "threshold": 1e-5}, {"atol": 1e-3, "threshold": 1e-5}),
])  # fmt: skip
def test_each_check_gets_its_options_and_none_of_them_raises(monkeypatch, options, of_entries):
    calls = answers(monkeypatch, report("a", PASSED), report("b", PASSED))
    f, theta, grad = np.sum, np.ones(3), np.ones(3)
    assert_gradients(f, theta, grad, **options)
    assert calls == [("directional_check", (f, theta, grad), {"assert_passed": False, **options}),
                     ("fd_check", (f, theta, grad), {"assert_passed": False, **of_entries})]  # fmt: skip


@pytest.mark.parametrize(("sizes", "each"), [((2000,), True), ((2001,), False), ((1000, 1000), True), ((1000, 1001), False)])
def test_each_entry_is_looked_at_in_up_to_2000(monkeypatch, sizes, each):
    rows = [Row(name, (size,), 0.0, 0.5) for name, size in zip("Wx", sizes)] + [Row("jointly", (sum(sizes),), 0.0, 0.5)]
    calls = answers(monkeypatch, Report("directional", rows), report("entries", PASSED))
    assert_gradients(np.sum, np.ones(3), np.ones(3))
    assert [name for name, _, _ in calls] == ["directional_check"] + ["fd_check"] * each


def test_a_wrong_gradient_of_very_many_entries_raises():
    theta = np.linspace(1, 2, 3000)
    grad = 2 * theta
    assert assert_gradients(lambda t: (t * t).sum(), theta, grad).passed
    grad[1234] *= 1.001
    with pytest.raises(AssertionError, match="1234"):
        assert_gradients(lambda t: (t * t).sum(), theta, grad)
