"""A Boltzmann machine learns the Ising model, every claim beside an exact result: 4 × 4 lattices enumerated, 16 × 16 at T_c.

    python examples/ising_machine.py [--only small large] [--out ising_machine.png]

1. **4 × 4, all 65,536 states enumerated** (`small`). Machines with 32 hidden units learn 200,000 draws of Boltzmann's
   distribution f at T = 1.8, T_c and 4, by persistent chains. The divergence is exact, with sums over all states,

       KL(f ‖ p) = ⟨log f⟩ + ⟨F⟩ + log Z,

   and so are the energy, the specific heat and the magnetisation that draws of the machine are compared with.
2. **Why chains have to turn over.** Without a field the lattice is as likely up as down. Below T_c Gibbs sampling hardly ever
   gets from one to the other, so that the chains do not tell the machine how much of it is up, and in training it swings to and
   fro. `Machine` proposes 1 − x to each chain and takes it with the probability min(1, p(1 − x)/p(x)), which leaves p as it is.
3. **16 × 16 at T_c** (`large`). A machine of 256 hidden units and a VAE learn lattices by Wolff's algorithm; energy and
   correlations of draws of both are compared with those of other lattices. Given z the spins of a VAE are independent, so that
   its lattices have no local order of their own; a machine's hidden units each tie together the spins that they see.
"""

import argparse
import math
import time

import numpy as np
from ising_study import correlation, spins
from matplotlib.figure import Figure

import npvae
from npvae.data import ising
from npvae.models import BoltzmannMachine
from npvae.training.schedules import Cosine, Linear

TEMPERATURES = (1.8, ising.T_CRITICAL, 4.0)
SMALL, N_HIDDEN, N_ROWS, EPOCHS, GIBBS_STEPS, LEARNING_RATE = 4, 32, 200_000, 24, 5, 1e-2
LARGE, LARGE_HIDDEN, LARGE_ROWS, LARGE_EPOCHS, LARGE_STEPS, LARGE_RATE = 16, 256, 40_000, 16, 5, 5e-3
BATCH_SIZE, LARGE_BATCH, N_DRAWS, DRAW_STEPS = 500, 100, 10_000, 1000
N_LATENT, VAE_HIDDEN, VAE_EPOCHS = 16, (256,), 30
COLORS = {"exact": "#777777", "Wolff": "#777777", "machine": "#4477aa", "VAE": "#ee6677"}


class Machine(BoltzmannMachine):
    """A Boltzmann machine whose chains may turn over, every 0 a 1 and every 1 a 0, after each round of Gibbs sampling."""

    def draw(self, rng, x, n_steps=1, chains=None):
        moved = super().draw(rng, x, n_steps, chains)
        turned = 1 - moved
        gained = self.free_energy(moved) - self.free_energy(turned)  # log p(1 − x)/p(x)
        turns = rng.random(len(moved)) < np.exp(np.minimum(gained, 0))
        moved[turns] = turned[turns]
        if chains is not None:
            chains[...] = moved
        return moved


# ------------------------------------------------------------------------------------------------------- 4 × 4, enumerated


def all_states(n_spins):
    """Zeros and ones (2^n, n), float32."""
    return (np.arange(2**n_spins)[:, None] >> np.arange(n_spins) & 1).astype(np.float32)


def boltzmann(states, T):
    """log f of every state at temperature T: (2^n,)."""
    log_f = -states.shape[1] * ising.energy_per_spin(states, math.isqrt(states.shape[1])) / T
    return log_f - np.logaddexp.reduce(log_f)


def observables(x, T, weights=None):
    """Energy per spin, specific heat per spin and |m| of lattices x (n, N), each as (value, standard error); with weights (n,)
    the values are exact, and the errors 0."""
    n_spins = x.shape[1]
    e, m = ising.energy_per_spin(x, math.isqrt(n_spins)), np.abs(spins(x).mean(axis=1))
    mean_e = np.average(e, weights=weights)
    values = e, n_spins * (e - mean_e) ** 2 / T**2, m
    if weights is not None:
        return [(np.average(value, weights=weights), 0.0) for value in values]
    return [(value.mean(), value.std() / math.sqrt(len(x))) for value in values]


