# %% [markdown]
# # 11 From atoms to one line: the Bernoulli loss on logits
#
# **Why.** `bernoulli_nll_backward` of the package has one line of mathematics, `(1 - x) * p - x * one_minus_p`. How does one
# get there? By three steps that work for any loss: cut the forward pass into atoms, write the backward line of each atom and
# check it, then multiply the lines out on paper. This lesson takes all three, and shows that the result is not only shorter: it
# is right where the atoms fail.
#
# **Read before.** Lessons 01 and 04; `npvae/ops/likelihood.py`. The loss is −log p(x|z) of a decoder whose pixels are zeros and
# ones (Kingma & Welling 2013, appendix C.1). Lectures (2025), "VAEs versus autoencoders", in the notes that examples/README.md
# names, has its Gaussian counterpart.
#
# **Prediction.** For the logit l = 40 of a pixel that is 1 the gradient is σ(40) − 1 = −1/(1 + e⁴⁰) = −4.248354255291589e−18.
# The fused line gives it to all digits, the expression σ(l) − x gives 0, and the atoms give no number at all.

# %%
from decimal import Decimal, getcontext

import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward

rng = np.random.default_rng(11)
x = (rng.random((3, 5)) < 0.5).astype(float)  # (B, D), zeros and ones
l = 2 * rng.standard_normal((3, 5))  # (B, D), the logits
B = len(x)

# %% [markdown]
# ## Forward in atoms
#
# One operation per line. The probability of a one is p = σ(l) = 1/(1 + e^−l), and the loss is the mean over the batch of −Σ_d
# [x log p + (1 − x) log(1 − p)]. The arguments `moved` and `by` are for the check only: they add something to one atom.


# %%
def forward(l, x, moved=None, by=0):
    def atom(name, value):
        return value + by if name == moved else value

    l = atom("l", l)
    u = atom("u", np.exp(-l))
    s = atom("s", 1 + u)
    p = atom("p", 1 / s)
    log_p = atom("log_p", np.log(p))
    q = atom("q", 1 - p)
    log_q = atom("log_q", np.log(q))
    ones = atom("ones", x * log_p)
    zeros = atom("zeros", (1 - x) * log_q)
    log_likelihood = atom("log_likelihood", ones + zeros)
    nll = atom("nll", -log_likelihood.sum(axis=1))  # (B, D) -> (B,)
    loss = nll.mean()
    return loss, (x, u, p, q)


# %% [markdown]
# ## Backward in atoms
#
# The same lines in reverse. Each quotes the line that it differentiates. p is used twice, by log_p and by q, and so receives
# two gradients, which are added.


# %%
def backward(cache):
    x, u, p, q = cache
    d = {}
    d["nll"] = np.full(len(x), 1 / len(x))  # loss = nll.mean()
    d["log_likelihood"] = np.broadcast_to(-d["nll"][:, None], x.shape)  # nll = -log_likelihood.sum(axis=1)
    d["zeros"] = d["log_likelihood"]  # log_likelihood = ones + zeros
    d["ones"] = d["log_likelihood"]  # log_likelihood = ones + zeros
    d["log_q"] = d["zeros"] * (1 - x)  # zeros = (1 - x) * log_q
    d["q"] = d["log_q"] / q  # log_q = np.log(q)
    d["log_p"] = d["ones"] * x  # ones = x * log_p
    d["p"] = d["log_p"] / p - d["q"]  # log_p = np.log(p) and q = 1 - p: two gradients are added
    d["s"] = d["p"] * -(p**2)  # p = 1 / s
    d["u"] = d["s"]  # s = 1 + u
    d["l"] = d["u"] * -u  # u = np.exp(-l)
    return d


# %% [markdown]
# ## Every intermediate judged
#
# Move one entry of one atom by ih with h = 1e−20 and leave what comes before it as it is. Then Im(loss)/h is the derivative
# with respect to that entry (lesson 04). We do it for the lines above, and for the same lines with one minus sign forgotten,
# that of p = 1/s. A wrong line shows in its own row and in all that follow from it: the first wrong row names it.

# %%
loss, cache = forward(l, x)
d = backward(cache)
_, u, p, _ = cache
forgotten = d | {"s": d["p"] * p**2, "u": d["p"] * p**2, "l": d["p"] * p**2 * -u}  # p = 1 / s, without the minus sign
errors, wrong_errors = {}, {}
for name, dname in d.items():
    exact = np.empty_like(dname)
    for place in np.ndindex(dname.shape):
        step = np.zeros(dname.shape, complex)
        step[place] = 1e-20j
        exact[place] = forward(l, x, name, step)[0].imag / 1e-20
    errors[name] = np.abs(dname - exact).max() / np.abs(exact).max()
    wrong_errors[name] = np.abs(forgotten[name] - exact).max() / np.abs(exact).max()
    print(f"d{name:16} {dname.shape!s:8} relative error {errors[name]:7.0e}, minus sign forgotten {wrong_errors[name]:7.0e}")
assert max(errors.values()) < 1e-14
assert [name for name, error in wrong_errors.items() if error > 1e-14] == ["s", "u", "l"]

