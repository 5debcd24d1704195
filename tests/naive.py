"""Slow scalar twins of the ops, which judge the array code: textbook formulas, one number at a time.

The twins take and return nested lists of Python floats (`array.tolist()`, exact for float32 too). Where floats would cancel,
saturate or overflow they compute with 80 decimal digits instead of with a cleverer formula. A backward is the chain rule
written out: the sum over every output of its upstream gradient times its partial derivative.

Below the twins stand the comparisons that the test files share.

Shapes: B batch, I and J the widths of a layer, D data, L latent, S samples per datum, P parameters.
"""

import math
from decimal import Decimal, getcontext

import numpy as np

from npvae.gradcheck import complex_step_grad

getcontext().prec = 80  # 1 + e^−100 keeps 36 digits of e^−100


# ---- layers ----


def affine_forward(x, W, b):
    """x (B, I), W (I, J), b (J,) -> pre (B, J)."""
    pre = [[0.0] * len(b) for _ in x]
    for n in range(len(x)):
        for j in range(len(b)):
            pre[n][j] = math.fsum([b[j], *(x[n][i] * W[i][j] for i in range(len(W)))])
    return pre


def affine_backward(dpre, x, W):
    """dpre (B, J) -> dx (B, I), dW (I, J), db (J,): every pre[n][k] asked how it moves with every input."""
    dx = [[0.0] * len(W) for _ in x]
    dW = [[0.0] * len(row) for row in W]
    db = [0.0] * len(W[0])
    for n in range(len(x)):
        for k in range(len(W[0])):
            for i in range(len(W)):
                dx[n][i] += dpre[n][k] * W[i][k]  # ∂pre_nk/∂x_ni = W_ik
                dW[i][k] += dpre[n][k] * x[n][i]  # ∂pre_nk/∂W_ik = x_ni
            db[k] += dpre[n][k]  # ∂pre_nk/∂b_k = 1
    return dx, dW, db


def e_to(x):
    return Decimal(x).exp()


# name: (h(x), dh/dx), of one number, in Decimal
ACTIVATIONS = {
    "identity": (Decimal, lambda x: Decimal(1)),
    "relu": (lambda x: Decimal(max(x, 0.0)), lambda x: Decimal(1 if x > 0 else 0)),
    "tanh": (lambda x: (e_to(x) - e_to(-x)) / (e_to(x) + e_to(-x)), lambda x: 4 / (e_to(x) + e_to(-x)) ** 2),
    "sigmoid": (lambda x: 1 / (1 + e_to(-x)), lambda x: e_to(-x) / (1 + e_to(-x)) ** 2),
    "softplus": (lambda x: (1 + e_to(x)).ln(), lambda x: e_to(x) / (1 + e_to(x))),
    "silu": (
        lambda x: Decimal(x) / (1 + e_to(-x)),
        lambda x: (1 + e_to(-x) + Decimal(x) * e_to(-x)) / (1 + e_to(-x)) ** 2,
    ),
}


def activation_forward(name, pre):
    """pre (B, J) -> h (B, J)."""
    value, _ = ACTIVATIONS[name]
    return [[float(value(p)) for p in row] for row in pre]


def activation_backward(name, dh, pre):
    """dh (B, J) -> dpre (B, J)."""
    _, slope = ACTIVATIONS[name]
    return [[float(Decimal(d) * slope(p)) for d, p in zip(*rows)] for rows in zip(dh, pre)]


# ---- latent ----


def clip_forward(raw, low=-30.0, high=20.0):
    """raw (B, L) -> logvar (B, L)."""
    return [[min(max(r, low), high) for r in row] for row in raw]


def clip_backward(dlogvar, raw, low=-30.0, high=20.0):
    """dlogvar (B, L) -> draw (B, L)."""
    return [[d if low <= r <= high else 0.0 for d, r in zip(*rows)] for rows in zip(dlogvar, raw)]


