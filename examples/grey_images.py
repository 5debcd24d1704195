"""What a decoder says about grey images: the same network under four likelihoods, judged in the same bits.

    python examples/grey_images.py [--data NAME_OR_NPY] [--data-dir DIR] [--image-shape ROWS COLUMNS] [--only NAME ...]
                                   [--steps N] [--out grey_images.png]

A decoder's mean is no distribution yet. The likelihood says what is around it: noise of a given standard deviation σ (then the
nll is a squared error), of a σ that is learned, or of one for each pixel and each z; or probabilities of the 256 grey levels,
here those of the beta-binomial distribution. The data are bytes: MNIST, or a .npy file of images such as the Frey faces.

A density may be above 1, so −log p(x) may be negative: for pixels in [0, 1] with σ = 0.02 it is log(σ √(2πe)) = −2.5 nats for
each, on average. To be compared with probabilities, a level is an interval of width 1/255, whose probability is about p(x)/255:
log2 255 = 7.99 bits more for each pixel (`npvae.evaluate.bits_measures`). That is right as long as the density is smooth on the
scale of a level. It is not where a pixel never varies, as at the edges of MNIST's images: there the floor of σ, which is one
level, keeps the density finite, and 1.33 bits are paid for a value that is certain. The beta-binomial distribution has such
pixels for nothing, but is never narrower than a binomial one, whose standard deviation is √(255 p (1 − p)): 8 levels where the
mean is mid-grey.

"categorical" has 256 logits for each pixel, so its last layer is 128 times that of the beta-binomial: it is left out unless
--only asks for it.
"""

import argparse
import math
import time
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.app import plots
from npvae.models.likelihoods import LIKELIHOODS
from npvae.schedules import Cosine

COMPARED = ("gaussian", "gaussian_global", "gaussian_learned", "beta_binomial")
SIGMA = 0.1  # of "gaussian"
N_LATENT, HIDDEN, STEPS, BATCH_SIZE, LEARNING_RATE = 10, (200,), 4000, 100, 2e-3
N_SHOWN, N_DRAWS = 4, 1000  # images; draws from p(x|z) behind a standard deviation

NOISE = {
    "gaussian": f"noise of σ = {SIGMA:g},\ngiven: the same everywhere",
    "gaussian_global": "one σ, learned:\nthe same everywhere",
    "gaussian_learned": "σ of each pixel, learned:\nlarge where it is uncertain",
    "beta_binomial": "probabilities of 256 levels,\ntwo parameters for each pixel",
    "categorical": "probabilities of 256 levels,\neach one for itself",
}
SEEN = ("One σ is the same noise everywhere; a σ of each pixel is noise where images differ by what z does not tell, little "
        "elsewhere.")  # fmt: skip


class Fitted(NamedTuple):
    """A trained model, and how good it is on validation rows."""

    model: npvae.VAE
    epoch: int  # whose weights were kept
    elbo: npvae.evaluate.Elbo
    bits: float  # −ELBO in bits per pixel, of the grey levels 0 to 255
    sigma: float | None  # geometric mean of the standard deviations, in levels; None of a distribution of levels
    at_floor: float | None  # share of the learned ones that lie on their floor


