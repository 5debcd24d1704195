"""Restricted Boltzmann machines: energies, free energies and their gradients, conditionals, block Gibbs sampling.

A machine gives a visible x and a hidden h, a vector of zeros and ones, the probability p(x, h) = e^−E(x, h)/Z. Lectures (2024),
"Network elements, the energy function": with visible units of zeros and ones ("binary-binary")

    E(x, h) = −Σ_i a_i x_i − Σ_j b_j h_j − Σ_ij x_i w_ij h_j

and with real ones ("Gaussian-binary"), here with a variance σ_i² = e^logvar_i of each that is learned

    E(x, h) = Σ_i (x_i − a_i)²/(2σ_i²) − Σ_j b_j h_j − Σ_ij x_i w_ij h_j/σ_i²

In both, E = E_a(x) − Σ_j pre_j h_j with pre_j = b_j + Σ_i u_i w_ij and u = x, or x/σ². Each h_j appears alone, so that the sum
over all h is a product: the free energy F(x) = −log Σ_h e^−E(x, h) is

    F(x) = E_a(x) − Σ_j log(1 + e^pre_j),      p(x) = e^−F(x)/Z

By the same token units of one layer are independent given the other layer, and

    p(h_j = 1|x) = σ(pre_j),      p(x_i = 1|h) = σ(a_i + Σ_j w_ij h_j)      or      x_i|h ~ N(a_i + Σ_j w_ij h_j, σ_i²)

(of Gaussian units by completing the square). With log Z's own gradient, −E_p[∂F/∂θ], the gradient of log p(x) has two phases,

    ∂ log p(x)/∂θ = −∂F(x)/∂θ + E_{x' ~ p}[∂F(x')/∂θ]         the positive phase at the data, the negative at the model

How to read a pair: `npvae.ops.layers`. Shapes: B batch or chains, V visible units, H hidden units. Parameters: visible_bias a
(V,), hidden_bias b (H,), W (V, H), and logvar (V,), which is None where the visible units are binary; clip it before it comes
here (`npvae.ops.latent.clip_logvar_forward`). Nothing differentiates with respect to x: data and samples are constants.
"""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.layers import dense_backward, dense_forward, sigmoid_and_complement
from npvae.ops.uniforms import normals, uniforms

# ---- free energies ----


def binary_free_energy_forward(x, visible_bias, hidden_bias, W, dense_forward=dense_forward):
    """F(x) = −Σ_i a_i x_i − Σ_j log(1 + e^pre_j) of zeros and ones x (B, V) -> (B,) in nats. Smolensky 1986; Hinton 2012,
    section 16.1.

    The second part is a dense layer with the activation softplus, summed up. Of its derivatives, ∂F/∂b_j = −σ(pre_j) and
    ∂F/∂w_ij = −x_i σ(pre_j), the energy's own derivatives −h_j and −x_i h_j with h_j at its mean. And
    (RBM-a)  ∂F/∂a_i = −x_i
    """
    h, hidden_cache = dense_forward(x, W, hidden_bias, "softplus")  # (B, V) -> (B, H)
    free_energy = -(x @ visible_bias) - h.sum(axis=1)  # (B, V) @ (V,), (B, H) -> (B,)
    return free_energy, (x, h.shape, hidden_cache)


def binary_free_energy_backward(dfree_energy, cache, dense_backward=dense_backward):
    """Backward of F(x): dfree_energy (B,) -> dvisible_bias (V,), dhidden_bias (H,), dW (V, H)."""
    x, shape, hidden_cache = cache
    dh = np.repeat(-dfree_energy, shape[1]).reshape(shape)  # (B,) -> (B, H)
    _, dW, dhidden_bias = dense_backward(dh, hidden_cache, need_dx=False)  # (B, H) -> (V, H), (H,)
    dvisible_bias = -(dfree_energy @ x)  # (RBM-a) (B,) @ (B, V) -> (V,)
    return dvisible_bias, dhidden_bias, dW


