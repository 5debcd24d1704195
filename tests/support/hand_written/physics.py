"""Energies and forces, lattices, trajectories and adjoints."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong

# ------------------------------------------------------------------------------------------------ energies, forces

ATOMS = np.array([[0.0, 0.0, 0.0], [1.1, 0.1, 0.0], [0.2, 1.2, -0.1], [0.9, 0.9, 1.0]])


def lennard_jones(r):
    """Energy and forces by a double loop."""
    energy, forces = 0.0, np.zeros((len(r), 3))
    for i in range(len(r)):
        for j in range(i + 1, len(r)):
            d = r[i] - r[j]
            s6 = 1 / (d @ d) ** 3
            energy += 4 * (s6 * s6 - s6)
            f = 24 * (2 * s6 * s6 - s6) / (d @ d) * d
            forces[i] += f
            forces[j] -= f
    return energy, forces


def lennard_jones_energy(r):
    """The same energy by broadcasting."""
    i, j = np.triu_indices(len(r), 1)
    d2 = ((r[i] - r[j]) ** 2).sum(axis=1)
    return (4 * (d2**-6.0 - d2**-3.0)).sum()


@right
def lennard_jones_gradient():
    """The gradient is minus the forces."""
    return Scalar(lennard_jones_energy, ATOMS, -lennard_jones(ATOMS)[1])


@wrong
def lennard_jones_forces():
    """The forces are taken for the gradient."""
    return Scalar(lennard_jones_energy, ATOMS, lennard_jones(ATOMS)[1])


@wrong
def lennard_jones_with_one_side_of_each_pair():
    """Newton's third law is forgotten: only atom i feels the force."""
    g = np.zeros((4, 3))
    for i in range(4):
        for j in range(i + 1, 4):
            d = ATOMS[i] - ATOMS[j]
            s6 = 1 / (d @ d) ** 3
            g[i] -= 24 * (2 * s6 * s6 - s6) / (d @ d) * d
    return Scalar(lennard_jones_energy, ATOMS, g)


@right
def energy_and_gradient_at_once():
    """The double loop returns (energy, gradient), with a buffer of zeros inside."""

    def f(r):
        energy, forces = lennard_jones(r)
        return energy, -forces

    return Scalar(f, ATOMS, f(ATOMS)[1])


def chain(x):
    """A periodic chain of springs with a quartic term."""
    d = np.roll(x, -1) - x
    return 0.5 * np.sum(d**2) + 0.25 * np.sum(d**4)


@right
def spring_chain():
    """A ring, np.roll in both directions."""
    x = normal(6)
    d = np.roll(x, -1) - x
    s = d + d**3
    return Scalar(chain, x, np.roll(s, 1) - s)


@wrong
def spring_chain_rolled_the_wrong_way():
    """np.roll(s, −1) in the gradient."""
    x = normal(6)
    d = np.roll(x, -1) - x
    s = d + d**3
    return Scalar(chain, x, np.roll(s, -1) - s)


@right
def open_chain():
    """np.diff and fixed ends."""

    def f(x):
        return 0.5 * np.sum(np.diff(np.concatenate([[0.0], x, [1.0]])) ** 2)

    x = normal(5)
    d = np.diff(np.concatenate([[0.0], x, [1.0]]))
    return Scalar(f, x, d[:-1] - d[1:])


@wrong
def open_chain_without_its_right_end():
    """The last spring is left out of the gradient."""
    f, x, grad, _ = open_chain()
    grad = grad.copy()
    grad[-1] += 1 - x[-1]
    return Scalar(f, x, grad)


def mean_field(m):
    """The free energy per spin of an Ising lattice in mean field, J = 0.3 and four neighbours, with site magnetisations."""
    field = np.roll(m, 1) + np.roll(m, -1)
    entropy = (1 + m) / 2 * np.log((1 + m) / 2) + (1 - m) / 2 * np.log((1 - m) / 2)
    return -0.3 * 0.5 * (m * field).sum() + entropy.sum()


@right
def ising_mean_field():
    """A ring of magnetisations."""
    m = np.tanh(normal(6))
    return Scalar(mean_field, m, -0.3 * (np.roll(m, 1) + np.roll(m, -1)) + np.arctanh(m))


@wrong
def ising_mean_field_with_half_the_field():
    """Each bond is differentiated on one side only."""
    m = np.tanh(normal(6))
    return Scalar(mean_field, m, -0.3 * 0.5 * (np.roll(m, 1) + np.roll(m, -1)) + np.arctanh(m))


@right
def ising_at_zero_field():
    """At m = 0 the gradient is exactly zero."""
    return Scalar(mean_field, np.zeros(6), np.zeros(6))


def rotors(t):
    """Planar spins on a square lattice."""
    return -(np.cos(t - np.roll(t, 1, axis=0)) + np.cos(t - np.roll(t, 1, axis=1))).sum()


@right
def planar_spins():
    """Four neighbours of each spin."""
    t = normal(3, 3)
    return Scalar(rotors, t, sum(np.sin(t - np.roll(t, s, axis=a)) for s in (1, -1) for a in (0, 1)))


@wrong
def planar_spins_with_two_neighbours():
    """Only the neighbours that the energy names."""
    t = normal(3, 3)
    return Scalar(rotors, t, sum(np.sin(t - np.roll(t, 1, axis=a)) for a in (0, 1)))


