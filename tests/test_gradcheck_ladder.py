"""The search for a derivative does what it did: same steps, same estimates. For what the numbers mean see the other tests."""

import json
import math
from pathlib import Path

import ladder
import numpy as np
import pytest

KEPT = json.loads((Path(__file__).parent / "support" / "ladder.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def same(found, kept):
    return math.isclose(found, kept, rel_tol=1e-4) if isinstance(kept, float) else found == kept


@pytest.mark.parametrize("name", list(ladder.FUNCTIONS))
def test_the_search_takes_the_steps_that_it_took(name):
    for label, settings in ladder.SETTINGS.items():
        found, kept = ladder.observed(ladder.FUNCTIONS[name], 1.0, **settings), KEPT["ladder"][f"{name}; {label}"]
        assert {key: value for key, value in found.items() if not same(value, kept[key])} == {}, label


@pytest.mark.parametrize("scale", ladder.SCALES)
def test_the_search_takes_the_steps_that_it_took_at_other_scales(scale):
    for name, kept in KEPT["ladder"].items():
        if name.endswith(f"; scale {scale:g}"):
            found = ladder.observed(ladder.FUNCTIONS[name.split(";")[0]], scale)
            assert {key: value for key, value in found.items() if not same(value, kept[key])} == {}, name


def test_quick_looks_are_what_they_were():
    for name, found in ladder.quick_looks().items():
        assert all(same(*pair) for pair in zip(found, KEPT["quick look"][name])), name