def divergence(model, states, log_f):
    """KL(f ‖ p) in nats, a sum over all states, and the probability of each under the machine (2^n,)."""
    F, f = model.free_energy(states).astype(np.float64), np.exp(log_f)
    log_Z = np.logaddexp.reduce(-F)
    return f @ log_f + f @ F + log_Z, np.exp(-F - log_Z)


def train_small(T, kind, states, log_f, epochs=EPOCHS):
    """A machine of the 4 × 4 lattice at T, and KL(f ‖ p) after each epoch."""
    f = np.exp(log_f)
    x = states[np.random.default_rng(0).choice(len(states), N_ROWS, p=f / f.sum())]
    model, curve = kind(states.shape[1], N_HIDDEN, n_chains=BATCH_SIZE), []
    model.centre(x)
    optimizer = npvae.Adam(Cosine(LEARNING_RATE, epochs * math.ceil(N_ROWS / BATCH_SIZE)))
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=optimizer, n_steps=GIBBS_STEPS, workers=1,
              progress=False, on_epoch=lambda state: curve.append(divergence(model, states, log_f)[0]))  # fmt: skip
    return model, np.array(curve)


def small(temperatures=TEMPERATURES, epochs=EPOCHS):
    """Print the table of 1 and 2; temperature -> the curves with and without turning over."""
    states, curves = all_states(SMALL**2), {}
    print(f"{SMALL} × {SMALL}, all {len(states):,} states; energy and specific heat per spin")
    print(f"{'T':>6}{'KL(f ‖ p)':>12}{'chains stay':>13}{'energy':^28}{'specific heat':^28}{'|m|':^28}{'CPU s':>9}")
    print(f"{'':6}{'nats':>12}{'nats':>13}" + f"{'exact':>10}{'draws':>13}{'':5}" * 3)
    for T in temperatures:
        log_f, started = boltzmann(states, T), time.process_time()
        model, curve = train_small(T, Machine, states, log_f, epochs)
        seconds = time.process_time() - started
        _, stays = train_small(T, BoltzmannMachine, states, log_f, epochs)
        exact = observables(states, T, np.exp(log_f))
        drawn = observables(model.sample(N_DRAWS, 1, DRAW_STEPS), T)
        cells = "".join(f"{value:10.4f}{found:10.4f} ±{error:.4f}" for (value, _), (found, error) in zip(exact, drawn))
        print(f"{T:6.3f}{curve[-1]:12.4f}{stays[-1]:13.4f}{cells}{seconds:9.0f}", flush=True)
        curves[T] = curve, stays
    return curves


# ------------------------------------------------------------------------------------------------------------ 16 × 16 at T_c


