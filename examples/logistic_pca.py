"""A model of one's own, in one file that npvae knows nothing of: logistic principal component analysis.

    npvae train --model examples/logistic_pca.py --epochs 20
    npvae evaluate runs/logisticpca-ising --model examples/logistic_pca.py
    npvae gradcheck runs/logisticpca-ising --model examples/logistic_pca.py

PCA finds the projection that loses least of x in squared error. For zeros and ones the natural measure is the Bernoulli
likelihood, whose natural parameter is a logit. Landgraf & Lee 2015: take the logits of the perfect fit, +m for a one and −m for
a zero, and project them,

    s = q − b,  q = m (2x − 1)        (B, D)
    z = s U                           (B, L)   the code
    logits = b + z Uᵀ                 (B, D)

with b (D,) and U (D, L) to be learned. Here U need not be orthonormal. By the chain rule, with dlogits from the likelihood,

    dz = dlogits U,  ds = dz Uᵀ       back through z Uᵀ and s U
    dU = dlogitsᵀ z + sᵀ dz           U is used twice: two gradients
    db = Σ_b (dlogits − ds)           b is added, and subtracted in s

Shapes: B batch, D data, L latent.
"""

import sys
from typing import NamedTuple

import numpy as np

import npvae
from npvae.core import checks, options
from npvae.core.parameters import Parameters, Theta, views_of
from npvae.models import saved
from npvae.models.protocol import Example, Measure
from npvae.ops.likelihood import bernoulli_mean, bernoulli_nll_backward, bernoulli_nll_forward


class Terms(NamedTuple):
    """Mean over the batch."""

    loss: float  # −log p(x) in nats, summed over dimensions


class LogisticPCA:
    """Logistic PCA with n_latent components; m is the logit that stands for a one."""

    theta = Theta()
    Terms = Terms
    units, terms_help = "nats per datum", {"loss": "−log p(x|z)"}
    data_kind = "binary"
    options = (
        options.Option("latent", 2, "components", options.integer(1), "n_latent", metavar="L"),
        options.Option("m", 4.0, "the logit that stands for a one", options.positive, metavar="M"),
    )

    def __init__(self, n_features, n_latent=2, m=4.0, dtype="float32", seed=0):
        self.n_features, self.n_latent = checks.integer("n_features", n_features, 1), checks.integer("n_latent", n_latent, 1)
        self.m, self.dtype, self.seed, self.buffers = float(m), np.dtype(dtype), seed, {}
        self.parameters = Parameters({"U": (n_features, n_latent), "b": (n_features,)}, self.dtype)
        self.parameters["U"] = np.random.default_rng(seed).standard_normal((n_features, n_latent)) / n_features

    @property
    def config(self):
        config = {"n_features": self.n_features, "n_latent": self.n_latent, "m": self.m, "seed": self.seed}
        return config | {"dtype": self.dtype.name}

    def check(self, x):
        x = checks.converted("x", checks.real_array("x", x, n_columns=self.n_features), self.dtype)
        checks.unit_interval("x", x)
        return (x,)

    def draw(self, rng, x):
        return None  # nothing is random

    def forward(self, x, noise=None):
        (x,) = self.check(x)
        U, b = self.parameters["U"], self.parameters["b"]
        s = self.m * (2 * x - 1) - b  # (B, D)
        z = s @ U  # (B, D) @ (D, L) -> (B, L)
        logits = b + z @ U.T  # (B, L) @ (L, D) -> (B, D)
        nll, nll_cache = bernoulli_nll_forward(logits, x)  # (B, D) -> (B,)
        return Terms(nll.mean().item()), (s, z, nll_cache, len(x))

    def backward(self, cache, dloss=1.0, out=None):
        s, z, nll_cache, n_rows = cache
        U = self.parameters["U"]
        dlogits = bernoulli_nll_backward(np.full(n_rows, dloss / n_rows), nll_cache)  # (B,) -> (B, D)
        dz = dlogits @ U  # (B, D) @ (D, L) -> (B, L)
        ds = dz @ U.T  # (B, L) @ (L, D) -> (B, D)
        grads = views_of(np.empty_like(self.theta) if out is None else out, self.parameters.shapes)
        grads["U"][...] = dlogits.T @ z + s.T @ dz
        grads["b"][...] = (dlogits - ds).sum(axis=0)
        return grads

    # What follows is not needed for training. `npvae evaluate`, `gradcheck` and the pictures use it where it is there.

    def encode(self, x):
        return self.forward(x)[1][1]

    def reconstruct(self, x):
        """The probability of a one, (B, D)."""
        return bernoulli_mean(self.parameters["b"] + self.encode(x) @ self.parameters["U"].T)

    def measure(self, x, n_samples=None, seed=0, progress=False):
        nll, p = self.forward(x)[0].loss, np.clip(x.mean(axis=0, dtype=np.float64), 1e-12, 1 - 1e-12)
        null = -len(p) * float(np.mean(p * np.log(p) + (1 - p) * np.log1p(-p)))  # each pixel's mean, no components
        return [
            Measure("nll", nll, "nats", "−log p(x|z)"),
            Measure("null_nll", null, "nats", "of the mean of each pixel alone"),
            Measure("explained", 1 - nll / null, "of 1", "share of the deviance that the components explain"),
        ]

    def pictures(self, plots, x, dataset):
        return plots.latent_variable_pictures(self, x, dataset)

    @classmethod
    def examples(cls, backend):
        x = (np.random.default_rng(0).random((6, 5)) < 0.4).astype(float)
        yield Example(f"{backend} LogisticPCA, B 3", cls(5, 2, dtype="float64"), (x,), {})

    copy, save = saved.copied, saved.save

    def __repr__(self):
        return f"LogisticPCA({self.n_features}, {self.n_latent} components, m = {self.m:g}, {self.dtype.name})"


def main(epochs=20):
    lattices = npvae.data.ising.simulate(np.linspace(1, 4, 13), 200, size=12)
    model = LogisticPCA(144, 2)
    npvae.fit(model, lattices.spins, epochs=epochs, optimizer=npvae.Adam(1e-2))
    for name, value, unit, note in model.measure(lattices.spins.astype(np.float32)):
        print(f"{name:10}{value:8.2f} {unit:5} {note}")
    z = model.encode(lattices.spins)
    correlation = max(abs(np.corrcoef(z[:, k], lattices.magnetization)[0, 1]) for k in range(2))
    print(f"one component is the magnetisation: correlation {correlation:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
