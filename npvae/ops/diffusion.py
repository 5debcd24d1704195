"""Variational diffusion: noise is added step by step, and a network says what was added.

    q(x_t|x_t-1) = N(√α_t x_t-1, (1 − α_t) I),  so that  q(x_t|x_0) = N(a_t x_0, s_t² I),  a_t² = ᾱ_t = Π_i α_i,  s_t² = 1 − ᾱ_t

(Lectures, 2024, "Variational diffusion models"; Luo 2022; Ho, Jain & Abbeel 2020.) A level of noise is told by one number,
γ = −log SNR = log(s²/a²) (Kingma, Salimans, Poole & Ho 2021), from which a² = σ(−γ) and s² = σ(γ) to full precision; the data
itself has γ = −∞. Below, s and t in names are two levels, gamma_s < gamma_t.

Inserted into the ELBO, the chain gives either of

    −ELBO = E[−log p(x_0|x_1)] + KL(q(x_T|x_0) ‖ p(x_T)) + Σ_t≥2 E KL(q(x_t-1|x_t, x_0) ‖ p(x_t-1|x_t))            matching
    −ELBO = E[−log p(x_0|x_1)] + E KL(q(x_T|x_T-1) ‖ p(x_T)) + Σ_t<T E log q(x_t|x_t-1)/p(x_t|x_t+1)           consistency

`npvae.ops.noise_schedule` says how γ depends on the step; `npvae.ops.layers` how to read a pair. Shapes: B batch, D data. Each
row has levels gamma (B,) of its own, and coefficients computed from them stand in columns (B, 1).
"""

import math

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.layers import sigmoid_and_complement

PREDICTIONS = ("noise", "data", "score")
LEVEL_SPACING = 2 / 255  # of grey levels on [−1, 1]
NEGLIGIBLE = 40.0  # levels whose weight is below e^−40 of the nearest one's are left out of a sum


def signal_and_noise(gamma):
    """a and s of x_t = a x_0 + s ε at levels gamma (B,): (B, 1) each, a² + s² = 1."""
    noise, signal = sigmoid_and_complement(gamma[:, None])
    return np.sqrt(signal), np.sqrt(noise)


def log_signal(gamma):
    """log a² = −log(1 + e^γ) at levels gamma, any shape, to full relative precision; log s² is that of −γ."""
    is_noisy = gamma.real > 0
    return -np.where(is_noisy, gamma, 0) - np.log1p(np.exp(np.where(is_noisy, -gamma, gamma)))


def transition(gamma_s, gamma_t):
    """a_t/a_s and the variance 1 − a_t²/a_s² of q(x_t|x_s): (B, 1) each. From log a², so that nothing cancels."""
    log_ratio = (log_signal(gamma_t) - log_signal(gamma_s))[:, None]  # log a_t²/a_s² (B,) -> (B, 1)
    return np.exp(0.5 * log_ratio), -np.expm1(log_ratio)


# ---- from the data to a level of noise ----


def diffuse_forward(x, eps, gamma):
    """A draw of q(x_t|x_0): x_t = a x + s ε. x, eps (B, D), gamma (B,) -> (B, D).

    With da/dγ = −½ a s² and ds/dγ = ½ s a²:
        (DIFFUSE-x)      dx = a dx_t
        (DIFFUSE-gamma)  dgamma_b = ½ a s Σ_d dx_t (a ε − s x)
    """
    a, s = signal_and_noise(gamma)
    return a * x + s * eps, (x, eps, a, s)


def diffuse_backward(dx_t, cache):
    """Backward of x_t = a x + s ε: dx_t (B, D) -> dx (B, D), dgamma (B,)."""
    x, eps, a, s = cache
    dx = a * dx_t  # (DIFFUSE-x)
    dgamma = 0.5 * (a * s)[:, 0] * (dx_t * (a * eps - s * x)).sum(axis=1)  # (DIFFUSE-gamma) (B, D) -> (B,)
    return dx, dgamma


# ---- what the network says of the noise ----


