# %% [markdown]
# # 14 The saddle of a game: why an adversarial network goes round
#
# **Why.** Gradient descent on one loss goes downhill and comes to rest. Two networks that descend two losses need not: what one
# gains the other loses. The smallest adversarial network that shows it has two parameters (Mescheder, Geiger & Nowozin 2018).
# All data are the point 0, the generator makes the point θ, and the critic is the line f(x) = ψ x. At θ = 0, ψ = 0 the samples
# are the data and the critic has nothing to say.
#
# **Read before.** Lessons 3 and 9; `npvae/ops/adversarial.py`; afterwards `npvae/models/adversarial.py`.
#
# **Prediction.** With the learning rate η = 0.2 each step that both players take at the same time leads away from the solution:
# near it, the distance grows by √(1 + η²/4) = √1.01 = 1.00499 per step.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.gradcheck import complex_step_grad
from npvae.ops import adversarial

rate, n_steps = 0.2, 300
start = np.array([1.2, 0.0])  # θ, ψ

# %% [markdown]
# ## Two losses, two gradients
#
# The critic's outputs are a = f(0) = 0 for data and b = f(θ) = ψ θ for samples. Its loss is −log σ(a) − log σ(−b). The
# generator of the minimax game minimises log σ(−b), the second part with the other sign. Each player takes the gradient with
# respect to its own parameter:
#
#     dθ = db_generator ψ = −σ(ψ θ) ψ          dψ = db_critic θ = σ(ψ θ) θ
#
# ## Why it goes round
#
# The step (−η dθ, −η dψ) = η σ (ψ, −θ) is at right angles to (θ, ψ). So an infinitely small step keeps the distance r from the
# saddle, and a step of the rate η leads from the circle along its tangent, to the outside:
#
#     r_next² = r² (1 + η² σ²)        near the saddle σ = ½
#
# No step size helps: a smaller one goes round more slowly, and still outward.


# %%
def minimax(theta, psi):
    """Gradients of the generator's loss with respect to θ and of the critic's with respect to ψ."""
    a, b = np.array([0.0 * psi]), np.array([psi * theta])  # f(0), f(θ)
    one = np.ones(1)
    dtheta = adversarial.minimax_generator_backward(one, adversarial.minimax_generator_forward(b)[1])[0] * psi
    da, db = adversarial.logistic_critic_backward(one, adversarial.logistic_critic_forward(a, b)[1])
    return dtheta, db[0] * theta + da[0] * 0  # b = psi * theta, a = psi * 0


def critic_loss(psi, theta):
    return adversarial.logistic_critic_forward(0 * psi, psi * theta)[0].sum()


def generator_loss(theta, psi):
    return adversarial.minimax_generator_forward(psi * theta)[0].sum()


theta, psi = np.array([0.7]), np.array([-0.4])
assert np.isclose(minimax(0.7, -0.4)[0], complex_step_grad(lambda t: generator_loss(t, psi), theta)[0], rtol=1e-14)
assert np.isclose(minimax(0.7, -0.4)[1], complex_step_grad(lambda p: critic_loss(p, theta), psi)[0], rtol=1e-14)

# %% [markdown]
# ## Taking turns
#
# If the critic's step sees the θ that the generator has just made, the two steps together are, near the saddle and with
# h = η/2, the matrix ((1, h), (−h, 1 − h²)). Its determinant is 1 and its eigenvalues lie on the unit circle: nothing grows,
# and nothing shrinks. `npvae.training.turns` takes turns.
#
# ## A penalty on the slope
#
# The critic's loss gets ½ γ f'(0)² = ½ γ ψ² (ibid.): a critic that has nothing to say shall be flat. Now dψ has
# the term γ ψ, a friction. The matrix of the flow is ((0, ½), (−½, −γ)), with determinant ¼ and trace −γ, so that both
# eigenvalues λ have negative real parts. A step multiplies by |1 + ηλ| = √(1 − ηγ + η²/4) where they are complex (γ < 1).
#
# ## A penalty that wants the slope 1
#
# The penalty λ (‖∂f/∂x‖ − 1)² of Gulrajani et al. 2017 is made for the Wasserstein form, b − a for the critic and −b for the
# generator. Here it is λ (|ψ| − 1)². Where samples are data the critic shall have a slope all the same, and the slope moves the
# generator on. It does not come to rest (ibid.).


# %%
def flat(theta, psi, gamma=0.5):
    """With ½ γ ψ² in the critic's loss."""
    dtheta, dpsi = minimax(theta, psi)
    return dtheta, dpsi + gamma * psi