def reparameterize_forward(mu, logvar, eps):
    """mu, logvar (B, L), eps (S, B, L) -> z (S, B, L): mean plus standard deviation times noise."""
    return [
        [[mu[n][l] + math.sqrt(math.exp(logvar[n][l])) * e[n][l] for l in range(len(mu[0]))] for n in range(len(mu))]
        for e in eps
    ]


def reparameterize_backward(dz, logvar, eps):
    """dz (S, B, L) -> dmu, dlogvar (B, L)."""
    dmu = [[0.0] * len(row) for row in logvar]
    dlogvar = [[0.0] * len(row) for row in logvar]
    for s in range(len(eps)):
        for n in range(len(logvar)):
            for l in range(len(logvar[0])):
                variance = math.exp(logvar[n][l])
                dmu[n][l] += dz[s][n][l]  # ∂z/∂mu = 1
                # ∂z/∂logvar = eps · dσ/dvariance · dvariance/dlogvar, with σ = √variance
                dlogvar[n][l] += dz[s][n][l] * eps[s][n][l] * (1 / (2 * math.sqrt(variance))) * variance
    return dmu, dlogvar


def kl_of_gaussians(mu1, variance1, mu2, variance2):
    """KL(N(mu1, variance1) ‖ N(mu2, variance2)) = log(σ2/σ1) + (σ1² + (mu1 − mu2)²)/(2 σ2²) − ½, of Decimals."""
    return (variance2 / variance1).ln() / 2 + (variance1 + (mu1 - mu2) ** 2) / (2 * variance2) - Decimal("0.5")


def gaussian_kl_forward(mu, logvar):
    """mu, logvar (B, L) -> kl (B, L), against N(0, 1)."""
    return [
        [float(kl_of_gaussians(Decimal(m), e_to(v), Decimal(0), Decimal(1))) for m, v in zip(*rows)] for rows in zip(mu, logvar)
    ]


def gaussian_kl_backward(dkl, mu, logvar):
    """dkl (B, L) -> dmu, dlogvar (B, L)."""
    dmu = [[d * m for d, m in zip(*rows)] for rows in zip(dkl, mu)]
    # ∂kl/∂variance · dvariance/dlogvar = (½ − 1/(2 variance)) · variance
    dlogvar = [
        [float(Decimal(d) * (Decimal("0.5") - 1 / (2 * e_to(v))) * e_to(v)) for d, v in zip(*rows)] for rows in zip(dkl, logvar)
    ]
    return dmu, dlogvar


# ---- likelihood ----


def bernoulli_nll_forward(logits, x):
    """logits, x (B, D) -> nll (B,): −Σ_d x log p + (1 − x) log(1 − p)."""
    nll = []
    for logits_row, x_row in zip(logits, x):
        total = Decimal(0)
        for l, target in zip(logits_row, x_row):
            p, q = 1 / (1 + e_to(-l)), 1 / (1 + e_to(l))  # q = 1 − p
            total -= Decimal(target) * p.ln() + (1 - Decimal(target)) * q.ln()
        nll.append(float(total))
    return nll


def bernoulli_nll_backward(dnll, logits, x):
    """dnll (B,) -> dlogits (B, D): ∂nll/∂p · dp/dlogit, with dp/dlogit = p (1 − p)."""
    dlogits = []
    for d, logits_row, x_row in zip(dnll, logits, x):
        row = []
        for l, target in zip(logits_row, x_row):
            p, q = 1 / (1 + e_to(-l)), 1 / (1 + e_to(l))
            row.append(float(Decimal(d) * (-Decimal(target) / p + (1 - Decimal(target)) / q) * p * q))
        dlogits.append(row)
    return dlogits


def gaussian_nll_forward(mean, x, variance):
    """mean, x (B, D) -> nll (B,): −Σ_d log of the normal density."""
    sigma = math.sqrt(variance)
    return [
        math.fsum(((t - m) / sigma) ** 2 / 2 + math.log(sigma * math.sqrt(2 * math.pi)) for m, t in zip(*rows))
        for rows in zip(mean, x)
    ]


