"""The whole gradient against an independent automatic differentiation system, on the same weights, noise and batch.

Runs where PyTorch is installed (pip install '.[bench]'); the rest of the suite does not need it.
"""

import math

import numpy as np
import pytest
from small_models import rows_for

import npvae
from npvae.models.cvae import PRIORS, ConditionalVAE
from npvae.models.likelihoods import LOGVAR
from npvae.models.vae import LIKELIHOODS, POSTERIORS
from npvae.ops import bounds

torch = pytest.importorskip("torch")

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "silu": torch.nn.functional.silu,
}
backends = pytest.mark.parametrize("backend", ["numpy", "numba"])
objectives = pytest.mark.parametrize("objective", bounds.OBJECTIVES)
likelihoods = pytest.mark.parametrize("likelihood", LIKELIHOODS)


# ---- the loss as a user of PyTorch would write it, with torch.distributions ----


def layers_in_torch(parameters, model, h, prefix, n_hidden, head):
    for i in range(n_hidden):
        h = ACTIVATIONS[model.activation](h @ parameters[f"{prefix}.{i}.W"] + parameters[f"{prefix}.{i}.b"])
    return h @ parameters[f"{head}.W"] + parameters[f"{head}.b"]


def posterior_in_torch(output, model):
    """q(z|x) of the encoder's output."""
    n = model.n_latent
    mu, sigma = output[:, :n], torch.exp(output[:, n : 2 * n].clamp(-30, 20) / 2)
    if getattr(model, "posterior", "diagonal") == "diagonal":
        return torch.distributions.Independent(torch.distributions.Normal(mu, sigma), 1)
    factor = torch.diag_embed(sigma)
    row, column = torch.tril_indices(n, n, -1)
    factor[:, row, column] = output[:, 2 * n :]
    return torch.distributions.MultivariateNormal(mu, scale_tril=factor)


def prior_in_torch(parameters, model, condition, like):
    """p(z|condition), of the same class as the posterior `like`, which a closed-form divergence needs."""
    if getattr(model, "prior", "standard") == "learned":
        return posterior_in_torch(layers_in_torch(parameters, model, condition, "prior", len(model.hidden), "prior"), model)
    zeros = torch.zeros_like(like.mean)
    if isinstance(like, torch.distributions.MultivariateNormal):
        return torch.distributions.MultivariateNormal(zeros, scale_tril=torch.eye(model.n_latent, dtype=zeros.dtype))
    return torch.distributions.Independent(torch.distributions.Normal(zeros, 1.0), 1)


def nll_in_torch(output, x, parameters, model):
    """−log p(x|z), (S, B), of the decoder's output (S, B, ·)."""
    distributions = torch.distributions
    if model.likelihood == "bernoulli":
        log_p = -torch.nn.functional.binary_cross_entropy_with_logits(output, x.expand_as(output), reduction="none")
    elif model.likelihood == "gaussian":
        log_p = distributions.Normal(output, model.sigma).log_prob(x)
    elif model.likelihood == "gaussian_global":
        logvar = parameters[LOGVAR].clamp(2 * math.log(model.min_sigma), 20)
        log_p = distributions.Normal(output, torch.exp(logvar / 2)).log_prob(x)
    elif model.likelihood == "gaussian_learned":
        mean, logvar = output.chunk(2, dim=-1)
        log_p = distributions.Normal(mean, torch.exp(logvar.clamp(2 * math.log(model.min_sigma), 20) / 2)).log_prob(x)
    elif model.likelihood == "categorical":
        log_p = distributions.Categorical(logits=output.unflatten(-1, (-1, 256))).log_prob((255 * x).round())
    else:
        alpha, beta = output.clamp(-23, 23).exp().chunk(2, dim=-1)
        log_p = beta_binomial_in_torch(alpha, beta, (255 * x).round())
    return -log_p.sum(-1)


def beta_binomial_in_torch(alpha, beta, x, n=255):
    """log C(n, x) B(x + α, n − x + β)/B(α, β) by log Γ, which torch.distributions does not have."""
    lgamma = torch.lgamma
    log_binomial = math.lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1)
    joint = lgamma(x + alpha) + lgamma(n - x + beta) - lgamma(n + alpha + beta)
    return log_binomial + joint - lgamma(alpha) - lgamma(beta) + lgamma(alpha + beta)


