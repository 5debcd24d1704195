"""The comparison of the families: what it counts and measures, and that each family can be made and is told right."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae.data import toy
from npvae.models import GAN

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def families(monkeypatch):
    """With few rows for each distance: an assignment takes time that grows as the cube."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import families

    monkeypatch.setattr(families.transport, "MOST_ROWS", 50)
    return families


def test_a_mode_counts_from_a_tenth_of_its_share(families):
    data, centres = toy.sample("ring", 8000, 0), toy.ring_centres()
    assert families.modes_covered(data) == 8
    one = centres[0] + 0.1 * np.random.default_rng(0).standard_normal((1000, 2))
    assert families.modes_covered(one) == 1
    for n, modes in [(20, 2), (6, 1)]:  # of 1000: a share is 125, a tenth of it 12.5
        assert families.modes_covered(np.concatenate([one[n:], np.repeat(centres[3:4], n, axis=0)])) == modes
    assert families.modes_covered(np.zeros((100, 2))) == 0


def test_the_distance_is_a_mean_with_its_error(families):
    test = toy.sample("ring", 250, 0)
    assert families.transport_distance(test, test) == (0, 0)
    way, error = families.transport_distance(test + np.array([3, 4]), test)
    assert (way, error) == pytest.approx((5, 0), abs=1e-9)


def test_a_family_is_trained_and_measured(families, monkeypatch):
    """One epoch of few rows, with small measurements."""
    monkeypatch.setattr(families, "N_DRAWS", 300)
    x, test = toy.dataset_rows("ring", 40, 300)
    makers = {"VAE": lambda: npvae.VAE(2, 2, (4,), "silu", "gaussian_learned", "numpy"),
              "GAN, momentum 0.9": lambda: GAN(2, 2, (4,), n_critic=1, backend="numpy")}  # fmt: skip
    for label, make in makers.items():
        family = families.FAMILIES[label]._replace(make=make, epochs=1, batch_size=20)
        found = families.result_of(family, "ring", x, test)
        assert (found["excess"] is None) == (label != "VAE")
        assert found["steps"] == 2
        assert np.shape(found["samples"]) == (300, 2)
        assert [row[0] for row in found["curve"]] == ([] if label == "VAE" else [2])
        assert set(families.FIGURES) - {"excess_error"} <= set(found)
        assert label in families.printed(label, found)


def test_every_family_is_made_and_told_what_it_takes(families):
    for label, family in families.FAMILIES.items():
        model, optimizer = family.make(), family.optimizer(100)
        assert (model.n_features, dataclasses.is_dataclass(optimizer)) == (2, True), label
        if hasattr(model, "check_settings"):
            settings = {name: value(0) if callable(value) else value for name, value in family.settings.items()}
            model.check_settings(**{name: value for name, value in settings.items() if name != "max_gradient_norm"})


def test_the_table_has_a_row_for_each_family(families):
    row = {"excess": 0.1234, "excess_error": 0.001, "transport": 0.5, "transport_error": 0.01, "modes": 8, "parameters": 1234,
           "steps": 10, "seconds_to_train": 12.4, "seconds_to_sample": 0.0123, "curve": []}  # fmt: skip
    table = families.markdown({"floor": [0.1, 0.01], "families": {"VAE": row, "GAN": {**row, "excess": None, "modes": 3}}})
    assert table.splitlines()[2:] == [
        "| the data themselves | 0 | 0.100 ± 0.010 | 8 | | | | |",
        "| VAE | ≤ 0.123 ± 0.001 | 0.500 ± 0.010 | 8 | 1,234 | 10 | 12 | 0.012 |",
        "| GAN | no likelihood | 0.500 ± 0.010 | 3 | 1,234 | 10 | 12 | 0.012 |",
    ]
