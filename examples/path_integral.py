"""A ground state by paths: two bosons in a plane learn to keep away from each other, and their energy falls to the exact one.

    python examples/path_integral.py [--system bosons] [--numbers g=15] [--steps N] [--out path_integral.png]

The ground state φ0 of H = −½ ∇² + V makes particles move as dr = v dt + dW with v = ∇ log φ0 (Feynman–Kac; Lamacraft, "Learning
the path integral"). `npvae.models.Drift` learns v by minimising the energy of the paths that it makes,

    E[ℓ_T]/T = E_0 + ½ E|v − ∇ log φ0|²,        ℓ_T = ∫ v·dW + ∫ (½ |v|² + V) dt,

which is above E_0 until v is right, and then has no variance left: every path tells the same energy. Two bosons in a harmonic
trap repel each other by a Gaussian of width s = ½ and strength g = 15. The known drift is that of the trap alone; what the
network adds is the hole around the other particle.

Printed are three energies of the same paths, which agree where v is a gradient: the bound ℓ_T/T; the local energy, ℓ_T/T
without S = ∫ v ∘ dr; and with half of it, which is the energy of the wave function whose square is the walkers' density. The
error bars are what S is worth as a control variate.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.app import drift_pictures
from npvae.models import Drift, drift_energy
from npvae.models.quantum_systems import SYSTEMS
from npvae.schedules import Cosine

STEPS_PER_EPOCH = 10
MEASURED, WATCHED = 10.0, 1.0  # time that each walker is measured, at the end and during training
COLOURS = ("#4477aa", "#ee6677")


def train(system, numbers, n_updates, **options):
    """A drift trained for n_updates, and on the way there: step, energy of the paths, variance of the local energy, (n, 3)."""
    model, way = Drift(system, numbers, **options), []
    model.equilibrate()

    def on_epoch(state):
        rng, row = np.random.default_rng(state.epoch), state.history.rows[-1]
        _, paths = drift_energy.walked(model, model.buffers["walkers"], WATCHED, model.dt, rng)
        way.append((row["step"], row["train_energy"], paths.local.var()))

    optimizer = npvae.Adam(Cosine(model.physics.defaults["learning_rate"], n_updates))
    npvae.fit(model, epochs=n_updates // STEPS_PER_EPOCH, steps_per_epoch=STEPS_PER_EPOCH, optimizer=optimizer,
              on_epoch=on_epoch, max_gradient_norm=1.0)  # fmt: skip
    return model, np.array(way)


def report(model, n_walkers=2000):
    """Print the three energies, each with its standard error."""
    integrals = drift_energy.energies(model, MEASURED, n_walkers=n_walkers, rng=1)
    print(f"{n_walkers} walkers for a time of {integrals.time:g}, dt = {model.dt:g}; exact: {model.physics.exact}")
    for name in ("bound", "local", "rayleigh"):
        value, error = drift_energy.mean_and_error(getattr(integrals, name))
        print(f"{name:10}{value:10.5f} ± {error:.5f}")


def draw(model, way):
    """The drift and its walkers above; below, the energy and its variance while they were learned."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    drift_pictures.drift(model, figure=above)
    step, energy, variance = way.T
    left, right = below.subplots(1, 2)
    left.plot(step, energy, color=COLOURS[0], lw=1, label="of the paths, a bound")
    if model.physics.exact is not None:
        left.axhline(model.physics.exact, color="black", lw=1, ls="--", label=f"exact, {model.physics.exact:g}")
    left.set(xlabel="step of the training", title="energy")
    left.legend(frameon=False)
    right.semilogy(step, variance, color=COLOURS[1], lw=1)
    right.set(xlabel="step of the training", title=f"variance of the local energy, mean over a time of {WATCHED:g}")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--system", default="bosons", choices=list(SYSTEMS), metavar="NAME",
                        help=f"{', '.join(SYSTEMS)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--numbers", nargs="+", default=[], metavar="X=Y", help="of the system, as in: g=15 n_particles=3")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="of training (default: %(default)s)")
    parser.add_argument("--out", default="path_integral.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    model, way = train(args.system, args.numbers, args.steps)
    print(f"\n{model}\n")
    report(model)
    draw(model, way).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