def gaussian_free_energy_forward(x, visible_bias, hidden_bias, W, logvar, dense_forward=dense_forward):
    """F(x) = Σ_i (x_i − a_i)²/(2σ_i²) − Σ_j log(1 + e^pre_j) of real x (B, V) -> (B,) in nats, σ_i² = e^logvar_i. Welling,
    Rosen-Zvi & Hinton 2004; Melchior, Wang & Wiskott 2017, equation 14.

    The layer with softplus takes u = x/σ², with du_i/dlogvar_i = −u_i, and with distance t_i = (x_i − a_i)/σ_i²
    (GRBM-a)       ∂F/∂a_i = −t_i
    (GRBM-logvar)  ∂F/∂logvar_i = −½ t_i (x_i − a_i) − u_i ∂F/∂u_i,   in which ∂F/∂u_i = −Σ_j w_ij σ(pre_j) stands for the layer
    """
    precision = np.exp(-logvar)  # (V,)
    u = x * precision
    h, hidden_cache = dense_forward(u, W, hidden_bias, "softplus")  # (B, V) -> (B, H)
    distance = (x - visible_bias) * precision
    free_energy = 0.5 * (distance * (x - visible_bias)).sum(axis=1) - h.sum(axis=1)  # (B, V), (B, H) -> (B,)
    return free_energy, (x - visible_bias, distance, u, h.shape, hidden_cache)


def gaussian_free_energy_backward(dfree_energy, cache, dense_backward=dense_backward):
    """Backward of F(x): dfree_energy (B,) -> dvisible_bias (V,), dhidden_bias (H,), dW (V, H), dlogvar (V,)."""
    offset, distance, u, shape, hidden_cache = cache
    dh = np.repeat(-dfree_energy, shape[1]).reshape(shape)  # (B,) -> (B, H)
    du, dW, dhidden_bias = dense_backward(dh, hidden_cache)  # (B, H) -> (B, V), (V, H), (H,)
    dvisible_bias = -(dfree_energy @ distance)  # (GRBM-a) (B,) @ (B, V) -> (V,)
    dlogvar = -0.5 * (dfree_energy @ (distance * offset)) - (u * du).sum(axis=0)  # (GRBM-logvar) (B, V) -> (V,)
    return dvisible_bias, dhidden_bias, dW, dlogvar


def phases_forward(free_energy, free_energy_of_chains):
    """mean F(x) − mean F(x') of the data's F (B,) and that of the chains (C,): a loss whose gradient is that of −log p(x) where
    the chains are draws of p. Its value is not −log p(x): −mean F(x') stands in log Z's place."""
    loss = free_energy.mean(dtype=accumulator(free_energy)) - free_energy_of_chains.mean(dtype=accumulator(free_energy))
    return loss, (len(free_energy), len(free_energy_of_chains), free_energy.dtype)


def phases_backward(dloss, cache):
    """Backward of mean F(x) − mean F(x'): dfree_energy (B,), the positive phase, dfree_energy_of_chains (C,), the negative."""
    n_rows, n_chains, dtype = cache
    return np.full(n_rows, dloss / n_rows, dtype), np.full(n_chains, -dloss / n_chains, dtype)  # 1/B enters here


# ---- centring ----


def centre_forward(visible_bias, hidden_bias, W, logvar, visible_offset, hidden_offset):
    """The biases (V,), (H,) of the machine whose energy is written in x − μ and h − λ: with offsets μ (V,) and λ (H,)

        −Σ a'_i (x_i − μ_i) − Σ b'_j (h_j − λ_j) − Σ (x_i − μ_i) w_ij (h_j − λ_j)        (of Gaussian units the last over σ_i²)

    is E(x, h) with a = a' − W λ and b = b' − Wᵀ u, u = μ or μ/σ², up to a constant, which Z takes up. So it is the same family
    of machines in other coordinates (a', b', W), in which a change of the weights does not shift the input of units whose
    neighbours are at their offsets: the centred gradient, nearer to the natural one (Melchior, Fischer & Wiskott 2016). The
    chain rule gives
    (CENTRE-W)       dW_ij = −da_i λ_j − u_i db_j      beside what reaches W otherwise
    (CENTRE-logvar)  dlogvar_i = Σ_j u_i w_ij db_j      likewise
    """
    u = visible_offset if logvar is None else visible_offset * np.exp(-logvar)  # (V,)
    return (visible_bias - W @ hidden_offset, hidden_bias - u @ W), (u, W, hidden_offset, logvar is not None)


