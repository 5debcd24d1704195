"""The whole gradient against an independent automatic differentiation system, on the same weights, noise and batch.

Runs where PyTorch is installed (pip install '.[bench]'); the rest of the suite does not need it.
"""

import numpy as np
import pytest

import npvae
from npvae.models.vae import LIKELIHOODS
from npvae.ops import bounds

torch = pytest.importorskip("torch")

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "silu": torch.nn.functional.silu,
}


def loss_in_torch(parameters, model, x, eps, beta, objective):
    """nll + beta kl, or the importance-weighted bound, as a user of PyTorch would write it, with torch.distributions."""
    activation = ACTIVATIONS[model.activation]

    def layers(h, prefix, depth, head):
        for i in range(depth):
            h = activation(h @ parameters[f"{prefix}.{i}.W"] + parameters[f"{prefix}.{i}.b"])
        return h @ parameters[f"{head}.W"] + parameters[f"{head}.b"]

    mu, logvar = layers(x, "encoder", len(model.hidden), "posterior").chunk(2, dim=1)
    sigma = torch.exp(logvar.clamp(-30, 20) / 2)
    z = mu + sigma * eps
    output = layers(z, "decoder", len(model.decoder_hidden), "likelihood")
    if model.likelihood == "bernoulli":
        nll = torch.nn.functional.binary_cross_entropy_with_logits(output, x.expand_as(output), reduction="none").sum(-1)
    else:
        nll = -torch.distributions.Normal(output, model.sigma).log_prob(x).sum(-1)
    prior, posterior = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(mu, sigma)
    if objective == "iwae":
        log_ratio = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
        return -(torch.logsumexp(-nll - beta * log_ratio, dim=0) - np.log(len(eps))).mean()
    kl = torch.distributions.kl_divergence(posterior, prior).sum(-1)
    return nll.mean() + beta * kl.mean()


@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_every_gradient_is_that_of_autograd(depth, activation, likelihood, backend, objective):
    rng = np.random.default_rng(depth)
    hidden = (12, 9, 7)[:depth]
    model = npvae.VAE(15, 3, hidden, activation, likelihood, backend, "float64", seed=1, sigma=0.5)
    model.theta += 0.1 * rng.standard_normal(model.theta.size)
    x = rng.integers(0, 2, (6, 15)).astype(float) if likelihood == "bernoulli" else rng.standard_normal((6, 15))
    eps = rng.standard_normal((2, 6, 3))
    terms, cache = model.forward(x, eps, 0.8, objective)
    grads = model.backward(cache)

    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in model.parameters.items()}
    loss = loss_in_torch(parameters, model, torch.tensor(x), torch.tensor(eps), 0.8, objective)
    loss.backward()
    assert terms.loss == pytest.approx(loss.item(), rel=1e-12)
    for name, tensor in parameters.items():
        expected = tensor.grad.numpy()
        assert np.abs(grads[name] - expected).max() <= 1e-10 * np.abs(expected).max(), name
