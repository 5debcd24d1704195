# %% [markdown]
# # 09 What is done with a gradient: six optimisers in one valley
#
# **Why.** Backpropagation gives a direction. How far to go is another question, and its answer decides how many steps training
# takes. The smallest function that shows the difficulty is a valley that is steep across and flat along. Here six methods walk
# down such a valley, then down the same valley turned by 30 degrees.
#
# **Read before.** `npvae/ops/updates.py`, which has each rule in a few lines. Lectures (2024), "Other ingredients of a neural
# network", which lists these methods, in the notes that examples/README.md names.
#
# **Prediction.** With curvatures 1 and 100 no learning rate lets plain gradient descent shrink its distance from the minimum by
# a better factor per step than 99/101 = 0.9802. With a rate above 2/100 it diverges.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.training.lbfgs import lbfgs
from npvae.training.optim import SGD, AdaGrad, Adam, Momentum, RMSProp, initial_state

curvatures = np.array([1.0, 100.0])
start = np.array([-1.0, 1.0])
n_steps = 300


def valley(theta, R):
    """loss = ½ Σ_i λ_i u_i² with u = R θ: its value and gradient at θ (2,)."""
    u = R @ theta  # (2, 2) @ (2,) -> (2,)
    du = curvatures * u  # loss = 0.5 * (curvatures * u**2).sum()
    dtheta = R.T @ du  # u = R @ theta
    return 0.5 * (curvatures * u**2).sum(), dtheta


# %% [markdown]
# ## Gradient descent: each direction shrinks at its own pace
#
# The step θ ← θ − η g with g_i = λ_i θ_i multiplies θ_i by 1 − η λ_i. This must lie in (−1, 1) for all i, so η < 2/λ_max. The
# slowest direction counts. |1 − η λ_min| falls with η and |1 − η λ_max| grows, so the best η makes both equal:
#
#     1 − η λ_min = η λ_max − 1      η = 2/(λ_min + λ_max)      factor = (κ − 1)/(κ + 1),  κ = λ_max/λ_min
#
# ## Momentum: the square root of κ
#
# The heavy ball v ← γ v + η g, θ ← θ − v is the recursion θ_next = (1 + γ − η λ) θ − γ θ_before. A power r^t solves it if r² −
# (1 + γ − η λ) r + γ = 0. The product of the two roots is γ. Where they are complex, both have the size √γ: all directions
# shrink alike. The smallest γ for which that is so for all λ between the two curvatures is (Polyak 1964)
#
#     √γ = (√κ − 1)/(√κ + 1) = 9/11      η = 4/(√λ_min + √λ_max)²
#
# ## AdaGrad, RMSProp, Adam: a step size for each coordinate
#
# They divide each entry of the gradient, or in Adam its running mean, by the root of the squares of that entry so far, summed
# or averaged. A factor in front of the gradient drops out (but for epsilon). Coordinate 2 with curvature 100 then moves just as
# coordinate 1 with curvature 1: from (−1, 1) they go straight along the diagonal. But this depends on the axes. In the turned
# valley each coordinate of the gradient mixes both curvatures.
#
# ## L-BFGS: curvature from differences of gradients
#
# It needs the gradient of all data and a line search. On a quadratic, BFGS with an exact line search ends after as many steps
# as there are dimensions (Nocedal & Wright 2006, theorem 6.4); this line search is not exact, so it takes some more.

# %%
low, high = curvatures
best_rate = 2 / (low + high)
optimisers = {
    "SGD": SGD(best_rate),
    "Momentum": Momentum(4 / (low**0.5 + high**0.5) ** 2, momentum=(9 / 11) ** 2),
    "AdaGrad": AdaGrad(0.5),
    "RMSProp": RMSProp(0.02),
    "Adam": Adam(0.1),
}


def path_of(optimiser, R, theta):
    theta, state = theta.copy(), initial_state(optimiser, theta)
    path = [theta.copy()]
    for _ in range(n_steps):
        _, dtheta = valley(theta, R)
        optimiser.step(theta, dtheta, state)  # changes theta and state in place
        path.append(theta.copy())
    return np.array(path)  # (n_steps + 1, 2)


def path_of_lbfgs(R, theta):
    path = [theta.copy()]
    lbfgs(lambda theta: valley(theta, R), theta, callback=lambda theta: path.append(theta.copy()))
    return np.array(path)


# %% [markdown]
# ## All six, in both valleys
#
# In the turned valley the start is turned as well. So a method that knows nothing of axes takes the same path, turned. The
# table counts the steps until the loss is a millionth of what it was.