def field_action(phi):
    kinetic = sum(0.5 * ((np.roll(phi, 1, axis=a) - phi) ** 2).sum() for a in (0, 1))
    return kinetic + (0.5 * -0.4 * phi**2 + 0.25 * phi**4).sum()


@right
def lattice_field():
    """A φ⁴ action and its lattice Laplacian."""
    phi = normal(4, 4)
    laplacian = sum(np.roll(phi, s, axis=a) for s in (1, -1) for a in (0, 1)) - 4 * phi
    return Scalar(field_action, phi, -laplacian - 0.4 * phi + phi**3)


@wrong
def lattice_field_with_two_for_four():
    """The Laplacian of one dimension on two."""
    phi = normal(4, 4)
    laplacian = sum(np.roll(phi, s, axis=a) for s in (1, -1) for a in (0, 1)) - 2 * phi
    return Scalar(field_action, phi, -laplacian - 0.4 * phi + phi**3)


# --------------------------------------------------------------------------------------- trajectories and adjoints


def leapfrog(q, p, steps=5, dt=0.1):
    """A pendulum; positions and momenta at the end, with all positions for the way back."""
    positions = []
    p = p - 0.5 * dt * np.sin(q)
    for step in range(steps):
        q = q + dt * p
        positions.append(q)
        p = p - (dt if step < steps - 1 else 0.5 * dt) * np.sin(q)
    return (q, p), positions


def of_leapfrog(half=0.5):
    def forward(q, p):
        out, positions = leapfrog(q, p)
        return out, (q, positions)

    def backward(dq, dp, cache):
        q, positions = cache
        dt = 0.1
        for step in reversed(range(5)):
            dq = dq - (dt if step < 4 else half * dt) * np.cos(positions[step]) * dp
            dp = dp + dt * dq
        return dq - 0.5 * dt * np.cos(q) * dp, dp

    return Pair(forward, backward, (normal(3), normal(3, seed=1)))


@right
def leapfrog_trajectory():
    """A pendulum's trajectory in its initial conditions."""
    return of_leapfrog()


@wrong(error=0.05)
def leapfrog_with_a_whole_last_step():
    """The last half step goes back as a whole one."""
    return of_leapfrog(half=1.0)


def runge_kutta(k, x0=1.0, steps=6, dt=0.2):
    """ẋ = −k₀ x + k₁ sin x: all states."""
    xs = [x0]
    for _ in range(steps):
        x = xs[-1]
        mid = x + 0.5 * dt * (-k[0] * x + k[1] * np.sin(x))
        xs.append(x + dt * (-k[0] * mid + k[1] * np.sin(mid)))
    return xs


def adjoint_gradient(k, late=0, dt=0.2):
    """Of (x_end − 0.5)², by the discrete adjoint of the midpoint rule; late reads the state one step too late."""
    xs = runge_kutta(k)
    lam, g = 2 * (xs[-1] - 0.5), np.zeros(2)
    for n in reversed(range(6)):
        x = xs[n + late]
        mid = x + 0.5 * dt * (-k[0] * x + k[1] * np.sin(x))
        dmid = lam * dt * (-k[0] + k[1] * np.cos(mid))
        g += lam * dt * np.array([-mid, np.sin(mid)]) + dmid * 0.5 * dt * np.array([-x, np.sin(x)])
        lam = lam + dmid * (1 + 0.5 * dt * (-k[0] + k[1] * np.cos(x)))
    return g


def end_error(k):
    return (runge_kutta(k)[-1] - 0.5) ** 2


@right
def adjoint_of_an_integrator():
    """The discrete adjoint of the midpoint rule."""
    k = np.array([0.8, 0.3])
    return Scalar(end_error, k, adjoint_gradient(k))


@wrong
def adjoint_one_step_late():
    """The state is read at n + 1 where n is meant."""
    k = np.array([0.8, 0.3])
    return Scalar(end_error, k, adjoint_gradient(k, late=1))


def diffusion(c):
    """An implicit step of heat flow with conductivities c, into a matrix of zeros."""
    n = len(c)
    M = np.zeros((n, n))
    for i in range(n):
        M[i, i] += 1 + c[i]
        M[i, (i + 1) % n] -= 0.4 * c[i]
        M[(i + 1) % n, i] -= 0.6 * c[i]
    return M


def heat(c):
    return (np.linalg.solve(diffusion(c), SOURCE) ** 2).sum()


SOURCE = normal(5, seed=3)


def heat_grad(c, transposed):
    M, n = diffusion(c), len(c)
    u = np.linalg.solve(M, SOURCE)
    lam = np.linalg.solve(M.T if transposed else M, 2 * u)
    g = np.zeros(n)
    for i in range(n):
        j = (i + 1) % n
        g[i] = -(lam[i] * u[i] - 0.4 * lam[i] * u[j] - 0.6 * lam[j] * u[i])
    return g


@right
def adjoint_of_a_linear_system():
    """A matrix assembled in zeros, and the adjoint system."""
    c = np.linspace(0.5, 1.5, 5)
    return Scalar(heat, c, heat_grad(c, True))


@wrong
def adjoint_of_a_linear_system_untransposed():
    """The adjoint system is solved without the transpose."""
    c = np.linspace(0.5, 1.5, 5)
    return Scalar(heat, c, heat_grad(c, False))
