# %% [markdown]
# # 08 How far the ELBO lies below log p(x)
#
# **Why.** A VAE maximises the ELBO because log p(x) cannot be computed. How much is lost? The answer is an identity, log p(x) −
# ELBO = KL(q ‖ p(z|x)), but in a VAE neither side of it is known. Here is a model in which all three numbers are: probabilistic
# PCA, a VAE whose decoder is one affine map (Tipping & Bishop 1999).
#
# **Read before.** Lessons 06 and 07; sections 3 and 4 of the derivation in examples/README.md; `npvae/models/ppca.py`. Lectures
# (2025), "Central equation of VAEs"; Shiu, "Probability Model Perspective": lecture notes that examples/README.md names.
#
# **Prediction.** The identity holds to rounding for any q. If q must be a product over the latent dimensions, as in a VAE, and
# the posterior has correlation −0.8, then the best q is log(5/3) = 0.5108 nats below log p(x), whatever x is.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae import ppca
from npvae.ops.latent import gaussian_kl_backward, gaussian_kl_forward
from npvae.ops.layers import affine_backward, affine_forward
from npvae.ops.likelihood import gaussian_nll_backward, gaussian_nll_forward

rng = np.random.default_rng(8)

# %% [markdown]
# ## The model, and log p(x)
#
# p(z) = N(0, I) with L = 2, and p(x|z) = N(z W + b, σ² I) with D = 3. x is then a sum of Gaussians, so p(x) = N(b, Wᵀ W + σ²
# I). We draw one x of the model.

# %%
W = np.array([[2.0, 2.0, 1.0], [2.0, 1.0, 2.0]])  # (L, D)
b, sigma = np.array([0.5, 0.0, -0.5]), 1.0
L, D = W.shape
x = rng.standard_normal((1, L)) @ W + b + sigma * rng.standard_normal((1, D))  # (1, D)
log_p = ppca.log_likelihood(ppca.PPCA(W, b, sigma), x)[0]

# %% [markdown]
# ## The posterior
#
# Bayes: p(z|x) is p(z) p(x|z) but for a factor. As a function of z,
#
#     log p(z) + log p(x|z) = −½ z zᵀ − ½ |x − b − z W|²/σ² + const
#                           = −½ z (I + W Wᵀ/σ²) zᵀ + z W (x − b)ᵀ/σ² + const
#
# This is a Gaussian in z. Its inverse covariance is the matrix of the quadratic term, and its mean is where the slope is zero.
# The covariance does not depend on x.

# %%
precision = np.eye(L) + W @ W.T / sigma**2  # (L, D) @ (D, L) -> (L, L)
covariance = np.linalg.inv(precision)
posterior_mean = (x - b) @ W.T @ covariance / sigma**2  # (1, D) @ (D, L) @ (L, L) -> (1, L)
correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
print(f"log p(x) {log_p:.4f} nats; posterior correlation {correlation:.2f}; precision {precision.tolist()}")

# %% [markdown]
# ## The ELBO and the gap, for any Gaussian q = N(m, C)
#
# Both follow from E_q[z A zᵀ] = m A mᵀ + trace(A C):
#
#     E_q[nll]     = ½ (|x − b − m W|² + trace(W Wᵀ C))/σ² + ½ D log 2πσ²
#     KL(q ‖ p(z)) = ½ (m mᵀ + trace(C) − L − log det C)
#     ELBO         = −E_q[nll] − KL(q ‖ p(z))
#
# and with the posterior's mean and precision P in place of the prior's
#
#     KL(q ‖ p(z|x)) = ½ ((m − mean) P (m − mean)ᵀ + trace(P C) − L − log det(P C))
#
# log p(x), the ELBO and this KL are computed separately. We try 1000 random q, good and bad.


# %%
def kl_from(m, C, mean, P):
    """KL(N(m, C) ‖ N(mean, P⁻¹)): m, mean (1, L), C, P (L, L)."""
    distance = ((m - mean) @ P @ (m - mean).T).item()
    return 0.5 * (distance + np.trace(P @ C) - L - np.linalg.slogdet(P @ C)[1])


def elbo(m, C):
    residual = x - b - m @ W  # (1, L) @ (L, D) -> (1, D)
    nll = 0.5 * ((residual**2).sum() + np.trace(W @ W.T @ C)) / sigma**2 + 0.5 * D * np.log(2 * np.pi * sigma**2)
    return -nll - kl_from(m, C, np.zeros((1, L)), np.eye(L))


worst = 0
for _ in range(1000):
    m, A = rng.standard_normal((1, L)), rng.standard_normal((L, L))
    C = A @ A.T + 0.01 * np.eye(L)
    gap = kl_from(m, C, posterior_mean, precision)
    worst = max(worst, abs(log_p - elbo(m, C) - gap) / (1 + gap))
print(f"log p(x) = ELBO + KL(q ‖ p(z|x)): largest relative error of 1000 random q {worst:.0e}")
assert worst < 1e-12

# %% [markdown]
# ## The best q without correlations
#
# The encoder of a VAE gives mu and logvar of each latent dimension and no correlations: C = diag(σ_1², σ_2²). In the gap, the
# only terms with σ_l² are ½ P_ll σ_l² − ½ log σ_l². The slope is zero at σ_l² = 1/P_ll, where trace(P C) = L, so that
#
#     gap = ½ log(P_11 P_22/det P) = −½ log(1 − correlation²) = −½ log 0.36 = log(5/3)
#
# Now let gradient descent find it, and not by that formula: with the backward passes of the package, as a VAE's encoder would
# be trained. mu and logvar both receive two gradients, from the nll and from the KL.