def gaussian_nll_backward(dnll, mean, x, variance):
    """dnll (B,) -> dmean (B, D): with u = (x − mean)/σ, ∂nll/∂u · du/dmean = u · (−1/σ)."""
    sigma = math.sqrt(variance)
    return [[d * ((t - m) / sigma) * (-1 / sigma) for m, t in zip(*rows)] for d, *rows in zip(dnll, mean, x)]


# ---- optim: each takes all gradients (steps, P) and returns the parameters after the last step (P,) ----


def sgd(theta, grads, learning_rate):
    theta = list(theta)
    for grad in grads:
        for i, g in enumerate(grad):
            theta[i] = theta[i] - learning_rate * g
    return theta


def momentum(theta, grads, learning_rate, momentum):
    theta, velocity = list(theta), [0.0] * len(theta)
    for grad in grads:
        for i, g in enumerate(grad):
            velocity[i] = momentum * velocity[i] + learning_rate * g
            theta[i] = theta[i] - velocity[i]
    return theta


def adagrad(theta, grads, learning_rate, epsilon):
    theta = list(theta)
    for step, grad in enumerate(grads):
        for i, g in enumerate(grad):
            squares = math.fsum(past[i] ** 2 for past in grads[: step + 1])
            theta[i] = theta[i] - learning_rate * g / (math.sqrt(squares) + epsilon)
    return theta


def rmsprop(theta, grads, learning_rate, decay, epsilon):
    theta, mean_square = list(theta), [0.0] * len(theta)
    for grad in grads:
        for i, g in enumerate(grad):
            mean_square[i] = decay * mean_square[i] + (1 - decay) * g**2
            theta[i] = theta[i] - learning_rate * g / (math.sqrt(mean_square[i]) + epsilon)
    return theta


def adam(theta, grads, learning_rate, beta1, beta2, epsilon):
    """The moments as the weighted sums of all past gradients that Kingma & Ba's recurrences unroll to (their equation 1)."""
    theta = list(theta)
    for t in range(1, len(grads) + 1):
        for i in range(len(theta)):
            m = math.fsum((1 - beta1) * beta1 ** (t - s) * grads[s - 1][i] for s in range(1, t + 1))
            v = math.fsum((1 - beta2) * beta2 ** (t - s) * grads[s - 1][i] ** 2 for s in range(1, t + 1))
            m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
            theta[i] = theta[i] - learning_rate * m_hat / (math.sqrt(v_hat) + epsilon)
    return theta


# ---- the numerical derivative that needs no complex numbers ----


def central_difference_grad(f, x, h=1e-5):
    """df/dx, shape of x, from real function values only, to about nine digits."""
    grad = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += h
        below[i] -= h
        grad[i] = (f(above) - f(below)) / (above[i] - below[i])
    return grad


# ---- comparisons and inputs ----

TOLERANCE = {"float64": 1e-13, "float32": 2e-6}
LAYOUTS = ("C", "Fortran", "strided")


def draw(rng, shape, dtype="float64", layout="C"):
    """Standard normal numbers; "strided" is a view that skips every second number of a longer array."""
    values = rng.standard_normal(shape).astype(dtype)
    if layout == "strided":
        return np.repeat(values, 2, axis=-1)[..., ::2]
    return np.array(values, order=layout[0])


def per_sample(twin, arrays, x, *rest):
    """A twin of (B, D) arrays applied to each of the S samples, over the same x."""
    if x.ndim == arrays[-1].ndim:
        return twin(*(a.tolist() for a in arrays), x.tolist(), *rest)
    return [twin(*(a[s].tolist() for a in arrays), x.tolist(), *rest) for s in range(len(arrays[-1]))]


def assert_close(actual, expected, dtype="float64", tolerance=None):
    """Same shape, the dtype asked for, and no difference above the dtype's tolerance times the largest entry."""
    expected = np.array(expected)
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def assert_is_gradient(grad, f, x):
    """`grad` is df/dx, by two numerical derivatives that share nothing with the formula nor with each other."""
    assert_close(grad, complex_step_grad(f, x), tolerance=1e-12)
    assert_close(grad, central_difference_grad(f, x), tolerance=1e-6)