def fitted(likelihood, x, x_val, n_steps):
    """A VAE with this likelihood, trained on images x (n, D) of bytes and judged by x_val (m, D). The weights kept are those of
    the epoch that is best on a tenth of x, which is not trained on."""
    x = x[np.random.default_rng(0).permutation(len(x))]
    n_kept = len(x) - max(1, len(x) // 10)
    epochs = math.ceil(n_steps / math.ceil(n_kept / BATCH_SIZE))
    model = npvae.VAE(x.shape[1], N_LATENT, HIDDEN, likelihood=likelihood, sigma=SIGMA)
    model.set_output_bias(npvae.model_input(model, x[:n_kept]))
    history = npvae.fit(model, x[:n_kept], x[n_kept:], epochs=epochs, batch_size=BATCH_SIZE, progress=False,
                        optimizer=npvae.Adam(Cosine(LEARNING_RATE, n_steps)), early_stopping=epochs)  # fmt: skip
    elbo = npvae.evaluate.elbo(model, x_val, 0, 10)
    bits = npvae.evaluate.bits_measures(model, elbo.elbo)[-1].value
    sigma, at_floor = SIGMA if likelihood == "gaussian" else None, None
    if learned := npvae.evaluate.sigma_measures(model, x_val):
        sigma, at_floor = (measure.value for measure in learned)
    best = 1 + int(np.argmin(history["val_loss"]))
    return Fitted(model, best, elbo, bits, None if sigma is None else 255 * sigma, at_floor)


def noise_of(model, x, rng=None):
    """Standard deviation of each pixel of p(x|z) at z = mu(x), in levels, by draws from it: x (1, D) -> (D,)."""
    mu, _ = model.encode(x)
    return 255 * model.draw_data(np.repeat(mu, N_DRAWS, axis=0), rng).std(axis=0, dtype=np.float64)


def draw(models, x, image_shape):
    """A row for each model: images x (n, D), E[x|z] at the posterior mean, one draw x ~ p(x|z) of each, and the standard
    deviation of the pixels of the last."""
    height, width = image_shape
    noise = {name: noise_of(model, x[-1:], 0) for name, model in models.items()}
    highest = min(127.5, np.percentile(list(noise.values()), 99.5))  # 127.5: half 0, half 255
    figure = Figure(figsize=(14, 0.9 + 0.85 * height / width * len(models)), layout="constrained")
    rows = figure.subplots(len(models), 4, width_ratios=(*3 * [len(x)], 1), squeeze=False)
    for (name, model), row in zip(models.items(), rows):
        mu, _ = model.encode(x)
        for axes, images in zip(row, (x / 255, model.decode(mu), model.draw_data(mu, 0))):
            plots.show_image(axes, plots.tile(images, image_shape, len(x)), 0, 1)
        shown = row[3].imshow(noise[name].reshape(image_shape), vmin=0, vmax=highest, cmap="magma", interpolation="nearest")
        row[3].set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{name}\n{NOISE[name]}", rotation=0, ha="right", va="center", fontsize=9)
    for axes, title in zip(rows[0], ("validation images x", "E[x|z], z = mu(x)", "one draw x ~ p(x|z)", "σ of the last")):
        axes.set_title(title, fontsize=10)
    figure.colorbar(shown, ax=rows[:, 3].tolist(), label="σ, grey levels", extend="max", shrink=0.7)
    figure.supxlabel(SEEN, fontsize=10)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="mnist", metavar="NAME_OR_NPY", help="mnist, or a .npy file of images of bytes")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the data; without it MNIST is downloaded once")
    parser.add_argument("--image-shape", nargs=2, type=int, metavar=("ROWS", "COLUMNS"), help="of flat rows")
    parser.add_argument("--only", nargs="+", choices=LIKELIHOODS[1:], default=COMPARED, metavar="NAME",
                        help="of " + ", ".join(LIKELIHOODS[1:]))  # fmt: skip
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="of each training (default: %(default)s)")
    parser.add_argument("--out", default="grey_images.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    dataset = npvae.data.load(args.data, args.data_dir, image_shape=args.image_shape)
    if dataset.x_train.dtype != np.uint8 or dataset.image_shape is None:
        parser.error(f"--data must be images of bytes, and --image-shape say what a row is; got {dataset.description}, "
                     f"{dataset.x_train.dtype}, of the image shape {dataset.image_shape}")  # fmt: skip
    print(f"{dataset.description}\n")
    print(f"{'':17}{'−ELBO, nats':>12}{'bits per pixel':>16}{'σ, levels':>11}{'at floor':>10}{'epoch':>7}", flush=True)
    models = {}
    for name in args.only:
        started = time.perf_counter()
        made = fitted(name, dataset.x_train, dataset.x_val, args.steps)
        sigma, at_floor = (form.format(value) if value is not None else "–" for form, value in
                           (("{:.1f}", made.sigma), ("{:.1%}", made.at_floor)))  # fmt: skip
        print(f"{name:17}{-made.elbo.elbo:12.1f}{made.bits:16.3f}{sigma:>11}{at_floor:>10}{made.epoch:7}"
              f"   ({time.perf_counter() - started:.0f} s)", flush=True)  # fmt: skip
        models[name] = made.model
    shown = np.linspace(0, len(dataset.x_val) - 1, N_SHOWN).astype(int)
    draw(models, dataset.x_val[shown], dataset.image_shape).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
