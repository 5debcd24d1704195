"""A normalizing flow as the limit of a VAE without noise, measured (Lamacraft, "Normalizing flows", 2021).

    python examples/flow_as_limit.py [--out flow_as_limit.png]

Take a VAE with as many latent dimensions as data dimensions. Its encoder is q(z|x) = N(f(x), s² I), its decoder
p(x|z) = N(g(z), s² C(z)), its prior p(z) = N(0, I), and f and g are inverse maps: z = f(x), x = g(z), with J = ∂x/∂z at z.
With z = f(x) + s ε, ε ~ N(0, I), its objective is

    L_s(x) = E_ε[log q(z|x) − log p(x|z) − log p(z)]
           = E_ε[−½ |ε|² + ½ log det C(z) + ½ (x − g(z))ᵀ C(z)⁻¹ (x − g(z))/s² − log p(z)],

where the powers of s in front of the two exponentials have cancelled. As s → 0, z → f(x) and x − g(z) → −s J ε, so that

    L_0(x) = −log p(f(x)) + ½ log det C + ½ trace(C⁻¹ J Jᵀ) − D/2
           = −log p(f(x)) + log |det J| + KL(N(0, J Jᵀ) ‖ N(0, C)).

The first two terms are the flow's objective, −log p(x), since det ∂z/∂x = 1/det J. The third is not negative, and zero only for

    C(z) = J Jᵀ.

That is the choice that makes the limit exact: the decoder's noise is the encoder's noise, carried to x by the map. The lecture
asks for the ratio of determinants, √(det C) = det J; that is necessary, but not enough: with C = |det J|^(2/D) I a gap remains,
unless J is a rotation times a number. With C = I, a decoder that does not know the map, a gap remains as well.

How fast is the limit? Expand in s: the term of order s is odd in ε, a cubic polynomial, and its mean is zero. So
L_s − L_0 is of order s², while the loss of a single draw of ε differs by order s.

Both are measured here, with the mean over ε by Gauss–Hermite quadrature, for two flows: one that maps the "banana" exactly, for
which L_s − L_0 = s² (1 + 3/2 (b/σ)²) can be worked out by hand, and one trained on two moons. Of the rows the median is shown:
the few rows between the moons, where a flow has to bend most, need a much smaller s than the others.
"""

import argparse
import math

import numpy as np
from matplotlib.figure import Figure

import npvae
from npvae.data import toy
from npvae.models.flow import Flow
from npvae.training.schedules import Cosine

S = 10.0 ** -np.arange(0, 4.01, 0.5)  # standard deviations of the encoder
DECODERS = {
    "J Jᵀ": "the flow's own",
    "|det J|^(2/D) I": "right determinant, wrong shape",
    "I": "does not know the map",
}
N_ROWS, N_NODES = 200, 16


class Banana:
    """The flow z = (x_1, (x_2 − b (x_1² − 1))/σ), of which x ~ `toy.sample_banana` is the image of N(0, I)."""

    b, sigma = toy.BEND, toy.BANANA_SIGMA
    coefficient = 1 + 1.5 * (b / sigma) ** 2  # of s²: ½ E|ε|² from the prior, 3/2 (b/σ)² from the bend

    def transform(self, x):
        z = np.stack([x[:, 0], (x[:, 1] - self.b * (x[:, 0] ** 2 - 1)) / self.sigma], axis=1)
        return z, np.full(len(x), -math.log(self.sigma))

    def inverse(self, z):
        return np.stack([z[:, 0], self.b * (z[:, 0] ** 2 - 1) + self.sigma * z[:, 1]], axis=1)

    def jacobian(self, x):
        """∂z/∂x: (n, 2, 2)."""
        zeros, ones = np.zeros(len(x)), np.ones(len(x))
        return np.stack([[ones, zeros], [-2 * self.b * x[:, 0] / self.sigma, ones / self.sigma]]).transpose(2, 0, 1)

    def log_likelihood(self, x):
        return toy.log_density("banana", x)


def objective(model, x, z, s, eps, decoder):
    """log q(z|x) − log p(x|z) − log p(z) for z = f(x) + s ε: x, z (n, D), eps (E, D) -> (n, E) in nats."""
    n, D = x.shape
    noisy = (z[:, None] + s * eps).reshape(-1, D)  # (n, E, D) -> (n E, D)
    decoded = model.inverse(noisy)
    inverse_J = model.jacobian(decoded)  # ∂z/∂x at g(z), the inverse of J: (n E, D, D)
    log_det_J = -np.linalg.slogdet(inverse_J)[1]  # (n E,)
    residual = (np.repeat(x, len(eps), axis=0) - decoded) / s  # (n E, D)
    if decoder == "J Jᵀ":
        residual, half_log_det_C = np.einsum("nkl,nl->nk", inverse_J, residual), log_det_J
    elif decoder == "I":
        half_log_det_C = np.zeros(len(noisy))
    else:
        residual, half_log_det_C = residual * np.exp(-log_det_J / D)[:, None], log_det_J
    log_q = -0.5 * np.tile((eps**2).sum(axis=1), n)
    log_p_x = -half_log_det_C - 0.5 * (residual**2).sum(axis=1)
    log_p_z = -0.5 * (noisy**2).sum(axis=1) - D / 2 * math.log(2 * math.pi)
    return (log_q - log_p_x - log_p_z).reshape(n, len(eps))


def gaussian_kl(model, x, decoder):
    """KL(N(0, J Jᵀ) ‖ N(0, C)) at z = f(x): (n,) in nats."""
    J = np.linalg.inv(model.jacobian(x))  # (n, D, D)
    log_det, D = np.linalg.slogdet(J)[1], x.shape[1]
    trace = (J * J).sum(axis=(1, 2))
    if decoder == "J Jᵀ":
        return np.zeros(len(x))
    if decoder == "I":
        return 0.5 * (trace - D) - log_det
    return 0.5 * (trace * np.exp(-2 * log_det / D) - D)


