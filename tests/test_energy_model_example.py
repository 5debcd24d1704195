"""The example of energy-based models in the plane: its divergence, and that what it changes is what the model takes."""

from pathlib import Path

import numpy as np
import pytest

from npvae.data import toy
from npvae.models import EnergyModel


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import energy_model

    return energy_model


def test_the_divergence_is_the_mean_of_log_f_over_p(example):
    model = EnergyModel(2, (5,), backend="numpy", dtype="float64")
    model.theta += 0.3 * np.random.default_rng(0).standard_normal(model.theta.size)
    test = toy.sample("moons", 500, 0)
    log_f = toy.log_density("moons", test)
    ratios = log_f - model.log_likelihood(test)
    value, error, found = example.divergence(model, test, log_f)
    assert value == pytest.approx(ratios.mean(), rel=1e-10)
    assert error == pytest.approx(ratios.std() / np.sqrt(500), rel=1e-10)
    assert value > 0.5
    assert value == pytest.approx(log_f.mean() + found["energy"] + found["log_partition"], rel=1e-10)


def test_every_change_is_one_that_the_model_takes(example):
    assert example.CHANGES["as above"] == ("contrastive", {}, {})
    assert len(example.COLORS) == len(example.CHANGES)
    for objective, changes, settings in example.CHANGES.values():
        EnergyModel(2, **changes)
        EnergyModel.check_settings(objective=objective, **settings)
        assert objective in example.LEARNING_RATES


def test_training_tells_of_every_epoch(example, monkeypatch):
    monkeypatch.setattr(example, "BATCH_SIZE", 20)
    seen = []
    changes = {"hidden": (4,), "n_langevin": 2, "backend": "numpy"}
    model = example.train(toy.sample("ring", 60, 0), "contrastive", 3, lambda model: seen.append(model.theta.copy()), changes)
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[-1], model.theta)
    assert model.hidden == (4,)
