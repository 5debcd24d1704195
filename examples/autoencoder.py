"""An autoencoder beside PCA and the VAE: what it shares with each, and what it cannot do.

    python examples/autoencoder.py [--data-dir DIR] [--out autoencoder.png]

Three questions, on lattices of the Ising model (or MNIST digits, with --data-dir):

1. A linear autoencoder is PCA (Baldi & Hornik 1989). Does training by gradient find the error and the subspace of the closed
   form?
2. With hidden layers the subspace may bend. Is the error smaller, for the same number of dimensions? (For the digits it is. For
   the lattices it is not: their two leading directions are as good as any surface that training finds.)
3. Decode z drawn from N(0, I). The KL held the VAE's encoder to that distribution, nothing held the autoencoder's. How far from
   N(0, I) are its codes, and what do its draws look like?
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae import ppca
from npvae.app import plots
from npvae.models import Autoencoder
from npvae.schedules import Cosine

N_LATENT, HIDDEN, EPOCHS, BATCH_SIZE = 2, (128,), 40, 100


def load(data_dir):
    """Training rows, labels, the labels' name and the shape of an image."""
    if data_dir is None:
        lattices = npvae.data.ising.simulate(np.linspace(1, 4, 13), 300, size=16)
        return lattices.spins.astype(np.float32), lattices.magnetization, "magnetisation", (16, 16)
    digits = npvae.data.mnist.load(data_dir)
    return (digits.x_test[:5000] / 255).astype(np.float32), digits.y_test[:5000], "digit", (28, 28)


def linear_against_pca(x):
    """Error of a linear autoencoder trained by gradient, that of PCA, and the angle in degrees between their subspaces."""
    model = Autoencoder(x.shape[1], N_LATENT, (), dtype="float64")
    centred = x - x.mean(axis=0)
    npvae.fit_lbfgs(model, centred, iterations=300, progress=False)
    _, axes, variances = ppca.principal_components(x, N_LATENT)
    angle = ppca.subspace_angle(model.parameters["output.W"], axes)
    return model.forward(centred)[0].squared_error, float(variances[N_LATENT:].sum()), angle


def train(x):
    """An autoencoder and a VAE of the same architecture and likelihood."""
    shape = {"n_features": x.shape[1], "n_latent": N_LATENT, "hidden": HIDDEN, "activation": "tanh", "seed": 0}
    models = {"autoencoder": Autoencoder(likelihood="bernoulli", **shape), "VAE": npvae.VAE(likelihood="bernoulli", **shape)}
    schedule = Cosine(5e-3, EPOCHS * len(x) // BATCH_SIZE)
    options = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "binarize": False, "progress": False}
    for model in models.values():
        npvae.fit(model, x, optimizer=npvae.Adam(schedule), **options)
    return models


def codes(model, x):
    """z (n, L): the code of an autoencoder, or the posterior mean of a VAE."""
    encoded = model.encode(x)
    return encoded[0] if isinstance(encoded, tuple) else encoded


def draw(models, x, labels, label_name, image_shape):
    """Codes of both models in the plane, and what each decodes from z ~ N(0, I)."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    z = np.random.default_rng(0).standard_normal((36, N_LATENT))
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    for column, (name, model) in enumerate(models.items()):
        axes, kept = figure.add_subplot(2, 2, column + 1), np.random.default_rng(0).permutation(len(x))[:3000]
        mu = codes(model, x)[kept]
        plots.coloured_scatter(figure, axes, mu[:, 0], mu[:, 1], labels[kept], label_name)
        axes.plot(2 * circle.real, 2 * circle.imag, "k--", lw=1)
        axes.set(title=f"{name}: codes of the data (dashed: |z| = 2)", xlabel="$z_1$", ylabel="$z_2$")
        axes.set_aspect("equal", "datalim")
        axes = figure.add_subplot(2, 2, column + 3)
        images = model.decode(z)
        plots.show_image(axes, plots.tile(images, image_shape, 6), *plots.grey_range(images))
        axes.set_title(f"{name}: decoded from z ~ N(0, I)")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it Ising lattices are simulated")
    parser.add_argument("--out", default="autoencoder.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    x, labels, label_name, image_shape = load(args.data_dir)

    linear, pca, angle = linear_against_pca(x)
    print(f"squared error of {N_LATENT} dimensions: PCA {pca:.3f}, linear autoencoder {linear:.3f}")
    print(f"its subspace is {angle:.2f} degrees from that of PCA")
    models = train(x)
    for name, model in models.items():
        error = float(((x - model.reconstruct(x)) ** 2).sum(axis=1).mean())
        spread = codes(model, x).std(axis=0)
        print(f"{name:12} squared error {error:.3f}, standard deviation of the codes {spread[0]:.2f} and {spread[1]:.2f}")
    draw(models, x, labels, label_name, image_shape).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
