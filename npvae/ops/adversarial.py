"""What the two networks of a generative adversarial network minimise: losses of the critic, of the generator, and the penalty
on the critic's slope.

A generator makes samples G(z) of noise z, and a critic f gives each datum and each sample a number, large for data. Each loss
is a function of these numbers, row by row: a = f(x) of data, b = f(G(z)) of samples, and the mean over the batch is minimised.

                     critic                  generator
    minimax          −log σ(a) − log σ(−b)   log σ(−b)    Goodfellow et al. 2014, equation 1
    non-saturating   the same                −log σ(b)    ibid., section 3
    Wasserstein      b − a                   −b           Arjovsky, Chintala & Bottou 2017, equations 2 and 3

In the first two a and b are logits, σ(a) the probability that x is a datum. For densities p of the data and q of the samples
the critic's loss is least at a = log p/q, and is there

    −E_p[log p/(p + q)] − E_q[log q/(p + q)] = log 4 − 2 JSD(p, q),

JSD the Jensen–Shannon divergence (ibid., theorem 1). In the third the critic's loss is at least −W(p, q), W the Wasserstein-1
distance, for every f whose slope is at most 1, and equal to it for the best of these (duality of Kantorovich and Rubinstein).

See `npvae.ops.layers` for how to read a pair. Shapes: B batch, D data.
"""

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.layers import sigmoid_and_complement, softplus_forward

# ---- the critic ----


def logistic_critic_forward(of_data, of_samples):
    """−log σ(a) − log σ(−b) = log(1 + e^−a) + log(1 + e^b), exact at logits of any size: (B,), (B,) -> (B,) in nats.

    (LOGISTIC-data)     dof_data = −dloss σ(−a)
    (LOGISTIC-samples)  dof_samples = dloss σ(b)
    """
    return softplus_forward(-of_data)[0] + softplus_forward(of_samples)[0], (of_data, of_samples)


def logistic_critic_backward(dloss, cache):
    """Backward of −log σ(a) − log σ(−b): dloss (B,) -> dof_data, dof_samples, (B,) each."""
    of_data, of_samples = cache
    dof_data = -dloss * sigmoid_and_complement(of_data)[1]  # (LOGISTIC-data)
    dof_samples = dloss * sigmoid_and_complement(of_samples)[0]  # (LOGISTIC-samples)
    return dof_data, dof_samples


def wasserstein_critic_forward(of_data, of_samples):
    """b − a: (B,), (B,) -> (B,), in the units of the data where the critic's slope is at most 1.

    (WASSERSTEIN-data)     dof_data = −dloss
    (WASSERSTEIN-samples)  dof_samples = dloss
    """
    return of_samples - of_data, None


def wasserstein_critic_backward(dloss, cache):
    """Backward of b − a: dloss (B,) -> dof_data, dof_samples, (B,) each."""
    dof_data = -dloss  # (WASSERSTEIN-data)
    dof_samples = dloss.copy()  # (WASSERSTEIN-samples)
    return dof_data, dof_samples


# ---- the generator ----


def minimax_generator_forward(of_samples):
    """log σ(−b) = −log(1 + e^b), the part of −(the critic's loss) that the samples have a share in: (B,) -> (B,) in nats.

    (MINIMAX)  dof_samples = −dloss σ(b)

    Where the critic knows a sample, b ≪ 0, this gradient vanishes: the loss saturates.
    """
    return -softplus_forward(of_samples)[0], of_samples


def minimax_generator_backward(dloss, cache):
    """Backward of log σ(−b): dloss (B,) -> dof_samples (B,)."""
    of_samples = cache
    return -dloss * sigmoid_and_complement(of_samples)[0]  # (MINIMAX)


def non_saturating_generator_forward(of_samples):
    """−log σ(b) = log(1 + e^−b): (B,) -> (B,) in nats. Its gradient has the sign of the minimax loss's, and vanishes where
    samples are taken for data instead.

    (SATURATING)  dof_samples = −dloss σ(−b)
    """
    return softplus_forward(-of_samples)[0], of_samples


def non_saturating_generator_backward(dloss, cache):
    """Backward of −log σ(b): dloss (B,) -> dof_samples (B,)."""
    of_samples = cache
    return -dloss * sigmoid_and_complement(of_samples)[1]  # (SATURATING)


def wasserstein_generator_forward(of_samples):
    """−b: (B,) -> (B,).

    (WASSERSTEIN-generator)  dof_samples = −dloss
    """
    return -of_samples, None


def wasserstein_generator_backward(dloss, cache):
    """Backward of −b: dloss (B,) -> dof_samples (B,)."""
    return -dloss  # (WASSERSTEIN-generator)


LOGISTIC = logistic_critic_forward, logistic_critic_backward
WASSERSTEIN = wasserstein_critic_forward, wasserstein_critic_backward
CRITICS = {"minimax": LOGISTIC, "non_saturating": LOGISTIC, "wasserstein": WASSERSTEIN, "wasserstein_penalty": WASSERSTEIN}
GENERATORS = {
    "minimax": (minimax_generator_forward, minimax_generator_backward),
    "non_saturating": (non_saturating_generator_forward, non_saturating_generator_backward),
    "wasserstein": (wasserstein_generator_forward, wasserstein_generator_backward),
    "wasserstein_penalty": (wasserstein_generator_forward, wasserstein_generator_backward),
}


# ---- the penalty on the critic's slope ----


def between(x, samples, u):
    """Points u x + (1 − u) x⁻ on the lines from samples x⁻ to data x, where the slope is penalised: x, samples (B, D), u (B,)
    uniform in [0, 1] -> (B, D)."""
    return samples + u[:, None] * (x - samples)


def slope_penalty_forward(score, weight):
    """λ (‖∂f/∂x‖ − 1)², which holds the critic's slope near 1: score = ±∂f/∂x (B, D) -> (B,). Gulrajani et al. 2017,
    equation 3.

    With d‖s‖ = s·ds/‖s‖, and the subgradient 0 at s = 0,
    (SLOPE)  dscore = 2 λ dloss (1 − 1/‖s‖) s.
    The score is a derivative already, so that the gradient with respect to the critic's weights is a mixed second derivative of
    f: dscore goes on through `npvae.ops.energy.score_backward`, backward through the backward pass.
    """
    slope = np.sqrt((score * score).sum(axis=1, dtype=accumulator(score)))  # (B, D) -> (B,)
    return weight * (slope - 1) * (slope - 1), (score, slope, weight)


def slope_penalty_backward(dloss, cache):
    """Backward of λ (‖s‖ − 1)²: dloss (B,) -> dscore (B, D)."""
    score, slope, weight = cache
    inverse = np.where(slope.real > 0, 1 / np.where(slope.real > 0, slope, 1), 1)  # 1: no gradient where there is no slope
    factor = 2 * weight * dloss * (1 - inverse)  # (SLOPE)
    return factor[:, None].astype(score.dtype, copy=False) * score