# %%
angle = np.radians(30)
turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
valleys = {"axes along the valley": np.eye(2), "turned by 30 degrees": turned}
paths, losses, steps = {}, {}, {}
for place, R in valleys.items():
    begin = R.T @ start
    paths[place] = {name: path_of(optimiser, R, begin) for name, optimiser in optimisers.items()}
    paths[place]["L-BFGS"] = path_of_lbfgs(R, begin)
    losses[place] = {name: [valley(theta, R)[0] for theta in path] for name, path in paths[place].items()}
    for name, values in losses[place].items():
        small = np.flatnonzero(np.array(values) < 1e-6 * values[0])
        steps[place, name] = small[0] if len(small) else None
print(f"{'steps to a millionth of the loss':34}" + "".join(f"{name:>10}" for name in losses[place]))
for place in valleys:
    print(f"{place:34}" + "".join(f"{steps[place, name] or '> 300':>10}" for name in losses[place]))

straight, slanted = paths.values()
for name in ("SGD", "Momentum"):  # they know nothing of axes
    assert np.allclose(slanted[name] @ turned.T, straight[name], atol=1e-9)
for name in ("AdaGrad", "RMSProp", "Adam"):  # the diagonal: coordinate 2 is minus coordinate 1, curvature or not
    assert np.allclose(straight[name][:, 1], -straight[name][:, 0], atol=1e-5)
distance = {name: np.linalg.norm(path, axis=1) for name, path in straight.items()}
pace = (distance["Momentum"][200] / distance["Momentum"][100]) ** (1 / 100)
print(f"momentum shrinks by {pace:.3f} per step between steps 100 and 200; 9/11 = {9 / 11:.3f}")
beyond = np.linalg.norm(path_of(SGD(2.02 / high), np.eye(2), start), axis=1)
print(f"gradient descent with the rate 2.02/100: distance {beyond[0]:.2f} at the start, {beyond[-1]:.0f} after {n_steps} steps")
floor = 0.5 * (low + high) * (0.02 / 2) ** 2
print(f"RMSProp ends at the loss {losses['axes along the valley']['RMSProp'][-1]:.5f}; steps of η to and fro give {floor:.5f}")

# %% [markdown]
# ## What is seen
#
# SGD jumps from wall to wall and hardly moves along the valley. Momentum throws θ further out at first, then is far faster. The
# three with a step size per coordinate walk the diagonal in the straight valley and lose that in the turned one. RMSProp with a
# constant rate does not come to rest: where the gradient gets small its mean square does too, so that the steps keep the size
# η, to and fro, half of it on each side. Its rate must fall while it is used, and so must Adam's where the gradient has noise.

# %%
figure = plt.figure(figsize=(8, 5.6), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(3.2, 2.8))
panels = top.subplots(2, 6, sharex=True, sharey=True, subplot_kw={"aspect": "equal", "xticks": [], "yticks": []})
curves = bottom.subplots(1, 2, sharey=True)
colours = dict(zip(losses[place], ["#ee6677", "#4477aa", "#228833", "#ccbb44", "#aa3377", "black"]))
ticks = np.linspace(-2.2, 2.2, 121)
for row, axes, (place, R) in zip(panels, curves, valleys.items()):
    u = np.einsum("ij,jyx->iyx", R, np.array(np.meshgrid(ticks, ticks)))
    height = 0.5 * np.einsum("i,iyx->yx", curvatures, u**2)
    for panel, (name, path) in zip(row, paths[place].items()):
        panel.contour(ticks, ticks, height, levels=[1, 20, 100], colors="0.8", linewidths=0.8)
        panel.plot(*path[:31].T, ".-", ms=3, lw=0.6, color=colours[name])
        panel.plot(0, 0, "k+")
        panel.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), title=name if place == "axes along the valley" else "")
        axes.semilogy(losses[place][name], color=colours[name], label=name)
    row[0].set_ylabel(place.replace(" ", "\n", 1) + "\n\nθ_2", fontsize=9)
    axes.set(title=f"Loss, {place}", xlabel="step", ylim=(1e-13, 1e4))
    axes.grid(alpha=0.3)
for panel in panels[1]:
    panel.set_xlabel("θ_1", fontsize=9)
top.suptitle("The first 30 steps; + is the minimum, grey lines have equal loss")
curves[0].set_ylabel("loss")
curves[1].legend(fontsize=8, labelspacing=0.2, loc="lower right")
keep(figure, "09_optimisers")

# %% [markdown]
# **Now:** exercise 18, `python examples/learn/check.py 18`.

# %%
predicted = (high - low) / (high + low)
measured = (distance["SGD"][100] / distance["SGD"][0]) ** (1 / 100)
other_rates = np.linspace(0, 2.1 / high, 2000)[:, None]
worse_direction = np.abs(1 - other_rates * curvatures).max(axis=1)  # (2000, 1) * (2,) -> (2000,)
assert worse_direction.min() > predicted
assert abs(measured - predicted) < 1e-12
assert beyond[-1] > 100
assert pace < 0.83
print(f"predicted {predicted:.10f}, measured {measured:.10f}, the factor per step of gradient descent at its best rate")
