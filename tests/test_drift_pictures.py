"""The picture of a drift: what is drawn are the walkers, the drift and the paths of the model."""

import numpy as np
import pytest
from matplotlib.quiver import Quiver

from npvae.app import drift_pictures, plots
from npvae.models import Drift

SYSTEMS = {
    "on a line": ("quartic", {}),
    "two on a line": ("coupled", {}),
    "an atom": ("hydrogen", {}),
    "a molecule": ("hydrogen_molecule", {"distance": 2.8}),
    "in a plane": ("bosons", {"n_particles": 3, "g": 2.0}),
}


@pytest.fixture
def pictured(monkeypatch):
    """A function: the model of a name in SYSTEMS and the axes of its picture."""
    monkeypatch.setattr(drift_pictures, "N_WALKERS", 40)

    def pictured(name):
        model = Drift(*SYSTEMS[name], dt=0.1, n_walkers=4, hidden=(4,), backend="numpy", seed=1)
        model.parameters["drift.W"] = 0.3
        return model, plots.drift(model, seed=2).axes

    return pictured


def test_on_a_line_everything_is_drawn_against_the_coordinate(pictured):
    model, (places, field, paths) = pictured("on a line")
    walkers = model.sample(40, np.random.default_rng(2))[:, 0]
    edges = np.linspace(*places.get_xlim(), drift_pictures.BINS + 1)
    counts, _ = np.histogram(walkers, edges)
    heights = [bar.get_height() for bar in places.patches]
    np.testing.assert_allclose(np.array(heights) * np.diff(edges) * counts.sum(), counts, atol=1e-4)
    learned, known = field.lines
    np.testing.assert_allclose(learned.get_ydata(), model.drift(learned.get_xdata()[:, None])[:, 0])
    np.testing.assert_allclose(known.get_ydata(), -known.get_xdata())
    assert len(paths.lines) == drift_pictures.N_LINES
    assert paths.lines[0].get_xdata()[-1] == pytest.approx(drift_pictures.LINE_TIME)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "on a line"])
def test_in_a_plane_arrows_are_the_drift_of_the_first_particle(name, pictured):
    model, (places, field, paths, *_) = pictured(name)
    arrows = next(part for part in field.collections if isinstance(part, Quiver))
    d = model.physics.n_dimensions
    across, up = (0, 1) if d < 3 else (2, 0)
    others = [line for line in field.lines if line.get_marker() == "o"]
    walkers = np.zeros((len(arrows.X), model.physics.n_columns))
    walkers[:, across], walkers[:, up] = arrows.X, arrows.Y
    for i, other in enumerate(others, start=1):
        walkers[:, i * d + across], walkers[:, i * d + up] = other.get_xdata()[0], other.get_ydata()[0]
    v = model.drift(walkers)[:, [across, up]]
    size = np.sqrt((v**2).sum(axis=1))
    np.testing.assert_allclose(arrows.get_array(), size, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], axis=1) * np.maximum(size, np.median(size))[:, None], v,
                               rtol=1e-3, atol=1e-5)  # fmt: skip
    n_particles = model.physics.n_particles if d > 1 else 1
    assert len(others) == n_particles - 1
    assert len([line for line in paths.lines if line.get_marker() != "+"]) == n_particles
    crosses = [[line.get_xdata()[0], line.get_ydata()[0]] for line in places.lines if line.get_marker() == "+"]
    assert crosses == [[place[2], place[0]] for place in model.physics.positions]


def test_of_bosons_the_others_are_shown_as_each_particle_sees_them(pictured):
    model, (places, *_) = pictured("in a plane")
    shades = places.images[0].get_array() ** 2
    left, right, _, _ = places.images[0].get_extent()
    r = model.sample(40, np.random.default_rng(2)).reshape(40, 3, 2)
    pairs = [r[:, j] - r[:, i] for i in range(3) for j in range(3) if j != i]
    counts, _, _ = np.histogram2d(*np.concatenate(pairs).T, np.linspace(left, right, drift_pictures.BINS + 1))
    np.testing.assert_allclose(shades, counts.T, atol=1e-9)
