# %% [markdown]
# # 07 Two ways to differentiate an average over random numbers
#
# **Why.** The loss of a VAE holds an average over z drawn from q(z|x), and q depends on the parameters that are trained. A
# drawn z is a plain number: it does not say how it would have changed with mu. Two estimators of the derivative are in common
# use. Both are right on average. This lesson measures how much they scatter, and so why VAEs use the reparameterised one.
#
# **Read before.** `npvae/ops/latent.py` (`reparameterize_forward`), lesson 06; section 7 of the derivation in
# examples/README.md. Lamacraft, "Reparameterization trick"; Shiu, "Reparametrization Trick"; lectures (2025), "Computing the
# gradients": lecture notes that examples/README.md names.
#
# **Prediction.** In 100 dimensions one sample of the score-function estimator, even with a baseline, has 456 times the variance
# of one reparameterised sample. Its variance grows with the number of dimensions, and that of the other does not.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.ops.latent import reparameterize_backward, reparameterize_forward

rng = np.random.default_rng(7)

# %% [markdown]
# ## A case in which everything is known
#
# One dimension: q = N(mu, σ²) and f(z) = (z − c)². With a = mu − c and z = mu + σ eps,
#
#     E[f] = E[(a + σ eps)²] = a² + σ²        so that        dE[f]/dmu = 2a        dE[f]/dlogvar = σ²
#
# The last one uses σ² = e^logvar. We choose a = 1 and σ = ½.

# %%
c, a, sigma = 3.0, 1.0, 0.5
mu, logvar = np.array([c + a]), np.log(np.array([sigma**2]))
exact_dmu, exact_dlogvar = 2 * a, sigma**2

# %% [markdown]
# ## First estimator: reparameterised
#
# Draw eps, which has no parameters, and compute z from it. Then the chain rule goes through z:
#
#     dmu = f'(z) ∂z/∂mu = 2 (z − c) = 2 (a + σ eps)        mean 2a,  variance 4σ²
#
# Each row below is one sample, so dmu has one estimate per row.

# %%
S = 200_000
eps = rng.standard_normal((S, 1))
z, cache = reparameterize_forward(mu, logvar, eps)  # (1,), (1,), (S, 1) -> (S, 1)
f = (z - c) ** 2  # (S, 1)
dz = 2 * (z - c)  # f = (z - c)**2
dmu_reparam, dlogvar_reparam = reparameterize_backward(dz, cache)  # z = mu + exp(logvar / 2) * eps
print(f"reparameterised: mean dmu {dmu_reparam.mean():.3f}, exact {exact_dmu}")
print(f"             mean dlogvar {dlogvar_reparam.mean():.3f}, exact {exact_dlogvar}")

# %% [markdown]
# ## Second estimator: score function
#
# Leave z alone, and differentiate its probability instead: ∂q/∂mu = q ∂log q/∂mu, so
#
#     d/dmu ∫ f(z) q(z) dz = ∫ f(z) (∂log q/∂mu) q(z) dz = E[f(z) (z − mu)/σ²] = E[f(z) eps/σ]
#
# It asks nothing of f but its values (Williams 1992, "REINFORCE"; Glynn 1990). With the moments E[eps²] = 1, E[eps⁴] = 3,
# E[eps⁶] = 15, all odd ones zero:
#
#     mean      E[(a + σ eps)² eps]/σ = 2a
#     variance  E[(a + σ eps)⁴ eps²]/σ² − 4a² = a⁴/σ² + 14a² + 15σ²
#
# A *baseline* b makes it better: E[b eps/σ] = 0, so f − b has the same mean. With b = E[f], f − b = 2aσ eps + σ² (eps² − 1),
# and
#
#     variance  E[(f − b)² eps²]/σ² − 4a² = 8a² + 10σ²
#
# The best constant is b = E[f eps²] = a² + 3σ², with the variance 8a² + 6σ². It never reaches 4σ².

# %%
baseline = a**2 + sigma**2  # E[f]; in practice a running mean of f
best_baseline = a**2 + 3 * sigma**2
estimates = {
    "reparameterised": (dmu_reparam, 4 * sigma**2),
    "score function": (f * eps / sigma, a**4 / sigma**2 + 14 * a**2 + 15 * sigma**2),
    "score function, baseline E[f]": ((f - baseline) * eps / sigma, 8 * a**2 + 10 * sigma**2),
    "score function, best baseline": ((f - best_baseline) * eps / sigma, 8 * a**2 + 6 * sigma**2),
}
print(f"\n{'one dimension, dmu':30} {'mean':>7} {'variance':>9} {'predicted':>9}")
for name, (values, variance) in estimates.items():
    print(f"{name:30} {values.mean():7.3f} {values.var():9.3f} {variance:9.3f}")
    assert abs(values.mean() - exact_dmu) < 5 * np.sqrt(variance / S)  # five standard errors
    assert abs(values.var() / variance - 1) < 0.05

