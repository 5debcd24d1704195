# %% [markdown]
# # 04 Checking a gradient: differences and the complex step
#
# **Why.** A wrong gradient rarely crashes. Training goes on, only worse. So every gradient of npvae is compared with a
# numerical derivative. This lesson shows how good such a derivative can be: where differences fail, and why the complex step
# does not.
#
# **Read before.** Lessons 01 to 03; Taylor's formula to third order. `npvae/checking/gradcheck/__init__.py` says what the
# package's own checks do.
#
# **Prediction.** A difference with the step δ has two errors: one that falls with δ (Taylor), and one that grows as δ shrinks
# (rounding). For central differences the two meet near δ = ε^(1/3) = **6.1e-06**, where ε = 2.2e-16 is the spacing of double
# precision numbers at 1. The step with the smallest measured error lies there, to within a factor of 3.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

import npvae
from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward

# %% [markdown]
# ## Three ways to a derivative
#
# With f' the derivative at x, Taylor's formula gives
#
#     forward   (f(x + δ) − f(x))/δ          = f' + ½ δ f'' + …
#     central   (f(x + δ) − f(x − δ))/2δ     = f' + ⅙ δ² f''' + …      the terms of even order cancel
#     complex   Im f(x + iδ)/δ               = f' − ⅙ δ² f''' + …      since f(x + iδ) = f + iδ f' − ½ δ² f'' − i ⅙ δ³ f''' + …
#
# The first two subtract two numbers that agree in nearly all digits. Each is rounded, with an error of about ε|f|, and the
# difference is divided by δ: an error of about ε|f|/δ. The complex step subtracts nothing. δ can be 10⁻²⁰, and then δ² f''' is
# far below rounding. (Squire & Trapp 1998.)
#
# When is the sum of the two errors smallest?
#
#     forward   δ + ε/δ     smallest at δ = ε^(1/2) = 1.5e-08, where the error is about ε^(1/2)
#     central   δ² + ε/δ    smallest at δ ≈ ε^(1/3) = 6.1e-06, where the error is about ε^(2/3) = 3.7e-11
#
# if f and its derivatives are of size 1. (Here f'' and f''' are smaller, so the best steps lie a little higher and the errors
# a little lower.) No step gives a difference more than about two thirds of the digits.
#
# ## Measure it
#
# The function is log(1 + e^x) − 0.3 x, the Bernoulli loss of a logit x with the target 0.3; its derivative is σ(x) − 0.3. An
# error at a single point may be small by chance, so take the root mean square over 500 points x.


# %%
def f(x):
    return np.log(1 + np.exp(x)) - 0.3 * x


x = np.random.default_rng(0).uniform(-2, 2, 500)
exact = 1 / (1 + np.exp(-x)) - 0.3
steps = 10.0 ** np.arange(-16, 0.01, 0.125)
errors = {"forward": [], "central": [], "complex": []}
for step in steps:
    estimates = {
        "forward": (f(x + step) - f(x)) / step,
        "central": (f(x + step) - f(x - step)) / (2 * step),
        "complex": f(x + 1j * step).imag / step,
    }
    for name, estimate in estimates.items():
        errors[name].append(np.sqrt(np.mean((estimate - exact) ** 2)))
errors = {name: np.array(error) for name, error in errors.items()}

# %% [markdown]
# On log–log axes an error ~ δ^p is a straight line of slope p. Fit the slopes where Taylor's error rules, δ from 10⁻³ to 10⁻¹:
# expected 1, 2 and 2. And where rounding rules, δ below 10⁻⁹: expected −1 for both differences, and 0 for the complex step,
# which has nothing to round but f' itself.

# %%
large, small = (steps > 9e-4) & (steps < 0.11), (steps > 1e-14) & (steps < 1e-9)
for name, error in errors.items():
    slope = np.polyfit(np.log(steps[large]), np.log(error[large]), 1)[0]
    falling = np.polyfit(np.log(steps[small]), np.log(error[small]), 1)[0]
    best = error.argmin()
    print(f"{name}: slope {slope:.2f} at large steps, {falling:+.2f} at small ones;", end=" ")
    print(f"smallest error {error[best]:.1e} at the step {steps[best]:.1e}")
    assert abs(slope - (1 if name == "forward" else 2)) < 0.1
    assert abs(falling - (0 if name == "complex" else -1)) < 0.1
tiny = np.abs(f(x + 1e-20j).imag / 1e-20 - exact).max()
print(f"complex step with 1e-20: largest error {tiny:.1e}")
assert tiny < 1e-15