def centre_backward(dvisible_bias, dhidden_bias, cache):
    """Backward of `centre_forward`: da' = da and db' = db, dW (V, H) and, of Gaussian units, dlogvar (V,)."""
    u, W, hidden_offset, has_logvar = cache
    dW = -np.outer(dvisible_bias, hidden_offset) - np.outer(u, dhidden_bias)  # (CENTRE-W) (V,), (H,) -> (V, H)
    if not has_logvar:
        return dvisible_bias, dhidden_bias, dW
    dlogvar = u * (W @ dhidden_bias)  # (CENTRE-logvar) (V, H) @ (H,) -> (V,)
    return dvisible_bias, dhidden_bias, dW, dlogvar


# ---- energy, conditionals, Gibbs sampling ----


def energy(x, h, visible_bias, hidden_bias, W, logvar=None):
    """E(x, h) of x (B, V) and h (B, H) -> (B,) in nats."""
    if logvar is None:
        return -(x @ visible_bias) - h @ hidden_bias - ((x @ W) * h).sum(axis=1)
    precision = np.exp(-logvar)
    own = 0.5 * ((x - visible_bias) ** 2 * precision).sum(axis=1)
    return own - h @ hidden_bias - (((x * precision) @ W) * h).sum(axis=1)


def hidden_input(x, hidden_bias, W, logvar=None):
    """pre (B, H) of x (B, V), with p(h_j = 1|x) = σ(pre_j)."""
    return (x if logvar is None else x * np.exp(-logvar)) @ W + hidden_bias


def visible_mean(h, visible_bias, W, logvar=None):
    """E[x|h] (B, V) of h (B, H), zeros and ones or probabilities."""
    mean = h @ W.T + visible_bias
    return sigmoid_and_complement(mean)[0] if logvar is None else mean


def gibbs_step(x, hidden_noise, visible_noise, visible_bias, hidden_bias, W, logvar=None):
    """One step of block Gibbs sampling, h ~ p(h|x) and x' ~ p(x|h): x (B, V) -> x' (B, V), h (B, H).

    hidden_noise (B, H) is uniform in (0, 1); visible_noise (B, V) is, too, or standard normal for Gaussian units. The step
    leaves p(x) as it is: Σ_xh p(x) p(h|x) p(x'|h) = Σ_h p(h) p(x'|h) = p(x').
    """
    h = (hidden_noise < sigmoid_and_complement(hidden_input(x, hidden_bias, W, logvar))[0]).astype(x.dtype)
    mean = visible_mean(h, visible_bias, W, logvar)  # (B, H) -> (B, V)
    if logvar is None:
        return (visible_noise < mean).astype(x.dtype), h
    return mean + np.exp(0.5 * logvar) * visible_noise, h


def gibbs(x, states, n_steps, visible_bias, hidden_bias, W, logvar=None):
    """n_steps of `gibbs_step` of each chain: x (B, V) -> (B, V), with the noise of its own generators, which are advanced in
    place (`npvae.ops.uniforms`): of each step first that of the hidden units, then that of the visible ones."""
    dtype, visible_noise = x.dtype.type, uniforms if logvar is None else normals
    for _ in range(n_steps):
        noise = uniforms(states, W.shape[1], dtype), visible_noise(states, W.shape[0], dtype)
        x, _ = gibbs_step(x, *noise, visible_bias, hidden_bias, W, logvar)
    return x
