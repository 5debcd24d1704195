"""A normalizing flow on eight densities in the plane and on a table of gases: how near its likelihood comes to the best.

    python examples/flow.py [--only NAME ...] [--epochs N] [--workers N] [--out flow.png]

No model's negative log-likelihood (NLL) can be less, on average, than the entropy of the data, and for all nine data sets the
entropy is known (`npvae.data.toy`; for the table, below). So what this prints does not compare models with each other: it says
how many nats per datum are missing to the truth. The KL column takes the means of log p of truth and model over the same test
rows, so that the luck of the draw of the rows cancels.

Couplings of the plane move one coordinate at a time, by functions of the other. What is hard for them is what tears: holes
(ring, circles), separate parts that must be cut from one Gaussian (ring, moons) and edges (checkerboard).
"""

import argparse
import math
import time

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.data import toy
from npvae.models.flow import Flow
from npvae.training.schedules import Cosine

N_TRAIN, N_TEST = 100_000, 20_000
N_LAYERS, HIDDEN = 20, (32, 32)
LEARNING_RATE, BATCH_SIZE, MAX_GRADIENT_NORM = 5e-3, 250, 1.0

# ---- a table: measurements of gases, one column per quantity, each in its SI unit ----

R, GAMMA, MOLAR_MASS = 8.314, 1.4, 0.029  # J/(mol K); of air; kg/mol
BATHS, BATH_WIDTHS = np.array([280.0, 350.0]), np.array([8.0, 12.0])  # two heat baths, K
LOG_VOLUME, LOG_AMOUNT = (math.log(0.02), 0.25), (math.log(1.0), 0.3)  # mean, standard deviation of log V/m³ and log n/mol
PRESSURE_ERROR, SPEED_ERROR, ENERGY_ERROR = 0.1, 4.0, 0.1  # relative; m/s; relative


def sample_gases(n_rows, rng):
    """Rows (n_rows, 6) of temperature, volume, amount, and measured pressure, speed of sound and internal energy."""
    bath, noise = rng.integers(2, size=n_rows), rng.standard_normal((6, n_rows))
    T = BATHS[bath] + BATH_WIDTHS[bath] * noise[0]
    V = np.exp(LOG_VOLUME[0] + LOG_VOLUME[1] * noise[1])
    n = np.exp(LOG_AMOUNT[0] + LOG_AMOUNT[1] * noise[2])
    p = n * R * T / V * np.exp(PRESSURE_ERROR * noise[3])
    c = np.sqrt(GAMMA * R * T / MOLAR_MASS) + SPEED_ERROR * noise[4]
    U = 2.5 * n * R * T * np.exp(ENERGY_ERROR * noise[5])
    return np.stack([T, V, n, p, c, U], axis=1)


def log_normal(value, mean, sigma):
    return -0.5 * ((value - mean) / sigma) ** 2 - math.log(2 * math.pi) / 2 - np.log(sigma)


def log_density_of_temperature(T):
    return np.logaddexp(*(log_normal(T, mean, width) for mean, width in zip(BATHS, BATH_WIDTHS))) - math.log(2)


def log_density_of_gases(x):
    """log p(T) + log p(V) + log p(n) + log p(p|T, V, n) + log p(c|T) + log p(U|T, n): (n_rows, 6) -> (n_rows,)."""
    T, V, n, p, c, U = x.T
    log_p = log_density_of_temperature(T) + log_normal(c, np.sqrt(GAMMA * R * T / MOLAR_MASS), SPEED_ERROR)
    for value, mean, sigma in [(V, *LOG_VOLUME), (n, *LOG_AMOUNT), (p, np.log(n * R * T / V), PRESSURE_ERROR),
                               (U, np.log(2.5 * n * R * T), ENERGY_ERROR)]:  # fmt: skip
        log_p = log_p + log_normal(np.log(value), mean, sigma) - np.log(value)  # density of the logarithm, times d log v/dv
    return log_p


