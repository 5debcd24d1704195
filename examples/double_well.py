"""Which paths led to a measured outcome? A particle in a double well, against the exact posterior on a grid.

    python examples/double_well.py [--steps N] [--out double_well.png]

The particle starts in the left well and moves by dz = f(z) dt + σ dW with f = −dU/dz, U = (z² − 1)² and σ = 1, from time 0 to
T = 2. Then its place is measured, with an error of s = 0.2. Mostly it is still in the left well. What did it do where it is
found in the right one, or on the barrier between them?

The paths that led to the outcome x are those of an equation with one more term (Doob's transform):

    dz = f dt + σ (v dt + dW),    v(z, t; x) = σ ∂/∂z log h(z, t),    h(z, t) = p(x | z at time t).

`npvae.models.PathPosterior` learns v for all x at once from outcomes of the simulation. The mean of its loss −log p(x|z_T) +
½ ∫ |v|² dt is −ELBO = −log p(x) + KL(paths with v ‖ paths that led to x) (Lamacraft, "Markov chain autoencoders").

In one dimension the exact answer is at hand. Euler's step of the simulation is N(z + f dt, σ² dt), a matrix between the points
of a grid. Its products forward from the start and backward from the outcome give p(z_t) and h, and with them p(x) and the
density p(z_t|x) = p(z_t) h(z_t)/p(x) at every time: the transfer matrix, which for dt → 0 is the Fokker–Planck equation.

The ELBO of the chain stays below log p(x) even with the best v. Steps of the exact posterior are narrower than σ² dt near the
outcome, while those of a controlled path have the noise of the simulation. With r = s² + σ² (T − t), the variance of what lies
ahead at the end of a step, a step of the posterior has the variance σ² dt/(1 + ρ), ρ = σ² dt/r. The KL of the two adds up to

    ½ Σ_t (ρ − log(1 + ρ)) ≈ ¼ dt σ² (1/s² − 1/(s² + σ² T))

(exactly so for Brownian motion, f = 0), which vanishes with dt. What remains then is what the network has not learned. It is a
function of z, t and x, so it is trained with one length of the steps and measured with others, too.
"""

import argparse
import math

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.models import PathPosterior
from npvae.training.schedules import Cosine

OUTCOMES = (1.0, 0.0, -1.0)
COLOURS = ("#ee6677", "#ccbb44", "#4477aa")
N_TRAINED = 50  # steps of a path in training
MEASURED = (50, 100, 200, 400)
N_PATHS = 4000  # behind each number
BATCH_SIZE, LEARNING_RATE = 256, 5e-3


class Exact:
    """The simulation of a model with one outcome in one dimension as a chain on a grid, by its transfer matrix."""

    def __init__(self, model, n_points=701, limit=3.5):
        self.model, self.z = model, np.linspace(-limit, limit, n_points)
        self.dt, self.dz = model.interval / model.n_steps, self.z[1] - self.z[0]
        self.matrix = self.step_from(self.z) * self.dz  # (n, n): p(z' | z) dz'
        prior = [self.step_from(np.array([model.start]))[0]]  # p(z_t) after the first step, (n,)
        for _ in range(model.n_steps - 1):
            prior.append(prior[-1] @ self.matrix)
        self.prior = np.array(prior)  # (T, n)

    def step_from(self, z):
        """The density of the next state at the points of the grid: z (m,) -> (m, n)."""
        mean = z + np.polyval(self.model.drift[::-1], z) * self.dt
        return normal(self.z, mean[:, None], self.model.sigma * math.sqrt(self.dt))

    def given(self, x):
        """log p(x) in nats, p(z_t|x) (T, n) and h (T, n) after each step, for an outcome x."""
        h = [normal(x, self.z, self.model.observation_sigma)]
        for _ in range(self.model.n_steps - 1):
            h.append(self.matrix @ h[-1])
        h = np.array(h[::-1])
        evidence = (self.prior[-1] * h[-1]).sum() * self.dz
        return math.log(evidence), self.prior * h / evidence, h


def normal(x, mean, sigma):
    return np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def smallest_gap(model, n_steps):
    """What the best control leaves between ELBO and log p(x), for Brownian motion: ½ Σ_t (ρ − log(1 + ρ)) in nats."""
    dt = model.interval / n_steps
    rho = model.sigma**2 * dt / (model.observation_sigma**2 + model.sigma**2 * dt * np.arange(n_steps))
    return 0.5 * (rho - np.log1p(rho)).sum()


def train(n_updates):
    """A model that has seen n_updates batches of outcomes of the simulation, each once."""
    model = PathPosterior(1, n_steps=N_TRAINED, segment=0)
    x = model.sample(n_updates * BATCH_SIZE, rng=1)
    npvae.fit(model, x, epochs=1, batch_size=BATCH_SIZE, optimizer=npvae.Adam(Cosine(LEARNING_RATE, n_updates)),
              max_gradient_norm=10.0)  # fmt: skip
    return model


