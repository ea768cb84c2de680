"""How many cores this process may really use: affinity, and the quota of its control groups.

`os.cpu_count()` and Python 3.13's `os.process_cpu_count()` both ignore the quota (cpython#80235),
so that a container limited to 2 cores on a machine of 80 would get 80 processors.
"""

from __future__ import annotations

import math
import os
import re
from fractions import Fraction
from pathlib import Path, PurePosixPath


def usable_cores() -> tuple[int, str]:
    """The cores this process may use, at least 1, and why: `(1, "1 (cgroup quota 0.5)")`.

    The smaller of the CPU affinity (`(2, "2 (affinity)")`) and the cgroup quota, v1 or v2, also of
    enclosing groups, rounded up.
    """
    return smaller_limit(len(os.sched_getaffinity(0)), cgroup_quota(Path("/proc/self")))


def smaller_limit(affinity: int, quota: Fraction | None) -> tuple[int, str]:
    """Choose between the two limits; `quota` is in cores, None where there is none."""
    quota_cores = affinity if quota is None else max(1, math.ceil(quota))
    if quota is None or quota_cores >= affinity:
        return affinity, f"{affinity} (affinity)"
    return quota_cores, f"{quota_cores} (cgroup quota {float(quota):g})"


def cgroup_quota(proc: Path) -> Fraction | None:
    """The smallest CPU quota, in cores, of the control groups that `proc` (/proc/PID) names.

    Returns:
        None where no quota is set or none can be read: a machine without cgroups is not an error.
    """
    quotas: list[Fraction | None] = []
    for line in _lines(proc / "cgroup"):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mounts, read_quota = _mounts(proc, "cgroup2", ""), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read_quota = _mounts(proc, "cgroup", "cpu"), _quota_v1
        else:
            continue
        for root, mount_point in mounts:
            quotas += map(read_quota, _upwards(mount_point, root, group))
    return min((quota for quota in quotas if quota), default=None)


def _mounts(proc: Path, kind: str, controller: str) -> list[tuple[str, Path]]:
    """(root in the hierarchy, mount point) of each cgroup mount: proc_pid_mountinfo(5)."""
    found = []
    for line in _lines(proc / "mountinfo"):
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3 or after[0] != kind:
            continue
        if controller and controller not in after[2].split(","):
            continue
        found.append((_unescaped(before[3]), Path(_unescaped(before[4]))))
    return found


def _upwards(mount_point: Path, root: str, group: str) -> list[Path]:
    """The directories of `group` and of its ancestors that this mount shows.

    Inside a container without a cgroup namespace the group is named from the host's root, while
    the mount shows only `root`; a group that the mount does not show counts as its top.
    """
    try:
        inside = PurePosixPath(group).relative_to(root)
    except ValueError:
        inside = PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    return [mount_point / inside, *(mount_point / above for above in inside.parents)]


def _quota_v2(group: Path) -> Fraction | None:
    quota_us, period_us = [*" ".join(_lines(group / "cpu.max")).split(), "", ""][:2]
    return _cores(quota_us, period_us)


def _quota_v1(group: Path) -> Fraction | None:
    quota_us, period_us = (_lines(group / f"cpu.cfs_{word}_us") for word in ("quota", "period"))
    return _cores("".join(quota_us), "".join(period_us))


def _cores(quota_us: str, period_us: str) -> Fraction | None:
    """The quota in cores; None for `max`, for -1, and for what is not a number above zero."""
    if not (quota_us.isdecimal() and period_us.isdecimal() and int(period_us)):
        return None
    return Fraction(int(quota_us), int(period_us)) or None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _unescaped(field: str) -> str:
    """Undo mountinfo's octal escapes of spaces and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
