"""How workers wait for each other inside of a kernel."""

import threading

import numpy as np
import pytest

from npvae.core.workers import ABORTED, LINE, Workers
from npvae.kernels import team


def signals(n):
    return np.zeros((2 * n + 2) * LINE, np.int64)


def meeting(shared, n, finite, who=None):
    """What `meet` tells each of the workers, each in a thread of its own."""
    found = {}

    def come(k):
        found[k] = team.meet(shared, k, n, finite[k])

    threads = [threading.Thread(target=come, args=(k,)) for k in (range(n) if who is None else who)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return found


@pytest.mark.parametrize("n", [1, 2, 4])
def test_all_hear_whether_all_is_finite(n):
    shared = signals(n)
    assert meeting(shared, n, [True] * n) == dict.fromkeys(range(n), True)
    for culprit in range(n):
        assert meeting(shared, n, [k != culprit for k in range(n)]) == dict.fromkeys(range(n), False)
        assert meeting(shared, n, [True] * n) == dict.fromkeys(range(n), True)  # said once, it holds for that meeting


def test_nobody_passes_before_all_have_come():
    shared, passed = signals(2), []
    early = threading.Thread(target=lambda: passed.append(team.meet(shared, 0, 2, True)))
    early.start()
    early.join(0.05)
    assert passed == []
    assert team.meet(shared, 1, 2, True)
    early.join(60)
    assert passed == [True]


def test_who_does_not_come_any_more_is_not_waited_for():
    shared = signals(3)
    shared[LINE] = ABORTED
    assert meeting(shared, 3, [True] * 3, who=(0, 2)) == {0: False, 2: False}


def test_the_first_worker_says_that_a_step_begins():
    shared = signals(2)
    team.begin(shared, 1, 2)
    assert shared[2 * LINE] == 0
    team.begin(shared, 0, 2)
    team.begin(shared, 0, 2)
    assert shared[2 * LINE] == 2
    alone = signals(1)
    team.begin(alone, 0, 1)
    assert not alone.any()


def test_watching_ends_at_the_number_or_after_so_many_looks():
    shared = signals(1)
    shared[3] = 7
    assert team.watch(shared, 3, 7, 1)
    assert not team.watch(shared, 3, 8, 10)


@pytest.mark.parametrize("begins", [True, False])
def test_workers_that_watch_do_all_tasks_in_order(begins):
    """Tasks that follow each other at once, and after a while in which the workers have fallen asleep."""
    pause = threading.Event()
    with Workers(3) as workers:
        workers.team = team

        def task(k):
            team.begin(workers.signals, k, 3)
            return k, number

        for number in range(300):
            assert workers.map(task, range(3), begins=begins) == [(k, number) for k in range(3)]
            if number % 100 == 0:
                pause.wait(0.02)


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_an_error_before_a_meeting_holds_nobody_up(culprit):
    with Workers(3) as workers:
        workers.team = team

        def task(k, fails=True):
            team.begin(workers.signals, k, 3)
            if fails and k == culprit:
                raise ValueError("of one")
            return team.meet(workers.signals, k, 3, True)

        for _ in range(2):
            with pytest.raises(ValueError, match="of one"):
                workers.map(task, range(3), begins=True)
            assert workers.map(lambda k: task(k, fails=False), range(3), begins=True) == [True] * 3
