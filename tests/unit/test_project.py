"""The project's own files agree with each other."""

import re
import tomllib
from typing import Any

import pytest

import kqmp
from tests.support.kafka import ROOT


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    """Return the normalised project names of requirement lines."""
    found = {re.match(r"[A-Za-z0-9._-]+", line) for line in requirements}
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def pinned(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    return names([line for line in lines if "==" in line and not line.startswith((" ", "#"))])


def test_every_dependency_is_locked(pyproject: dict[str, Any]) -> None:
    groups = pyproject["dependency-groups"]
    runtime = names(pyproject["project"]["dependencies"]) | names(groups["build"])
    assert runtime <= pinned("requirements.lock")
    assert runtime | names(groups["dev"]) <= pinned("requirements-dev.lock")
    assert pinned("requirements.lock") <= pinned("requirements-dev.lock")


def test_locks_name_only_the_public_index() -> None:
    urls = re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text())
    assert set(urls) == {"pypi.org", "files.pythonhosted.org"}
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"^--|://", (ROOT / lock).read_text(), re.MULTILINE), lock


def test_the_version_is_the_package_s(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", kqmp.__version__)
