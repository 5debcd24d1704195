"""A chain of VAEs: what a second and a third latent are worth, what each of them knows of a digit, and when the upper ones die.

    python examples/hierarchical.py [--data-dir DIR] [--epochs N] [--out hierarchical.png]

p(x, z_1, ..., z_T) = p(z_T) p(z_T-1|z_T) ... p(x|z_1), with q(z_1|x) q(z_2|z_1) ... on the way up. With T = 1 that is a VAE.
For T > 1 the prior of z_1 is no longer N(0, I) but what the latents above make of it, so that it can have the shape of the
digits' codes. What is shown:

1. −ELBO, log p(x), and the KL and active units of each latent, for T = 1, 2, 3. For T = 2 also without warm-up: there the
   weight of the KL is 1 from the first step, when z_1 says little of x yet, and less is said by z_1 in the end.
2. The spread of the estimate of the ELBO from one draw of z: with the KL of the topmost latent in closed form, and with that of
   the draw, log q − log p. Here the latter has the smaller spread. The nearer q is to the posterior, the more of its noise is
   cancelled by that of nll and of the other latents. At the posterior nothing is left of it.
3. The picture: test digits, and what is drawn from each of their latents downwards. z_1 knows the image. The higher the latent,
   the more of it is left open.
"""

import argparse
import time

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.app import plots
from npvae.models import HierarchicalVAE, latent_chain
from npvae.schedules import Cosine, Linear

LATENT, HIDDEN, DEPTH = (40, 20, 10), (200, 100, 50), 1  # of which a model of T latents has the first T
EPOCHS, BATCH_SIZE, LEARNING_RATE = 8, 100, 2e-3
CASES = ((1, True), (2, False), (2, True), (3, True))  # T, and whether the KL's weight rises over the first half of the epochs
N_TEST, N_SAMPLES = 2000, 100  # images that are judged, and z for each behind log p
N_DRAWS = 2  # of each latent's row of the picture


def trained(T, warm_up, x, epochs):
    """A chain of T latents, trained on grey bytes x (n, D), which are binarised afresh for every minibatch."""
    steps = epochs * -(-len(x) // BATCH_SIZE)
    model = HierarchicalVAE(x.shape[1], LATENT[:T], HIDDEN[:T], DEPTH)
    model.set_output_bias(x / 255)
    beta = Linear(max(1, steps // 2)) if warm_up else 1.0
    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(Cosine(LEARNING_RATE, steps)), beta=beta,
              progress=False)  # fmt: skip
    return model


def spread(model, x, top_kl, n_draws=20, rng=0):
    """The standard deviation of the estimate of a datum's ELBO from one draw of z, the mean over data x (n, D), in nats."""
    eps = np.random.default_rng(rng).standard_normal((n_draws, len(x), model.n_latent))
    elbo = []
    for noise in eps:
        nll, kl, _ = model.forward(x, noise, top_kl=top_kl)[1].bound  # (1, n), (n, L)
        elbo.append(-nll[0] - kl.reshape(len(x), -1).sum(axis=1))
    return np.std(elbo, axis=0, ddof=1).mean()


def line(model, x):
    """What is printed of a model, on test images x (n, D) of zeros and ones."""
    found = latent_chain.draws(model, x, rng=0)
    log_p = model.log_likelihood(x, N_SAMPLES, 0).mean()
    of_each = [latent_chain.of_each(model, values).values()
               for values in (found.kl_per_dimension, latent_chain.active_units(found.means))]  # fmt: skip
    kls, active = (" + ".join(f"{part.sum():{width}}" for part in parts) for parts, width in zip(of_each, (".1f", "d")))
    closed, sampled = (spread(model, x, top_kl) for top_kl in ("closed", "sampled"))
    return f"{(found.nll + found.kl).mean():8.2f}{log_p:9.2f}  {kls:20}{active:14}{closed:8.2f}{sampled:9.2f}"


def from_each(model, x, n_draws, rng=None):
    """What is drawn from each latent of the data x (n, D) downwards, (T, n_draws, n, D): E[x|z_1] for z_1 ~ q(z_1|x), and for
    the z_1 that the model draws given z_2 ~ q(z_2|z_1), given z_3, and so on."""
    rng = np.random.default_rng(rng)
    z, _ = model.infer(rng.standard_normal((n_draws, len(x), model.n_latent)), *model.check(x))  # (n_draws, n, L)
    latents = np.split(z, np.cumsum(model.latent)[:-1], axis=2)
    return np.stack([[model.decode(model.z_1_of(draw, t, rng)) for draw in z_t] for t, z_t in enumerate(latents, 1)])


def draw(x, images, samples, image_shape):
    """Data x (n, D) over what is drawn from each of their latents (T, n_draws, n, D), beside draws of the model (m, D)."""
    T, n_draws, n, D = images.shape
    figure = Figure(figsize=(12, 0.6 * (1 + T * n_draws) + 0.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(n, 1 + T * n_draws))
    rows = np.concatenate([x[None], images.reshape(-1, n, D)])  # (1 + T n_draws, n, D)
    plots.show_image(left, plots.tile(rows.reshape(-1, D), image_shape, n), 0, 1)
    plots.show_image(right, plots.tile(samples, image_shape, len(rows)), 0, 1)
    height = image_shape[0] + 1  # with the gap
    middles = [0.5, *(1 + n_draws * (t + 0.5) for t in range(T))]
    left.set_yticks([height * middle - 1 for middle in middles], ["x", *(f"from $z_{t}$" for t in range(1, T + 1))])
    edges = [height * (1 + n_draws * t) - 1 for t in range(T)]
    left.hlines(edges, -0.5, n * (image_shape[1] + 1) - 1.5, color=plots.VAL, lw=1.6)
    left.set_xticks([])
    left.tick_params(length=0)
    left.set_title("test images, and what is drawn from each of their latents")
    right.set_title("draws of the model")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it they are downloaded once")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of all four trainings (default: %(default)s)")
    parser.add_argument("--out", default="hierarchical.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    dataset = npvae.data.load("mnist", args.data_dir)
    print(f"{'nats per test image':24}{'−ELBO':>8}{'log p':>9}  {'KL of each latent':20}{'active units':14}"
          "spread: closed, sampled")  # fmt: skip
    for T, warm_up in CASES:
        started = time.perf_counter()
        model = trained(T, warm_up, dataset.x_train, args.epochs)
        x_test = npvae.model_input(model, dataset.x_val[:N_TEST], 0)  # binarised once, alike for all
        name = f"T = {T}" + ("" if warm_up else ", without warm-up")
        print(f"{name:24}{line(model, x_test)}   ({time.perf_counter() - started:.0f} s)", flush=True)
    rows = np.unique(dataset.labels_val[:N_TEST], return_index=True)[1]  # the first of every digit
    images = from_each(model, x_test[rows], N_DRAWS, 0)
    samples = model.sample((1 + images.shape[0] * N_DRAWS) ** 2, 0)
    draw(dataset.x_val[rows] / 255, images, samples, dataset.image_shape).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