# %% [markdown]
# ## What a check sees
#
# A wrong gradient differs from the right one by an amount that does not depend on the step. Say that somebody's derivative is
# too large by a factor 1.000001. The error that this makes must be larger than the error of the check itself. With a step of
# 10⁻³ the forward difference cannot see it. With its best step it can, the central difference sees it clearly, and the complex
# step would see an error a million times smaller.

# %%
wrong_by = np.sqrt(np.mean((1e-6 * exact) ** 2))
careless = errors["forward"][np.argmin(np.abs(steps - 1e-3))]
print(f"\na wrong factor 1.000001 makes an error of {wrong_by:.1e}. The checks have errors of their own:")
print(f"forward difference {careless:.1e} with step 1e-3, {errors['forward'].min():.1e} with its best step, ", end="")
print(f"central {errors['central'].min():.1e}, complex step {tiny:.1e}")
assert errors["forward"].min() < wrong_by < careless

# %% [markdown]
# **Three traps**, all of which a check must know:
#
# * *The forward is not judged.* The right gradient of a wrong loss passes. Lesson 06 checks a forward by Monte Carlo.
# * *Kinks.* Lesson 03: differences straddle them.
# * *Code that is not analytic.* The complex step needs f to be the same formula for complex numbers. `np.abs` is not: it
#   returns the modulus, a real number, and the derivative is lost. This is why npvae branches on `.real`, and never uses abs
#   on what it differentiates.

# %%
z = -2.0 + 1e-20j
print(f"\nd|x|/dx at -2 by the complex step: with np.abs {np.abs(z).imag / 1e-20:.0f}, ", end="")
print(f"with np.where on the real part {np.where(z.real < 0, -z, z).imag / 1e-20:.0f}")

# %% [markdown]
# ## For a pair
#
# A pair has arrays in and arrays out. Contract the output with random numbers: C = Σ dout · out is a scalar, and the backward
# pass with this dout must give its gradient. n entries take n complex evaluations of the forward, while one backward pass
# gives all n at once; that is what backpropagation is for. `npvae.gradcheck.check_pair` does this for every argument and
# prints the worst entry.

# %%
rng = np.random.default_rng(1)
logits, targets = rng.standard_normal((3, 5)), rng.uniform(size=(3, 5))


def half_as_large(dnll, cache):
    return 0.5 * bernoulli_nll_backward(dnll, cache)  # wrong: a factor ½


print(npvae.gradcheck.check_pair(bernoulli_nll_forward, bernoulli_nll_backward, logits, targets, wrt=[0]))
broken = npvae.gradcheck.check_pair(bernoulli_nll_forward, half_as_large, logits, targets, wrt=[0], assert_passed=False)
print(f"{broken}\n")
assert broken.verdict == "wrong"

# %% [markdown]
# ## The picture
#
# The V of differences. To the right of its tip Taylor's error falls with the step, to the left rounding takes over. The
# complex step follows the central difference down and then stays at rounding. The dots mark ε^½ and ε^⅓ with the errors
# expected there.

# %%
figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
eps = np.finfo(float).eps
colours = {"forward": "#ccbb44", "central": "#ee6677", "complex": "#4477aa"}
for name, error in errors.items():
    axes.loglog(steps, error, color=colours[name], lw=2, label=f"{name} difference" if name != "complex" else "complex step")
axes.loglog(eps ** (1 / 2), eps ** (1 / 2), "o", color="#222222", label="expected tips, at ε^½ and ε^⅓")
axes.loglog(eps ** (1 / 3), eps ** (2 / 3), "o", color="#222222")
guide = np.array([1e-4, 1e-1])
axes.loglog(guide, guide, color="0.5", lw=0.8, ls="--")
axes.loglog(guide, 0.2 * guide**2, color="0.5", lw=0.8, ls="--")
axes.text(2e-4, 1e-3, "slope 1", color="0.4", ha="right")
axes.text(5e-5, 3e-8, "slope 2", color="0.4", ha="right")
axes.text(3e-13, 2e-7, "rounding ε/δ", color="0.4")
axes.legend(frameon=False, loc="upper center")
axes.set(xlabel="step δ", ylabel="error of the derivative (root mean square)", ylim=(1e-17, 1e2))
axes.set_title("Differences lose digits to rounding; the complex step does not")
keep(figure, "04_checking_gradients")

# %%
predicted, measured = eps ** (1 / 3), steps[errors["central"].argmin()]
assert predicted / 3 < measured < predicted * 3
assert errors["central"].min() < 10 * eps ** (2 / 3)
print(f"predicted {predicted:.1e}, measured {measured:.1e}")