def assert_pure_and_linear(forward, inputs, backward, douts, may_alias=False):
    """The contract of every pair: forward(*inputs) -> out, cache and backward(*douts, cache) -> one gradient or several.

    Everything handed over is read-only, so that any write into it raises.
    """
    kept = [array for array in (*inputs, *douts) if isinstance(array, np.ndarray)]
    freeze(kept)
    out, cache = forward(*inputs)
    freeze(cache)
    grads = as_tuple(backward(*douts, cache))

    again = as_tuple(backward(*douts, cache))
    zero = as_tuple(backward(*(0 * dout for dout in douts), cache))
    flipped = as_tuple(backward(*(dout[::-1] for dout in douts), cache))
    combined = as_tuple(backward(*(dout + 2 * dout[::-1] for dout in douts), cache))
    for grad, same, nothing, other, both in zip(grads, again, zero, flipped, combined):
        assert grad.tobytes() == same.tobytes()
        assert not nothing.any()
        assert_close(both, grad + 2 * other)
    if not may_alias:
        outs = [array for array in as_tuple(out) if isinstance(array, np.ndarray)]
        assert not any(np.shares_memory(result, array) for result in (*outs, *grads) for array in kept)
        assert not any(np.shares_memory(grad, array) for grad in grads for array in outs)


def as_tuple(values):
    return values if isinstance(values, tuple) else (values,)


def freeze(values):
    """Make every array in nested tuples or lists read-only."""
    if isinstance(values, np.ndarray):
        values.flags.writeable = False
    elif isinstance(values, (tuple, list)):
        for value in values:
            freeze(value)


# ---- Gaussians with full covariance, pairs of Gaussians, Gaussian likelihoods with learned variances ----


def cholesky_factor(logvar, below):
    """logvar (B, L), below (B, L (L − 1)/2) -> factor (B, L, L), row by row."""
    factors = []
    for v, entries in zip(logvar, below):
        entries, factor = list(entries), []
        for l in range(len(v)):
            row = [entries.pop(0) for _ in range(l)] + [math.sqrt(math.exp(v[l]))]
            factor.append(row + [0.0] * (len(v) - len(row)))
        factors.append(factor)
    return factors


def full_sample_forward(mu, factor, eps):
    """mu (B, L), factor (B, L, L), eps (S, B, L) -> z (S, B, L)."""
    z = []
    for noise in eps:
        z.append([])
        for m, F, e in zip(mu, factor, noise):
            z[-1].append([math.fsum([m[l], *(F[l][k] * e[k] for k in range(l + 1))]) for l in range(len(m))])
    return z


def covariance_of(factor):
    """factor (L, L) -> F Fᵀ (L, L), in Decimal."""
    return [[sum(Decimal(a) * Decimal(b) for a, b in zip(row, other)) for other in factor] for row in factor]


def inverse_and_determinant(A):
    """Of a positive definite matrix of Decimals, by Gauss-Jordan elimination."""
    n, determinant = len(A), Decimal(1)
    rows = [list(A[i]) + [Decimal(i == j) for j in range(n)] for i in range(n)]
    for i in range(n):
        pivot = rows[i][i]
        determinant *= pivot
        rows[i] = [value / pivot for value in rows[i]]
        for j in range(n):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i])]
    return [row[n:] for row in rows], determinant


def kl_of_full_gaussians(mu0, covariance0, mu1, covariance1):
    """½ (tr(Σ1⁻¹ Σ0) + (mu0 − mu1)ᵀ Σ1⁻¹ (mu0 − mu1) − k + log(det Σ1/det Σ0)) of Decimals."""
    n, (inverse, determinant1), (_, determinant0) = len(mu0), *map(inverse_and_determinant, (covariance1, covariance0))
    trace = sum(inverse[i][j] * covariance0[j][i] for i in range(n) for j in range(n))
    distance = sum((mu0[i] - mu1[i]) * inverse[i][j] * (mu0[j] - mu1[j]) for i in range(n) for j in range(n))
    return (trace + distance - n + (determinant1 / determinant0).ln()) / 2