def entropy_of_gases():
    """The chain rule of entropies; a log-normal variable has H = E[log] + ½ log 2πeσ²; H and E[log] of T by quadrature."""
    T = np.linspace(200, 450, 20_001)
    p = np.exp(log_density_of_temperature(T))
    H_T = -np.trapezoid(p * np.log(p), T)
    log_T = np.trapezoid(p * np.log(T), T)
    means_of_log = [LOG_VOLUME[0], LOG_AMOUNT[0], LOG_AMOUNT[0] + math.log(R) + log_T - LOG_VOLUME[0],
                    math.log(2.5 * R) + LOG_AMOUNT[0] + log_T]  # fmt: skip
    sigmas = [LOG_VOLUME[1], LOG_AMOUNT[1], PRESSURE_ERROR, ENERGY_ERROR, SPEED_ERROR]
    return H_T + sum(means_of_log) + sum(0.5 * math.log(2 * math.pi * math.e * sigma**2) for sigma in sigmas)


# ---- training, table and picture ----


def train(x, epochs, workers):
    """A flow fitted to the rows x (n, D)."""
    model = Flow(x.shape[1], N_LAYERS, HIDDEN)
    model.standardize(x)
    optimizer = npvae.Adam(Cosine(LEARNING_RATE, epochs * math.ceil(len(x) / BATCH_SIZE)))
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=optimizer, max_gradient_norm=MAX_GRADIENT_NORM,
              workers=workers, progress=False)  # fmt: skip
    return model


def draw(models):
    """For each density in the plane: data, the flow's density, and draws of the flow."""
    n = len(models)
    figure = Figure(figsize=(1.75 * n + 0.3, 5.6), layout="constrained")
    panels = figure.subplots(3, n, squeeze=False)
    limit = 3.2
    line = limit * (2 * (np.arange(250) + 0.5) / 250 - 1)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    for column, (name, model) in zip(panels.T, models.items()):
        for axes, points in [(column[0], toy.sample(name, 3000, 1)), (column[2], model.sample(3000, 2))]:
            axes.plot(*points.T, ".", ms=1, color="#4477aa")
        density = np.exp(model.log_likelihood(grid)).reshape(250, 250)
        column[1].imshow(density, origin="lower", extent=(-limit, limit) * 2, cmap="viridis")
        column[0].set_title(name, fontsize=11)
        for axes in column:
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    for axes, label in zip(panels[:, 0], ("data", "density of the flow", "draws of the flow")):
        axes.set_ylabel(label)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*toy.NAMES, "gases"], metavar="NAME", help="of " + ", ".join(toy.NAMES))
    parser.add_argument("--epochs", type=int, default=25, metavar="N", help="of 100,000 rows each (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads per batch (default: %(default)s)")
    parser.add_argument("--out", default="flow.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()

    print(f"{'':14}{'entropy':>10}{'test NLL':>10}{'difference':>12}{'KL to the truth':>18}{'seconds':>9}   (nats per datum)")
    models = {}
    for name in args.only or [*toy.NAMES, "gases"]:
        if name == "gases":
            x, test = (sample_gases(n, np.random.default_rng([0, i])) for i, n in enumerate((N_TRAIN, N_TEST)))
            entropy, log_density = entropy_of_gases(), log_density_of_gases(test)
        else:
            x, test = toy.dataset_rows(name, N_TRAIN, N_TEST)
            entropy, log_density = toy.entropy(name), toy.log_density(name, test)
        started = time.perf_counter()
        model = train(x, args.epochs, args.workers)
        seconds = time.perf_counter() - started
        log_p = model.log_likelihood(test)
        kl = log_density - log_p
        print(f"{name:14}{entropy:10.4f}{-log_p.mean():10.4f}{-log_p.mean() - entropy:12.4f}"
              f"{kl.mean():11.4f} ±{kl.std() / math.sqrt(len(kl)):.4f}{seconds:9.0f}", flush=True)  # fmt: skip
        if name != "gases":
            models[name] = model
    if models:
        draw(models).savefig(args.out, dpi=110)
        print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
