"""An energy given by a network: its score, the gradient of the score, and two losses that need no partition function.

    p(x) = e^−E(x)/Z,      E(x) = ½ c ‖x‖² + f(x),      score(x) = ∂ log p/∂x = −∂E/∂x

f is a multilayer perceptron with one output, c the confinement: f grows at most linearly where the activations do, so that
c > 0 makes Z finite whatever the weights are, and p a density N(0, I/c) that is tilted by e^−f (Xie, Lu, Zhu & Wu 2016,
section 2.1). Z, which the score does not have, is a constant in x, not in the weights.

Score matching fits the score, whose gradient with respect to the weights is a mixed second derivative of E: `score_backward` is
backward through the backward pass. The activations need two derivatives, so relu is none of them.

See `npvae.ops.layers` for how to read a pair. Shapes: B batch, D data, n_in and n_out the widths of one layer.
"""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.langevin import adjusted_chain, langevin_chain
from npvae.ops.layers import sigmoid_and_complement
from npvae.ops.mlp import mlp_backward, mlp_forward

# ---- activations with two derivatives ----


def identity_derivatives(pre):
    """h = pre, h' = 1, h'' = 0: the last layer, which gives f."""
    return pre, np.ones_like(pre), np.zeros_like(pre)


def tanh_derivatives(pre):
    """h = tanh(pre), h' = 1 − h², and by the chain rule

    (TANH-second)  h'' = −2 h h'.
    """
    h = np.tanh(pre)
    slope = 1 - h * h
    return h, slope, -2 * h * slope  # (TANH-second)


def sigmoid_derivatives(pre):
    """h = σ(pre), h' = σ(pre) σ(−pre), and by the product rule

    (SIGMOID-second)  h'' = h' (σ(−pre) − σ(pre)).
    """
    h, complement = sigmoid_and_complement(pre)
    slope = h * complement
    return h, slope, slope * (complement - h)  # (SIGMOID-second)


def softplus_derivatives(pre):
    """h = log(1 + e^pre), h' = σ(pre), and so

    (SOFTPLUS-second)  h'' = σ(pre) σ(−pre).
    """
    slope, complement = sigmoid_and_complement(pre)
    h = np.where(pre.real > 0, pre, 0) + np.log1p(np.exp(np.where(pre.real > 0, -pre, pre)))
    return h, slope, slope * complement  # (SOFTPLUS-second)


def silu_derivatives(pre):
    """h = pre σ(pre), h' = σ(pre) + h σ(−pre). With σ' = σ(pre) σ(−pre), and −σ' for the derivative of σ(−pre),

    (SILU-second)  h'' = σ(−pre) (σ(pre) + h' − h σ(pre)).
    """
    sigmoid, complement = sigmoid_and_complement(pre)
    h = pre * sigmoid
    slope = sigmoid + h * complement
    return h, slope, complement * (sigmoid + slope - h * sigmoid)  # (SILU-second)


DERIVATIVES = {
    "identity": identity_derivatives,
    "tanh": tanh_derivatives,
    "sigmoid": sigmoid_derivatives,
    "softplus": softplus_derivatives,
    "silu": silu_derivatives,
}


# ---- energy, and energy with score ----


def energy_forward(x, layers, confinement, mlp_forward=mlp_forward):
    """E = ½ c ‖x‖² + f(x): x (B, D), layers as `mlp_forward` takes them, the last of one unit -> (B,) in nats, and the cache.

    (ENERGY-x)  dx = denergy (c x + ∂f/∂x)
    """
    f, mlp_cache = mlp_forward(x, layers)  # (B, D) -> (B, 1)
    return 0.5 * confinement * (x * x).sum(axis=1) + f[:, 0], (x, confinement, mlp_cache)


def energy_backward(denergy, cache, need_dx=True, mlp_backward=mlp_backward):
    """Backward of E = ½ c ‖x‖² + f(x): denergy (B,) -> dx (B, D), None without need_dx, and (dW, db) of each layer."""
    x, confinement, mlp_cache = cache
    dx, grads = mlp_backward(denergy[:, None], mlp_cache, need_dx)  # (B,) -> (B, 1) -> (B, D)
    if need_dx:
        dx = dx + denergy[:, None] * confinement * x  # (ENERGY-x)
    return dx, grads


def score_forward(x, layers, confinement, derivatives=DERIVATIVES):
    """E (B,), and the score −∂E/∂x (B, D), of x (B, D): the network forward, and backward to its input.

    Of layer l: pre_l = h_l−1 W_l + b_l and h_l = a(pre_l). With g_l = ∂f/∂h_l and q_l = ∂f/∂pre_l, from g_n = 1 down to g_0,
        q_l = g_l a'(pre_l),      g_l−1 = q_l W_lᵀ,      score = −(c x + g_0).

    The gradient of the loss with respect to these values runs the other way, up the layers, from dg_0 = −dscore:
        dq_l = dg_l−1 W_l,      dg_l = dq_l a'(pre_l)
        (SCORE-W)    dW_l = dg_l−1ᵀ q_l
        (SCORE-pre)  dpre_l = dq_l g_l a''(pre_l)
    Then the loss goes down again, from dh_n = denergy, as in every network, but what dW_l and dpre_l have already is added to:
        (SCORE-down)  dpre_l += dh_l a'(pre_l),      dW_l += h_l−1ᵀ dpre_l,      db_l = Σ_b dpre_l,      dh_l−1 = dpre_l W_lᵀ
        (SCORE-x)     dx = dh_0 + c (denergy x − dscore)
    """
    h, below = x, []
    for W, b, activation in layers:
        pre = h @ W + b  # (B, n_in) -> (B, n_out)
        above, slope, curvature = derivatives[activation](pre)
        below.append((h, W, slope, curvature))
        h = above
    energy = 0.5 * confinement * (x * x).sum(axis=1) + h[:, 0]  # (B,)
    g, steps = np.ones_like(h), []  # (B, 1)
    for h, W, slope, curvature in reversed(below):
        q = g * slope
        steps.append((h, W, slope, curvature, g, q))
        g = q @ W.T  # (B, n_out) -> (B, n_in)
    return (energy, -(confinement * x + g)), (x, confinement, steps[::-1])


