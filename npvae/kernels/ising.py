"""Wolff's cluster algorithm for the Ising model on a periodic square lattice (J = k_B = 1)."""

import numpy as np

from npvae.kernels.compile import jit


def _wolff(spins, size, p_add, n_clusters, samples, rng):
    """Run one chain in place: before each of the `samples`, flip `n_clusters` clusters; return how many spins flipped.

    spins    int8 (size²,), +1 or -1, row by row: the state of the chain, updated in place
    p_add    probability to add an aligned neighbour to the cluster, 1 - exp(-2/T)
    samples  int8 (n_samples, size²), overwritten with the stored states
    rng      numpy.random.Generator of this chain

    Source: Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """
    n_sites = size * size
    stack = np.empty(n_sites, np.int64)  # sites of the cluster whose bonds are still to be tried; each enters once
    n_flipped = 0
    for sample in range(samples.shape[0]):
        for _ in range(n_clusters):
            seed_site = int(rng.random() * n_sites)
            old = spins[seed_site]
            spins[seed_site] = -old  # flipped on entry: a spin of the cluster is no longer aligned, so not added twice
            stack[0] = seed_site
            height = 1
            n_flipped += 1
            while height > 0:
                height -= 1
                site = stack[height]
                column = site % size
                left = site - 1 if column > 0 else site + size - 1
                right = site + 1 if column < size - 1 else site - size + 1
                above = site - size if site >= size else site + n_sites - size
                below = site + size if site < n_sites - size else site - n_sites + size
                for neighbour in (left, right, above, below):
                    if spins[neighbour] == old and rng.random() < p_add:
                        spins[neighbour] = -old
                        stack[height] = neighbour
                        height += 1
                        n_flipped += 1
        samples[sample] = spins
    return n_flipped


wolff = jit(_wolff)
