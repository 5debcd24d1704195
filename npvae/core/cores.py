"""How many cores this process may use."""

import math
import os
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # of Linux: what containers are limited by


def cores_available():
    """The cores that this process may use: those that the system gives it, at most OMP_NUM_THREADS, and at most what the
    processor time of its container is worth (the quota of a Linux control group)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [whole_number(quota) for quota in cgroup_quotas()]
    first_level = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # "4,2" is 4 threads, and 2 in each of them
    limits = [limit for limit in (*quotas, whole_number(first_level)) if limit is not None]
    return min([cores, *limits])


def whole_number(value):
    """A number, or text that is one, as an integer of at least 1; None for what is none, or not above 0."""
    try:
        return max(1, int(float(value))) if 0 < float(value) < math.inf else None
    except ValueError:
        return None


def cgroup_quotas():
    """The cores' worth of time that each control group around this process has, as far as its files can be read."""
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
        folders = [folder for _, controllers, path in groups for folder in cgroup_folders(controllers, path)]
    except (OSError, ValueError):
        folders = [CGROUPS]
    for folder in folders:
        for read in (v2_quota, v1_quota):
            try:
                yield read(folder)
            except (OSError, ValueError, ArithmeticError):  # there is none, or it is "max"
                continue


def cgroup_folders(controllers, path):
    """The folder of a control group and those above it, as far up as this process sees: a line of /proc/self/cgroup names no
    controllers in version 2, and those that it is about in version 1."""
    if controllers and "cpu" not in controllers.split(","):
        return []
    root = CGROUPS / controllers
    inside = root / path.strip("/")
    return [folder for folder in (inside, *inside.parents) if folder.is_relative_to(root)]


def v2_quota(folder):
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota) / int(period)


def v1_quota(folder):
    return int((folder / "cpu.cfs_quota_us").read_text()) / int((folder / "cpu.cfs_period_us").read_text())
