"""Ground states by a drift: gradients through the whole path, bounds and densities that are known, walkers that go on."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import npvae
from npvae.app import cli, commands
from npvae.checking import run
from npvae.models import Drift, drift_energy
from npvae.models.drift import MARTINGALES
from npvae.training import checkpoint

OMEGA = 1.3


def model_of(system="oscillator", numbers=(), n_steps=8, n_walkers=16, **options):
    options = {"hidden": (4,), "dtype": "float64", "backend": "numpy", **options}
    return Drift(system, numbers, n_steps=n_steps, n_walkers=n_walkers, **options)


def changed(model, scale=0.3):
    """The model with other parameters, by which its walkers have moved."""
    model.theta += scale * np.random.default_rng(1).standard_normal(model.theta.size)
    model.buffers["held"][:] = model.theta
    return model


def oscillator(dt=0.05, n_steps=20, n_walkers=2000, **options):
    """An oscillator in two dimensions with the best drift, v = −ω r: the base has half of it, the network the other half."""
    model = model_of("oscillator", {"omega": OMEGA, "n_dimensions": 2}, n_steps, n_walkers, dt=dt, **options)
    model.parameters["drift.b"] = -0.5 * OMEGA
    model.buffers["held"][:] = model.theta
    return model


def at_home(model):
    """The model with walkers that are draws of |φ0|², N(0, 1/(2ω)) of each coordinate."""
    model.buffers["walkers"][:] = np.random.default_rng(5).standard_normal(model.chains.shape) / math.sqrt(2 * OMEGA)
    return model


def flat(grads):
    return np.concatenate([grad.ravel() for grad in grads.values()])


def gradient(model, noise, **settings):
    return flat(model.backward(model.forward(noise, **settings)[1]))


def assert_mean(values, expected, more=0.0):
    """The mean of random values is what is expected within 5 standard errors."""
    assert abs(values.mean() - expected) < 5 * values.std() / math.sqrt(values.size) + more


# ---- the gradient ----


@pytest.mark.parametrize("martingale", MARTINGALES)
@pytest.mark.parametrize("reference", ["base", "brownian"])
def test_the_gradient_through_100_steps_by_the_complex_step(martingale, reference):
    """What is held constant, the pull at the ends and the parameters in the martingale, is that in the loss as well."""
    model = changed(model_of("helium", n_steps=100, n_walkers=2, hidden=(2,), dt=0.01, reference=reference))
    noise, twin = model.draw(np.random.default_rng(0)), model.copy(dtype="complex128")
    grad = gradient(model, noise, martingale=martingale)
    for seed in range(3):
        direction = np.random.default_rng(seed).standard_normal(model.theta.size)
        twin.theta = model.theta + 1e-20j * direction
        slope = twin.forward(noise, martingale=martingale)[0].loss.imag / 1e-20
        assert abs(slope - grad @ direction) <= 1e-12 * np.abs(grad * direction).sum()


def test_both_back_ends_and_all_checkpoints_agree():
    results = []
    for options in ({}, {"backend": "numba"}, {"segment": 0}, {"segment": 3}):
        model = changed(model_of("bosons", {"n_particles": 3, "g": 3.0}, **options))
        noise = model.draw(np.random.default_rng(0))
        results.append(np.concatenate([*(array.ravel() for array in noise), gradient(model, noise)]))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-9, atol=1e-11)


SYSTEMS = {"oscillator": {"n_dimensions": 2}, "quartic": {}, "double_well": {}, "coupled": {}, "bosons": {"n_particles": 3},
           "hydrogen": {}, "helium": {}, "hydrogen_molecule": {"distance": 2.8}}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_in_one_call_walkers_go_where_they_go_and_have_the_same_gradient(system):
    """More walkers than a block has, the last of which is not full."""
    readable = changed(model_of(system, SYSTEMS[system], 4, 35))
    compiled = changed(model_of(system, SYSTEMS[system], 4, 35, backend="numba"))
    assert compiled.workspace() is not None
    noise, same = (model.draw(np.random.default_rng(0)) for model in (readable, compiled))
    for one, other in zip(noise, same, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)
    walks = [drift_energy.walk(model, *noise[:2])[2] for model in (readable, compiled)]
    np.testing.assert_allclose(walks[1].work, walks[0].work, rtol=1e-9, atol=1e-12)
    out = np.empty_like(readable.theta)
    for martingale in MARTINGALES:
        terms, bound = compiled.gradient(noise, martingale, dloss=0.3, out=out)
        expected, cache = readable.forward(noise, martingale)
        np.testing.assert_allclose(terms, expected, rtol=1e-10)
        grad = flat(readable.backward(cache, dloss=0.3))
        assert np.abs(out - grad).max() <= 1e-12 * np.abs(grad).max()
        assert bound >= np.max(out * out)


def test_what_is_not_compiled_is_composed_of_the_readable_passes():
    for options in ({"reference": "brownian"}, {"scheme": "euler"}, {"dtype": "complex128"}):
        assert model_of(backend="numba", **options).workspace() is None
    model = changed(model_of(backend="numba"))
    noise = model.draw(np.random.default_rng(0))
    model.buffers["held"][:] = 0  # another control than that of theta
    out = np.empty_like(model.theta)
    model.gradient(noise, out=out)
    np.testing.assert_allclose(out, gradient(model, noise), rtol=1e-13)


def test_of_all_martingales_the_gradient_has_the_same_mean():
    """Over 64 times 32 walkers, within 5 standard errors of the difference; and no two are the same."""
    model, grads = changed(model_of("quartic", n_steps=10, n_walkers=32, hidden=(3,), dt=0.05)), []
    for seed in range(64):
        model.buffers["walkers"][:] = 0.5 * np.random.default_rng([seed, 1]).standard_normal(model.chains.shape)
        noise = model.draw(np.random.default_rng(seed))
        grads.append([gradient(model, noise, martingale=martingale) for martingale in MARTINGALES])
    held, none, whole = np.moveaxis(grads, 1, 0)  # (64, P) each
    for difference in (held - none, whole - none):
        assert (np.abs(difference.mean(axis=0)) < 5 * difference.std(axis=0) / 8).all()
        assert np.abs(difference).max() > 1e-3


# ---- the ground state that is known: an oscillator ----


def exact_of_heun(dt):
    """Variance of a coordinate and energy of an oscillator's walkers in two dimensions for v = −ω r, in Heun's scheme.

    A step is r' = a r + c dW with a = 1 − ω dt + ½ (ω dt)², c = 1 − ½ ω dt, so that the variance is c² dt/(1 − a²). The energy
    is E_b + ½ |u|² = ½ ω² r² + ¼ d ω at the mean of r² and of (1 − ω dt)² r² + dt, where Euler's step arrives.
    """
    a, c = 1 - OMEGA * dt + 0.5 * (OMEGA * dt) ** 2, 1 - 0.5 * OMEGA * dt
    variance = c * c * dt / (1 - a * a)
    both_ends = 0.5 * (variance + (1 - OMEGA * dt) ** 2 * variance + dt)
    return variance, 2 * (0.5 * OMEGA**2 * both_ends + 0.25 * OMEGA)


def test_the_scheme_s_own_energy_tends_to_the_exact_one_as_dt_squared():
    errors = [exact_of_heun(dt)[1] - OMEGA for dt in (0.02, 0.01)]
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_walkers_have_the_density_of_the_ground_state_and_its_energy():
    model = oscillator(dt=0.1)
    integrals, (variance, energy) = model.energies(2.0, rng=0), exact_of_heun(0.1)
    r = model.sample(4000, 1)
    assert_mean(r**2, variance)
    assert abs(variance - 1 / (2 * OMEGA)) < 0.003
    assert abs(np.mean(r[:, 0] * r[:, 1])) < 5 * variance / math.sqrt(4000)
    for values in (integrals.bound, integrals.rayleigh):
        assert_mean(values, energy, 0.003)
    assert_mean(integrals.martingale, 0.0)


def test_with_the_best_drift_every_path_costs_the_same_but_for_its_ends():
    """ℓ_T = E_0 T + log φ0/ψ_b(r_T) − log φ0/ψ_b(r_0), and the local energy is E_0 everywhere: path by path, but for
    differences of the order of √dt."""
    deviations = []
    for dt in (0.04, 0.01):
        model = at_home(oscillator(dt=dt, n_steps=round(1 / dt), n_walkers=400))
        start, eps, end, *_ = model.draw(np.random.default_rng(0))
        integrals = drift_energy.walk(model, start, eps)[2]
        ends = -0.25 * OMEGA * ((end**2).sum(axis=1) - (start**2).sum(axis=1))
        without_ends = integrals.bound - ends / integrals.time
        deviations.append([without_ends.std(), integrals.local.std()])
        assert_mean(without_ends, OMEGA, 0.01)
        assert_mean(integrals.local, OMEGA, 0.01)
        assert integrals.bound.std() > 0.3
    np.testing.assert_allclose(np.divide(*deviations), 2, atol=0.3)
    assert np.max(deviations[1]) < 0.08


def test_at_the_best_drift_the_gradient_vanishes_where_the_martingale_is_held():
    """Of each path, so of a few as well; that of the other losses has the mean 0 only."""
    model = at_home(oscillator(dt=0.02, n_steps=50, n_walkers=16))
    noise = model.draw(np.random.default_rng(0))
    held, none, whole = (np.linalg.norm(gradient(model, noise, martingale=m)) for m in MARTINGALES)
    assert held < 0.2 * none
    assert held < 0.2 * whole


@pytest.mark.parametrize("system", ["quartic", "helium"])
def test_no_drift_has_less_energy_than_the_ground_state(system):
    model = changed(model_of(system, n_walkers=1000, dt=0.02), 0.4)
    integrals, exact = model.energies(2.0, rng=0), model.physics.exact
    for values in (integrals.bound, integrals.rayleigh):
        mean, error = drift_energy.mean_and_error(values)
        assert mean > exact + 5 * error


@pytest.mark.parametrize("system", ["quartic", "hydrogen"])
def test_both_references_measure_the_same_energy(system):
    """ℓ_T with respect to the base and to Brownian motion differ by log ψ_b at both ends, whose mean is 0."""
    found = []
    for reference in ("base", "brownian"):
        model = changed(model_of(system, n_walkers=600, dt=0.02, reference=reference), 0.2)
        found.append(drift_energy.mean_and_error(model.energies(4.0, rng=0).bound))
    (one, error), (other, more) = found
    assert abs(one - other) < 5 * math.hypot(error, more)
    assert error < more  # the base is a control variate


def test_a_new_model_of_hydrogen_is_the_ground_state():
    model = model_of("hydrogen")
    terms, cache = model.forward(model.draw(np.random.default_rng(0)))
    np.testing.assert_allclose(terms, [-0.5, -0.5, 0], rtol=1e-12, atol=1e-24)
    assert np.abs(flat(model.backward(cache))).max() < 1e-14


def test_the_drift_is_the_base_and_the_network():
    model = oscillator(n_walkers=4)
    r = model.chains
    np.testing.assert_allclose(model.drift(r), -OMEGA * r, rtol=1e-12)
    np.testing.assert_allclose(model.control(r), -0.5 * OMEGA * r, rtol=1e-12)
    with pytest.raises(ValueError, match=r"r must be a real array of shape \(n, 2\)"):
        model.drift(r[:, :1])


def test_training_finds_the_ground_state_of_an_oscillator():
    model = model_of("oscillator", n_steps=16, n_walkers=64, dt=0.1, dtype="float32", hidden=(8,))
    before, error = drift_energy.mean_and_error(model.energies(10.0, n_walkers=300, rng=0).bound)
    npvae.fit(model, epochs=1, steps_per_epoch=120, optimizer=npvae.Adam(2e-2), progress=False)
    integrals = model.energies(10.0, n_walkers=300, rng=0)
    after, less = drift_energy.mean_and_error(integrals.rayleigh)
    assert before - 5 * error > 0.55
    assert abs(after - 0.5) < 5 * less + 0.002
    assert less < 0.2 * error  # the variance falls with the energy
    r = np.linspace(-1.5, 1.5, 7)[:, None]
    np.testing.assert_allclose(model.drift(r), -r, atol=0.15)


# ---- walkers ----


def test_training_moves_the_walkers_it_is_given_and_nothing_else_moves_any():
    model = changed(model_of(n_walkers=6))
    model.buffers["held"][:] = 0
    before = model.chains.copy()
    start, _, end, pull, level = model.draw(np.random.default_rng(0))
    np.testing.assert_array_equal(start, model.chains)
    np.testing.assert_array_equal(model.chains, before)
    assert not model.buffers["held"].any()
    noise = model.draw(np.random.default_rng(0), chains=model.chains[2:5])
    np.testing.assert_array_equal(noise[0], before[2:5])
    np.testing.assert_array_equal(model.chains[2:5], noise[2])
    np.testing.assert_array_equal(model.chains[[0, 1, 5]], before[[0, 1, 5]])
    np.testing.assert_array_equal(model.buffers["held"], model.theta)
    np.testing.assert_allclose(pull, model.control(end), rtol=1e-12)
    terms, _ = model.forward((start, _, end, pull, level))
    np.testing.assert_allclose(level, terms.energy, rtol=1e-12)


def test_a_walker_whose_path_has_run_away_stays_where_it_is():
    model = model_of("oscillator", n_walkers=4, dt=0.3)
    model.parameters["drift.b"] = 3  # away from the middle
    model.chains[1] = 1e307
    before = model.chains.copy()
    model.draw(np.random.default_rng(0), chains=model.chains)
    np.testing.assert_array_equal(np.isfinite(model.chains), True)
    np.testing.assert_array_equal(model.chains[1], before[1])
    assert (model.chains[[0, 2, 3]] != before[[0, 2, 3]]).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_training_goes_on_bit_for_bit_and_workers_share_the_walkers(workers, tmp_path):
    def model():
        return model_of("bosons", {"g": 3.0}, n_steps=3, n_walkers=7, dtype="float32")

    options = {"epochs": 2, "steps_per_epoch": 3, "seed": 3, "workers": workers, "progress": False}
    whole, stopped, drawn = model(), model(), []

    def on_step(state):
        checkpoint.save_progress(tmp_path, stopped, state)
        return state.step == 4

    whole.draw = lambda rng, chains=None, **more: drawn.append(len(chains)) or Drift.draw(whole, rng, chains, **more)
    history = npvae.fit(whole, **options)
    assert sorted(drawn) == sorted([7] * 6 if workers == 1 else [3, 2, 2] * 6)
    npvae.fit(stopped, on_step=on_step, **options)
    stopped, state = checkpoint.load_progress(tmp_path, Drift)
    resumed = npvae.fit(stopped, resume=state, **options)
    np.testing.assert_array_equal(stopped.theta, whole.theta)
    np.testing.assert_array_equal(stopped.chains, whole.chains)
    np.testing.assert_array_equal(resumed["train_loss"], history["train_loss"])


def test_more_workers_than_walkers_are_refused():
    with pytest.raises(ValueError, match="3 workers need at least as many chains"):
        npvae.fit(model_of(n_walkers=2), epochs=1, workers=3, progress=False)


def test_equilibrated_walkers_have_the_density_of_the_base():
    """Which of an oscillator is that of half the frequency: N(0, 1/ω)."""
    model = model_of("oscillator", n_walkers=3000, dt=0.2)
    model.chains[:] = 3
    model.equilibrate()
    assert_mean(model.chains**2, 1.0, 0.1)


# ---- energies ----


def test_the_limit_of_short_steps_is_exact_for_errors_of_second_order():
    lengths = np.array([0.1, 0.05, 0.025])
    value, error = drift_energy.limit(lengths, 1.5 + 3 * lengths**2, np.full(3, 0.01))
    assert value == pytest.approx(1.5, rel=1e-12)
    draws = np.random.default_rng(0).standard_normal((2000, 3)) * 0.01
    spread = np.std([drift_energy.limit(lengths, draw, np.full(3, 0.01))[0] for draw in draws])
    assert spread == pytest.approx(error, rel=0.1)


def test_a_walk_in_passes_is_a_walk():
    model = changed(model_of("quartic", n_walkers=5, dt=0.05))
    n = drift_energy.STEPS_PER_PASS + 3
    r, integrals = drift_energy.walked(model, model.chains, n * 0.05, 0.05, np.random.default_rng(0))
    eps = np.random.default_rng(0).standard_normal((n, 5, 1))
    end, _, expected = drift_energy.walk(model, model.chains, eps)
    np.testing.assert_allclose(r, end, rtol=1e-12)
    for one, other in zip(integrals, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11)


def test_measures_tell_the_energy_with_its_error():
    measures = {measure.name: measure for measure in oscillator(n_walkers=40).measure(n_samples=2)}
    assert abs(measures["energy"].value - OMEGA) < 0.05
    assert measures["exact"].value == pytest.approx(OMEGA, rel=1e-12)
    assert list(measures["energy_at"].value) == ["dt = 0.1", "dt = 0.05", "dt = 0.025"]
    assert re.match(r"± \S+; ", measures["bound"].note)


# ---- what it is told ----


def test_numbers_of_a_system_are_a_dict_or_texts():
    assert Drift("bosons", ["g=3", "s = 0.25"], backend="numpy").numbers == {"g": 3, "s": 0.25}
    assert Drift("bosons", {"n_particles": 3}, backend="numpy").physics.n_columns == 6
    for wrong in (["g"], ["g=x"], ["h=1"]):
        with pytest.raises(ValueError, match=r"NAME=VALUE|takes"):
            Drift("bosons", wrong)
    for wrong in ({"reference": "x"}, {"scheme": "x"}, {"system": "x"}, {"dt": 0.0}, {"n_steps": 0}, {"n_walkers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Drift(**wrong)
    with pytest.raises(ValueError, match="martingale must be one of"):
        Drift.check_settings(martingale="x")


def test_what_is_not_told_is_the_system_s():
    model = Drift("helium", n_walkers=8, backend="numpy")
    defaults = model.physics.defaults
    assert (model.dt, model.n_steps, list(model.hidden)) == (defaults["dt"], defaults["n_steps"], list(defaults["hidden"]))
    assert model.copy(dt=0.5).dt == 0.5
    assert not model.control(model.chains).any()  # a new model is the base


def test_pushes_are_bounded_where_the_base_is():
    """Far out the base of charges pulls with at most Z, and that of a trap with ω r."""
    for system, is_bounded in [("hydrogen_molecule", True), ("bosons", False)]:
        model = changed(model_of(system))
        far, further = (np.abs(model.control(scale * model.chains)).max() for scale in (1e3, 1e6))
        assert (further < 1.1 * far) == is_bounded


def test_noise_of_another_shape_is_refused():
    model = model_of(n_walkers=3)
    start, eps, *others = model.draw(np.random.default_rng(0))
    with pytest.raises(ValueError, match="noise must have shapes"):
        model.forward((start, eps[1:], *others))


@pytest.mark.parametrize(("system", "numbers", "unit"), [("hydrogen", {}, "hartree"), ("bosons", {"g": 3}, "")])
def test_energies_have_a_unit_where_there_are_charges(system, numbers, unit):
    model = model_of(system, numbers)
    assert {model.units, *(measure.unit for measure in model.measure(1) if measure.name != "variance")} == {unit}


def test_a_model_in_words():
    assert repr(model_of("bosons", {"g": 3}, dt=0.02)) == (
        "Drift(bosons, g 3, 16 walkers, 8 steps of 0.02, 4, tanh, float64, numpy: 50 parameters)")  # fmt: skip


# ---- the command line ----


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """A small run of two bosons of one epoch: what it has told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("npvae.data.NO_DATA", npvae.data.NO_DATA._replace(x_train=np.empty((3, 0))))
    told = "--system bosons --numbers g=3 --reference brownian --walkers 4 --steps 2 --hidden 3 --dt 0.1 --epochs 1"
    monkeypatch.setattr("npvae.app.plots.drift", lambda model: Figure())
    assert cli.main(["train", "--model", "drift", *told.split()]) == 0
    return capsys.readouterr().out