def train_large(x):
    """A machine and a VAE of lattices x (n, 256), float32."""
    machine = Machine(x.shape[1], LARGE_HIDDEN, n_chains=LARGE_BATCH)
    machine.centre(x)
    steps = math.ceil(len(x) / LARGE_BATCH)
    npvae.fit(machine, x, epochs=LARGE_EPOCHS, batch_size=LARGE_BATCH, n_steps=LARGE_STEPS, workers=1, progress=False,
              optimizer=npvae.Adam(Cosine(LARGE_RATE, LARGE_EPOCHS * steps)))  # fmt: skip
    vae = npvae.VAE(x.shape[1], N_LATENT, VAE_HIDDEN)
    n_steps = VAE_EPOCHS * math.ceil(len(x) / 128)
    npvae.fit(vae, x, epochs=VAE_EPOCHS, batch_size=128, optimizer=npvae.Adam(Cosine(2e-3, n_steps)),
              beta=Linear(n_steps // 20), workers=1, progress=False)  # fmt: skip
    return machine, vae


def large(n_rows=LARGE_ROWS):
    """Print the table of 3; name -> (lattices (n, 256), their G(r) (size/2 + 1,))."""
    T = ising.T_CRITICAL
    n_chains = 20
    x = ising.simulate(T, n_rows // n_chains, LARGE, 0, n_chains).spins.astype(np.float32)
    others = ising.simulate(T, N_DRAWS // n_chains, LARGE, 1, n_chains).spins
    started = time.process_time()
    machine, vae = train_large(x)
    seconds = time.process_time() - started
    rng = np.random.default_rng(2)
    mean = vae.sample(N_DRAWS, rng)
    lattices = {"Wolff": others, "machine": machine.sample(N_DRAWS, rng, DRAW_STEPS), "VAE": rng.random(mean.shape) < mean}
    print(f"\n{LARGE} × {LARGE} at T_c, exact energy {ising.kaufman_energy(T, LARGE):.4f}; {len(x):,} lattices to learn from, "
          f"{seconds:.0f} s of one core for both models")  # fmt: skip
    print(f"{'':10}{'energy':^20}{'specific heat':^20}{'|m|':^20}{'G(1)':>8}{'G(2)':>8}{'G(4)':>8}{'G(8)':>8}")
    found = {}
    for name, drawn in lattices.items():
        G = correlation(spins(drawn), LARGE).mean(axis=0)
        cells = "".join(f"{value:11.4f} ±{error:.4f} " for value, error in observables(drawn, T))
        print(f"{name:10}{cells}" + "".join(f"{G[r]:8.3f}" for r in (1, 2, 4, 8)), flush=True)
        found[name] = drawn, G
    return found


# ------------------------------------------------------------------------------------------------------------------ picture


def draw(curves, found):
    """The divergence epoch by epoch; of 16 × 16 lattices energies, correlations, and what they look like."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    panels = above.subplots(1, 3)
    for (T, of_T), color in zip(curves.items(), ("#4477aa", "#ccbb44", "#ee6677")):
        for curve, style, label in zip(of_T, ("-", ":"), (f"T = {T:.3g}", None)):
            panels[0].semilogy(1 + np.arange(len(curve)), curve, style, color=color, label=label)
    panels[0].axhline(0.01, color="#bbbbbb", lw=0.8)
    panels[0].set(xlabel="epoch", ylabel="KL(f ‖ p) / nats", title="4 × 4 (dotted: chains that stay)")
    bins = np.arange(-2, 0.2, 8 / LARGE**2)
    for name, (lattices, G) in found.items():
        e = ising.energy_per_spin(lattices, LARGE)
        panels[1].hist(e, bins, density=True, histtype="step", color=COLORS[name], label=name, lw=1.4)
        panels[2].plot(np.arange(1, len(G)), G[1:], "o-", ms=4, color=COLORS[name], label=name)
    panels[1].set(xlabel="energy per spin", yticks=[], title="16 × 16 at $T_c$")
    panels[2].set(xlabel="r", title="G(r)", ylim=(0, None))
    for axes in panels:
        axes.legend(frameon=False, fontsize=9)
    for part, (name, (lattices, _)) in zip(below.subfigures(1, 3, wspace=0.04), found.items()):
        part.suptitle(name, fontsize=11)
        for i, axes in enumerate(part.subplots(2, 4).flat):
            axes.imshow(np.asarray(lattices[i * 97]).reshape(LARGE, LARGE), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", default=("small", "large"), choices=("small", "large"), metavar="PART",
                        help="small: 4 × 4, large: 16 × 16; the picture needs both")  # fmt: skip
    parser.add_argument("--out", default="ising_machine.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    curves = small() if "small" in args.only else None
    found = large() if "large" in args.only else None
    if curves and found:
        draw(curves, found).savefig(args.out, dpi=110)
        print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
