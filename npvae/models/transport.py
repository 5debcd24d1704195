"""How far samples are from data, of models without a likelihood: the exact optimal-transport distance, and coverage.

Shapes: n rows, D data.
"""

import numpy as np

from npvae.core import checks
from npvae.models.protocol import Measure

MOST_ROWS = 1000  # of each of two sets: the assignment takes 50 ms, and time that grows as the cube
NEIGHBOURS = 5


def distance(x, y):
    """Wasserstein-1 distance of two sets of as many points, x, y (n, D): the mean way when each point of one goes to a point of
    the other, no two to the same, such that it is as short as can be.

    Exact: the assignment by the algorithm of Jonker and Volgenant (Crouse 2016) in SciPy. In the units of the data. Two sets of
    the same density have a distance too, which falls with n (in the plane about as 1/√n). ValueError for unequal shapes.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    x, y = checked_pair(x, y)
    if len(x) != len(y):
        raise ValueError(f"x and y must have as many rows; got {len(x)} and {len(y)}")
    ways = cdist(x, y)  # (n, n)
    return float(ways[linear_sum_assignment(ways)].mean())


def coverage(x, samples, n_neighbours=NEIGHBOURS):
    """The share of the data x (n, D) that have one of the samples (m, D) nearer than their k-th neighbour among the data.

    Naeem et al. 2020. Of samples of the data's own density it is 1 − 2^−k for large n = m, and less where modes are
    left out.
    """
    from scipy.spatial import cKDTree

    x, samples = checked_pair(x, samples)
    radius = cKDTree(x).query(x, n_neighbours + 1)[0][:, -1]  # the nearest is the datum itself
    nearest = cKDTree(samples).query(x)[0]
    return float((nearest < radius).mean())


def checked_pair(x, y):
    """Both as float64, (n, D) and (m, D), or ValueError."""
    x, y = (checks.real_array(name, value).astype(np.float64) for name, value in [("x", x), ("y", y)])
    if x.ndim != 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x and y must have the same columns; got shapes {x.shape} and {y.shape}")
    return x, y


def measures(x, samples, seed=0):
    """Of rows x (n, D) and samples (n, D): their distance, that of two halves of the rows, and coverage, as Measures; of few
    rows what they allow."""
    n = min(MOST_ROWS, max(1, len(x) // 2))
    rows, units = np.random.default_rng([seed, 1]).permutation(len(x)), "units of the data"
    one, other = x[rows[:n]], x[rows[n : 2 * n]]
    about = f"Wasserstein-1, exact, of {n} rows and as many samples"
    found = [Measure("transport_distance", distance(one, samples[:n]), units, about)]
    if len(other) == n:
        found.append(Measure("transport_distance_of_data", distance(one, other), units, "of two sets of rows: the floor"))
    if len(other) > NEIGHBOURS:
        about = f"share of the rows with a sample among their {NEIGHBOURS} nearest neighbours"
        found += [
            Measure("coverage", coverage(one, samples[:n]), "", about),
            Measure("coverage_of_data", coverage(one, other), "", "the same with other rows for samples"),
        ]
    return found