def loss_in_torch(parameters, model, x, eps, beta, objective, condition=None):
    """nll + beta kl, or the importance-weighted bound, with the condition beside x and beside z if there is one."""

    def beside(a):
        return a if condition is None else torch.cat([a, condition.expand(*a.shape[:-1], -1)], dim=-1)

    posterior = posterior_in_torch(
        layers_in_torch(parameters, model, beside(x), "encoder", len(model.hidden), "posterior"), model)  # fmt: skip
    prior = prior_in_torch(parameters, model, condition, posterior)
    if isinstance(posterior, torch.distributions.MultivariateNormal):
        z = posterior.mean + (posterior.scale_tril @ eps[..., None])[..., 0]
    else:
        z = posterior.mean + posterior.stddev * eps
    output = layers_in_torch(parameters, model, beside(z), "decoder", len(model.decoder_hidden), "likelihood")
    nll = nll_in_torch(output, x, parameters, model)
    if objective == "iwae":
        log_ratio = posterior.log_prob(z) - prior.log_prob(z)
        return -(torch.logsumexp(-nll - beta * log_ratio, dim=0) - math.log(len(eps))).mean()
    return nll.mean() + beta * torch.distributions.kl_divergence(posterior, prior).mean()


# ---- the comparison ----


def assert_gradient_is_that_of_autograd(model, rng, objective, condition=()):
    """condition: () or a tuple with one array."""
    model.theta += 0.1 * rng.standard_normal(model.theta.size)
    x = rows_for(model, 6)
    eps = rng.standard_normal((2, 6, model.n_latent))
    terms, cache = model.forward(x, *condition, eps, 0.8, objective)

    parameters = in_torch(model)
    tensors = [torch.tensor(array) for array in model.check(x, *condition)]
    loss = loss_in_torch(parameters, model, tensors[0], torch.tensor(eps), 0.8, objective, *tensors[1:])
    assert_agree(terms.loss, model.backward(cache), loss, parameters)


def in_torch(model):
    return {name: torch.tensor(value, requires_grad=True) for name, value in model.parameters.items()}


def assert_agree(found, grads, loss, parameters):
    """A loss and its gradient, and the same by PyTorch."""
    loss.backward()
    assert found == pytest.approx(loss.item(), rel=1e-12)
    for name, tensor in parameters.items():
        expected = tensor.grad.numpy()
        assert np.abs(grads[name] - expected).max() <= 1e-10 * np.abs(expected).max(), name


@objectives
@backends
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_every_gradient_is_that_of_autograd(depth, activation, likelihood, backend, objective):
    hidden = (12, 9, 7)[:depth]
    model = npvae.VAE(15, 3, hidden, activation, likelihood, backend, "float64", seed=1, sigma=0.5)
    assert_gradient_is_that_of_autograd(model, np.random.default_rng(depth), objective)


@objectives
@backends
@likelihoods
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("hidden", [(), (12, 9)])
def test_every_gradient_of_every_distribution_is_that_of_autograd(hidden, posterior, likelihood, backend, objective):
    options = {"sigma": 0.5, "posterior": posterior}
    model = npvae.VAE(5, 3, hidden, "tanh", likelihood, backend, "float64", seed=1, **options)
    assert_gradient_is_that_of_autograd(model, np.random.default_rng(1), objective)


@objectives
@backends
@likelihoods
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("labels", [True, False])
def test_every_gradient_of_a_conditional_model_is_that_of_autograd(labels, prior, likelihood, backend, objective):
    rng = np.random.default_rng(2)
    model = ConditionalVAE(5, 4, 3, (12, 9), "tanh", likelihood, backend, "float64", seed=1, sigma=0.5, prior=prior)
    condition = rng.integers(0, 4, 6) if labels else rng.standard_normal((6, 4))
    assert_gradient_is_that_of_autograd(model, rng, objective, (condition,))