def full_pair_kl_forward(mu_q, factor_q, mu_p, factor_p):
    """mu (B, L), factor (B, L, L) of q and p -> kl (B, L): what each dimension adds to the divergence of those before it."""
    kl = []
    for mq, Fq, mp, Fp in zip(mu_q, factor_q, mu_p, factor_p):
        mq, mp = [Decimal(m) for m in mq], [Decimal(m) for m in mp]
        Cq, Cp = covariance_of(Fq), covariance_of(Fp)
        of_first = [Decimal(0)]
        for n in range(1, len(mq) + 1):
            leading_q, leading_p = ([row[:n] for row in C[:n]] for C in (Cq, Cp))
            of_first.append(kl_of_full_gaussians(mq[:n], leading_q, mp[:n], leading_p))
        kl.append([float(of_first[n + 1] - of_first[n]) for n in range(len(mq))])
    return kl


def pair_kl_forward(mu_q, logvar_q, mu_p, logvar_p):
    """All (B, L) -> kl (B, L)."""
    return [
        [float(kl_of_gaussians(Decimal(mq), e_to(vq), Decimal(mp), e_to(vp))) for mq, vq, mp, vp in zip(*rows)]
        for rows in zip(mu_q, logvar_q, mu_p, logvar_p)
    ]


def pair_kl_backward(dkl, mu_q, logvar_q, mu_p, logvar_p):
    """dkl (B, L) -> dmu_q, dlogvar_q, dmu_p, dlogvar_p (B, L): through the variances, ∂kl/∂variance · variance."""
    grads = [[], [], [], []]
    for rows in zip(dkl, mu_q, logvar_q, mu_p, logvar_p):
        entries = []
        for d, mq, lq, mp, lp in zip(*rows):
            d, vq, vp, distance = Decimal(d), e_to(lq), e_to(lp), Decimal(mq) - Decimal(mp)
            by_vq, by_vp = (1 / vp - 1 / vq) / 2, (1 / vp - (vq + distance**2) / vp**2) / 2
            entries.append([float(d * g) for g in (distance / vp, by_vq * vq, -distance / vp, by_vp * vp)])
        for grad, column in zip(grads, zip(*entries)):
            grad.append(list(column))
    return grads


def gaussian_learned_nll_forward(output, x, low):
    """output (B, 2D), x (B, D) -> nll (B,): −Σ_d log of the normal density, its log-variance between low and 20."""
    D = len(x[0])
    logvar = clip_forward([row[D:] for row in output], low)
    return [
        math.fsum(gaussian_nll_forward([[m]], [[t]], math.exp(v))[0] for m, v, t in zip(row, *rows))
        for row, *rows in zip(output, logvar, x)
    ]


def gaussian_learned_nll_backward(dnll, output, x, low):
    """dnll (B,) -> doutput (B, 2D): ∂nll/∂variance · variance, ∂nll/∂variance = ½ (1/variance − (x − mean)²/variance²)."""
    D = len(x[0])
    raw = [row[D:] for row in output]
    logvar = clip_forward(raw, low)
    dmean, dlogvar = [], []
    for d, row, v_row, x_row in zip(dnll, output, logvar, x):
        variances = [math.exp(v) for v in v_row]
        dmean.append([d * (m - t) / s for m, t, s in zip(row, x_row, variances)])
        dlogvar.append([d * (1 / s - (t - m) ** 2 / s**2) / 2 * s for m, t, s in zip(row, x_row, variances)])
    return [m + v for m, v in zip(dmean, clip_backward(dlogvar, raw, low))]


# ---- a latent whose prior is a network's output ----


