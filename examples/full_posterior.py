"""When the true posterior is correlated: what a diagonal q(z|x) loses, and that a full one loses nothing.

    python examples/full_posterior.py [--out full_posterior.png]

The model is that of lesson 08, where log p(x) and the posterior are known: p(z) = N(0, I) and p(x|z) = N(z W + b, σ² I) with
L = 2 and D = 3. The lesson looks for the best q of one x. Here the encoder of a VAE is trained to give the q of every x, once
with the diagonal and once with the full covariance; the decoder is given. With the precision P = I + W Wᵀ/σ²

    p(x)   = N(b, Wᵀ W + σ² I)
    p(z|x) = N((x − b) Wᵀ P⁻¹/σ², P⁻¹)

The mean is an affine map of x and the covariance is the same for all x, so an encoder without hidden layers can give both. The
rows of W, what z_1 and z_2 add to x, are not orthogonal. So P has entries beside its diagonal, and the more z_1 explains of an
x, the less is left for z_2: the posterior is correlated. The ELBO is below log p(x) by KL(q ‖ p(z|x)). For q = N(m, C)

    KL(q ‖ p(z|x)) = ½ (d P dᵀ + trace(P C) − L − log det C − log det P)  with d the difference of the two means

The full posterior can have d = 0 and C = P⁻¹, where this is 0. The diagonal one has C = diag(C_11, ..., C_LL) and can have
d = 0, too. The slope in C_ll, ½ (P_ll − 1/C_ll), is 0 at C_ll = 1/P_ll, where trace(P C) = L. There remains

    gap = ½ (Σ_l log P_ll − log det P)

1/P_ll is the variance of z_l where the other latent variables are known. That of z_l on its own, (P⁻¹)_ll, is larger: the
best diagonal q is too narrow (Bishop 2006, section 10.1.2).

Training and ELBO are free of sampling noise. The nll is quadratic in z, so its mean over ε ~ N(0, I) depends on the mean and
the covariance of ε alone. The 2L points ε = ±√L e_l, e_l the unit vectors, have those of N(0, I). In place of random ε they
give the ELBO itself, and a loss without noise can be minimised by L-BFGS.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae import ppca
from npvae.core.workers import Workers
from npvae.training.lbfgs import lbfgs

W = np.array([[2.0, 2.0, 1.0], [2.0, 1.0, 2.0]])  # (L, D)
B, SIGMA, N_ROWS = np.array([0.5, 0.0, -0.5]), 1.0, 500
L, D = W.shape
PRECISION = np.eye(L) + W @ W.T / SIGMA**2  # (L, D) @ (D, L) -> (L, L)
COVARIANCE = np.linalg.inv(PRECISION)
GAPS = {"full": 0.0, "diagonal": 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])}  # computed, nats
COLOURS = {"full": "#4477aa", "diagonal": "#ee6677"}


def draw_data(n, rng):
    """x of the model, (n, D)."""
    return rng.standard_normal((n, L)) @ W + B + SIGMA * rng.standard_normal((n, D))


def points(n):
    """ε = ±√L e_l for each of n rows, (2L, n, L): mean 0 and covariance I, as N(0, I)."""
    eps = np.sqrt(L) * np.concatenate([np.eye(L), -np.eye(L)])
    return np.repeat(eps[:, None], n, axis=1)


def train(posterior, x):
    """A VAE with the decoder above, its encoder trained on all rows x (n, D) at once; and its ELBO after 0, 1, 2, ... steps."""
    model = npvae.VAE(D, L, (), likelihood="gaussian", sigma=SIGMA, posterior=posterior, dtype="float64", backend="numpy")
    model.parameters.update({"likelihood.W": W, "likelihood.b": B})
    n_encoder = model.parameters["posterior.W"].size + model.parameters["posterior.b"].size
    encoder, grad, eps = model.theta[:n_encoder], np.empty_like(model.theta), points(len(x))

    def loss_and_grad(theta):
        encoder[:] = theta
        terms, cache = model.forward(x, eps)
        model.backward(cache, out=grad)
        return terms.loss, grad[:n_encoder].copy()  # what follows is the decoder's

    losses = [loss_and_grad(encoder)[0]]
    with Workers(1):  # one thread for BLAS: the products are small
        found = lbfgs(loss_and_grad, encoder, callback=lambda theta: losses.append(loss_and_grad(theta)[0]))
    encoder[:] = found.x
    return model, -np.array(losses)


def moments(model, x):
    """Mean (n, L) and covariance (n, L, L) of q(z|x): those of the z that the points ε become."""
    z, _ = model.infer(points(len(x)), x)  # (2L, n, L)
    mean = z.mean(axis=0)
    return mean, np.einsum("snl,snk->nlk", z - mean, z - mean) / len(z)


def true_mean(x):
    """The mean of p(z|x): x (n, D) -> (n, L)."""
    return (x - B) @ W.T @ COVARIANCE / SIGMA**2


def print_row(name, elbo, log_p, computed, covariance):
    """A row of the table; covariance (L, L)."""
    deviation = np.sqrt(np.diag(covariance))
    numbers = f"{elbo:12.4f}{log_p - elbo:z17.4f}{computed:10.4f}{deviation[0]:15.4f}, {deviation[1]:.4f}"
    print(f"{name:23}{numbers}{covariance[0, 1] / deviation.prod():z13.4f}")


def ellipse(mean, covariance, radius):
    """The points at so many standard deviations from the mean (2,) of a normal distribution: (2, 200)."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle


