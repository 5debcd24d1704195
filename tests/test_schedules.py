"""Schedules at the steps where they turn."""

import math

import numpy as np
import pytest

import npvae
from npvae.training.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Linear(10), {0: 0, 1: 0.1, 5: 0.5, 10: 1, 11: 1, 10**9: 1}),
        (Linear(4, 2.0, 1.0), {0: 2, 1: 1.75, 4: 1, 7: 1}),
        (Cyclical(40, n_cycles=2, ramp=0.5), {0: 0, 5: 0.5, 10: 1, 19: 1, 20: 0, 25: 0.5, 30: 1, 39: 1, 40: 1, 99: 1}),
        (Cyclical(10, n_cycles=1, ramp=1.0, end=4.0), {0: 0, 5: 2, 9: 3.6, 10: 4}),
        (StepDecay(1.0, 3), {0: 1, 2: 1, 3: 0.1, 5: 0.1, 6: 0.01}),
        (StepDecay(0.5, 2, 0.5), {0: 0.5, 1: 0.5, 2: 0.25, 7: 0.0625}),
        (Cosine(2.0, 12), {0: 2, 4: 1.5, 6: 1, 8: 0.5, 12: 0, 20: 0}),
        (Cosine(1.0, 6, end=0.5), {0: 1, 2: 0.875, 3: 0.75, 6: 0.5, 7: 0.5}),
    ],
)
def test_values(schedule, values):
    assert {step: schedule(step) for step in values} == pytest.approx(values, abs=1e-15)


def test_burda_s_eight_stages():
    schedule = BurdaStages(steps_per_epoch=10)
    assert [BurdaStages.epochs(n) for n in range(9)] == [0, 1, 4, 13, 40, 121, 364, 1093, 3280]
    for i in range(8):
        first, last = 10 * BurdaStages.epochs(i), 10 * BurdaStages.epochs(i + 1) - 1
        assert schedule.stage(first) == schedule.stage(last) == i
        assert schedule(first) == schedule(last) == pytest.approx(1e-3 * math.pow(10, -i / 7), rel=1e-14)
    assert schedule(10**9) == pytest.approx(1e-4, rel=1e-14)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Linear(0), "n_steps"),
        (lambda: Linear(3, start=-1.0), "start"),
        (lambda: Linear(3, end=math.nan), "end"),
        (lambda: Cyclical(3, n_cycles=0), "n_cycles"),
        (lambda: Cyclical(3, ramp=0), "ramp"),
        (lambda: Cyclical(3, ramp=1.5), "ramp"),
        (lambda: StepDecay(-1e-3, 3), "start"),
        (lambda: Cosine(1e-3, 2.5), "n_steps"),
        (lambda: BurdaStages(0), "steps_per_epoch"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_fit_follows_them():
    seen = []

    class Recorder(npvae.VAE):
        def gradient(self, x, eps, **options):
            seen.append(options.get("beta", 1.0))
            return super().gradient(x, eps, **options)

    x = np.random.default_rng(0).random((40, 6))
    model = Recorder(6, 2, (), likelihood="gaussian", backend="numpy")
    optimizer = npvae.Adam(Cosine(1e-3, 8))
    npvae.fit(model, x, epochs=2, batch_size=10, optimizer=optimizer, beta=Linear(4), progress=False)
    assert seen == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    moved = model.theta.copy()
    npvae.fit(model, x, epochs=1, batch_size=10, optimizer=npvae.SGD(Linear(1, 0.0, 0.0)), progress=False)
    np.testing.assert_array_equal(model.theta, moved)  # a learning rate of zero
