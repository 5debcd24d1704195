"""A VAE as a scikit-learn estimator: handwritten digits in a few dimensions, beside PCA.

    python examples/digits.py [--out digits.png]

The 1797 images of 8 × 8 pixels that come with scikit-learn (pip install 'npvae[sklearn]'). PCA and `npvae.VAEEstimator` reduce
them to L numbers, and a logistic regression tells the digit from these. Both are steps of a pipeline and both are densities, so
that cross-validation measures two things on rows that neither has seen:

1. How many digits are recognised from L numbers? PCA's plane is flat, the VAE's surface may bend. Neither is told the digit.
2. What is log p(x) per image? PCA is a density, too: the VAE with a linear decoder, in closed form (Tipping & Bishop 1999).
   Both have Gaussian noise of one learned variance. The VAE's figure is an estimate from below, with 100 z per image.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import npvae
from npvae.app import plots
from npvae.schedules import Linear

DIMENSIONS, HIDDEN, EPOCHS, FOLDS = (2, 4, 8, 16), (128, 128), 100, 5
WARM_UP = 300  # steps in which the weight of the KL rises to 1: without it some dimensions are never used


def reducers(n_latent):
    """The two ways to n_latent numbers, by name."""
    vae = npvae.VAEEstimator(n_latent, hidden=HIDDEN, activation="silu", standardize=False, epochs=EPOCHS, learning_rate=3e-3,
                             beta=Linear(WARM_UP), random_state=0)  # fmt: skip
    return {"PCA": PCA(n_latent, random_state=0), "VAE": vae}


def log_p(pipeline, x, y):
    """Mean of log p(x) in nats per image, by the pipeline's first step: a scorer, as cross_validate calls it."""
    return pipeline[0].score(x)


def compare(x, y):
    """name -> (accuracy, log p(x)) of each test fold, for each of DIMENSIONS: (dimensions, 2, folds)."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    results = {"PCA": [], "VAE": []}
    for n_latent in DIMENSIONS:
        for name, reducer in reducers(n_latent).items():
            pipeline = make_pipeline(reducer, StandardScaler(), LogisticRegression(max_iter=2000))
            scores = cross_validate(pipeline, x, y, cv=folds, scoring={"accuracy": "accuracy", "log_p": log_p}, n_jobs=-1)
            results[name].append([scores["test_accuracy"], scores["test_log_p"]])
    return {name: np.array(values) for name, values in results.items()}


def draw(results, x, y):
    """Both planes, coloured by digit, and the accuracy over the number of dimensions."""
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.22, 1.1))
    for axes, (name, reducer) in zip((left, middle), reducers(2).items()):
        z = reducer.fit_transform(x)
        plots.coloured_scatter(figure, axes, z[:, 0], z[:, 1], y, "digit")
        axes.set(title=f"{name}: all images in two dimensions", xlabel="$z_1$", ylabel="$z_2$")
    left.get_legend().remove()
    figure.get_layout_engine().set(wspace=0.06)
    for (name, values), colour, marker in zip(results.items(), (plots.TRAIN, plots.VAL), "so"):
        accuracy, style = values[:, 0], {"color": colour, "marker": marker, "capsize": 3}  # (dimensions, folds)
        right.errorbar(DIMENSIONS, accuracy.mean(axis=1), accuracy.std(axis=1), label=name, **style)
    right.set_xscale("log", base=2)
    right.set_xticks(DIMENSIONS, DIMENSIONS)
    right.set(xlabel="dimensions", ylabel="share of digits recognised", title=f"{FOLDS}-fold cross-validation")
    right.legend(frameon=False, loc="lower right")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="digits.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)

    results = compare(x, y)
    print(f"{FOLDS}-fold cross-validation: mean over the folds ± standard deviation of the folds")
    print("dimensions  recognised by PCA    by VAE           log p(x) of PCA   of VAE, nats per image")
    for i, n_latent in enumerate(DIMENSIONS):
        cells = [f"{fold.mean():.{digits}f} ± {fold.std():.{digits}f}" for measure, digits in ((0, 3), (1, 2))
                 for fold in (results["PCA"][i, measure], results["VAE"][i, measure])]  # fmt: skip
        print(f"{n_latent:<12}{cells[0]:<21}{cells[1]:<17}{cells[2]:<18}{cells[3]}")
    draw(results, x, y).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