def draw_ellipses(plot, mean, covariance, label, **style):
    """One and two standard deviations, by axes.plot or axes.fill; mean (2,), covariance (2, 2)."""
    for radius, said in [(2, None), (1, label)]:
        plot(*ellipse(mean, covariance, radius), label=said, **style)


def draw(trained, x, log_p):
    """The posterior of one datum x (1, D), true and as each encoder gives it; and the courses of both trainings."""
    figure = Figure(figsize=(13, 4.9), layout="constrained")
    *panels, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for axes, (name, (model, elbos)) in zip(panels, trained.items()):
        (mean,), (covariance,) = moments(model, x)
        draw_ellipses(axes.plot, np.zeros(L), np.eye(L), "prior p(z)", color="0.75", lw=1)
        draw_ellipses(axes.fill, true_mean(x)[0], COVARIANCE, "p(z|x), exact", color="0.3", alpha=0.25, lw=0)
        draw_ellipses(axes.plot, mean, covariance, f"q(z|x), {name}, from the encoder", color=COLOURS[name], lw=2)
        axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 3.4))
        axes.set_title(f"{name.capitalize()} posterior of one x: 1 and 2 standard deviations", fontsize=9)
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        right.plot(elbos, color=COLOURS[name], lw=2, label=f"ELBO, {name} posterior")
    gap, line = GAPS["diagonal"], {"color": "black", "lw": 1, "zorder": 1}
    right.axhline(log_p, ls="--", label="log p(x)", **line)
    right.axhline(log_p - gap, ls=":", label=f"log p(x) − {gap:.4f}, the computed gap", **line)
    right.set(xlabel="steps of L-BFGS", ylabel="nats, mean over the data", ylim=(log_p - 4, log_p + 0.3))
    right.set_title("Training of the encoder, the decoder given", fontsize=9)
    right.legend(frameon=False, fontsize=9)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="full_posterior.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    x = draw_data(N_ROWS, np.random.default_rng(0))
    log_p = float(ppca.log_likelihood(ppca.PPCA(W, B, SIGMA), x).mean())
    print(f"{'':23}{'mean, nats':>12}{'below log p(x)':>17}{'computed':>10}{'standard deviations':>23}{'correlation':>13}")
    print_row("log p(x) and p(z|x)", log_p, log_p, 0.0, COVARIANCE)
    trained = {name: train(name, x) for name in COLOURS}
    for name, (model, elbos) in trained.items():
        print_row(f"ELBO, {name} q(z|x)", elbos[-1], log_p, GAPS[name], moments(model, x)[1].mean(axis=0))
    draw(trained, x[:1], log_p).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
