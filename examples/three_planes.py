"""Three planes: PCA, an autoencoder and a VAE describe handwritten digits by two numbers each.

    python examples/three_planes.py [--data-dir DIR] [--epochs N] [--out three_planes.png]

PCA projects an image on the plane of largest variance (Pearson 1901). The autoencoder lets that plane bend; its loss is the
error alone. The VAE has the same layers; its loss, a bound on −log p(x), is the error in units of the noise and the KL, which
pulls the codes towards N(0, I).

All three see the same grey images and are judged by the same squared error, Σ_d (x_d − x̂_d)² per test image, with x̂ decoded
from the scores, the codes or the posterior means. So the VAE has the Gaussian likelihood: its nll is that error over 2σ² and a
constant. The σ of largest likelihood is the root mean squared error per pixel that is left, here 0.20. A larger one gives the
KL more weight, a smaller one makes the VAE an autoencoder.
"""

import argparse
import textwrap
import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.special import ndtri

import npvae
from npvae import ppca
from npvae.app import plots
from npvae.data import mnist
from npvae.models import Autoencoder
from npvae.schedules import Cosine

N_LATENT, HIDDEN, SIGMA, EPOCHS, BATCH_SIZE, LEARNING_RATE = 2, (256, 128), 0.2, 10, 200, 2e-3
IMAGE_SHAPE, N_GRID = (28, 28), 10

DENSITY = {"PCA": "log p(x) = {:.1f} nats with noise added", "autoencoder": "no p(x)", "VAE": "log p(x) ≥ {:.1f} nats (ELBO)"}
ORIGIN = {"PCA": "the scores", "autoencoder": "the codes", "VAE": "N(0, I)"}  # of the grid's place and size
LACKS = {
    "PCA": "Lacks curvature. Every image is the mean plus two fixed patterns, so digits overlap in the plane and are blurred. "
           "No linear map of two numbers does better on the training images. A density it has only once noise is added: "
           "probabilistic PCA.",
    "autoencoder": "Lacks a distribution. The plane bends, so the error is smaller, but nothing asks where the codes lie: "
                   "their place and scale are chance. There is no distribution to draw z from, what is decoded between the "
                   "codes need not be a digit, and there is no p(x), not even a bound on it.",
    "VAE": "Has a density: the loss is a bound on log p(x), and the KL pulls the codes towards N(0, I), from which new digits "
           "are drawn. Lacks log p(x) itself (there is only the bound), codes distributed exactly as N(0, I), and sharp "
           "strokes: two numbers are few, and between clusters it mixes digits, too.",
}  # fmt: skip


class PCA(NamedTuple):
    """Principal component analysis, with the methods that a model has."""

    mean: np.ndarray  # (D,)
    axes: np.ndarray  # (L, D), orthonormal

    def encode(self, x):
        """Scores: x (n, D) -> (n, L)."""
        return (x - self.mean) @ self.axes.T

    def decode(self, z):
        """The point of the plane: z (n, L) -> (n, D)."""
        return self.mean + z @ self.axes

    def reconstruct(self, x):
        """The projection: (n, D) -> (n, D)."""
        return self.decode(self.encode(x))


class Plane(NamedTuple):
    """What one of the three makes of the test images."""

    model: object
    z: np.ndarray  # (n, 2): scores, codes, posterior means
    error: float  # squared error per image
    log_p: float | None  # mean of log p(x), or a bound on it, nats per image
    centre: np.ndarray  # (2,) and
    spread: np.ndarray  # (2,): mean and standard deviation of z, those of the prior where there is one


def codes(model, x):
    """z (n, L): scores, codes, or posterior means."""
    encoded = model.encode(x)
    return encoded[0] if isinstance(encoded, tuple) else encoded


def plane_of(model, x, log_p=None):
    """The Plane of a model, from test images x (n, D). The prior of the VAE is N(0, I); the others have none."""
    z = codes(model, x)
    error = float(((x - model.reconstruct(x)) ** 2).sum(axis=1).mean())
    centre, spread = (np.zeros(2), np.ones(2)) if isinstance(model, npvae.VAE) else (z.mean(axis=0), z.std(axis=0))
    return Plane(model, z, error, log_p, centre, spread)