def score_backward(denergy, dscore, cache):
    """Backward of `score_forward`: denergy (B,), dscore (B, D) -> dx (B, D), and (dW, db) of each layer in order."""
    x, confinement, steps = cache
    dg, upward = -dscore, []  # score = −(c x + g_0)
    for _, W, slope, curvature, g, q in steps:  # g_l−1 = q_l W_lᵀ, q_l = g_l a'(pre_l)
        dq = dg @ W  # (B, n_in) -> (B, n_out)
        dW = dg.T @ q  # (SCORE-W) (n_in, B) @ (B, n_out) -> (n_in, n_out)
        upward.append((dW, dq * g * curvature))  # (SCORE-pre)
        dg = dq * slope
    dh, grads = denergy[:, None].astype(x.dtype, copy=False), []  # (B,) -> (B, 1)
    for (h, W, slope, *_), (dW, dpre) in zip(reversed(steps), reversed(upward)):
        dpre = dpre + dh * slope  # (SCORE-down)
        grads.append((dW + h.T @ dpre, dpre.sum(axis=0)))
        dh = dpre @ W.T  # (B, n_out) -> (B, n_in)
    dx = dh + confinement * (denergy[:, None] * x - dscore)  # (SCORE-x)
    return dx.astype(x.dtype, copy=False), grads[::-1]


def energy_chain(x, layers, confinement, eps, u, step_size, temperature=1.0):
    """Langevin steps in the energy of a network: x (B, D), noise eps (K, B, D), and u (K, B), or None for steps without a test,
    -> the last states (B, D), and the share of its steps that each chain took (B,). See `npvae.ops.langevin`."""

    def energy_and_score(y):
        return score_forward(y, layers, confinement)[0]

    if u is None:
        return langevin_chain(energy_and_score, x, eps, step_size, temperature), np.ones(len(x))
    return adjusted_chain(energy_and_score, x, eps, u, step_size, temperature)


# ---- two losses without a partition function ----


def score_matching_forward(score, eps, noise_scale):
    """Denoising score matching, ½ ‖σ score(x + σ ε) + ε‖²: score, eps (B, D) -> (B,). Vincent 2011, section 4.3.

    Given x, data with noise have the score −ε/σ; the mean over x of all that can have led to x + σ ε is the score of the
    density of the noisy data, p convolved with N(0, σ² I), and that is where the loss is least. The factor σ² gives every
    noise the same weight. Its least value is not 0.

    (MATCHING)  dscore = dloss σ (σ score + ε)
    """
    missed = noise_scale * score + eps
    return 0.5 * (missed * missed).sum(axis=1, dtype=accumulator(missed)), (missed, noise_scale)


def score_matching_backward(dloss, cache):
    """Backward of ½ ‖σ score + ε‖²: dloss (B,) -> dscore (B, D)."""
    missed, noise_scale = cache
    return dloss[:, None].astype(missed.dtype) * noise_scale * missed  # (MATCHING)


def contrastive_forward(energy_of_data, energy_of_samples, alpha):
    """E(x) − E(x⁻) + α (E(x)² + E(x⁻)²), data x and samples x⁻ of the model row by row: (B,), (B,) -> (B,).

    The gradient of −log p(x) is ∂E(x)/∂θ − ⟨∂E/∂θ⟩ over p, the positive and the negative phase; here log Z is replaced by the
    energy of samples of p, which are held constant (Hinton 2002). The term with α holds the energies near 0, where a step of
    the sampler moves little (Du & Mordatch 2019, section 3.3); its minimum is not the data's density.

    (CONTRASTIVE-data)     denergy_of_data = dloss (1 + 2α E(x))
    (CONTRASTIVE-samples)  denergy_of_samples = dloss (−1 + 2α E(x⁻))
    """
    squares = energy_of_data * energy_of_data + energy_of_samples * energy_of_samples
    return energy_of_data - energy_of_samples + alpha * squares, (energy_of_data, energy_of_samples, alpha)


def contrastive_backward(dloss, cache):
    """Backward of E(x) − E(x⁻) + α (E(x)² + E(x⁻)²): dloss (B,) -> denergy_of_data, denergy_of_samples, (B,) each."""
    energy_of_data, energy_of_samples, alpha = cache
    denergy_of_data = dloss * (1 + 2 * alpha * energy_of_data)  # (CONTRASTIVE-data)
    denergy_of_samples = dloss * (-1 + 2 * alpha * energy_of_samples)  # (CONTRASTIVE-samples)
    return denergy_of_data, denergy_of_samples
