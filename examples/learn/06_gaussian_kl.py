# %% [markdown]
# # 06 The KL of two Gaussians, derived and measured
#
# **Why.** The loss of a VAE has two parts. One of them, the KL divergence of the encoder's Gaussian from the prior, has a
# closed form. It is derived here, and measured without the formula. A gradient check would not notice a wrong formula: the
# right gradient of a wrong loss passes. Drawing samples does.
#
# **Read before.** Lesson 04 for the complex step; `gaussian_kl_forward` in `npvae/ops/latent.py`; section 6 of the derivation
# in examples/README.md. Lectures (2025), "More on the SGD" and "Simplification", and (2024), "Analytical evaluation", in the
# notes that examples/README.md names.
#
# **Prediction.** For mu = 0.8 and logvar = −0.8 the formula gives KL = **0.4447** nats. The mean of log q − log p over a
# million samples must agree to about 0.0007: its standard error is derived below, too.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.ops.latent import gaussian_kl_backward, gaussian_kl_forward, reparameterize_forward, sampled_kl_forward

# %% [markdown]
# ## Definition and derivation
#
# KL(q ‖ p) = E_q[log q(z) − log p(z)], the mean taken over z drawn from q. It is never negative, and zero only for q = p. Here
# q = N(mu, σ²) is what the encoder says of one datum, and p = N(0, 1) is the prior. With logvar = log σ²,
#
#     log q(z) = −½ log 2π − ½ logvar − ½ (z − mu)²/σ²
#     log p(z) = −½ log 2π − ½ z²
#
# Two means are needed: E[(z − mu)²] = σ² is the variance, and E[z²] = mu² + σ². Hence
#
#     KL = (−½ logvar − ½) + ½ (mu² + σ²) = ½ (mu² + σ² − 1 − logvar).
#
# Several latent dimensions are independent, so their KLs add. (Kingma & Welling 2013, appendix B; lectures (2025),
# "Simplification", with tr Σ = Σ_l σ_l² and log det Σ = Σ_l logvar_l.)
#
# Its two derivatives are short:
#
#     (KL-mu)      ∂KL/∂mu     = mu                       pulls mu to 0
#     (KL-logvar)  ∂KL/∂logvar = ½ (e^logvar − 1)         pulls σ² = e^logvar to 1

# %%
mu, logvar = np.array([[0.8]]), np.array([[-0.8]])  # (B, L), one datum and one latent dimension
sigma = np.exp(logvar / 2)
kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar)
print(f"KL(N({mu[0, 0]}, {sigma[0, 0] ** 2:.4f}) from N(0, 1)) = {kl[0, 0]:.6f} nats")

# %% [markdown]
# ## Judge the gradients
#
# dkl = 1 asks for the gradient of the KL itself.

# %%
dkl = np.ones_like(kl)
dmu = dkl * mu  # kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar), (KL-mu)
dlogvar = dkl * 0.5 * (sigma**2 - 1)  # kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar) with sigma**2 = exp(logvar), (KL-logvar)
exact_dmu = gaussian_kl_forward(mu + 1e-20j, logvar)[0].imag / 1e-20
exact_dlogvar = gaussian_kl_forward(mu, logvar + 1e-20j)[0].imag / 1e-20
package = gaussian_kl_backward(dkl, gaussian_kl_forward(mu, logvar)[1])
for name, ours, exact, theirs in ("dmu", dmu, exact_dmu, package[0]), ("dlogvar", dlogvar, exact_dlogvar, package[1]):
    print(f"{name:7} by hand {ours[0, 0]: .6f}, complex step {exact[0, 0]: .6f}, npvae {theirs[0, 0]: .6f}")
    assert np.allclose(ours, exact, rtol=1e-14, atol=0)
    assert np.allclose(ours, theirs, rtol=1e-14, atol=0)

# %% [markdown]
# ## Measure the KL without the formula
#
# Draw z = mu + σ eps with eps from N(0, 1), and average log q(z) − log p(z). In log q, (z − mu)/σ is eps, so one sample gives
#
#     log q(z) − log p(z) = ½ (z² − eps² − logvar),
#
# which is `sampled_kl_forward`. How far will the average of n samples be off? Insert z = mu + σ eps: the sample is a constant
# plus ½ (σ² − 1) eps² + mu σ eps. With var(eps²) = 2, var(eps) = 1 and no covariance between them (E[eps³] = 0),
#
#     variance of one sample = ½ (σ² − 1)² + mu² σ²,       standard error = √(variance/n).

# %%
n = 1_000_000
rng = np.random.default_rng(0)
eps = rng.standard_normal((n, 1, 1))  # (S, B, L)
z, _ = reparameterize_forward(mu, logvar, eps)
samples = sampled_kl_forward(z, logvar, eps)[0].ravel()  # (S,)
variance = (0.5 * (sigma**2 - 1) ** 2 + mu**2 * sigma**2)[0, 0]
print(f"\nmean of {n} samples {samples.mean():.4f} ± {np.sqrt(variance / n):.4f}, formula {kl[0, 0]:.4f}")
print(f"variance of one sample: measured {samples.var():.4f}, derived {variance:.4f}")
assert abs(samples.var() / variance - 1) < 0.02