def train(model, x, epochs):
    """Train an autoencoder or a VAE on the grey levels x (n, D)."""
    schedule = Cosine(LEARNING_RATE, epochs * -(-len(x) // BATCH_SIZE))
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(schedule))
    return model


def three_planes(x, x_test, epochs):
    """Fit all three to x (n, D) and judge them by x_test (m, D): name -> Plane."""
    mean, axes, _ = ppca.principal_components(x, N_LATENT)
    with_noise = ppca.maximum_likelihood(x, N_LATENT)  # the density that PCA has once noise is added
    shape = {"n_features": x.shape[1], "n_latent": N_LATENT, "hidden": HIDDEN, "likelihood": "gaussian", "sigma": SIGMA}
    autoencoder, vae = (train(make(**shape), x, epochs) for make in (Autoencoder, npvae.VAE))
    return {
        "PCA": plane_of(PCA(mean, axes), x_test, float(ppca.log_likelihood(with_noise, x_test).mean())),
        "autoencoder": plane_of(autoencoder, x_test),
        "VAE": plane_of(vae, x_test, npvae.evaluate.elbo(vae, x_test, 0, 10).elbo),
    }


def print_table(planes):
    """Error, mean and standard deviation of z, and log p(x)."""
    print(f"\n{'':14}{'squared error':>13}{'mean of z':>18}{'standard deviation':>21}   per test image")
    for name, made in planes.items():
        mean, deviation = (f"{value[0]:.2f}, {value[1]:.2f}" for value in (made.z.mean(axis=0), made.z.std(axis=0)))
        print(f"{name:14}{made.error:13.2f}{mean:>18}{deviation:>21}   {DENSITY[name].format(made.log_p)}")


def draw(planes, x, labels):
    """A column for each: the test images x (n, D) in the plane, what a grid of its points decodes to, one image of every digit
    with its reconstruction, and what the model lacks.

    The grid stands at equal steps of probability of a normal distribution for each coordinate of z: the prior of the VAE, and
    for the others one with the mean and standard deviation of their scores or codes.
    """
    figure = Figure(figsize=(13, 12.2), layout="constrained")
    rows = figure.subplots(4, 3, height_ratios=(4, 4, 0.85, 1.2))
    kept = np.random.default_rng(0).permutation(len(x))[: plots.MAX_POINTS]
    steps = ndtri((np.arange(N_GRID) + 0.5) / N_GRID)
    shown = x[np.unique(labels, return_index=True)[1]]
    for (name, made), (scatter, grid, pairs, words) in zip(planes.items(), rows.T):
        plots.coloured_scatter(figure, scatter, *made.z[kept].T, labels[kept], "digit")
        scatter.get_legend().remove()  # one for all stands above
        z1, z2 = made.centre[:, None] + made.spread[:, None] * steps  # (2, N_GRID)
        scatter.add_patch(Rectangle((z1[0], z2[0]), z1[-1] - z1[0], z2[-1] - z2[0], fill=False, ls="--", zorder=3))
        scatter.set_title(f"{name}\nsquared error {made.error:.1f}; {DENSITY[name].format(made.log_p)}", fontsize=10)
        scatter.set(xlabel="$z_1$", ylabel="$z_2$")
        scatter.set_aspect("equal", "datalim")

        points = np.stack(np.meshgrid(z1, z2[::-1]), axis=-1).reshape(-1, 2)  # z_2 grows upwards
        plots.show_image(grid, plots.tile(made.model.decode(points), IMAGE_SHAPE, N_GRID, gap=0), 0, 1)
        grid.set_title(f"decoded: mean ± {steps[-1]:.2f} σ of {ORIGIN[name]} (dashed)", fontsize=10)
        images = np.concatenate([shown, made.model.reconstruct(shown)])
        plots.show_image(pairs, plots.tile(images, IMAGE_SHAPE, len(shown)), 0, 1)
        pairs.set_title("test images over their reconstructions", fontsize=10)
        words.axis("off")
        words.text(0, 1, textwrap.fill(LACKS[name], 52), va="top", fontsize=9.5, in_layout=False)
    handles = scatter.get_legend_handles_labels()
    figure.legend(*handles, title="digit", loc="outside upper center", ncols=10, markerscale=3, frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it they are downloaded once")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of both trainings (default: %(default)s)")
    parser.add_argument("--out", default="three_planes.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    digits, started = mnist.load(args.data_dir), time.perf_counter()
    x, x_test = ((images / 255).astype(np.float32) for images in (digits.x_train, digits.x_test))
    planes = three_planes(x, x_test, args.epochs)
    print_table(planes)
    draw(planes, x_test, digits.y_test).savefig(args.out, dpi=110)
    print(f"picture: {args.out} ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