def test_a_run_is_trained_resumed_evaluated_and_drawn_from(trained, capsys):
    folder = "runs/drift"
    assert "data      none" in trained
    assert re.search(r"training loss \d\.\d{4} \(energy \d\.\d{4}, variance \d\.\d{4}\)$", trained, re.MULTILINE)
    assert "    drift.png " in trained
    assert cli.main(["train", "--resume", "--out", folder, "--epochs", "2"]) == 0
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    model = Drift.load(f"{folder}/checkpoint.npz")
    assert (model.n_walkers, model.numbers) == (4, {"g": 3})
    capsys.readouterr()
    assert cli.main(["evaluate", folder, "--samples", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["exact"] == pytest.approx(2.311983)
    assert math.isfinite(values["energy"])
    assert cli.main(["evaluate", folder, "--samples", "2"]) == 0
    assert "the ground state is not higher" in capsys.readouterr().out
    assert cli.main(["sample", folder, "--count", "8"]) == 0
    case = commands.run_case(cli.build_parser().parse_args(["gradcheck", folder]))
    assert (case.batch, case.others, case.model.dtype, run.n_rows(case.batch, case.noise)) == ((), (), np.float64, 4)


@pytest.mark.parametrize(("options", "message"), [
    (["--data", "mnist"], "Drift learns from no data: leave out --data"),
    (["--batch-size", "8", "--early-stopping", "2"], "leave out --batch-size, --early-stopping"),
    (["--numbers", "x=1"], "takes"), (["--numbers", "1"], "NAME=VALUE"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(options, message, capsys):
    assert cli.main(["train", "--model", "drift", *options]) == 1
    assert message in capsys.readouterr().err


def test_other_models_need_data(capsys):
    assert cli.main(["train", "--data", "none"]) == 1
    assert "VAE learns from data: say from which" in capsys.readouterr().err
