"""The VAE whose solution is known: a linear one, trained by gradient descent, next to PCA on handwritten digits.

    python examples/probabilistic_pca.py [--data-dir DIR] [--out probabilistic_pca.png]

Without hidden layers and with Gaussian noise a VAE is probabilistic PCA (Tipping & Bishop 1999). Its maximum likelihood is
known in closed form: W spans the leading eigenvectors of the data's covariance. Training knows nothing of eigenvectors; that
it ends there, and that its ELBO then equals log p(x), is a test of everything in between. The latent dimensions themselves are
free to rotate, so the picture shows the VAE's after the rotation that brings them closest to PCA's.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from scipy.linalg import orthogonal_procrustes

import npvae
from npvae import ppca
from npvae.data import mnist
from npvae.schedules import Cosine

N_LATENT, EPOCHS, BATCH_SIZE, LEARNING_RATE = 10, 150, 100, 1e-2


def rotated(W, like):
    """The rows of W (L, D) after the rotation of z that brings them as close to `like` (L, D) as one can."""
    rotation, _ = orthogonal_procrustes(W.T, like.T)
    return rotation.T @ W


def draw(exact, trained, x, model):
    """Mean and axes of both, and some digits with both reconstructions."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2, 3))
    limit = np.abs(exact.W).max()
    for row, (name, W) in enumerate([("PCA", exact.W), ("VAE", rotated(trained.W, exact.W))]):
        for i in range(N_LATENT):
            axes = top.add_subplot(2, N_LATENT, row * N_LATENT + i + 1)
            axes.imshow(W[i].reshape(28, 28), cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set(xticks=[], yticks=[])
            if i == 0:
                axes.set_ylabel(name)
            if row == 0:
                axes.set_title(f"axis {i + 1}", fontsize=9)
    top.suptitle("What each latent dimension adds to the mean digit (red) or takes away (blue)")
    shown = x[:: len(x) // N_LATENT][:N_LATENT]
    posterior_mean = (shown - exact.mean) @ np.linalg.solve(exact.covariance, exact.W.T)  # E[z|x], (n, L)
    rows = [("digit", shown), ("PCA", exact.mean + posterior_mean @ exact.W), ("VAE", model.reconstruct(shown))]
    for row, (name, images) in enumerate(rows):
        for i, image in enumerate(images):
            axes = bottom.add_subplot(3, N_LATENT, row * N_LATENT + i + 1)
            axes.imshow(image.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if i == 0:
                axes.set_ylabel(name)
    bottom.suptitle(f"Digits, and what {N_LATENT} numbers keep of them")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it they are downloaded once")
    parser.add_argument("--out", default="probabilistic_pca.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    x = mnist.load(args.data_dir).x_test / 255  # 10,000 images are enough
    exact = ppca.maximum_likelihood(x, N_LATENT)

    model = npvae.VAE(784, N_LATENT, hidden=(), likelihood="gaussian", sigma=exact.sigma, dtype="float64")
    schedule = Cosine(LEARNING_RATE, EPOCHS * len(x) // BATCH_SIZE)
    model.set_output_bias(x)
    npvae.fit(model, x, epochs=EPOCHS, batch_size=BATCH_SIZE, optimizer=npvae.Adam(schedule))

    trained = ppca.of_model(model)
    best, reached = (float(ppca.log_likelihood(p, x).mean()) for p in (exact, trained))
    bound = npvae.evaluate.elbo(model, x, 0, 20)
    print(f"\nlog p(x) per digit, nats: probabilistic PCA in closed form {best:.4f}, the trained VAE {reached:.4f} "
          f"({best - reached:.4f} less)")  # fmt: skip
    print(f"the VAE's ELBO {bound.elbo:.4f} ± {bound.standard_error:.4f}")
    angle = ppca.subspace_angle(exact.W, trained.W)
    print(f"largest angle between the two {N_LATENT}-dimensional subspaces: {angle:.3f} degrees")
    draw(exact, trained, x, model).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
