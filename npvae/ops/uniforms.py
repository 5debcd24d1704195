"""Uniform random numbers of many Markov chains at once: each chain has a generator of its own.

The generators are xoshiro128++ (Blackman & Vigna 2021). A chain has LANES of them side by side, so that a processor's vectors,
and NumPy's arrays, advance all in one go: number j of a chain comes from lane j mod LANES. What a chain draws depends on its
own state alone, not on the other chains, nor on who computes it. Shapes: C chains.
"""

import numpy as np

LANES = 16
BITS = 23  # of a number: k + ½ in units of 2⁻²³ is exact in float32 as well, and neither 0 nor 1


def generators(rng, n_chains):
    """States of the generators of so many chains, uint32 (C, 4, LANES), drawn from the Generator rng."""
    states = rng.integers(0, 2**32, (n_chains, 4, LANES), np.uint32)
    states[:, 0] |= 1  # a state of zeros would stay there
    return states


def uniforms(states, n, dtype=np.float64):
    """n numbers of each chain, uniform in (0, 1), (C, n): multiples of 2⁻²³ plus 2⁻²⁴. `states` (C, 4, LANES) are advanced in
    place, by whole rounds of LANES numbers."""
    a, b, c, d = (states[:, i].copy() for i in range(4))  # (C, LANES) each, of 32 bits: sums and shifts drop what is above
    rounds = np.empty((len(states), -(-n // LANES), LANES), np.uint32)
    for i in range(rounds.shape[1]):
        total, shifted = a + d, b << 9
        rounds[:, i] = (total << 7 | total >> 25) + a
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        d = d << 11 | d >> 21
    states[:, 0], states[:, 1], states[:, 2], states[:, 3] = a, b, c, d
    numbers = rounds.reshape(len(states), -1)[:, :n] >> (32 - BITS)
    return (numbers.astype(dtype) + dtype(0.5)) * dtype(2.0**-BITS)


def normals(states, n, dtype=np.float64):
    """n standard normal numbers of each chain, (C, n): √(−2 log u) cos 2πu', of n uniforms u and then n uniforms u' (Box &
    Muller 1958). They end at 5.8 in both directions, since u is at least 2⁻²⁴."""
    u, angle = uniforms(states, n, dtype), uniforms(states, n, dtype)
    return np.sqrt(-2 * np.log(u)) * np.cos(dtype(2 * np.pi) * angle)
