"""The gradients of path posteriors and diffusions against an independent automatic differentiation system, as test_autodiff."""

import contextlib
import functools
import math

import numpy as np
import pytest
from test_autodiff import assert_agree, in_torch, layers_in_torch, torch

from npvae.models import Diffusion, PathPosterior
from npvae.ops import pixel_mixture


@contextlib.contextmanager
def doubles():
    """New tensors of PyTorch are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def by_name(example):
    return example.name


# ---- paths of a stochastic differential equation ----


def increment_in_torch(parameters, model, z, dW, t, k, x):
    """f dt + σ (v dt + dW) and v at z (S, B, D) on the way to outcome k of x (B, K D)."""
    S, B, D = z.shape
    time = torch.full((S, B, 1), 2 * t / model.times[-1] - 1)
    read = torch.cat([z, time, x.expand(S, -1, -1)], dim=-1)
    v = layers_in_torch(parameters, model, read, "control", len(model.hidden), "control")
    variance = model.observation_sigma**2 + model.sigma**2 * ((k + 1) * model.interval - t)
    v = v + model.sigma * (x[:, k * D : (k + 1) * D] - z) / variance
    dt = model.interval / model.n_steps
    return sum(c * z**i for i, c in enumerate(model.drift)) * dt + model.sigma * (v * dt + dW), v


def path_loss_in_torch(parameters, model, x, eps, objective):
    _, S, B, D = eps.shape
    z, dt = torch.full((S, B, D), model.start), model.interval / model.n_steps
    nll = energy = martingale = 0
    for i, noise in enumerate(eps):
        t, k, dW = i * dt, i // model.n_steps, math.sqrt(dt) * noise
        first, v = increment_in_torch(parameters, model, z, dW, t, k, x)
        cost, moved = 0.5 * dt * (v * v).sum(-1), first
        if model.scheme == "heun":
            second, v_end = increment_in_torch(parameters, model, z + first, dW, t + dt, k, x)
            cost, moved = 0.5 * cost + 0.25 * dt * (v_end * v_end).sum(-1), 0.5 * (first + second)
        z, energy, martingale = z + moved, energy + cost, martingale + (v * dW).sum(-1)
        if i % model.n_steps == model.n_steps - 1:
            outcome = torch.distributions.Normal(z, model.observation_sigma)
            nll = nll - outcome.log_prob(x[:, k * D : (k + 1) * D]).sum(-1)
    if objective == "iwae":
        return -(torch.logsumexp(-nll - energy - martingale, dim=0) - math.log(S)).mean()
    return (nll + energy).mean()


@pytest.mark.parametrize("example", list(PathPosterior.examples("numpy")), ids=by_name)
def test_every_gradient_of_a_path_posterior_is_that_of_autograd(example):
    model, (x,), settings = example[1:]
    eps = model.draw(np.random.default_rng(0), x, **settings)
    terms, cache = model.forward(x, eps, **settings)
    parameters = in_torch(model)
    with doubles():
        loss = path_loss_in_torch(parameters, model, torch.tensor(x), torch.tensor(eps), settings["objective"])
    assert_agree(terms.loss, model.backward(cache), loss, parameters)


# ---- diffusion ----


def level_in_torch(parameters, model, u):
    """γ at times u (B,)."""
    ends = parameters.get("schedule.ends", torch.tensor([model.gamma_min, model.gamma_max]))
    if model.schedule == "cosine":
        first, last = torch.atan(torch.exp(ends / 2))
        return 2 * torch.log(torch.tan(first + (last - first) * u))
    return ends[0] + (ends[1] - ends[0]) * u


def signal_and_noise_in_torch(gamma):
    return torch.sqrt(torch.sigmoid(-gamma))[:, None], torch.sqrt(torch.sigmoid(gamma))[:, None]  # (B, 1), (B, 1)


def noise_in_torch(parameters, model, x_t, u, step):
    """ε̂ at x_t (B, D), times u (B,)."""
    B, D = x_t.shape
    if model.time == "steps":
        read = torch.zeros(B, model.n_steps - 1, D + 1)
        read[torch.arange(B), step] = torch.cat([x_t, torch.ones(B, 1)], dim=1)
        read = read.flatten(1)
    else:
        angles = math.pi * u[:, None] * 2 ** torch.arange(model.n_frequencies)
        read = torch.cat([x_t, 2 * u[:, None] - 1, torch.sin(angles), torch.cos(angles)], dim=1)
    output = layers_in_torch(parameters, model, read, "denoiser", len(model.hidden), "denoiser")
    a, s = signal_and_noise_in_torch(level_in_torch(parameters, model, u))
    if model.predicts == "mixture":
        return tweedie_in_torch(x_t, output.unflatten(1, (-1, D)), a, s)
    found = {"noise": s * x_t + output, "data": (x_t - a * (a * x_t + output)) / s, "score": s * (x_t - output)}
    return found[model.predicts]


def tweedie_in_torch(x_t, output, a, s):
    """ε̂ = −s d log p(x_t)/dx_t, where p is the prior of each pixel, its black and two Gaussians, blurred by the noise."""
    logits, moved, u = output.split([3, 2, 2], dim=1)  # (B, 3, D), (B, 2, D), (B, 2, D)
    centres, scales = (torch.tensor(numbers)[:, None] for numbers in (pixel_mixture.CENTRES, pixel_mixture.SCALES))
    a, s = a[..., None], s[..., None]  # (B, 1, 1)
    variance = pixel_mixture.LEAST_VARIANCE + torch.sigmoid(u)
    means = torch.cat([torch.full_like(logits[:, :1], -1), centres + scales * moved], dim=1)
    variances = torch.cat([torch.zeros_like(logits[:, :1]), variance], dim=1)
    components = torch.distributions.Normal(a * means, torch.sqrt(a**2 * variances + s**2))
    own = x_t.clone()  # without the way through the network
    log_p = torch.logsumexp(torch.log_softmax(logits, 1) + components.log_prob(own[:, None]), dim=1)
    return -s[:, 0] * torch.autograd.grad(log_p.sum(), own, create_graph=True)[0]


def consistency_in_torch(parameters, model, x, eps, step):
    """E[log q(x_t|x_t-1)/p(x_t|x_t+1)] over q(x_t|x_t-1, x_t+1), and the KL of q(x_T|x_T-1) and N(0, I): (B,), (B,)."""
    normal, kl, n = torch.distributions.Normal, torch.distributions.kl_divergence, model.n_steps - 1
    level = functools.partial(level_in_torch, parameters, model)
    below = torch.where(step > 0, level((step - 1) / n), -700.0)  # of the data, which have no noise
    (a_s, s_s), (a_t, s_t), (a_u, s_u) = map(signal_and_noise_in_torch, (below, level(step / n), level((step + 1) / n)))
    up, above = a_t / a_s, a_u / a_t
    v_t, v_u = 1 - up**2, 1 - above**2
    x_s = a_s * x + s_s * eps[1]
    x_u = up * above * x_s + torch.sqrt(1 - (up * above) ** 2) * eps[0]
    x_0 = (x_u - s_u * noise_in_torch(parameters, model, x_u, (step + 1) / n, step)) / a_u
    q, p = 1 / (1 / v_t + above**2 / v_u), 1 / (1 / s_t**2 + above**2 / v_u)
    both = normal(q * (up * x_s / v_t + above * x_u / v_u), torch.sqrt(q))
    back = normal(p * (a_t * x_0 / s_t**2 + above * x_u / v_u), torch.sqrt(p))
    term = kl(both, back) + both.entropy() - normal(up * x_s, torch.sqrt(v_t)).entropy()
    (a, s), (a_T, _) = (signal_and_noise_in_torch(level(torch.full_like(below, u))) for u in ((n - 1) / n, 1.0))
    prior = kl(normal(a_T / a * (a * x + s * eps[1]), torch.sqrt(1 - (a_T / a) ** 2)), normal(0.0, 1.0))
    return n * term.sum(1), prior.sum(1)


def matching_in_torch(parameters, model, x, eps, u, below):
    """½ w ‖ε − ε̂‖², in continuous time (below None) with w = dγ/du, and the KL of q(x_T|x) and N(0, I): (B,), (B,)."""
    u = u.clone().requires_grad_()
    gamma, n = level_in_torch(parameters, model, u), model.n_steps - 1
    a, s = signal_and_noise_in_torch(gamma)
    x_t = a * x + s * eps[0]
    if below is None:
        weight, step = torch.autograd.grad(gamma.sum(), u, create_graph=True)[0], None
    else:
        weight, step = n * torch.expm1(gamma - level_in_torch(parameters, model, below)), (below * n).round().long()
    eps_hat = noise_in_torch(parameters, model, x_t, u.detach(), step)
    a_T, s_T = signal_and_noise_in_torch(level_in_torch(parameters, model, torch.ones_like(u)))
    last = torch.distributions.Normal(a_T * x, s_T.expand_as(x))
    prior = torch.distributions.kl_divergence(last, torch.distributions.Normal(0.0, 1.0)).sum(1)
    return 0.5 * weight * ((eps[0] - eps_hat) ** 2).sum(1), prior


def reconstruction_in_torch(parameters, model, x, eps):
    """−log p(x|x_1), its mean over x_1 for real data: (B,)."""
    gamma = level_in_torch(parameters, model, torch.zeros(len(x)))
    if model.likelihood == "gaussian":
        return 0.5 * x.shape[1] * (1 + math.log(2 * math.pi) + gamma)
    a, s = signal_and_noise_in_torch(gamma)
    levels = torch.arange(256) / 127.5 - 1
    x_1 = (a * x + s * eps[1])[..., None]
    logits = torch.distributions.Normal(a[..., None] * levels, s[..., None]).log_prob(x_1)  # (B, D, 256)
    return -torch.distributions.Categorical(logits=logits).log_prob(((x + 1) * 127.5).round()).sum(1)


@pytest.mark.parametrize("example", list(Diffusion.examples("numpy")), ids=by_name)
def test_every_gradient_of_a_diffusion_is_that_of_autograd(example):
    model, (x,), settings = example[1:]
    t, eps = model.draw(np.random.default_rng(0), x, **settings)
    terms, cache = model.forward(x, (t, eps), **settings)
    parameters, n = in_torch(model), model.n_steps - 1
    step = torch.tensor(np.minimum((t * n).astype(int), n - 1))
    with doubles():
        x = x if model.likelihood == "gaussian" else 2 * x - 1
        x, t, eps = map(torch.tensor, (x, t, eps))
        if settings["objective"] == "consistency":
            parts = consistency_in_torch(parameters, model, x, eps, step)
        elif settings["objective"] == "matching":
            parts = matching_in_torch(parameters, model, x, eps, (step + 1) / n, step / n)
        else:
            parts = matching_in_torch(parameters, model, x, eps, t, None)
        loss = (sum(parts) + reconstruction_in_torch(parameters, model, x, eps)).mean()
    assert_agree(terms.loss, model.backward(cache), loss, parameters)
