"""The checks themselves are checked: they catch every wrong backward pass, and let the right code pass."""

from pathlib import Path

import mistakes
import pytest
from mistakes import MISTAKES, PROBABILITY_MISTAKES

from npvae import models


def by_name(which):
    return pytest.mark.parametrize("name", [mistake.name for mistake in which])


@pytest.fixture(scope="module")
def gradient_and_probability():
    return mistakes.kill_matrix()


@pytest.fixture(scope="module")
def gradient(gradient_and_probability):
    return gradient_and_probability[0]


@pytest.fixture(scope="module")
def probability(gradient_and_probability):
    return gradient_and_probability[1]


@pytest.fixture(scope="module")
def alarms():
    return mistakes.false_alarms()


@by_name(MISTAKES)
def test_every_wrong_gradient_is_caught(name, gradient):
    assert gradient[name]


@by_name(PROBABILITY_MISTAKES)
def test_no_gradient_check_sees_a_wrong_probability(name, gradient):
    assert gradient[name] == set()


@by_name(PROBABILITY_MISTAKES)
def test_every_wrong_probability_is_caught_by_a_test_of_the_probability(name, probability):
    assert probability[name]


def test_the_right_code_raises_no_alarm(alarms):
    assert alarms == set()


def test_everything_is_caught_without_false_alarms(gradient, probability, alarms):
    text = mistakes.summary(gradient, probability, alarms)
    print(text)
    assert text.count("(100 %)") == 2
    assert text.endswith("False alarms on the right code: 0.")


def test_every_check_has_been_seen_to_fail(gradient, probability):
    """A column without a mark would say nothing by being green."""
    assert set().union(*gradient.values()) == set(mistakes.GRADIENT_COLUMNS)
    assert set().union(*probability.values()) == set(mistakes.PROBABILITY_CHECKS)


def test_there_are_enough_mistakes_and_no_two_of_one_name():
    names = [mistake.name for mistake in MISTAKES + PROBABILITY_MISTAKES]
    assert len(MISTAKES) >= 225
    assert len(PROBABILITY_MISTAKES) >= 68
    assert len(set(names)) == len(names)


def test_checks_that_are_shortened_have_the_verdicts_of_those_in_full():
    """On a pair, on a model, and where a tensor has no gradient; nor is a right gradient called wrong."""
    plain = "numpy VAE 7-2 relu gaussian, B 1, S 1, fresh"
    few = {"dW transposed and reshaped": "affine", "bias of the posterior not trained": plain, "key missing": plain}
    for mistake in MISTAKES:
        if mistake.name in few:
            arguments = mistake.build(), (few[mistake.name],)
            in_full = mistakes.failed_gradient_checks(*arguments)
            assert mistakes.failed_gradient_checks(*arguments, mistakes.shortened) == in_full != set(), mistake.name
    assert mistakes.failed_gradient_checks({}, ("affine", plain), mistakes.shortened) == set()


def test_every_mistake_says_how_it_is_made_and_has_cases():
    names = [case.name for case in mistakes.cases_of(("",))]
    for mistake in MISTAKES + PROBABILITY_MISTAKES:
        assert mistake.how.endswith(".")
        assert not {"|", "\n"} & set(mistake.how)  # they would break the table
        for prefix in mistake.put_before:
            assert any(name.startswith(prefix) for name in names), prefix


def functions_in_place():
    places = [*mistakes.MODULES, *models.classes().values()]
    held = {(place.__name__, name): value for place in places for name, value in vars(place).items()}
    return held, [dict(table) for table in mistakes.TABLES]


def test_patches_replace_something_and_are_undone():
    before = functions_in_place()
    for mistake in MISTAKES + PROBABILITY_MISTAKES:
        with mistakes.patched(mistake.build()):
            assert functions_in_place() != before, mistake.name
        assert functions_in_place() == before, mistake.name


def test_patches_are_undone_after_an_error():
    before = functions_in_place()
    with pytest.raises(ZeroDivisionError), mistakes.patched(MISTAKES[0].build()):
        raise ZeroDivisionError
    assert functions_in_place() == before


def test_the_kill_matrix_is_up_to_date(gradient, probability, alarms):
    """Where it is not: python tests/support/mistakes.py > tests/support/kill_matrix.md"""
    committed = (Path(__file__).parent / "support" / "kill_matrix.md").read_text(encoding="utf-8")
    assert mistakes.as_markdown(gradient, probability, alarms) == committed