def measure(model, exact, x):
    """ELBO and its error, the importance-weighted log p(x), log p(x) itself, and the largest distance between the distribution
    functions of z_t of the model's paths and of the exact posterior, over all times."""
    paths, log_w = model.posterior_paths([[x]], N_PATHS, rng=3)
    log_w = log_w[:, 0].astype(np.float64)
    log_p, density, _ = exact.given(x)
    distribution = np.cumsum(density, axis=1) * exact.dz - density * exact.dz / 2  # (T, n), at the middle of each cell
    ranks = (np.arange(N_PATHS) + 0.5) / N_PATHS
    distance = max(np.abs(np.interp(np.sort(z), exact.z, F) - ranks).max() for z, F in zip(paths[1:, :, 0, 0], distribution))
    weighted = np.logaddexp.reduce(log_w) - math.log(N_PATHS)
    return log_w.mean(), log_w.std() / math.sqrt(N_PATHS), weighted, log_p, distance


def report(model):
    """Print a table of all step lengths and outcomes; the gaps, outcome -> list over MEASURED."""
    print("gap: log p(x) − ELBO, and what the best control leaves without a drift; weighted: log p(x) by path weights;\n"
          "distance: largest difference of P(z_t < z | x) between model and grid, at all times and z\n")  # fmt: skip
    gaps = {x: [] for x in OUTCOMES}
    print("    x  steps   log p(x)      ELBO             gap   without drift   weighted   distance")
    for n_steps in MEASURED:
        finer = model.copy(n_steps=n_steps)
        exact = Exact(finer)
        for x in OUTCOMES:
            elbo, error, weighted, log_p, distance = measure(finer, exact, x)
            gaps[x].append((log_p - elbo, error))
            print(f"{x:5.1f}{n_steps:7}{log_p:11.4f}{elbo:10.4f}{log_p - elbo:9.4f} ±{error:.4f}"
                  f"{smallest_gap(model, n_steps):14.4f}{weighted:13.4f}{distance:11.3f}")  # fmt: skip
    return gaps


def draw(model, gaps):
    """Above: the exact posterior as grey levels with the model's paths. Below: densities, controls, gaps."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    above, below = figure.subplots(2, 3)
    fine = model.copy(n_steps=MEASURED[-1])
    exact = Exact(fine)
    for axes, x, colour in zip(above, OUTCOMES, COLOURS):
        log_p, density, h = exact.given(x)
        paths = fine.posterior_paths([[x]], N_PATHS, rng=4)[0][:, :, 0, 0]  # (T + 1, N)
        axes.imshow(density.T ** 0.5, origin="lower", extent=(0, model.interval, exact.z[0], exact.z[-1]), aspect="auto",
                    cmap="Greys", vmax=1.6)  # fmt: skip
        axes.plot(fine.times, paths[:, :8], lw=0.7, color=colour)
        axes.errorbar(model.interval, x, model.observation_sigma, color="k", marker="o", ms=4, capsize=3, clip_on=False)
        axes.set(title=f"found at {x:g}: log p(x) = {log_p:.2f} nats", xlabel="time t", ylabel="z", ylim=(-2, 2))
        middle = fine.n_steps // 2
        below[0].plot(exact.z, density[middle - 1], color=colour, label=f"found at {x:g}")
        below[0].hist(paths[middle], bins=np.linspace(-2, 2, 61), density=True, color=colour, alpha=0.35)
        if x == OUTCOMES[0]:
            draw_control(below[1], fine, exact, x, h)
        below[2].errorbar(model.interval / np.array(MEASURED), *zip(*gaps[x]), color=colour, marker="o", ms=4, lw=1,
                          label=f"found at {x:g}")  # fmt: skip
    below[0].set(xlabel=f"z at t = {model.interval / 2:g}", ylabel="density given the outcome", xlim=(-2, 2))
    below[0].set_title("halfway: exact (lines) and learned (bars)", fontsize=10)
    steps = np.geomspace(MEASURED[0], 100 * MEASURED[0], 50).astype(int)
    best = [smallest_gap(model, n) for n in steps]
    below[2].plot(model.interval / steps, best, "k--", lw=1, label="best control without drift")
    below[2].set(xlabel="length of a step dt", ylabel="log p(x) − ELBO, nats", xlim=(0, None), ylim=(0, None))
    below[2].set_title("how far the bound is below log p(x)", fontsize=10)
    for axes in (below[0], below[2]):
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_control(axes, model, exact, x, h):
    """The control at three times: learned, and σ ∂/∂z log h, where p(z_t|x) is not tiny."""
    control = model.control(np.full((len(exact.z), 1), x, np.float32), 0, model.times[-1])
    for share, colour in [(0.25, "#66ccee"), (0.5, "#228833"), (0.9, "#aa3377")]:
        k = round(share * model.n_steps)
        shown = np.abs(exact.z) < 1.8
        learned, _ = control.forward(exact.z[:, None].astype(np.float32), float(model.times[k]), control.parameters)
        axes.plot(exact.z[shown], model.sigma * np.gradient(np.log(h[k - 1]), exact.z)[shown], "k--", lw=1)
        axes.plot(exact.z[shown], learned[shown, 0], color=colour, label=f"t = {model.times[k]:g}")
    axes.set(xlabel="z", ylabel="control v")
    axes.set_title(f"learned control, found at {x:g}; dashed: exact", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="of training (default: %(default)s)")
    parser.add_argument("--out", default="double_well.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    model = train(args.steps)
    print(f"\n{model}\n")
    gaps = report(model)
    draw(model, gaps).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
