"""Wolff's cluster algorithm for the Ising model on a periodic square lattice (J = k_B = 1)."""

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.views import set_row

WORD = 2**32 - 1


def _xoshiro128(a, b, c, d):
    """The generator xoshiro128++: a random integer of 32 bits, and the four of its next state.

    Inlined, a number takes about a nanosecond, a third of what a call of NumPy's generator takes. All are integers of 64 bits
    held to 32, so that nothing overflows where the kernel runs uncompiled.

    Source: Blackman and Vigna, ACM Trans. Math. Softw. 47 (2021) 36.
    """
    total = (a + d) & WORD
    number = ((total << 7 | total >> 25) + a) & WORD
    shifted = b << 9 & WORD
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    return number, a, b, c ^ shifted, (d << 11 | d >> 21) & WORD


xoshiro128 = jit(_xoshiro128)


def _flip_cluster(lattice, size, stride, first_bits, other_bits, stack, a, b, c, d):
    """Flip one cluster of the lattice, whose rows begin at multiples of `stride`; returns how many spins flipped, and the
    generator's next state.

    The four bonds of a site have 8 bits each of one random number. Where these are `first_bits`, in one case of 256, another
    number decides. No other branch depends on a spin or on chance: half of them would be guessed wrong by the processor, and
    take most of the time. So a neighbour that does not join is written to the stack as well, above its top.
    """
    last_row = (size - 1) * stride
    # Any distribution of the first site is right that does not depend on the spins.
    number, a, b, c, d = xoshiro128(a, b, c, d)
    row = number * size >> 32
    number, a, b, c, d = xoshiro128(a, b, c, d)
    site = row * stride + (number * size >> 32)
    old = lattice[site]
    lattice[site] = 1 - old  # flipped on entry: a spin of the cluster is no longer aligned, so not added twice
    stack[0] = site
    height, n_flipped = 1, 0
    while height > 0:
        height -= 1
        n_flipped += 1
        site = int(stack[height])
        column = site & (stride - 1)
        left = site - 1 if column > 0 else site + size - 1
        right = site + 1 if column < size - 1 else site - size + 1
        above = site - stride if site >= stride else site + last_row
        below = site + stride if site < last_row else site - last_row
        bits, a, b, c, d = xoshiro128(a, b, c, d)
        for neighbour in (left, right, above, below):
            joins = bits & 255 < first_bits
            if bits & 255 == first_bits:
                number, a, b, c, d = xoshiro128(a, b, c, d)
                joins = number < other_bits
            bits >>= 8
            joins &= lattice[neighbour] == old
            lattice[neighbour] ^= joins
            stack[height] = neighbour
            height += joins
    return n_flipped, a, b, c, d


flip_cluster = jit(_flip_cluster)


def _wolff(spins, size, p_add, n_clusters, samples, state):
    """Run one chain in place: before each of the `samples`, flip `n_clusters` clusters; return how many spins flipped.

    spins    uint8 (size²,), 0 or 1, row by row: the state of the chain, updated in place
    p_add    probability to add an aligned neighbour to the cluster, 1 - exp(-2/T), to 2⁻⁴⁰
    samples  uint8 (n_samples, size²), overwritten with the stored states
    state    int64 (4,), that of the chain's generator `xoshiro128`, updated in place: four integers of 32 bits, not all 0

    Source: Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """
    a, b, c, d = int(state[0]), int(state[1]), int(state[2]), int(state[3])
    stride = 1
    while stride < size:
        stride *= 2
    lattice = np.empty(size * stride, np.uint8)  # rows begin at multiples of a power of two: & finds a site's column
    for row in range(size):
        set_row(lattice[row * stride : row * stride + size], spins[row * size : row * size + size])
    threshold = int(p_add * 2**40)
    first_bits, other_bits = threshold >> 32, threshold & WORD
    stack = np.empty(size * size + 1, np.int32)  # sites of the cluster whose bonds are still to be tried; each enters once
    n_flipped = 0
    for sample in range(samples.shape[0]):
        for _ in range(n_clusters):
            n, a, b, c, d = flip_cluster(lattice, size, stride, first_bits, other_bits, stack, a, b, c, d)
            n_flipped += n
        for row in range(size):
            set_row(samples[sample, row * size : row * size + size], lattice[row * stride : row * stride + size])
    for row in range(size):
        set_row(spins[row * size : row * size + size], lattice[row * stride : row * stride + size])
    state[0], state[1], state[2], state[3] = a, b, c, d
    return n_flipped


wolff = jit(_wolff)


def _count(spins, size, n_aligned, n_up):
    """Of each lattice of `spins`, uint8 (n, size²) of zeros and ones, into int64 (n,): of its 2 size² bonds those whose two
    spins are equal, and its ones."""
    for i in range(len(spins)):
        lattice, aligned, up = spins[i], 0, 0
        for row in range(size):
            here = lattice[row * size : row * size + size]
            below = (row + 1) % size * size
            next_row = lattice[below : below + size]
            aligned += here[size - 1] == here[0]
            for column in range(size - 1):
                aligned += here[column] == here[column + 1]
            for column in range(size):
                aligned += here[column] == next_row[column]
                up += int(here[column])
        n_aligned[i], n_up[i] = aligned, up


count = jit(_count)