def mean_and_variance(output):
    """output (B, 2L) -> mean, variance and ∂variance/∂raw log-variance (0 where it is clipped), (B, L) of Decimals."""
    L = len(output[0]) // 2
    raw = [row[L:] for row in output]
    variance = [[e_to(v) for v in row] for row in clip_forward(raw)]
    slope = [[v if -30 <= r <= 20 else Decimal(0) for v, r in zip(*rows)] for rows in zip(variance, raw)]
    return [[Decimal(m) for m in row[:L]] for row in output], variance, slope


def log_density(z, mean, variance):
    """log N(z; mean, variance) of Decimals, without the constant −½ log 2π."""
    return -((z - mean) ** 2 / variance + variance.ln()) / 2


def prior_latent_sampled_forward(posterior, prior, eps):
    """posterior, prior (B, 2L), eps (S, B, L) -> z, log q(z)/p(z) (S, B, L)."""
    (mean_q, variance_q, _), (mean_p, variance_p, _) = mean_and_variance(posterior), mean_and_variance(prior)
    z, kl = [], []
    for noise in eps:
        z.append([])
        kl.append([])
        for e, mq, vq, mp, vp in zip(noise, mean_q, variance_q, mean_p, variance_p):
            values = [m + v.sqrt() * Decimal(n) for m, v, n in zip(mq, vq, e)]
            z[-1].append([float(value) for value in values])
            kl[-1].append([float(log_density(value, *q) - log_density(value, *p))
                           for value, q, p in zip(values, zip(mq, vq), zip(mp, vp))])  # fmt: skip
    return z, kl


def prior_latent_sampled_backward(dz, dkl, posterior, prior, eps):
    """dz, dkl (S, B, L) -> dposterior, dprior (B, 2L): log q(z)/p(z) depends on z, on q's mean and variance, and on p's."""
    (mean_q, variance_q, slope_q), (mean_p, variance_p, slope_p) = mean_and_variance(posterior), mean_and_variance(prior)
    L = len(mean_q[0])
    dposterior, dprior = ([[Decimal(0)] * (2 * L) for _ in mean_q] for _ in range(2))
    for s in range(len(eps)):
        for n in range(len(mean_q)):
            for l in range(L):
                vq, vp, e, d = variance_q[n][l], variance_p[n][l], Decimal(eps[s][n][l]), Decimal(dkl[s][n][l])
                from_q = vq.sqrt() * e  # z − mean_q
                from_p = mean_q[n][l] + from_q - mean_p[n][l]  # z − mean_p
                of_z = Decimal(dz[s][n][l]) + d * (from_p / vp - from_q / vq)
                dposterior[n][l] += of_z + d * from_q / vq
                # ∂z/∂variance = e/(2σ), ∂log density/∂variance = ½ ((z − mean)²/variance² − 1/variance)
                of_variance = of_z * e / (2 * vq.sqrt()) + d * (from_q**2 / vq**2 - 1 / vq) / 2
                dposterior[n][L + l] += of_variance * slope_q[n][l]
                dprior[n][l] -= d * from_p / vp
                dprior[n][L + l] -= d * (from_p**2 / vp**2 - 1 / vp) / 2 * slope_p[n][l]
    return [[[float(value) for value in row] for row in grad] for grad in (dposterior, dprior)]


# ---- discrete ----


def categorical_nll_forward(logits, x):
    """logits (B, D K), x (B, D) -> nll (B,): −Σ_d log of e^l_x / Σ_k e^l_k."""
    nll = []
    for logits_row, x_row in zip(logits, x):
        total, n_levels = Decimal(0), len(logits_row) // len(x_row)
        for d, level in enumerate(x_row):
            weights = [e_to(l) for l in logits_row[d * n_levels : (d + 1) * n_levels]]
            total -= (weights[int(level)] / sum(weights)).ln()
        nll.append(float(total))
    return nll