def predict_forward(x_t, output, gamma, predicts):
    """The noise ε̂ that is meant by a network's output: ε̂ = s x_t + k output. x_t, output (B, D), gamma (B,) -> (B, D).

    The output is what is added to the best prediction for data of N(0, I), of which an output of 0 knows as much as can be
    known. With x_t = a x̂_0 + s ε̂ and the score ŝ = −ε̂/s (Tweedie):
        predicts "noise"   ε̂  = s x_t + output    k = 1
        predicts "data"    x̂_0 = a x_t + output    k = −a/s
        predicts "score"   ŝ  = −x_t + output     k = −s
    so that
        (PREDICT-x)       dx_t = s deps_hat
        (PREDICT-output)  doutput = k deps_hat
        (PREDICT-gamma)   dgamma_b = Σ_d deps_hat (½ s a² x_t + k' output),   k' = 0, −½ k or ½ a² k
    """
    a, s = signal_and_noise(gamma)
    k, dk = coefficient(a, s, predicts)
    return s * x_t + k * output, (x_t, output, a, s, k, dk)


def predict_backward(deps_hat, cache):
    """Backward of ε̂ = s x_t + k output: deps_hat (B, D) -> dx_t, doutput (B, D), dgamma (B,)."""
    x_t, output, a, s, k, dk = cache
    dx_t = s * deps_hat  # (PREDICT-x)
    doutput = k * deps_hat  # (PREDICT-output)
    dgamma = (deps_hat * (0.5 * s * a * a * x_t + dk * output)).sum(axis=1)  # (PREDICT-gamma) (B, D) -> (B,)
    return dx_t, doutput, dgamma


def coefficient(a, s, predicts):
    """k of `predict_forward`, and its derivative with respect to γ: (B, 1) each."""
    if predicts == "noise":
        return np.ones_like(a), np.zeros_like(a)
    k = -a / s if predicts == "data" else -s
    return k, -0.5 * k if predicts == "data" else 0.5 * a * a * k


def convert(value, x_t, gamma, have, want):
    """One prediction as another, all three being "noise" ε̂, "data" x̂_0 or "score" ŝ: value, x_t (B, D), gamma (B,) -> (B, D).

    From x_t = a x̂_0 + s ε̂ and ŝ = −ε̂/s: the three equivalent interpretations of Luo 2022.
    """
    a, s = signal_and_noise(gamma)
    eps = {"noise": lambda: value, "data": lambda: (x_t - a * value) / s, "score": lambda: -s * value}[have]()
    return {"noise": lambda: eps, "data": lambda: (x_t - s * eps) / a, "score": lambda: -eps / s}[want]()


# ---- the terms of the ELBO ----


def denoising_forward(eps_hat, eps, weight):
    """A denoising term ½ w ‖ε − ε̂‖² of each row, in nats: eps_hat, eps (B, D), weight (B,) -> (B,).

    With w of `weight_forward` it is KL(q(x_s|x_t, x_0) ‖ p(x_s|x_t)), both of the same variance; with w = dγ/dt the rate of
    −ELBO in continuous time (Kingma et al. 2021, section 4).
        (DENOISING-eps)     deps_hat = −dterm w (ε − ε̂)
        (DENOISING-weight)  dweight = ½ dterm ‖ε − ε̂‖²
    """
    missed = eps - eps_hat
    squared = (missed * missed).sum(axis=1, dtype=accumulator(missed))  # (B, D) -> (B,)
    return 0.5 * weight * squared, (missed, squared, weight)


def denoising_backward(dterm, cache):
    """Backward of ½ w ‖ε − ε̂‖²: dterm (B,) -> deps_hat (B, D), dweight (B,)."""
    missed, squared, weight = cache
    deps_hat = -(dterm * weight)[:, None].astype(missed.dtype) * missed  # (DENOISING-eps) (B, 1) * (B, D)
    return deps_hat, 0.5 * dterm * squared  # (DENOISING-weight)


def weight_forward(gamma_s, gamma_t):
    """w = e^(γ_t − γ_s) − 1 = (SNR_s − SNR_t)/SNR_t, the weight of a step from t to s: (B,) each.

    (WEIGHT)  dgamma_t = dw e^(γ_t − γ_s) = dw (w + 1),  dgamma_s = −dgamma_t
    """
    w = np.expm1(gamma_t - gamma_s)
    return w, w


def weight_backward(dw, cache):
    """Backward of w = e^(γ_t − γ_s) − 1: dw (B,) -> dgamma_s, dgamma_t (B,)."""
    dgamma_t = dw * (cache + 1)  # (WEIGHT)
    return -dgamma_t, dgamma_t


