"""Random numbers as pure functions of the seed and of counters."""

import numpy as np
import pytest

from npvae.core.randomness import FULL_BATCH, PERMUTATION, STEP, VALIDATION, Stream, generator, permutation


def test_a_generator_is_a_pure_function_of_seed_stream_and_counters():
    assert len({PERMUTATION, STEP, VALIDATION, FULL_BATCH}) == 4
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0)]
    assert len({generator(*key).bytes(8) for key in keys}) == 6
    for key in keys:
        assert generator(*key).bytes(8) == generator(*key).bytes(8)


@pytest.mark.parametrize("n", [1, 2, 1000, 70_000])
def test_a_permutation_is_that_of_numpy_in_half_of_the_memory(n):
    order = permutation(np.random.default_rng(3), n)
    np.testing.assert_array_equal(order, np.random.default_rng(3).permutation(n))
    assert order.itemsize == 4


def test_the_numbers_of_a_step_depend_on_nothing_but_the_step():
    key = (7, STEP, 1)
    stream = Stream(*key)
    first = [stream.at(step).standard_normal(5) for step in (0, 1, 10**6)]
    assert len({numbers.tobytes() for numbers in first}) == 3
    stream.at(3).random(1001, np.float32)  # leaves half of a 64-bit number behind
    for step, numbers in zip((10**6, 0, 1), (first[2], *first[:2])):
        np.testing.assert_array_equal(stream.at(step).standard_normal(5), numbers)
        np.testing.assert_array_equal(Stream(*key).at(step).standard_normal(5), numbers)
    np.testing.assert_array_equal(first[0], np.random.Generator(np.random.PCG64DXSM(key)).standard_normal(5))
    jumped = np.random.Generator(np.random.PCG64DXSM(key).jumped(1)).standard_normal(5)
    np.testing.assert_array_equal(first[1], jumped)
    assert not np.array_equal(Stream(7, STEP, 2).at(0).standard_normal(5), first[0])
