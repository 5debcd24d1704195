"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from npvae.core import cores
from npvae.core.cores import cores_available


@pytest.fixture
def eight_cores(tmp_path, monkeypatch):
    """A process that may use eight cores, and the folder that plays /sys/fs/cgroup. A function says what is in which file."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN_CGROUPS", tmp_path / "own")

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


V1 = "3:cpuset:/pod\n2:cpu,cpuacct:/pod/job\n1:name=systemd:/\n"


@pytest.mark.parametrize(("own", "files", "n"), [
    ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
    ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
    ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    ("0::/\n", {"cpu.max": "9900000 100000"}, 8),
    ("0::/pod/job\n", {"pod/cpu.max": "200000 100000", "pod/job/cpu.max": "max 100000"}, 2),  # of the group above
    ("0::/pod/job\n", {"pod/cpu.max": "500000 100000", "pod/job/cpu.max": "400000 100000"}, 4),
    ("0::/../../elsewhere\n", {"cpu.max": "300000 100000"}, 3),
    (V1, {"cpu,cpuacct/pod/job/cpu.cfs_quota_us": "300000", "cpu,cpuacct/pod/job/cpu.cfs_period_us": "100000"}, 3),
    (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2),  # as a container sees it
    (V1, {"cpu,cpuacct/pod/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/pod/job/cpu.cfs_period_us": "100000"}, 8),
    (V1, {"cpu,cpuacct/pod/job/cpu.cfs_quota_us": "100000", "cpu,cpuacct/pod/job/cpu.cfs_period_us": "0"}, 8),
    (V1, {"cpuset/pod/cpu.cfs_quota_us": "100000", "cpuset/pod/cpu.cfs_period_us": "100000"}, 8),
    ("", {}, 8),
    ("rubbish", {"cpu.max": "300000 100000"}, 3),
    ("0::/\n", {"cpu.max": ""}, 8),
    ("0::/\n", {"cpu.max": "many 100000"}, 8),
    ("0::/\n", {"cpu.max": f"{10**400} 1"}, 8),
    ("0::/\n", {}, 8),
])  # fmt: skip
def test_the_quota_of_a_container_counts(eight_cores, own, files, n):
    eight_cores(own, files)
    assert cores_available() == n


def test_files_of_control_groups_that_cannot_be_read_are_none(eight_cores, monkeypatch):
    eight_cores("0::/\n", {"cpu.max": "300000 100000"})
    (cores.CGROUPS / "cpu.max").write_bytes(b"\xff\xfe")
    assert cores_available() == 8
    cores.OWN_CGROUPS.unlink()
    assert cores_available() == 8

    def forbidden(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert cores_available() == 8


@pytest.mark.parametrize(("value", "n"), [
    ("3", 3), ("4,2", 4), (" 2 ", 2), ("1", 1), ("99", 8), ("0", 8), ("-2", 8), ("", 8), (",2", 8), ("all", 8), ("nan", 8),
])  # fmt: skip
def test_omp_num_threads_counts(eight_cores, monkeypatch, value, n):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores_available() == n
    eight_cores("0::/\n", {"cpu.max": "200000 100000"})
    assert cores_available() == min(n, 2)


def test_a_system_that_knows_no_cores_has_one(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores_available() == 1