def prior_kl_forward(x, gamma):
    """KL(q(x_T|x) ‖ N(0, I)) of each row, what is left of the data at the last level: x (B, D), gamma (B,) -> (B,) in nats.

    kl_b = ½ Σ_d [a² (x² − 1) − log s²], so that, with da²/dγ = −a² s² and d log s²/dγ = a²,
        (PRIOR-gamma)  dgamma_b = −½ dkl_b a² Σ_d [s² (x² − 1) + 1]
    """
    noise, signal = sigmoid_and_complement(gamma)  # (B,) each
    log_noise = log_signal(-gamma)
    excess = (x * x - 1).sum(axis=1, dtype=accumulator(x))  # (B, D) -> (B,)
    return 0.5 * (signal * excess - x.shape[1] * log_noise), (noise, signal, excess, x.shape[1])


def prior_kl_backward(dkl, cache):
    """Backward of the KL at the last level: dkl (B,) -> dgamma (B,). x is data, of which no gradient is asked."""
    noise, signal, excess, n_columns = cache
    return -0.5 * dkl * signal * (noise * excess + n_columns)  # (PRIOR-gamma)


def gaussian_reconstruction_forward(x, gamma):
    """E_q[−log p(x|x_1)] of p(x|x_1) = N(x_1/a, (s²/a²) I), the posterior under a flat prior: x (B, D), gamma (B,) -> (B,).

    The mean over q(x_1|x) is D/2 (1 + log 2π + γ), in closed form.  (RECONSTRUCTION)  dgamma_b = D/2 dnll_b
    """
    n_columns = x.shape[1]
    return 0.5 * n_columns * (1 + math.log(2 * math.pi) + gamma), n_columns


def gaussian_reconstruction_backward(dnll, cache):
    """Backward of D/2 (1 + log 2π + γ): dnll (B,) -> dgamma (B,)."""
    return 0.5 * cache * dnll  # (RECONSTRUCTION)


def levels_nll_forward(x, eps, gamma):
    """−log p(x|x_1) of 256 grey levels v_k on [−1, 1], with p(v_k|x_1) ∝ q(x_1|v_k), as Kingma et al. 2021.

    x, eps (B, D), x one of the levels in each entry, gamma (B,) of x_1 -> nll (B,) in nats. With r² = e^γ = s²/a² and
    u = x_1/a = x + r ε:  nll = Σ_d [(u − x)²/2r² + log Σ_k e^(−(u − v_k)²/2r²)].  Of the sum only levels near u are added.

    With m_k = (v_k − x)/r and (u − v_k)/r = ε − m_k, each summand beside that of x is e^(ε m_k − ½ m_k²), and ∂m_k/∂γ = −½ m_k:
        (LEVELS)  dgamma_b = ½ dnll_b Σ_d E[m (m − ε)],   E the mean over p(v_k|x_1)
    """
    r = np.exp(0.5 * gamma)[:, None]
    u = x + r * eps
    nearest = np.clip(np.rint((u.real + 1) / LEVEL_SPACING), 0, 255)
    reach = min(255, 1 + math.ceil(math.sqrt(2 * NEGLIGIBLE) * float(r.real.max()) / LEVEL_SPACING))
    total, slope = np.zeros_like(u), np.zeros_like(u)
    for step in range(-reach, reach + 1):
        k = nearest + step
        m = (k * LEVEL_SPACING - 1 - x) / r  # 0 where v_k is x itself, up to rounding
        weight = np.where((k >= 0) & (k <= 255), np.exp(m * (eps - 0.5 * m)), 0)  # of v_k beside that of x
        total += weight
        slope += weight * m * (m - eps)
    nll = np.log(total).sum(axis=1, dtype=accumulator(total))  # (B, D) -> (B,)
    return nll, (slope, total)


def levels_nll_backward(dnll, cache):
    """Backward of the grey levels' nll: dnll (B,) -> dgamma (B,)."""
    slope, total = cache
    return 0.5 * dnll * (slope / total).sum(axis=1, dtype=accumulator(total))  # (LEVELS) (B, D) -> (B,)