def categorical_nll_backward(dnll, logits, x):
    """dnll (B,) -> dlogits (B, D K): ∂nll/∂p_x · ∂p_x/∂l_k = −1/p_x · p_x (1[k = x] − p_k)."""
    dlogits = []
    for dout, logits_row, x_row in zip(dnll, logits, x):
        row, n_levels = [], len(logits_row) // len(x_row)
        for d, level in enumerate(x_row):
            weights = [e_to(l) for l in logits_row[d * n_levels : (d + 1) * n_levels]]
            p = [w / sum(weights) for w in weights]
            row += [float(-Decimal(dout) / p[int(level)] * p[int(level)] * ((k == level) - p[k])) for k in range(n_levels)]
        dlogits.append(row)
    return dlogits


def rising(a, k):
    """Γ(a + k)/Γ(a) = a (a + 1) … (a + k − 1), of a Decimal."""
    return math.prod((a + j for j in range(int(k))), start=Decimal(1))


def sum_of_reciprocals(a, k, power=1):
    """1/a^power + … + 1/(a + k − 1)^power, of a Decimal: for power 1 it is ψ(a + k) − ψ(a)."""
    return sum((1 / (a + j) ** power for j in range(int(k))), start=Decimal(0))


def beta_binomial_probability(log_alpha, log_beta, level, n):
    """C(n, x) · α (α + 1) … (α + x − 1) · β … (β + n − x − 1) / (α + β) … (α + β + n − 1), a Decimal."""
    alpha, beta = e_to(log_alpha), e_to(log_beta)
    return math.comb(n, int(level)) * rising(alpha, level) * rising(beta, n - level) / rising(alpha + beta, n)


def beta_binomial_nll_forward(output, x, n=255):
    """output (B, 2D), x (B, D) -> nll (B,): −Σ_d log of the probability; the parameters are not clipped here."""
    nll = []
    for row, levels in zip(output, x):
        pixels = zip(row[: len(levels)], row[len(levels) :], levels)
        nll.append(float(-sum(beta_binomial_probability(a, b, level, n).ln() for a, b, level in pixels)))
    return nll


def beta_binomial_nll_backward(dnll, output, x, n=255):
    """dnll (B,) -> doutput (B, 2D): ∂nll/∂α · α and ∂nll/∂β · β, by the derivative of each factor's logarithm."""
    doutput = []
    for d, row, levels in zip(dnll, output, x):
        dlog_alpha, dlog_beta = [], []
        for log_alpha, log_beta, level in zip(row[: len(levels)], row[len(levels) :], levels):
            alpha, beta = e_to(log_alpha), e_to(log_beta)
            of_all = sum_of_reciprocals(alpha + beta, n)
            dlog_alpha.append(float(Decimal(d) * (of_all - sum_of_reciprocals(alpha, level)) * alpha))
            dlog_beta.append(float(Decimal(d) * (of_all - sum_of_reciprocals(beta, n - level)) * beta))
        doutput.append(dlog_alpha + dlog_beta)
    return doutput


# ---- convolution ----


def pixel(u, v, rows, columns, periodic):
    """Where (u, v) lies on an image: on itself, on the other side of a periodic one, or nowhere (None)."""
    if periodic:
        return u % rows, v % columns
    return (u, v) if 0 <= u < rows and 0 <= v < columns else None


def convolution_forward(x, W, b, stride, before, after, periodic):
    """x (B, Y, X, I), W (K, K, I, O), b (O,) -> pre (B, Y', X', O)."""
    K, rows, columns = len(W), len(x[0]), len(x[0][0])
    pre = []
    for image in x:
        pre.append([])
        for top in range(-before, rows + after - K + 1, stride):
            pre[-1].append([])
            for left in range(-before, columns + after - K + 1, stride):
                terms = [[value] for value in b]
                for i in range(K):
                    for j in range(K):
                        place = pixel(top + i, left + j, rows, columns, periodic)
                        for c in range(len(W[0][0]) if place else 0):
                            for o in range(len(b)):
                                terms[o].append(image[place[0]][place[1]][c] * W[i][j][c][o])
                pre[-1][-1].append([math.fsum(t) for t in terms])
    return pre