# %% [markdown]
# ## Multiply out
#
# Put the lines into each other. For one entry, without the factor 1/B:
#
#     dp = −x/p + (1 − x)/(1 − p) = (p − x)/(p (1 − p))
#     dl = dp p² u                                          from the lines of s, u and l
#     p² u = p (p u) = p (1 − p)                            since p u = e^−l/(1 + e^−l) = 1 − p
#     dl = p − x                                            (BERNOULLI-logits)
#
# The divisions by p and 1 − p cancel. They were the danger: a loss that is given p must divide by it, a loss that is given
# logits need not. For the same reason the package writes p − x as (1 − x) σ(l) − x σ(−l): for x = 1 and large l it is the small
# number −σ(−l), and not a difference of two numbers that are both almost 1.

# %%
_, package_cache = bernoulli_nll_forward(l, x)
package_dl = bernoulli_nll_backward(np.full(B, 1 / B), package_cache)
print(f"atoms against (p - x)/B: {np.abs(d['l'] - (p - x) / B).max():.0e}")
print(f"package against (p - x)/B: {np.abs(package_dl - (p - x) / B).max():.0e}")
assert np.allclose(d["l"], (p - x) / B, rtol=1e-13)
assert np.allclose(package_dl, (p - x) / B, rtol=1e-13)

# %% [markdown]
# ## Where the atoms fail
#
# One pixel. The truth comes from Python's `decimal` with 400 digits (rounded to float64, in which e^−800 is 0). Beyond l = 37
# the number 1 − p is 0 in float64, and the atoms divide by it. At l = −800 already u = e^800 overflows.

# %%
getcontext().prec = 400


def three_ways(logit, label):
    """nll by the atoms and by the package; dl by the atoms, as p − x, by the package, and in truth: all of one pixel."""
    l, x = np.array([[float(logit)]]), np.array([[float(label)]])
    with np.errstate(all="ignore"):  # the atoms overflow and divide by zero: that is what we want to see
        nll, cache = forward(l, x)
        atoms = backward(cache)["l"].item()
        naive = (1 / (1 + np.exp(-l)) - x).item()
    package_nll, cache = bernoulli_nll_forward(l, x)
    package = bernoulli_nll_backward(np.ones(1), cache).item()
    truth = float(1 / (1 + Decimal(-logit).exp()) - label)
    return nll, package_nll.item(), atoms, naive, package, truth


print(f"\n{'l':>5} {'x':>2} | {'nll atoms':>11} {'package':>11} | {'dl atoms':>11} {'p − x':>11} {'package':>11} {'truth':>11}")
for logit, label in [(2, 1), (40, 1), (40, 0), (-40, 1), (800, 1), (800, 0), (-800, 1), (-800, 0)]:
    nll, package_nll, *gradients = three_ways(logit, label)
    print(f"{logit:5} {label:2} | {nll:11.4g} {package_nll:11.4g} | " + " ".join(f"{value:11.4g}" for value in gradients))

# %% [markdown]
# ## What is seen
#
# Left: each intermediate of the atoms is right at ordinary logits, and a wrong line is found. Middle, x = 0: the atoms lose a
# digit of the gradient whenever l grows by 2.3, though the true gradient is close to 1; from 37 on they have none. Right, x =
# 1: now p − x loses the digits. The package's line keeps all of them in both. (Curves that end have become infinite or not a
# number.)

# %%
figure, (left, *panels) = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained", width_ratios=(1, 1.2, 1.2))
names = [f"d{name}" for name in errors]
left.plot(np.maximum(list(wrong_errors.values()), 1e-17), names, "x", color="#ee6677", label="minus of p = 1/s\nforgotten")
left.plot(np.maximum(list(errors.values()), 1e-17), names, "o", color="#4477aa", label="as above")
left.set(xscale="log", xlim=(1e-18, 50), title="Atoms, judged one by one")
left.set_xlabel("relative error (0 drawn as 1e−17)")
left.invert_yaxis()
left.legend(fontsize=9, loc="center right")
left.grid(alpha=0.3)
logits = np.linspace(0, 60, 241)
for panel, label in zip(panels, (0, 1)):
    *_, atoms, naive, package, truth = np.array([three_ways(logit, label) for logit in logits]).T
    for values, colour, style, name in [(atoms, "#ee6677", "-", "atoms"), (naive, "#ccbb44", "-", "p − x"),
                                        (package, "#4477aa", "--", "(1 − x) σ(l) − x σ(−l)")]:  # fmt: skip
        error = np.abs(values - truth) / np.abs(truth)
        panel.semilogy(logits, np.maximum(error, 1e-17), color=colour, ls=style, label=name)
    panel.set(title=f"dl for x = {label}", xlabel="logit l", ylim=(5e-18, 1e6))
    panel.grid(alpha=0.3)
panels[0].set_ylabel("relative error (0 drawn as 1e−17)")
panels[0].legend(fontsize=9, loc="upper left")
keep(figure, "11_atoms_to_fused")

# %% [markdown]
# **Now:** exercises 12 to 14, `python examples/learn/check.py 12`.

# %%
*_, atoms, naive, measured, predicted = three_ways(40, 1)
assert abs(measured / predicted - 1) < 1e-15
assert naive == 0
assert not np.isfinite(atoms)
print(f"\npredicted {predicted}, measured {measured}, the gradient at l = 40, x = 1 by the fused line")
