"""A VAE that is told something: digits drawn class by class, and images completed from their upper half.

    python examples/conditional.py [--data-dir DIR] [--epochs N] [--out conditional.png]

The model is that of p(x|y), for a condition y that encoder, decoder and, if it is learned, the prior are given. Two of them:

1. y is the class, and p(z|y) = N(0, I) for every class. What the class says need not be said by z, for which nats are paid. So
   the same z decoded with another class is another digit in the same hand.
2. y is the upper half of the image, x is the lower one, and p(z|y) is a network's. Draws from it are the lower halves that may
   go with the upper one.

A plain VAE of the same size, trained on the same x, shows what y is worth: log p(x|y) − log p(x). Of the true distributions the
mean of this is the mutual information I(x; y), for the class at most its entropy, log 10 = 2.30 nats. Of models it may be more:
where z has 8 dimensions, it has no room for all that is to be said of a digit, and the class comes as an addition. With 20 it
is nearer to 2.30, but then a training as short as this leaves part of the class in z, and some z decode to the same shape for
several classes. So the picture is that of 8.
"""

import argparse
import time

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.app import plots
from npvae.models import ConditionalVAE
from npvae.schedules import Cosine

HIDDEN, EPOCHS, BATCH_SIZE, LEARNING_RATE = (200,), 8, 100, 4e-3
CASES = (("label", "standard", 8), ("label", "standard", 20), ("half", "learned", 8))  # the condition y, p(z|y), L
N_TEST, N_SAMPLES = 2000, 100  # images that are judged, and z for each behind log p
N_HANDS, N_COMPLETIONS = 10, 6  # columns of the picture


def trained(model, batch, epochs):
    """The model, trained on (x,) or (x, condition), x (n, D) of bytes, which are binarised afresh for every minibatch."""
    schedule = Cosine(LEARNING_RATE, epochs * -(-len(batch[0]) // BATCH_SIZE))
    npvae.fit(model, batch, epochs=epochs, batch_size=BATCH_SIZE, optimizer=npvae.Adam(schedule), progress=False)
    return model


def compare(dataset, prior, n_latent, epochs):
    """A conditional VAE, a plain one of the same size, and −ELBO and log p of the latter and of the former on test images: two
    models, (2, 2) nats."""
    size = {"n_latent": n_latent, "hidden": HIDDEN}
    with_y = ConditionalVAE(dataset.x_train.shape[1], dataset.n_condition, prior=prior, **size)
    without = npvae.VAE(dataset.x_train.shape[1], **size)
    nats = []
    for model, train, given in [(without, (dataset.x_train,), ()), (with_y, dataset.train, (dataset.condition_val[:N_TEST],))]:
        trained(model, train, epochs)
        x_test = npvae.model_input(model, (dataset.x_val[:N_TEST], *given), 0)  # binarised once, alike for both
        bound = npvae.evaluate.elbo(model, (x_test, *given), 0, 10)
        nats.append((-bound.elbo, npvae.evaluate.log_likelihood(model, (x_test, *given), N_SAMPLES, 0).mean()))
    return with_y, without, np.array(nats)


def class_by_class(model, n_hands, rng=None):
    """E[x|z, y] for every class y and n_hands draws of z ~ N(0, I), the same ones for all classes: (C, n_hands, D)."""
    z = np.random.default_rng(rng).standard_normal((n_hands, model.n_latent))
    return np.stack([model.decode(z, np.full(n_hands, label)) for label in range(model.n_condition)])


def completed(model, dataset, rows, n_draws, rng=None):
    """For m validation rows the half that is given over NaN, the whole image, and n_draws completions, which are E[x|z, y] for
    z ~ p(z|y): (m, 2 + n_draws, C + D)."""
    rng, upper, true = np.random.default_rng(rng), dataset.condition_val[rows], dataset.x_val[rows] / 255  # (m, C), (m, D)
    draws = [model.sample(np.repeat(y[None], n_draws, axis=0), rng) for y in upper]  # (n_draws, D) each
    lower = [np.vstack([np.full_like(x, np.nan), x, drawn]) for x, drawn in zip(true, draws)]  # (2 + n_draws, D) each
    return np.stack([dataset.whole_images(np.repeat(y[None], len(x), axis=0), x)[0] for y, x in zip(upper, lower)])


def draw(digits, halves, image_shape):
    """Digits class by class beside completed images, as `class_by_class` and `completed` return them."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(digits.shape[1], halves.shape[1]))
    for axes, images in zip(panels, (digits, halves)):
        plots.show_image(axes, plots.tile(images.reshape(-1, images.shape[2]), image_shape, images.shape[1]), 0, 1)
        axes.tick_params(length=0)
    left, right = panels
    height, width = image_shape[0] + 1, image_shape[1] + 1  # with the gap
    left.set_yticks((np.arange(len(digits)) + 0.5) * height - 1, [str(label) for label in range(len(digits))])
    left.set(ylabel="class y", xlabel="one z ~ N(0, I) for each column", title="E[x|z, y], y the class")
    given, true, drawn = 0.5 * width, 1.5 * width, (1 + 0.5 * halves.shape[1]) * width
    right.set_xticks([given, true, drawn], ["given", "true", f"{halves.shape[1] - 2} completions"])
    middle = np.arange(len(halves)) * height + image_shape[0] // 2 - 0.5
    right.hlines(middle, 2 * width - 0.5, halves.shape[1] * width - 1.5, color=plots.VAL, lw=0.8)
    right.set_title("E[x|z, y] for z ~ p(z|y), y the upper half")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the MNIST files; without it they are downloaded once")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of all six trainings (default: %(default)s)")
    parser.add_argument("--out", default="conditional.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    models, data = {}, {}
    print(f"{'nats per test image':54}{'−ELBO':>8}{'log p':>9}")
    for condition, prior, n_latent in CASES:
        started = time.perf_counter()
        dataset = data[condition] = npvae.data.load("mnist", args.data_dir, condition=condition)
        models[condition, n_latent], _, nats = compare(dataset, prior, n_latent, args.epochs)
        x = f"{'images' if condition == 'label' else 'lower halves'}, z of {n_latent} dimensions"
        for name, (loss, log_p) in zip((x, f"{x}, given the {dataset.condition_name}"), nats):
            print(f"{name:54}{loss:8.2f}{log_p:9.2f}")
        print(f"{'what y is worth':54}{nats[0, 0] - nats[1, 0]:8.2f}{nats[1, 1] - nats[0, 1]:9.2f}"
              f"   ({time.perf_counter() - started:.0f} s)", flush=True)  # fmt: skip
    rows = np.unique(data["half"].labels_val, return_index=True)[1]  # the first of every digit
    digits = class_by_class(models["label", 8], N_HANDS, 0)
    halves = completed(models["half", 8], data["half"], rows, N_COMPLETIONS, 0)
    draw(digits, halves, data["half"].whole.image_shape).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
