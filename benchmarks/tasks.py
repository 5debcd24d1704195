"""What the contenders of `bench_step.py` train: the models of its rows, their sizes and their data."""

import math
from typing import NamedTuple

import numpy as np

from npvae import models
from npvae.data import toy

SIZES = [  # D, hidden, L, batch
    (64, (64,), 2, 32),
    (784, (64,), 2, 32),
    (784, (200,), 50, 100),
    (784, (400,), 20, 128),
    (784, (500,), 20, 100),
    (784, (512,), 32, 512),
    (784, (200, 200), 50, 20),
]
CHAINS = [(784, (200, 100), (100, 50), 100), (784, (200, 100), (100, 50), 20)]  # Burda's; two hidden layers of each width
POINTS = [(2, (128, 128), 1000, 128), (2, (128, 128), 1000, 512)]  # D, hidden, T, batch
IMAGES = [(784, (512, 512), 1000, 128)]
MODELS = {  # of a row -> what the tables call it, its learning rate, its sizes
    "bernoulli": ("", 1e-3, SIZES),
    "gaussian_learned": (", learned variances", 1e-4, SIZES[2:4]),  # at 1e-3 a rounding becomes percents within 100 steps
    "beta_binomial": (", beta-binomial", 1e-3, SIZES[2:4]),
    "conditional": (", given the label", 1e-3, SIZES[2:4]),
    "chain": (", chain of VAEs", 1e-3, CHAINS),
    "diffusion": (", diffusion of points", 1e-3, POINTS),
    "diffusion_levels": (", diffusion of grey levels", 1e-3, IMAGES),
}
ROWS = [(model, size) for model, (_, _, sizes) in MODELS.items() for size in sizes]

# What the models are made of, as in npvae.
N = 255  # the highest grey level
MIN_LOGVAR, MAX_LOGVAR = -2 * math.log(N), 20.0  # bounds of a learned log-variance
MIN_LOG, MAX_LOG = -23.0, 23.0  # bounds of log α and log β
LOG_2PI = math.log(2 * math.pi)
LOG_BINOMIALS = np.array([math.log(math.comb(N, k)) for k in range(N + 1)], np.float32)


class Task(NamedTuple):
    """A model as npvae is told it, which is all that the peers are told too, and what it is trained on."""

    kind: str  # its class in npvae.models
    config: dict  # arguments of its constructor
    data: tuple  # (x,), or (x, condition) with rows of the same number; x (n, D) uint8 grey levels or float32
    learning_rate: float = 1e-3

    def model(self, backend):
        """npvae's model with its initial weights."""
        return getattr(models, self.kind)(**self.config, backend=backend)


def vae_task(widths, images, likelihood="bernoulli", condition=None, learning_rate=1e-3):
    """A VAE of these widths D, H, ..., L, which is a conditional one where the images (n, D) have a condition (n, C)."""
    D, *hidden, n_latent = widths
    config = {"n_features": D, "hidden": tuple(hidden), "n_latent": n_latent, "likelihood": likelihood}
    if condition is None:
        return Task("VAE", config, (images,), learning_rate)
    return Task("ConditionalVAE", config | {"n_condition": condition.shape[1]}, (images, condition), learning_rate)


def task_of(model, size, images, labels):
    """The Task of a row: images uint8 (n, D') of at least D columns, labels (n,) the digits."""
    D, hidden, latent, _ = size
    start, learning_rate = max(0, images.shape[1] - D) // 2, MODELS[model][1]
    images = np.ascontiguousarray(images[:, start : start + D]) if images.shape[1] > D else images
    if model == "chain":
        config = {"n_features": D, "latent": latent, "hidden": hidden, "depth": 2, "activation": "tanh"}
        return Task("HierarchicalVAE", config | {"likelihood": "bernoulli"}, (images,), learning_rate)
    if model.startswith("diffusion"):
        likelihood = "levels" if model == "diffusion_levels" else "gaussian"
        config = {"n_features": D, "hidden": hidden, "n_steps": latent, "gamma_min": -10.0, "gamma_max": 5.0,
                  "n_frequencies": 4, "activation": "silu", "likelihood": likelihood}  # fmt: skip
        x = images if likelihood == "levels" else toy.sample("moons", len(images), 0).astype(np.float32)
        return Task("Diffusion", config, (x,), learning_rate)
    condition = np.eye(10, dtype=np.float32)[labels] if model == "conditional" else None  # (n,) -> (n, 10)
    likelihood = "bernoulli" if model == "conditional" else model
    return vae_task((D, *hidden, latent), images, likelihood, condition, learning_rate)


def widths_of(model, size):
    """The widths of a row, as in "784-200-50"; of a chain as npvae writes them, latents in brackets."""
    D, hidden, latent, _ = size
    if model == "chain":
        return "-".join([str(D), *(f"{width}-{width}-({n_latent})" for width, n_latent in zip(hidden, latent))])
    last = () if model.startswith("diffusion") else (latent,)
    return "-".join(map(str, (D, *hidden, *last)))


def noise_shape(task, n_rows):
    """Of the normal noise of a step: (1, B, L), and of a diffusion (1, B, D), or (2, B, D) where p(x|x_1) is of grey levels."""
    config = task.config
    if task.kind == "Diffusion":
        return 2 if config["likelihood"] == "levels" else 1, n_rows, config["n_features"]
    return 1, n_rows, sum(config["latent"]) if task.kind == "HierarchicalVAE" else config["n_latent"]


def levels_in_reach(r):
    """For −log p(x|x_1) of grey levels on [−1, 1], r being the noise of x_1 beside its signal: the levels whose weight is above
    e^−40, counted from the nearest one, (n,) float32, and the distance between two levels."""
    reach = min(N, 1 + math.ceil(math.sqrt(80) * r * N / 2))
    return np.arange(-reach, reach + 1, dtype=np.float32), 2 / N