# %% [markdown]
# One sample has a standard deviation of 0.66, more than the KL itself. The closed form takes the noise of this term out. (It
# exists for few pairs of distributions.)
#
# That does not always make the whole loss less noisy: the nll is sampled with the same eps, and near the exact posterior its
# noise and that of `sampled_kl_forward` cancel. There q(z|x) = p(x|z) p(z)/p(x), so nll + log q − log p is −log p(x) whatever z
# is. See it for p(z) = N(0, 1), p(x|z) = N(z, 1) and x = 1.3, with the posterior N(0.65, 0.5), and with another q.
#
# The gradient is a different matter. With the sampled KL, dmu is (z − x) + z; with the closed form, (z − x) + mu, which has a
# quarter of its variance. The noise of dmu cancels only if the score ∂log q/∂mu at fixed z, whose mean is 0, is left out of it
# (Roeder, Wu & Duvenaud 2017). The package keeps it: its backward is the gradient of its forward.

# %%
x = 1.3
print(f"\n{'variance of a sample':20} {'loss: closed':>12} {'sampled':>8}  {'dmu: closed':>11} {'sampled':>8} {'no score':>9}")
for name, mean, spread in ("q is the posterior", 0.65, 0.5), ("q = N(0.3, 0.8)", 0.3, 0.8):
    m, v = np.array([[mean]]), np.array([[spread]])  # (B, L)
    z_q, _ = reparameterize_forward(m, np.log(v), eps)  # (S, B, L)
    nll = 0.5 * (x - z_q) ** 2  # and a constant
    closed = nll + gaussian_kl_forward(m, np.log(v))[0]
    sampled = nll + sampled_kl_forward(z_q, np.log(v), eps)[0]
    score = (z_q - m) / v  # of log q = -0.5 * (z - mu)**2 / v + const, with z held fixed
    dmu_closed, dmu_sampled = (z_q - x) + m, (z_q - x) + z_q  # dmu through z is dnll/dz, resp. dnll/dz + dkl/dz
    variances = [values.var() for values in (closed, sampled, dmu_closed, dmu_sampled, dmu_sampled - score)]
    print("{:20} {:12.2f} {:8.2g}  {:11.2f} {:8.2f} {:9.2g}".format(name, *variances))
    assert variances[1] < variances[0]
    assert abs(variances[3] / variances[2] - 4) < 1e-9

# %% [markdown]
# ## A formula to compute with
#
# Early in training, and in dimensions that the decoder does not use, σ² is close to 1. Then σ² − 1 − logvar subtracts nearly
# equal numbers. In single precision no digit is right at logvar = 10⁻⁴, where the truth is ¼ logvar² = 2.5 · 10⁻⁹. The package
# writes σ² − 1 as `expm1(logvar)`, which computes the difference without forming it.

# %%
small = np.float32(1e-4)
naive = np.float32(0.5) * (np.exp(small) - np.float32(1) - small)
better = np.float32(0.5) * (np.expm1(small) - small)
print(f"\nKL at mu = 0, logvar = 1e-4 in float32: naive {naive:.2e}, with expm1 {better:.2e}, truth {0.25e-8:.2e}")
assert abs(better / 2.5e-9 - 1) < 0.01 < abs(naive / 2.5e-9 - 1)

# %% [markdown]
# ## The picture
#
# Left: the KL over mu and logvar, and the force −gradient, which points to the prior but not straight at it. It is stiff where
# σ is large (e^logvar) and weak where σ is small: no force on logvar exceeds ½ from that side. Right: the error of the average
# over n samples for 20 repetitions, and the standard error derived above, a line of slope −½.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
grid_mu, grid_logvar = np.meshgrid(np.linspace(-2.2, 2.2, 200), np.linspace(-3, 2, 200))
values, _ = gaussian_kl_forward(grid_mu, grid_logvar)
contours = left.contour(grid_mu, grid_logvar, values, levels=[0.05, 0.2, 0.5, 1, 2, 3], cmap="viridis_r")
left.clabel(contours, fontsize=8)
arrow_mu, arrow_logvar = np.meshgrid(np.linspace(-1.8, 1.8, 7), np.linspace(-2.6, 1.6, 7))
pull = gaussian_kl_backward(np.ones_like(arrow_mu), gaussian_kl_forward(arrow_mu, arrow_logvar)[1])
left.quiver(arrow_mu, arrow_logvar, -pull[0], -pull[1], color="#c8394b", angles="xy", width=0.004, scale=35)
left.plot(0, 0, "*", color="#222222", ms=12)
left.text(0, 0.15, "prior", ha="center")
left.plot(mu, logvar, "o", color="#33608f")
left.text(0.87, -0.93, "here", color="#33608f")
left.set(xlabel="mu", ylabel="logvar", title="KL in nats, and the force −gradient")

counts = np.unique(np.logspace(1, np.log10(n / 20), 12).astype(int))
for repetition in samples.reshape(20, -1):  # 20 repetitions of n/20 samples
    running_mean = np.cumsum(repetition)[counts - 1] / counts
    right.loglog(counts, np.abs(running_mean - kl[0, 0]), ".", color="#7aa0c4", ms=5)
right.loglog(counts, np.sqrt(variance / counts), color="#c8394b", label="derived standard error √(variance/n)")
right.loglog([], [], ".", color="#7aa0c4", label="20 repetitions")
right.legend(frameon=False, loc="lower left")
right.set(xlabel="samples n", ylabel="|average − formula|, nats", ylim=(1e-6, 1),
          title="Monte Carlo agrees, and converges as 1/√n")  # fmt: skip
keep(figure, "06_gaussian_kl")

# %% [markdown]
# **Now:** exercises 9 and 10, `python examples/learn/check.py 9`.

# %%
predicted, measured = kl[0, 0], samples.mean()
assert abs(measured - predicted) < 4 * np.sqrt(variance / n)
print(f"predicted {predicted:.4f}, measured {measured:.4f}")