# %%
mu, logvar = np.zeros((1, L)), np.zeros((1, L))
one, square = np.ones(1), (W**2).sum(axis=1) / sigma**2  # (L,), the diagonal of W Wᵀ/σ²
for _ in range(800):
    mean, affine_cache = affine_forward(mu, W, b)  # (1, L) -> (1, D)
    nll, nll_cache = gaussian_nll_forward(mean, x, sigma**2)  # -> (1,)
    spread = 0.5 * (np.exp(logvar) * square).sum()  # E_q adds ½ trace(W Wᵀ C)/σ² to the nll at the mean
    kl, kl_cache = gaussian_kl_forward(mu, logvar)  # -> (1, L)

    dmu_kl, dlogvar_kl = gaussian_kl_backward(np.ones_like(kl), kl_cache)  # loss = nll + spread + kl.sum()
    dlogvar_nll = 0.5 * np.exp(logvar) * square  # spread = 0.5 * (np.exp(logvar) * square).sum()
    dmean = gaussian_nll_backward(one, nll_cache)  # nll = 0.5 * (mean - x)**2 / sigma**2 + const
    dmu_nll, _, _ = affine_backward(dmean, affine_cache)  # mean = mu @ W + b
    mu = mu - 0.1 * (dmu_nll + dmu_kl)
    logvar = logvar - 0.1 * (dlogvar_nll + dlogvar_kl)
best_elbo = -(nll[0] + spread + kl.sum())
print(f"best q without correlations: σ² {np.exp(logvar).ravel().round(4)}, ELBO {best_elbo:.4f}")
assert np.allclose(mu, posterior_mean, atol=1e-9)  # the mean is right, the variances 1/P_ll are too small
assert np.allclose(np.exp(logvar), 1 / np.diag(precision), atol=1e-9)
print(f"variances of the posterior itself: {np.diag(covariance).round(4)}")

# %% [markdown]
# ## Turning the latent axes
#
# z is only known through x. If z is turned by a rotation R, and W with it, then p(x) is the same. But the posterior turns too,
# and so the gap of a q without correlations changes. It is zero where the rows of W are at right angles. Our W is as far from
# that as can be, 45 degrees. A VAE trains its decoder as well, and a turn that closes the gap makes its loss smaller. So at the
# maximum of the ELBO a linear VAE has the principal axes themselves, and not just the plane that they span (Lucas et al. 2019).

# %%
degrees = np.linspace(0, 90, 91)
gaps = []
for angle in np.radians(degrees):
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    P = np.eye(L) + R @ W @ W.T @ R.T / sigma**2  # the posterior's precision for the decoder R W
    gaps.append(0.5 * np.log(P[0, 0] * P[1, 1] / np.linalg.det(P)))
assert min(gaps) < 1e-12

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
shift = np.linspace(-0.7, 0.7, 71)
steps = [np.add(posterior_mean, [[s, 0]]) for s in shift]
left.axhline(log_p, color="black", lw=1, ls="--", label="log p(x), the ceiling")
left.plot(shift, [elbo(m, covariance) for m in steps], color="#4477aa", label="q with the posterior's covariance")
left.plot(shift, [elbo(m, np.diag(np.exp(logvar[0]))) for m in steps], color="#ee6677", label="q without correlations")
left.annotate("", (0, best_elbo), (0, log_p), arrowprops={"arrowstyle": "<->"})
left.text(0, log_p + 0.1, "gap log(5/3) = 0.51", ha="center", fontsize=9)
left.set(title="ELBO", xlabel="mean of q in z_1 minus the posterior's", ylabel="nats", ylim=(log_p - 3.2, log_p + 2))
left.legend(fontsize=9, loc="upper center")
circle = np.array([np.cos(np.linspace(0, 2 * np.pi, 200)), np.sin(np.linspace(0, 2 * np.pi, 200))])  # (L, 200)
for C, colour, name in [(covariance, "#4477aa", "posterior p(z|x)"), (np.diag(np.exp(logvar[0])), "#ee6677", "best q")]:
    middle.plot(*(posterior_mean.T + 2 * np.linalg.cholesky(C) @ circle), color=colour, label=name)
middle.set(title="Two standard deviations", xlabel="z_1", ylabel="z_2", aspect="equal")
middle.legend(fontsize=9)
right.plot(degrees, gaps, color="#ee6677")
right.plot(0, gaps[0], "o", color="black", label="W as above")
right.set(title="Gap of the best q", xlabel="rotation of the latent axes (degrees)", ylabel="log p(x) − ELBO (nats)")
right.set_xticks([0, 15, 30, 45, 60, 75, 90])
right.legend(fontsize=9)
keep(figure, "08_elbo_and_its_gap")

# %% [markdown]
# **Now:** exercises 15 and 16, `python examples/learn/check.py 15`.

# %%
predicted, measured = np.log(5 / 3), log_p - best_elbo
assert abs(measured - predicted) < 1e-9
print(f"predicted {predicted:.10f}, measured {measured:.10f} nats between log p(x) and the best ELBO without correlations")
