"""Particles in a block of walkers: what networks are told of them, and the base and the local energy of a system.

Compiled parts of `npvae.kernels.drift`; the readable ones are in `npvae.ops.pair_features`, `npvae.ops.cusps` and
`npvae.ops.potentials`, where the labels are derived. The constants of a system, `physics`, are the fields of Physics in order.

Sums over the few columns of a walker run in float64. Shapes: B walkers, N particles, d dimensions, D = N d, A centres.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.kernels.compile import jit
from npvae.ops import cusps, potentials


class Physics(NamedTuple):
    """Constants of b and E_b: of charges with all cusps, or of particles in a trap, b = −ω r."""

    n_particles: int  # N
    n_dimensions: int  # d of each
    centres: np.ndarray  # (A, d): nuclei, or the middle of the trap
    charges: np.ndarray  # (A,); none in a trap
    slope: float  # of log ψ_b along the distance of two electrons
    constant: float  # added to E_b
    has_cusps: bool
    omega: float
    series: np.ndarray  # (n,) E_b = Σ_d Σ_k c_k r_d^k + ...
    stiffness: float  # + ½ k Σ_{i<j} |r_i − r_j|²
    strength: float  # + Σ_{i<j} g/(π s²) e^(−|r_i − r_j|²/s²)
    range: float
    is_bounded: bool  # strengths are divided by 1 plus their distance


def physics_of(system, dtype):
    """The Physics of a `npvae.models.quantum_systems.System`; None where its base or local energy is none of those above."""
    base, energy = system.base, system.local_energy
    found = {"charges": (), "slope": 0.0, "constant": 0.0, "has_cusps": False, "omega": 0.0, "series": [0.0] * 5,
             "stiffness": 0.0, "strength": 0.0, "range": 1.0, "is_bounded": bool(system.positions)}  # fmt: skip
    if energy.forward is cusps.cusp_energy_forward:
        found["has_cusps"], found["constant"] = True, energy.parameters[1]
        for part in base.parameters if base.forward is potentials.sum_forward else (base,):
            if part.forward is cusps.nuclear_forward:
                found["charges"] = part.parameters[1]
            elif part.forward is cusps.electronic_forward:
                found["slope"] = part.parameters[0]
            else:
                return None
    elif base.forward is not cusps.linear_forward or not add_terms(found, energy):
        return None
    found["omega"] = 0.0 if found["has_cusps"] else base.parameters
    arrays = {name: np.array(found[name], dtype) for name in ("charges", "series")}
    return Physics(system.n_particles, system.n_dimensions, np.array(system.centres, dtype), **{**found, **arrays})


def add_terms(found, energy):
    """Note the terms of a local energy of trapped particles in `found`; whether all of them are known."""
    if energy.forward is potentials.sum_forward:
        return all([add_terms(found, part) for part in energy.parameters])
    values, series = energy.parameters, found["series"]
    if energy.forward is potentials.harmonic_forward:
        series[2] += 0.5 * values
    elif energy.forward is potentials.series_forward and len(values) <= len(series):
        found["series"] = [a + b for a, b in zip(series, [*values, *[0.0] * (len(series) - len(values))])]
    elif energy.forward is potentials.constant_forward:
        found["constant"] += values
    elif energy.forward is potentials.springs_forward:
        found["stiffness"] += values[0]
    elif energy.forward is potentials.gaussians_forward and not found["strength"]:
        found["strength"], found["range"] = values
    else:
        return False
    return True


# ---------------------------------------------------------------------------------------- what networks are told of particles


def _distance(a, i, b, j, d):
    total = 0.0
    for c in range(d):
        difference = a[i + c] - b[j + c]
        total += difference * difference
    return np.sqrt(total)


def _features(r, N, d, centres, joined, pairs):
    """s_i into the first A columns of joined (B N, ·), p_ij into pairs (B N (N − 1), 2 A + 1)."""
    A, row = len(centres), 0
    for w in range(len(r)):
        for i in range(N):
            for a in range(A):
                joined[w * N + i, a] = distance(r[w], i * d, centres[a], 0, d)
        for i in range(N):
            for j in range(N):
                if j != i:
                    for a in range(A):
                        pairs[row, a], pairs[row, A + a] = joined[w * N + i, a], joined[w * N + j, a]
                    pairs[row, 2 * A] = distance(r[w], i * d, r[w], j * d, d)
                    row += 1


def _features_backward(r, N, d, centres, djoined, dpairs, dr):
    """Add to dr (B, D) what reaches it by way of the distances in joined and pairs."""
    A, row = len(centres), 0
    ds = np.empty((N, A))
    for w in range(len(r)):
        for i in range(N):
            for a in range(A):
                ds[i, a] = djoined[w * N + i, a]
        for i in range(N):
            for j in range(N):
                if j != i:
                    for a in range(A):
                        ds[i, a] += dpairs[row, a]  # (PAIR-s)
                        ds[j, a] += dpairs[row, A + a]
                    factor = dpairs[row, 2 * A] / distance(r[w], i * d, r[w], j * d, d)  # (LENGTHS)
                    for c in range(d):
                        along = factor * (r[w, i * d + c] - r[w, j * d + c])
                        dr[w, i * d + c] += along
                        dr[w, j * d + c] -= along
                    row += 1
        for i in range(N):
            for a in range(A):
                factor = ds[i, a] / distance(r[w], i * d, centres[a], 0, d)
                for c in range(d):
                    dr[w, i * d + c] += factor * (r[w, i * d + c] - centres[a, c])


def _pushes(r, N, d, centres, joined, pairs, alpha, beta, is_bounded, u):
    """u (B, D) of the strengths alpha (B N, A) and beta (B N (N − 1), 1); joined and pairs begin and end with distances."""
    A, row = len(centres), 0
    for w in range(len(r)):
        for i in range(N):
            for c in range(d):
                u[w, i * d + c] = 0
            for a in range(A):
                factor = 1 / (1 + joined[w * N + i, a]) if is_bounded else 1.0
                strength = alpha[w * N + i, a] * factor
                for c in range(d):
                    u[w, i * d + c] += strength * (r[w, i * d + c] - centres[a, c])
            for j in range(N):
                if j != i:
                    factor = 1 / (1 + pairs[row, 2 * A]) if is_bounded else 1.0
                    strength = beta[row, 0] * factor
                    for c in range(d):
                        u[w, i * d + c] += strength * (r[w, i * d + c] - r[w, j * d + c])
                    row += 1


def _pushes_backward(r, N, d, centres, joined, pairs, alpha, beta, is_bounded, du, dalpha, dbeta, dr):
    """dalpha, dbeta of du (B, D), and what it adds to dr (B, D)."""
    A, row = len(centres), 0
    for w in range(len(r)):
        for i in range(N):
            for a in range(A):
                s, product = joined[w * N + i, a], 0.0
                factor = 1 / (1 + s) if is_bounded else 1.0
                for c in range(d):
                    product += du[w, i * d + c] * (r[w, i * d + c] - centres[a, c])
                dalpha[w * N + i, a] = product * factor  # (PUSH-alpha), (DAMPED-strength)
                strength = alpha[w * N + i, a] * factor
                along = -product * strength * factor / s if is_bounded else 0.0  # (DAMPED-s)
                for c in range(d):
                    dr[w, i * d + c] += strength * du[w, i * d + c] + along * (r[w, i * d + c] - centres[a, c])  # (PUSH-x)
            for j in range(N):
                if j != i:
                    s, product = pairs[row, 2 * A], 0.0
                    factor = 1 / (1 + s) if is_bounded else 1.0
                    for c in range(d):
                        product += du[w, i * d + c] * (r[w, i * d + c] - r[w, j * d + c])
                    dbeta[row, 0] = product * factor  # (PUSH-beta)
                    strength = beta[row, 0] * factor
                    along = -product * strength * factor / s if is_bounded else 0.0
                    for c in range(d):
                        moved = strength * du[w, i * d + c] + along * (r[w, i * d + c] - r[w, j * d + c])  # (PUSH-y)
                        dr[w, i * d + c] += moved
                        dr[w, j * d + c] -= moved
                    row += 1


def _mean_of_others(g, N, joined):
    """m_i, the mean of g_ij over j, into the last columns of joined: g (B N (N − 1), M)."""
    M = g.shape[1]
    share, start = 1 / (N - 1), joined.shape[1] - M
    for i in range(len(joined)):
        for c in range(M):
            total = 0.0
            for j in range(N - 1):
                total += g[i * (N - 1) + j, c]
            joined[i, start + c] = share * total


def _add_mean_of_others(djoined, N, dq):
    """Add to dq (B N (N − 1), M) what it has of the mean."""
    M = dq.shape[1]
    share, start = 1 / (N - 1), djoined.shape[1] - M
    for i in range(len(djoined)):
        for j in range(N - 1):
            for c in range(M):
                dq[i * (N - 1) + j, c] += share * djoined[i, start + c]  # (EXCHANGE-q)


# ---------------------------------------------------------------------------------------------- the base, and its local energy


def _base_and_energy(r, physics, b, energy):
    """b (B, D) and E_b (B,) of places r (B, D)."""
    N, d, centres, charges, slope, constant, has_cusps, omega, series, stiffness, strength, width, _ = physics
    for w in range(len(r)):
        total = constant
        if not has_cusps:
            for c in range(N * d):
                b[w, c] = -omega * r[w, c]
                value = 0.0
                for k in range(len(series) - 1, -1, -1):
                    value = value * r[w, c] + series[k]
                total += value
            if stiffness != 0 or strength != 0:
                for i in range(N):
                    for j in range(i):
                        square = distance(r[w], i * d, r[w], j * d, d) ** 2
                        total += 0.5 * stiffness * square + contact(square, strength, width)
            energy[w] = total
            continue
        b[w, :] = 0
        for i in range(N):
            for a in range(len(charges)):
                factor = charges[a] / distance(r[w], i * d, centres[a], 0, d)
                for c in range(d):
                    b[w, i * d + c] -= factor * (r[w, i * d + c] - centres[a, c])
            for j in range(i):
                factor = slope / distance(r[w], i * d, r[w], j * d, d)
                for c in range(d):
                    along = factor * (r[w, i * d + c] - r[w, j * d + c])
                    b[w, i * d + c] += along
                    b[w, j * d + c] -= along
        for c in range(N * d):
            total -= 0.5 * b[w, c] * b[w, c]
        energy[w] = total


def _add_base_gradient(r, physics, b, db, denergy, dr):
    """Add to dr (B, D) what db (B, D) and the number denergy, the same for each walker, give of b and E_b; b is that of r."""
    N, d, centres, charges, slope, _, has_cusps, omega, series, stiffness, strength, width, _ = physics
    along, x = np.empty(N * d, r.dtype), np.empty(d, r.dtype)
    for w in range(len(r)):
        if not has_cusps:
            for c in range(N * d):
                tangent = 0.0
                for k in range(len(series) - 1, 0, -1):
                    tangent = tangent * r[w, c] + k * series[k]
                dr[w, c] += denergy * tangent - omega * db[w, c]  # (SERIES), (LINEAR)
            if stiffness != 0 or strength != 0:
                for i in range(N):
                    for j in range(i):
                        square = distance(r[w], i * d, r[w], j * d, d) ** 2
                        pull = stiffness - 2 / (width * width) * contact(square, strength, width)
                        for c in range(d):
                            force = denergy * pull * (r[w, i * d + c] - r[w, j * d + c])  # (SPRINGS), (GAUSSIANS)
                            dr[w, i * d + c] += force
                            dr[w, j * d + c] -= force
            continue
        for c in range(N * d):
            along[c] = db[w, c] - denergy * b[w, c]  # (CUSP-ENERGY)
        for i in range(N):
            for a in range(len(charges)):
                s, of_u = distance(r[w], i * d, centres[a], 0, d), 0.0
                for c in range(d):
                    x[c] = (r[w, i * d + c] - centres[a, c]) / s
                    of_u += along[i * d + c] * x[c]
                for c in range(d):
                    dr[w, i * d + c] -= charges[a] * (along[i * d + c] - of_u * x[c]) / s  # (NUCLEAR), (UNIT)
            for j in range(i):
                s, of_u = distance(r[w], i * d, r[w], j * d, d), 0.0
                for c in range(d):
                    x[c] = (r[w, i * d + c] - r[w, j * d + c]) / s
                    of_u += (along[i * d + c] - along[j * d + c]) * x[c]
                for c in range(d):
                    force = slope * (along[i * d + c] - along[j * d + c] - of_u * x[c]) / s  # (ELECTRONIC), (UNIT)
                    dr[w, i * d + c] += force
                    dr[w, j * d + c] -= force


def _contact(square, strength, width):
    """g/(π s²) e^(−x²/s²) of x²."""
    return strength / (math.pi * width * width) * math.exp(-square / (width * width))


distance, contact, features, features_backward = jit(_distance), jit(_contact), jit(_features), jit(_features_backward)
pushes, pushes_backward = jit(_pushes), jit(_pushes_backward)
mean_of_others, add_mean_of_others = jit(_mean_of_others), jit(_add_mean_of_others)
base_and_energy, add_base_gradient = jit(_base_and_energy), jit(_add_base_gradient)