def gauss_hermite(n_nodes):
    """Nodes (n_nodes², 2) and weights (n_nodes²,) of the mean over ε ~ N(0, I) in the plane."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    weights = weights / weights.sum()
    return np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2), np.outer(weights, weights).ravel()


def trained_flow():
    """A small, smooth flow on two moons, in float64."""
    x, _ = toy.dataset_rows("moons", 20_000, 1)
    model = Flow(2, n_layers=6, hidden=(16,), activation="silu", max_scale=1.0, dtype="float64")
    model.standardize(x)
    epochs, batch_size = 10, 100
    optimizer = npvae.Adam(Cosine(5e-3, epochs * len(x) // batch_size))
    npvae.fit(model, x, epochs=epochs, batch_size=batch_size, optimizer=optimizer)
    return model


def measured(model, x, decoder):
    """L_s − (flow's objective) for each s, the median over the rows x (n, D), (len(S),); and the root mean square of that
    difference for single draws of ε, the median over the rows too."""
    z, _ = model.transform(x)
    x = model.inverse(z)  # so that z = f(x) to the last digit
    flow = -model.log_likelihood(x)[:, None]  # (n, 1)
    eps, weights = gauss_hermite(N_NODES)
    mean, single = [], []
    for s in S:
        difference = objective(model, x, z, s, eps, decoder) - flow  # (n, E)
        mean.append(np.median(difference @ weights))
        single.append(np.median(np.sqrt(difference**2 @ weights)))
    return np.array(mean), np.array(single)


def order(values, largest=4e-3):
    """The slope of log |values| over log s, for s up to `largest`."""
    fitted = largest >= S
    return np.polyfit(np.log(S[fitted]), np.log(np.abs(values[fitted])), 1)[0]


def draw(model, x, means, single, banana, gaps):
    """The differences over s; and the decoder's noise, as ellipses, on the density of the flow."""
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = dict(zip(DECODERS, ("#4477aa", "#ccbb44", "#ee6677")))
    for name, said in reversed(DECODERS.items()):
        left.loglog(S, np.abs(means[name]), "o-", ms=4, lw=1, color=colours[name], label=f"moons, C = {name}: {said}")
        if gaps[name] > 0:
            left.axhline(gaps[name], color=colours[name], lw=0.8, ls="--")
    left.loglog(S, single, "s:", ms=3, lw=1, color="0.5", label="moons, C = J Jᵀ, single draws of ε")
    left.loglog(S, banana, "o", ms=4, color="#228833", label="banana, C = J Jᵀ")
    left.loglog(S, Banana.coefficient * S**2, "-", lw=0.8, color="#228833", label=f"{Banana.coefficient:.2f} s², by hand")
    left.set(xlabel="s, standard deviation of the encoder", ylabel="|objective of VAE − objective of flow|, nats, median row")
    orders = f"{order(means['J Jᵀ']):.2f} of the mean over ε, {order(single):.2f} of single draws"
    left.set_title(f"Order in s: {orders}", fontsize=10)
    left.legend(frameon=False, fontsize=7.5, loc="lower right")
    left.grid(alpha=0.3)

    line = np.linspace(-3, 3, 200)
    density = np.exp(model.log_likelihood(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))).reshape(200, 200)
    right.imshow(density, origin="lower", extent=(-3, 3, -3, 3), cmap="Greys")
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = 0.1 * np.stack([np.cos(angle), np.sin(angle)])  # (2, 60), one standard deviation at s = 0.1
    shown = x[:40]
    for centre, J in zip(shown, np.linalg.inv(model.jacobian(shown))):
        right.plot(*(centre[:, None] + J @ circle), color=colours["J Jᵀ"], lw=1)
    right.set(xlim=(-3, 3), ylim=(-2, 2), xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    right.set_title("Density of the flow, and the decoder's noise s² J Jᵀ at s = 0.1", fontsize=10)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="flow_as_limit.png", metavar="PNG", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    model = trained_flow()
    x = toy.sample("moons", N_ROWS, 1)
    print(f"\n{model}\nmoons: log p(x) per datum {model.log_likelihood(toy.sample('moons', 5000, 2)).mean():.4f} nats; "
          f"minus their entropy is {-toy.entropy('moons'):.4f}\n")  # fmt: skip

    results = {name: measured(model, x, name) for name in DECODERS}
    means, (_, single) = {name: mean for name, (mean, _) in results.items()}, results["J Jᵀ"]
    gaps = {name: np.median(gaussian_kl(model, x, name)) for name in DECODERS}
    banana, _ = measured(Banana(), toy.sample("banana", N_ROWS, 1), "J Jᵀ")
    print("Objective of the VAE minus that of the flow, nats: mean over ε, median over the rows.\n")
    print("      s " + "".join(f"{'C = ' + name:>21}" for name in DECODERS) + "   one draw, J Jᵀ   banana, J Jᵀ     by hand")
    for i, s in enumerate(S):
        print(f"{s:8.1e}" + "".join(f"{means[name][i]:21.4e}" for name in DECODERS)
              + f"{single[i]:17.4e}{banana[i]:15.4e}{Banana.coefficient * s * s:12.4e}")  # fmt: skip
    print("KL above" + "".join(f"{gaps[name]:21.4e}" for name in DECODERS))
    print(f"\nOrder in s, C = J Jᵀ: {order(means['J Jᵀ']):.3f} of the mean over ε, {order(single):.3f} of a single draw; "
          f"banana {order(banana):.3f}")  # fmt: skip
    draw(model, x, means, single, banana, gaps).savefig(args.out, dpi=110)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