def consistency_forward(eps_hat, x_s, x_u, gamma_s, gamma_t, gamma_u):
    """E[log q(x_t|x_s) − log p(x_t|x_u)] over x_t between its neighbours s < t < u, of each row, in nats.

    ε̂(x_u), x_s, x_u (B, D), levels (B,) -> (B,). The lectures and Luo 2022 write KL(q(x_t|x_s) ‖ p(x_t|x_u)), the mean over
    q(x_s, x_u|x_0). But x_u is made of x_t: given both neighbours x_t has the density q(x_t|x_s, x_u), of mean m' and
    variance v', and the terms with that KL do not add up to the ELBO. With v_q of q(x_t|x_s), whose entropy is a constant, and
    m, v_p of p, that is of `backward_step`,
        term = ½ [D (v'/v_p − 1 − log v_q/v_p) + ‖m − m'‖²/v_p],
    and with c = ∂m/∂ε̂
        (CONSISTENCY)  deps_hat = dterm c (m − m')/v_p
    """
    ratio_t, v_q = transition(gamma_s, gamma_t)
    ratio_u, v_u = transition(gamma_t, gamma_u)
    _, v_both = transition(gamma_s, gamma_u)
    between = (v_u * ratio_t * x_s + v_q * ratio_u * x_u) / v_both  # m'
    mean, v_p, c = backward_step(x_u, eps_hat, gamma_t, gamma_u)
    missed = mean - between
    of_variances = x_s.shape[1] * (v_q * v_u / v_both / v_p - 1 - np.log(v_q / v_p))[:, 0]  # v' = v_q v_u/v_both
    squared = (missed * missed / v_p).sum(axis=1, dtype=accumulator(missed))  # (B, D) -> (B,)
    return 0.5 * (of_variances + squared), c * missed / v_p


def consistency_backward(dterm, cache):
    """Backward of the consistency term with respect to the network: dterm (B,) -> deps_hat (B, D)."""
    return dterm[:, None].astype(cache.dtype) * cache  # (CONSISTENCY)


def last_step_kl(x_s, gamma_s, gamma_t):
    """KL(q(x_T|x_T-1) ‖ N(0, I)), the prior term beside the consistency terms: x_s (B, D), levels (B,) -> (B,) in nats."""
    ratio, variance = transition(gamma_s, gamma_t)
    of_variance = x_s.shape[1] * (variance - 1 - np.log(variance))[:, 0]
    return 0.5 * (of_variance + (ratio * ratio * x_s * x_s).sum(axis=1, dtype=accumulator(x_s)))


# ---- back towards the data ----


def backward_step(x_t, eps_hat, gamma_s, gamma_t):
    """q(x_s|x_t, x̂_0), of the x̂_0 that ε̂ says: its mean (B, D), variance (B, 1), and ∂mean/∂ε̂ (B, 1).

    mean = (x_t − (v/s_t) ε̂) a_s/a_t,  variance v s_s²/s_t²,  v that of q(x_t|x_s); Ho et al. 2020, equations 6, 7 and 11.
    """
    ratio, v = transition(gamma_s, gamma_t)
    _, noise_s = signal_and_noise(gamma_s)
    _, noise_t = signal_and_noise(gamma_t)
    c = -v / (noise_t * ratio)
    return x_t / ratio + c * eps_hat, v * (noise_s / noise_t) ** 2, c


def deterministic_step(x_t, eps_hat, gamma_s, gamma_t):
    """x_s = a_s x̂_0 + s_s ε̂, without fresh noise (DDIM; Song, Meng & Ermon 2021, equation 12 with σ = 0): (B, D)."""
    a_t, s_t = signal_and_noise(gamma_t)
    a_s, s_s = signal_and_noise(gamma_s)
    return a_s / a_t * (x_t - s_t * eps_hat) + s_s * eps_hat


def flow_velocity(output, gamma, predicts):
    """dx/dγ of the probability flow, whose density at each level is the diffusion's: ½ s k output (B, D), and ½ s k (B, 1).

    dx/dγ = −½ s² x + ½ s ε̂ (Song et al. 2021, equation 13, in γ), of which the parts with x cancel.
    """
    a, s = signal_and_noise(gamma)
    factor = 0.5 * s * coefficient(a, s, predicts)[0]
    return factor * output, factor


def flow_of_noise(x_t, eps_hat, gamma):
    """dx/dγ of the probability flow from ε̂: ½ s (ε̂ − s x_t); x_t, eps_hat (B, D), gamma (B,) -> (B, D)."""
    _, s = signal_and_noise(gamma)
    return 0.5 * s * (eps_hat - s * x_t)