def slope_1(theta, psi, weight=0.3):
    """The Wasserstein losses, with λ (|ψ| − 1)² in the critic's."""
    _, cache = adversarial.slope_penalty_forward(np.array([[psi]]), weight)
    return -psi, theta + adversarial.slope_penalty_backward(np.ones(1), cache)[0, 0]  # of −ψ θ, and of ψ θ


def path(game, start, in_turn=False, steps=n_steps):
    """(steps + 1, 2) of θ and ψ, both moved at the same time, or the generator first."""
    theta, psi = start
    points = [(theta, psi)]
    for _ in range(steps):
        dtheta, dpsi = game(theta, psi)
        theta = theta - rate * dtheta
        if in_turn:
            _, dpsi = game(theta, psi)
        psi = psi - rate * dpsi
        points.append((theta, psi))
    return np.array(points)


ways = {
    "at the same time": (minimax, False),
    "in turn": (minimax, True),
    "at the same time, ½ γ ψ²": (flat, False),
    "at the same time, λ (|ψ| − 1)²": (slope_1, False),
}
paths = {name: path(game, start, in_turn) for name, (game, in_turn) in ways.items()}
distances = {name: np.linalg.norm(points, axis=1) for name, points in paths.items()}
print(f"{'distance from the saddle after steps':36}{0:>9}{100:>9}{200:>9}{300:>9}")
for name, r in distances.items():
    print(f"{name:36}" + "".join(f"{r[i]:9.4f}" for i in (0, 100, 200, 300)))

# %% [markdown]
# ## Near the saddle, in numbers
#
# A step is a matrix there. Two paths span an area, and the determinant is what a step multiplies this area by. Its root is the
# factor for lengths, on average over a turn.


# %%
def factor_per_step(game, in_turn):
    """From the areas that two paths from near the saddle span at the beginning, and after 100 steps."""
    one, other = (path(game, near, in_turn, 100) for near in 1e-6 * np.eye(2))
    areas = [abs(np.linalg.det([one[i], other[i]])) for i in (0, 100)]
    return (areas[1] / areas[0]) ** (1 / 200)


factors = {name: factor_per_step(*way) for name, way in ways.items() if way[0] is not slope_1}
expected = [math.sqrt(1 + rate**2 / 4), 1.0, math.sqrt(1 - 0.5 * rate + rate**2 / 4)]
print("\nfactor per step near the saddle")
for (name, factor), wanted in zip(factors.items(), expected):
    print(f"{name:36}{factor:9.5f}, from the matrix {wanted:.5f}")

# %% [markdown]
# ## What is seen
#
# Paths that go round, and one that comes to rest, that of the flat critic. The slope 1 keeps the fourth on a ring. Far from the
# saddle σ(ψθ) is not ½, but the minimax step is at right angles to the radius everywhere. So much for two parameters: with data
# that are spread out and a critic with many parameters both penalties help, and benchmarks/families.py measures how much.

# %%
figure = plt.figure(figsize=(10, 5.8), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(3, 2.4))
panels, axes = top.subplots(1, 4, sharex=True, sharey=True), bottom.subplots()
ticks = np.linspace(-2.4, 2.4, 13)
colours = ["#ee6677", "#ccbb44", "#228833", "#4477aa"]
for panel, color, (name, points) in zip(panels, colours, paths.items()):
    game, _ = ways[name]
    field = -np.array([[game(theta, psi) for theta in ticks] for psi in ticks])  # (13, 13, 2)
    panel.quiver(ticks, ticks, *np.moveaxis(field, -1, 0), color="0.75", width=0.005, scale=30)
    panel.plot(*points.T, color=color, lw=0.9)
    panel.plot(*start, "o", color=color, ms=4)
    panel.plot(0, 0, "k+")
    panel.set(title=name.replace(", ", ",\n"), xlabel="θ, the sample", aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
    panel.title.set_fontsize(10)
    axes.semilogy(distances[name], color=color, label=name)
panels[0].set_ylabel("ψ, the critic's slope")
axes.set(xlabel="step", ylabel="distance from the saddle", ylim=(1e-4, 20), xlim=(0, n_steps))
axes.legend(fontsize=8, loc="lower left")
axes.grid(alpha=0.3)
keep(figure, "14_saddle_of_a_game")

# %%
predicted, measured = expected[0], factors["at the same time"]
assert np.allclose(list(factors.values()), expected, rtol=1e-6)
radii = distances["at the same time"]
assert np.all(np.diff(radii) > 0)
assert np.allclose(np.sum(np.diff(paths["at the same time"], axis=0) * paths["at the same time"][:-1], axis=1), 0, atol=1e-12)
assert distances["at the same time, λ (|ψ| − 1)²"][200:].min() > 1.5
print(f"predicted {predicted:.10f}, measured {measured:.10f}, the growth per step that both take at the same time")
