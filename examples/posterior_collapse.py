"""Posterior collapse: how it looks, and what annealing and free bits recover.

    python examples/posterior_collapse.py [--data-dir DIR] [--out posterior_collapse.png]

Nothing in the loss asks that the latent variable be used: where a decoder describes the data better without z than with the
noisy z of the first steps, the cheapest thing is KL = 0, q(z|x) = p(z), and once z says nothing the decoder never looks at it
again. Here the decoder is six layers deep. It learns which pixels are black or white on average long before a gradient of use
reaches the encoder, and by then the KL has switched z off.

The remedies take away the reason to hurry: annealing lets the KL count for nothing at first (Bowman et al. 2016), again and
again if cyclical (Fu et al. 2019), free bits let the first nats cost nothing for ever (Kingma et al. 2016), of each dimension
or of all together. A unit is active where Var_x(E_q[z|x]) > 0.01 (Burda et al. 2016).
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import npvae
from npvae.data import mnist
from npvae.schedules import Cyclical, Linear

N_LATENT, HIDDEN, DECODER_HIDDEN = 20, (200,), (200,) * 6
N_IMAGES, N_TEST, EPOCHS, BATCH_SIZE = 10_000, 2_000, 15, 100


class Course(NamedTuple):
    """How one training went, on test images."""

    kl: np.ndarray  # (epochs, L) of each latent dimension, nats
    active: list  # units after each epoch
    elbo: npvae.evaluate.Elbo  # at the end


def remedies(n_steps):
    """What fit is told, by name; n_steps are those of the whole training."""
    return {
        "no remedy": {},
        "annealing": {"beta": Linear(n_steps // 2)},
        "cyclical annealing": {"beta": Cyclical(3 * n_steps // 4, n_cycles=3)},
        "free bits, 0.5 nats per dimension": {"free_bits_per_dimension": 0.5},
        "free bits, 10 nats in total": {"free_bits_total": 10.0},
    }


def train(x, x_test, epochs, options):
    """The course of one training; x (n, D) grey, x_test (m, D) zeros and ones."""
    model = npvae.VAE(x.shape[1], N_LATENT, HIDDEN, decoder_hidden=DECODER_HIDDEN, seed=0)
    model.set_output_bias(npvae.model_input(model, x, 0))
    kl, active = [], []

    def on_epoch(_):
        kl.append(npvae.evaluate.kl_per_dimension(model, x_test))
        active.append(int(npvae.evaluate.active_units(model, x_test).sum()))

    npvae.fit(model, x, epochs=epochs, batch_size=BATCH_SIZE, progress=False, on_epoch=on_epoch, **options)
    return Course(np.array(kl), active, npvae.evaluate.elbo(model, x_test, 0, 10))


def draw(courses):
    """Active units over the epochs, and each dimension's KL, sorted, as a picture per training."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    top, bottom = left.subplots(2, 1, sharex=True)
    for i, (name, course) in enumerate(courses.items()):
        epochs = np.arange(1, len(course.active) + 1)
        line = {"color": "black" if i == 0 else f"C{i - 1}", "linestyle": "--" if i == 0 else "-", "marker": ".", "label": name}
        top.plot(epochs, course.active, **line)
        bottom.plot(epochs, course.kl.sum(axis=1), **line)
    top.set(ylabel=f"active units of {N_LATENT}", ylim=(-1, N_LATENT + 1))
    bottom.set(xlabel="epoch", ylabel="KL, nats per image")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    maps = np.ravel(right.subplots(2, 3))
    highest = max(course.kl.max() for course in courses.values())
    for axes, (name, course) in zip(maps, courses.items()):
        order = np.argsort(-course.kl[-1])
        image = axes.imshow(course.kl[:, order].T, aspect="auto", vmin=0, vmax=max(highest, 1e-6), cmap="viridis",
                            extent=(0.5, len(course.kl) + 0.5, N_LATENT + 0.5, 0.5))  # fmt: skip
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="epoch", ylabel="latent dimension", yticks=[1, 5, 10, 15, 20])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    maps[-1].axis("off")
    maps[-1].legend(*bottom.get_legend_handles_labels(), title="the lines on the left", loc="center", fontsize=8)
    right.colorbar(image, ax=maps[: len(courses)].tolist(), label="KL of the dimension, nats", shrink=0.6)
    figure.suptitle("Posterior collapse of a VAE with a deep decoder on MNIST, and its remedies")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it they are downloaded once")
    parser.add_argument("--out", default="posterior_collapse.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    digits, courses = mnist.load(args.data_dir), {}
    x, grey = digits.x_train[:N_IMAGES], digits.x_test[:N_TEST] / 255
    x_test = (np.random.default_rng(0).random(grey.shape) < grey).astype(np.float32)  # binarised once
    print(f"{'':36}{'active units':>14}{'−ELBO':>9}{'nll':>9}{'kl':>8}   nats per test image", flush=True)
    for name, options in remedies(EPOCHS * len(x) // BATCH_SIZE).items():
        started = time.perf_counter()
        courses[name] = course = train(x, x_test, EPOCHS, options)
        bound = course.elbo
        print(f"{name:36}{course.active[-1]:8} of {N_LATENT}{-bound.elbo:9.2f}{bound.nll:9.2f}{bound.kl:8.2f}"
              f"   ({time.perf_counter() - started:.0f} s)", flush=True)  # fmt: skip
    draw(courses).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