def convolution_backward(dpre, x, W, stride, before, periodic):
    """dpre (B, Y', X', O) -> dx (B, Y, X, I), dW (K, K, I, O), db (O,): every product of the forward pass, from both sides."""
    K, rows, columns, n_in, n_out = len(W), len(x[0]), len(x[0][0]), len(W[0][0]), len(W[0][0][0])
    dx = [[[[0.0] * n_in for _ in range(columns)] for _ in range(rows)] for _ in x]
    dW = [[[[0.0] * n_out for _ in range(n_in)] for _ in range(K)] for _ in range(K)]
    db = [0.0] * n_out
    for n, image in enumerate(dpre):
        for y, row in enumerate(image):
            for v, pixels in enumerate(row):
                for o, d in enumerate(pixels):
                    db[o] += d
                    for i in range(K):
                        for j in range(K):
                            place = pixel(y * stride + i - before, v * stride + j - before, rows, columns, periodic)
                            for c in range(n_in if place else 0):
                                dx[n][place[0]][place[1]][c] += d * W[i][j][c][o]
                                dW[i][j][c][o] += d * x[n][place[0]][place[1]][c]
    return dx, dW, db


def transposed_convolution_forward(x, W, b, stride, before, after, periodic):
    """x (B, Y, X, I), W (I, K, K, O), b (O,) -> pre (B, Y', X', O): each pixel painted, one after the other."""
    K, n_out = len(W[0]), len(b)
    rows, columns = ((n - 1) * stride + K - before - after for n in (len(x[0]), len(x[0][0])))
    pre = [[[list(b) for _ in range(columns)] for _ in range(rows)] for _ in x]
    for n, image in enumerate(x):
        for y, row in enumerate(image):
            for v, pixels in enumerate(row):
                for c, value in enumerate(pixels):
                    for i in range(K):
                        for j in range(K):
                            place = pixel(y * stride + i - before, v * stride + j - before, rows, columns, periodic)
                            for o in range(n_out if place else 0):
                                pre[n][place[0]][place[1]][o] += value * W[c][i][j][o]
    return pre


def transposed_convolution_backward(dpre, x, W, stride, before, periodic):
    """dpre (B, Y', X', O) -> dx (B, Y, X, I), dW (I, K, K, O), db (O,)."""
    K, rows, columns, n_out = len(W[0]), len(dpre[0]), len(dpre[0][0]), len(W[0][0][0])
    dx = [[[[0.0] * len(W) for _ in row] for row in image] for image in x]
    dW = [[[[0.0] * n_out for _ in range(K)] for _ in range(K)] for _ in W]
    for n, image in enumerate(x):
        for y, row in enumerate(image):
            for v, pixels in enumerate(row):
                for c, value in enumerate(pixels):
                    for i in range(K):
                        for j in range(K):
                            place = pixel(y * stride + i - before, v * stride + j - before, rows, columns, periodic)
                            for o in range(n_out if place else 0):
                                dx[n][y][v][c] += dpre[n][place[0]][place[1]][o] * W[c][i][j][o]
                                dW[c][i][j][o] += dpre[n][place[0]][place[1]][o] * value
    db = [math.fsum(pixels[o] for image in dpre for row in image for pixels in row) for o in range(n_out)]
    return dx, dW, db


def assert_is_the_complex_step(example):
    """The gradient of an Example of `npvae.models.protocol`, with the batch (x,), is that of the complex step, by entries."""
    model, (x,), settings = example.model, example.batch, example.settings
    noise = model.draw(np.random.default_rng(0), x, **settings)
    twin, expected = model.copy(dtype="complex128"), np.empty(model.theta.size)
    for k in range(expected.size):
        twin.theta[k] += 1e-20j
        expected[k] = twin.forward(x, noise, **settings)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    grads = model.backward(model.forward(x, noise, **settings)[1])
    assert_close(np.concatenate([grads[name].ravel() for name in model.parameters]), expected, tolerance=1e-12)
