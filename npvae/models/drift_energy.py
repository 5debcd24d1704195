"""The energy of a trained drift: walkers that forget where they began, error bars, and the limit of short steps.

Of each walker three integrals are kept, over a long time t and without a gradient (`npvae.models.drift` has the symbols):

    A = ∫ (½ |u|² + E_b) dt        M = ∫ u·dW, whose mean is 0        S = ∫ u ∘ dr, Stratonovich's integral: the mean of u at
                                                                      both ends of a step, times the step

    (A + M)/t           the bound of the loss: at least E_0
    (A + M − S)/t       the mean of the local energy of the drift: no noise is left at the ground state
    (A + M − ½ S)/t     the energy of the wave function whose square is the walkers' density: a bound too, and the closest

Where u is the gradient of some log φ/ψ_b, S is the difference of that between both ends, which does not grow with t, and all
three have the same mean. Else S grows with the currents that v drives.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.core.parameters import views_of
from npvae.core.progress import progress_bar
from npvae.core.workers import Workers, workers_for
from npvae.models.protocol import Measure

EQUILIBRATION = 5.0  # time that walkers take to forget where they began, in the system's units
STEPS_PER_PASS = 50  # whose noise is in memory at a time
EXTRAPOLATED = (2.0, 1.0, 0.5)  # lengths of a step, in those of training, from which the limit is taken


class Integrals(NamedTuple):
    """Of each walker (B,), over the time `time`."""

    energy: np.ndarray  # A
    martingale: np.ndarray  # M
    work: np.ndarray  # S
    time: float

    @property
    def bound(self):
        return (self.energy + self.martingale) / self.time

    @property
    def local(self):
        return (self.energy + self.martingale - self.work) / self.time

    @property
    def rayleigh(self):
        return (self.energy + self.martingale - 0.5 * self.work) / self.time


def as_dict(numbers):
    """The numbers of a system as a dict: of one, or of texts "name=value"; ValueError for what is no number."""
    if isinstance(numbers, dict):
        return dict(numbers)
    found = {}
    for text in numbers:
        name, _, value = str(text).partition("=")
        try:
            found[name.strip()] = int(value) if value.strip().removeprefix("-").isdecimal() else float(value)
        except ValueError:
            raise ValueError(f"numbers must be given as NAME=VALUE, as in distance=2.8; got {text!r}") from None
    return found


def walk(model, start, eps, dt=None):
    """Walkers from start (B, N d), eps (T, B, N d): where they end, what u is there (B, N d), and their Integrals. Nothing is
    trained; dt is that of training if None."""
    dt, workspace = model.dt if dt is None else dt, model.workspace()
    if workspace is not None:
        end, pull, *integrals = model.ops.drift_walk(model.theta, start, eps, dt, workspace)
        return end, pull, Integrals(*integrals, len(eps) * dt)
    network, r, work = model.network(views_of(model.theta.real, model.parameters.shapes)), start, 0
    with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
        (states, energy, martingale), _ = model.paths_forward(start, eps, network, keep=range(1, len(eps) + 1), dt=dt)
        before = model.control(start, network)  # (B, N d)
        for state in states:
            after = model.control(state, network)
            work = work + (0.5 * (before + after) * (state - r)).sum(axis=1, dtype=np.float64)  # (B, N d) -> (B,)
            before, r = after, state
    return r, before, Integrals(energy, martingale, work, len(eps) * dt)


def walked(model, r, time, dt, rng):
    """Walkers r (B, N d) moved on for so long, in steps of dt: where they are then, and their Integrals. Workers share the
    walkers, whose noise does not depend on how many workers there are."""
    n_steps, total = max(1, round(time / dt)), 0
    with Workers(min(workers_for(n_steps * model.theta.size * len(r)), len(r))) as workers:
        for start in range(0, n_steps, STEPS_PER_PASS):
            eps = rng.standard_normal((min(STEPS_PER_PASS, n_steps - start), *r.shape), r.dtype)  # (K, B, N d)
            ends, _, parts = zip(*workers.map(lambda rows: walk(model, r[rows], eps[:, rows].copy(), dt),  # noqa: B023
                                              workers.parts(len(r))))  # fmt: skip
            total = total + np.array([np.concatenate(column) for column in zip(*(part[:3] for part in parts))])  # (3, B)
            r = np.concatenate(ends)
    return r, Integrals(*total, n_steps * dt)


def equilibrate(model):
    """Let the model's walkers move on for EQUILIBRATION, by the drift as it is: from where they are put down to where they are
    at home. Nothing is trained."""
    walkers = model.buffers["walkers"]
    walkers[...] = walked(model, walkers, EQUILIBRATION, model.dt, np.random.default_rng([model.seed, 2]))[0]


def sample(model, n, rng=None):
    """n walkers (n, N d) that have moved by the drift for EQUILIBRATION: draws of |φ0|² at the ground state."""
    rng = np.random.default_rng(rng)
    start = model.new_walkers(checks.integer("n", n, 1), rng)
    return walked(model, start, EQUILIBRATION, model.dt, rng)[0]


def energies(model, time=20.0, dt=None, n_walkers=None, rng=None):
    """The Integrals of fresh walkers (n_walkers,), after EQUILIBRATION, in steps of dt (those of training if None)."""
    rng, dt = np.random.default_rng(rng), model.dt if dt is None else checks.number("dt", dt, 0, exclusive=True)
    start = model.new_walkers(model.n_walkers if n_walkers is None else checks.integer("n_walkers", n_walkers, 1), rng)
    start, _ = walked(model, start, EQUILIBRATION, dt, rng)
    return walked(model, start, time, dt, rng)[1]


def mean_and_error(values):
    """The mean of one value for each walker (B,), and its standard error: walkers are independent."""
    return float(values.mean()), float(values.std() / math.sqrt(max(1, len(values) - 1)))


def limit(lengths, means, errors):
    """The value at dt → 0 of means that change with dt², and its standard error, by weighted least squares."""
    design = np.stack([np.ones(len(lengths)), np.square(lengths)], axis=1) / np.asarray(errors)[:, None]
    covariance = np.linalg.inv(design.T @ design)
    value = covariance @ design.T @ (np.asarray(means) / errors)
    return float(value[0]), float(math.sqrt(covariance[0, 0]))


def measure(model, n_samples=100, seed=0, progress=False):
    """The energy of a trained drift as Measures: three lengths of a step, and their limit. n_samples: how many times as long as
    a path of training each walker goes."""
    rng, time, found = np.random.default_rng(seed), n_samples * model.n_steps * model.dt, {}
    with progress_bar(progress, total=len(EXTRAPOLATED), unit=" lengths of a step") as bar:
        for factor in EXTRAPOLATED:
            found[factor * model.dt] = energies(model, time, factor * model.dt, rng=rng)
            bar.update()
    means, errors = zip(*(mean_and_error(integrals.rayleigh) for integrals in found.values()))
    value, error = limit(list(found), means, np.maximum(errors, 1e-12))
    (bound, of_bound), (local, of_local) = (mean_and_error(v) for v in (found[model.dt].bound, found[model.dt].local))
    exact, unit, of_steps = model.physics.exact, model.physics.unit, {f"dt = {dt:g}": mean for dt, mean in zip(found, means)}
    measures = [
        Measure("energy", value, unit, f"± {error:.1g}; of the walkers' density, in the limit of short steps"),
        Measure("energy_at", of_steps, unit, f"± {max(errors):.1g}"),
        Measure("bound", bound, unit, f"± {of_bound:.1g}; mean of ℓ_T/T at dt = {model.dt:g}: the ground state is not higher"),
        Measure("local_energy", local, unit, f"± {of_local:.1g}; mean of (H φ)/φ at dt = {model.dt:g}"),
        Measure("variance", float(found[model.dt].bound.var() * time), f"{unit}²" if unit else "",
                "of ℓ_T/T, times T: 0 at the ground state"),
    ]  # fmt: skip
    return measures if exact is None else [*measures, Measure("exact", exact, unit, model.physics.source)]