# %% [markdown]
# ## Many dimensions
#
# Now f(z) = Σ_l (z_l − c)² over L dimensions, all with the same a and σ. The reparameterised derivative with respect to mu_1
# looks at z_1 alone: its variance stays 4σ². The score function multiplies eps_1 by the *whole* f. What the other L − 1
# dimensions add, F, says nothing about mu_1, but its scatter goes into the estimate. F has the mean (L − 1)(a² + σ²) and the
# variance (L − 1)(4a²σ² + 2σ⁴). So with the baseline E[f] the variance grows as L, and without it as L²:
#
#     baseline      (L − 1)(4a² + 2σ²) + 8a² + 10σ²
#     no baseline   the same + E[f]²/σ² + 4 E[f]
#
# The last line is E[(b + g)² eps²] = b² + 2b E[g eps²] + E[g² eps²] with g = f − b and E[g eps²] = 2σ², divided by σ².

# %%
dimensions = np.array([1, 2, 5, 10, 20, 50, 100])
mean_f = dimensions * (a**2 + sigma**2)  # E[f]
exact = {"reparameterised": np.full(len(dimensions), 4 * sigma**2)}
exact["score function, baseline E[f]"] = (dimensions - 1) * (4 * a**2 + 2 * sigma**2) + 8 * a**2 + 10 * sigma**2
exact["score function"] = exact["score function, baseline E[f]"] + mean_f**2 / sigma**2 + 4 * mean_f
measured = {name: [] for name in exact}
for L, b in zip(dimensions, mean_f):
    eps = rng.standard_normal((20_000, L))
    z, cache = reparameterize_forward(np.full(L, c + a), np.full(L, 2 * np.log(sigma)), eps)  # -> (S, L)
    f = ((z - c) ** 2).sum(axis=1, keepdims=True)  # (S, L) -> (S, 1)
    dmu, _ = reparameterize_backward(2 * (z - c), cache)  # f = sum of (z - c)**2;  z = mu + sigma * eps
    measured["reparameterised"].append(dmu.var(axis=0).mean())
    measured["score function, baseline E[f]"].append(((f - b) * eps / sigma).var(axis=0).mean())
    measured["score function"].append((f * eps / sigma).var(axis=0).mean())

# %% [markdown]
# ## What is seen
#
# Left: 200 000 estimates of the same number 2 in one dimension. Right: lines are the formulas, circles are measured. To train a
# VAE with 100 latent dimensions by the score function as accurately as by one reparameterised sample, one would need some
# hundred samples per datum with a baseline, and tens of thousands without. The price of reparameterisation: f must be
# differentiable, and z a smooth function of noise. Discrete variables are not.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
colours = {"reparameterised": "#4477aa", "score function": "#ee6677", "score function, baseline E[f]": "#228833"}
for name, colour in colours.items():
    values = estimates[name][0].ravel()
    left.hist(values, bins=np.linspace(-3, 13, 81), density=True, histtype="step", color=colour, label=name)
    right.loglog(dimensions, exact[name], color=colour, label=name)
    right.loglog(dimensions, measured[name], "o", mfc="none", color=colour)
left.axvline(exact_dmu, color="black", lw=1, ls="--", label="exact derivative 2a = 2")
left.set(title="Estimates of dE[f]/dmu, one dimension", xlabel="estimate from one sample", ylabel="density")
left.legend(fontsize=9, loc="upper right")
right.set(title="Variance of one estimate", xlabel="latent dimensions L", ylabel="variance (line exact, circle measured)")
right.legend(fontsize=9)
right.grid(alpha=0.3)
keep(figure, "07_reparameterisation")

# %% [markdown]
# **Now:** exercise 8, `python examples/learn/check.py 8`.

# %%
predicted = exact["score function, baseline E[f]"][-1] / exact["reparameterised"][-1]
ratio = measured["score function, baseline E[f]"][-1] / measured["reparameterised"][-1]
without = measured["score function"][-1] / measured["reparameterised"][-1]
print(f"\n100 dimensions, without a baseline: {exact['score function'][-1]:.0f} times the variance, measured {without:.0f}")
assert abs(ratio / predicted - 1) < 0.05
print(f"predicted {predicted:.0f}, measured {ratio:.1f} times the variance, score function with baseline to reparameterised")
