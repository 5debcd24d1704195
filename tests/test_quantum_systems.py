"""The table of quantum systems: exact energies against diagonalisations, and the energy that each base leaves."""

import numpy as np
import pytest
from diagonalise import levels, log_ground_state, two_bosons

from npvae.models import quantum_systems
from npvae.models.quantum_systems import SYSTEMS, system
from npvae.ops import sde
from npvae.ops.sde import Field

MORE = [("oscillator", {"omega": 0.7, "n_dimensions": 3}), ("bosons", {"n_particles": 3, "g": 4.0, "s": 0.8, "omega": 1.2}),
        ("hydrogen_molecule", {"distance": 2.8}), ("hydrogen", {"cusp": 0.5}),
        ("double_well", {"n_dimensions": 3})]  # fmt: skip
every_system = pytest.mark.parametrize(("name", "numbers"), [(name, {}) for name in SYSTEMS] + MORE)


def walkers(found, B=6):
    return found.start(np.random.default_rng(5).standard_normal((B, found.n_columns)))


def value_of(field, r):
    return field.forward(r, 0.0, field.parameters)[0]


@every_system
def test_the_local_energy_is_that_of_the_base(name, numbers):
    """E_b = V − ½ (|b|² + ∇·b), with the divergence by the complex step."""
    found = system(name, **numbers)
    r, divergence = walkers(found), 0
    for column in range(found.n_columns):
        moved = r.astype(complex)
        moved[:, column] += 1e-30j
        divergence = divergence + value_of(found.base, moved)[:, column].imag / 1e-30
    b = value_of(found.base, r)
    expected = value_of(found.potential, r) - 0.5 * ((b * b).sum(axis=1) + divergence)
    np.testing.assert_allclose(value_of(found.local_energy, r), expected, rtol=1e-12, atol=1e-12)


@every_system
def test_the_base_is_the_gradient_of_a_wave_function(name, numbers):
    """∂b_i/∂r_j = ∂b_j/∂r_i: backward, with the transposed of ∂b/∂r, gives what the complex step gives."""
    found = system(name, **numbers)
    r, direction = walkers(found), np.random.default_rng(6).standard_normal(found.n_columns)
    along = value_of(found.base, r + 1e-30j * direction).imag / 1e-30
    _, cache = found.base.forward(r, 0.0, found.base.parameters)
    back, _ = found.base.backward(np.broadcast_to(direction, r.shape), cache)
    np.testing.assert_allclose(back, along, rtol=1e-12, atol=1e-12)


@every_system
def test_particles_can_be_exchanged_where_it_says_so(name, numbers):
    found = system(name, **numbers)
    assert found.symmetric == (found.n_particles > 1)
    places = walkers(found).reshape(6, found.n_particles, found.n_dimensions)
    r, exchanged = (p.reshape(6, -1) for p in (places, places[:, ::-1]))
    for field in (found.potential, found.local_energy):
        np.testing.assert_allclose(value_of(field, r), value_of(field, exchanged), rtol=1e-12)
    drift = value_of(found.base, exchanged).reshape(places.shape)[:, ::-1].reshape(6, -1)
    np.testing.assert_allclose(value_of(found.base, r), drift, rtol=1e-12)


def along_a_line(found):
    """V of a system of one coordinate as a function of an array."""
    return lambda x: value_of(found.potential, x[:, None])


@pytest.mark.parametrize("name", ["oscillator", "quartic", "double_well"])
def test_exact_energies_on_a_line(name):
    found = system(name)
    assert levels(along_a_line(found))[0][0] == pytest.approx(found.exact, abs=2e-9)


def test_the_splitting_of_the_double_well():
    """The first excited state too, which is the ground state in three dimensions, and both on a finer grid: the reference
    itself has converged."""
    V = along_a_line(system("double_well"))
    energies, finer = levels(V)[0], levels(V, edge=5.0, n=300)[0]
    np.testing.assert_allclose(energies[:2], finer[:2], rtol=1e-10)
    assert energies[1] - energies[0] == pytest.approx(0.462428, abs=1e-6)
    assert energies[1] == pytest.approx(system("double_well", n_dimensions=3).exact, abs=2e-9)


def test_exact_energies_of_coupled_oscillators_are_those_of_their_normal_modes():
    for omega, stiffness in [(1.0, 2.0), (0.8, 0.3), (1.5, 0.0)]:
        curvature = np.diag([omega**2 + stiffness] * 2) - stiffness * (1 - np.eye(2))
        found = system("coupled", omega=omega, stiffness=stiffness)
        assert found.exact == pytest.approx(0.5 * np.sqrt(np.linalg.eigvalsh(curvature)).sum(), rel=1e-14)
        r = walkers(found)
        np.testing.assert_allclose(value_of(found.potential, r), 0.5 * ((r @ curvature) * r).sum(axis=1), rtol=1e-13)


@pytest.mark.parametrize("g", [0.0, 3.0, 6.0, 9.0, 12.0, 15.0])
def test_exact_energies_of_two_bosons(g):
    assert two_bosons(g) == pytest.approx(system("bosons", g=g).exact, abs=1e-6)


def test_the_wave_function_of_an_oscillator_has_its_drift():
    x = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(log_ground_state(lambda x: 0.5 * x * x).derivative()(x), -x, atol=1e-6)


