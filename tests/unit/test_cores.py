"""Usable cores: affinity and cgroup quotas of both versions, read from a copied /proc."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from kqmp.config.cores import cgroup_quota, smaller_limit, usable_cores


class Machine:
    """A /proc/PID directory and cgroup mounts below a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir()
        self.mounts: list[str] = []

    def mount(self, kind: str, name: str, root: str = "/", options: str = "rw") -> Path:
        point = self.root / name
        point.mkdir(parents=True, exist_ok=True)
        escaped = str(point).replace(" ", "\\040")
        self.mounts.append(f"30 25 0:26 {root} {escaped} rw shared:4 - {kind} cgroup {options}")
        (self.proc / "mountinfo").write_text("\n".join(["garbage", *self.mounts]))
        return point

    def groups(self, *lines: str) -> None:
        (self.proc / "cgroup").write_text("\n".join(lines))

    @property
    def quota(self) -> Fraction | None:
        return cgroup_quota(self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def write(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name.replace("__", ".")).write_text(text + "\n")


def test_v2_quota_of_the_group(machine: Machine) -> None:
    top = machine.mount("cgroup2", "cg two")
    write(top / "a" / "b", cpu__max="50000 100000")
    machine.groups("0::/a/b")
    assert machine.quota == Fraction(1, 2)


def test_the_smallest_quota_of_the_groups_around_counts(machine: Machine) -> None:
    top = machine.mount("cgroup2", "cg")
    write(top / "a" / "b", cpu__max="max 100000")
    write(top / "a", cpu__max="150000 100000")
    write(top, cpu__max="400000 100000")
    machine.groups("0::/a/b")
    assert machine.quota == Fraction(3, 2)


def test_v1_quota(machine: Machine) -> None:
    top = machine.mount("cgroup", "cpu", options="rw,cpu,cpuacct")
    memory = machine.mount("cgroup", "memory", options="rw,memory")
    write(top / "job", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    write(memory / "job", cpu__cfs_quota_us="1", cpu__cfs_period_us="100000")
    machine.groups("4:memory:/job", "1:cpu,cpuacct:/job", "0::/")
    assert machine.quota == Fraction(5, 2)


def test_v1_minus_one_is_no_quota(machine: Machine) -> None:
    top = machine.mount("cgroup", "cpu", options="rw,cpu")
    write(top, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    machine.groups("1:cpu:/")
    assert machine.quota is None


def test_a_container_without_a_cgroup_namespace_shows_only_its_part(machine: Machine) -> None:
    top = machine.mount("cgroup2", "cg", root="/docker/abc")
    write(top, cpu__max="200000 100000")
    write(top / "in", cpu__max="100000 100000")
    machine.groups("0::/docker/abc/in")
    assert machine.quota == 1
    machine.groups("0::/docker/abc")
    assert machine.quota == 2
    machine.groups("0::/elsewhere")
    assert machine.quota == 2


@pytest.mark.parametrize("text", ["", "max", "0 100000", "100000 0", "x y", "-1 100000"])
def test_what_is_no_quota(machine: Machine, text: str) -> None:
    write(machine.mount("cgroup2", "cg"), cpu__max=text)
    machine.groups("0::/", "damaged", "")
    assert machine.quota is None


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [
        (2, None, (2, "2 (affinity)")),
        (2, Fraction(4), (2, "2 (affinity)")),
        (2, Fraction(2), (2, "2 (affinity)")),
        (8, Fraction(1, 2), (1, "1 (cgroup quota 0.5)")),
        (8, Fraction(5, 2), (3, "3 (cgroup quota 2.5)")),
    ],
)
def test_the_smaller_limit_counts_and_is_named(
    affinity: int, quota: Fraction | None, expected: tuple[int, str]
) -> None:
    assert smaller_limit(affinity, quota) == expected


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    count, reason = usable_cores()
    assert 1 <= count <= len(os.sched_getaffinity(0))
    assert reason.startswith(f"{count} (")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    assert usable_cores() == (1, "1 (affinity)")