# ---- with the best drift every path tells the energy ----


def best_of(name):
    """A system, log φ0 and ∇ log φ0 as functions of (B, N d), and walkers drawn from φ0² (400, N d)."""
    found, rng = system(name), np.random.default_rng(1)
    if name in ("quartic", "double_well"):
        V = along_a_line(found)
        _, states, x = levels(V)
        log_phi = log_ground_state(V)
        return found, lambda r: log_phi(r)[:, 0], log_phi.derivative(), rng.choice(x, 400, p=states[:, 0] ** 2)[:, None]
    if name == "hydrogen":
        directions = rng.standard_normal((400, 3))
        r = directions * (rng.gamma(3, 0.5, 400) / np.linalg.norm(directions, axis=1))[:, None]  # s² e^(−2 s)
        return found, lambda r: -np.linalg.norm(r, axis=1), lambda r: -r / np.linalg.norm(r, axis=1, keepdims=True), r
    curvature = np.diag([1.0]) if name == "oscillator" else np.array([[3.0, -2.0], [-2.0, 3.0]])
    squares, modes = np.linalg.eigh(curvature)
    omega = modes * np.sqrt(squares) @ modes.T
    r = rng.standard_normal((400, len(omega))) @ np.linalg.inv(np.linalg.cholesky(2 * omega))
    return found, lambda r: -0.5 * ((r @ omega) * r).sum(axis=1), lambda r: -r @ omega, r


def energies_of_paths(name, dt, strength=1.0):
    """ℓ_T − log φ0(r_T)/φ0(r_0) of 400 paths of the time 1, which is E_0 for the best drift; by `strength` times that drift."""
    found, log_phi, drift, r = best_of(name)
    n_steps = round(1 / dt)
    eps = np.random.default_rng(2).standard_normal((n_steps, *r.shape))
    control = Field(lambda r, t, parameters: (strength * drift(r), None), None)
    (states, energy, martingale), _ = sde.integrate_forward(
        r, eps, np.linspace(0, 1, n_steps + 1), 1.0, sde.ZERO, control, potential=found.potential)  # fmt: skip
    return energy + martingale - (log_phi(states[-1]) - log_phi(r))


@pytest.mark.parametrize("name", ["oscillator", "coupled", "quartic", "double_well", "hydrogen"])
def test_the_best_drift_has_the_exact_energy_and_no_variance_in_the_limit_of_short_steps(name):
    """What is left of the noise falls as √dt, by 4 from dt to dt/16; that of a drift that is 1.3 times as strong remains."""
    long, short = (energies_of_paths(name, dt) for dt in (0.04, 0.0025))
    assert abs(short.mean() - system(name).exact) < 4 * short.std() / 20
    assert 3.4 < long.std() / short.std() < 5
    wrong = [energies_of_paths(name, dt, 1.3).std() for dt in (0.04, 0.0025)]
    assert wrong[0] / wrong[1] < 2.8


def test_the_cusp_of_hydrogen_is_its_ground_state():
    found = system("hydrogen")
    np.testing.assert_allclose(value_of(found.local_energy, walkers(found)), found.exact, rtol=1e-14)


def test_energies_are_known_where_they_were_published():
    assert system("hydrogen_molecule", distance=1.7).exact is None
    assert system("bosons", n_particles=3, g=14).exact == 4.907697
    assert system("bosons", s=0.6).exact is None
    assert system("double_well", height=2.0).exact is None
    assert (system("hydrogen").paper, system("bosons").paper) == (-0.497, 2.7254)


def test_walkers_of_the_molecule_begin_with_an_electron_at_each_nucleus():
    found = system("hydrogen_molecule", distance=3.0)
    r = found.start(np.zeros((1, 6), np.float32))
    assert r.dtype == np.float32
    assert r.reshape(2, 3).tolist() == [list(place) for place in found.positions] == [[0, 0, 1.5], [0, 0, -1.5]]


@pytest.mark.parametrize(
    ("name", "numbers", "complaint"),
    [
        ("argon", {}, "system must be one of oscillator"),
        ("oscillator", {"omega": 0.0}, "omega must be a finite number above 0"),
        ("oscillator", {"n_dimensions": 0}, "n_dimensions"),
        ("double_well", {"height": -1.0}, "height"),
        ("coupled", {"stiffness": -1.0}, "stiffness"),
        ("bosons", {"n_particles": 1}, "n_particles"),
        ("bosons", {"s": 0.0}, "s must be"),
        ("hydrogen", {"cusp": 0.0}, "cusp must be"),
        ("hydrogen_molecule", {"distance": 0.0}, "distance"),
        ("bosons", {"G": 3.0}, "the system bosons takes n_particles, g, s, omega; got G"),
        ("quartic", {"omega": 1.0}, "the system quartic takes no numbers; got omega"),
    ],
)
def test_bad_numbers_are_refused(name, numbers, complaint):
    with pytest.raises(ValueError, match=complaint):
        system(name, **numbers)


def test_every_system_says_how_it_is_trained():
    for build in SYSTEMS.values():
        assert set(build().defaults) == {"dt", "n_steps", "n_walkers", "hidden", "activation", "learning_rate"}
    assert quantum_systems.SYSTEMS.keys() == {build().name for build in SYSTEMS.values()}
