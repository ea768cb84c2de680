"""scripts/broken tells a guarded line from an unguarded one, and a useless patch from both."""

import difflib
import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.kafka import ROOT

HEADER = """\
# invariant: 0 the version
# guards: kqmp/__init__.py: the version has three numbers
# tests: {tests}
# why: a test of the tool itself
"""

FILE = "kqmp/__init__.py"


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the script, with an empty directory of patches of its own."""
    loader = importlib.machinery.SourceFileLoader("broken", str(ROOT / "scripts" / "broken"))
    spec = importlib.util.spec_from_loader("broken", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "broken", module)  # dataclasses look their module up
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    patches = tmp_path / "patches"
    patches.mkdir()
    monkeypatch.setattr(module, "PATCHES", patches)
    monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
    return module


def write_patch(broken: ModuleType, name: str, new: str, tests: str, old: str = "") -> None:
    """Write a patch that replaces the version's line of kqmp/__init__.py."""
    found = (ROOT / FILE).read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(found) if line.startswith("__version__"))
    before, after = list(found), list(found)
    before[number] = f"{old}\n" if old else found[number]
    after[number] = f"{new}\n"
    diff = "".join(difflib.unified_diff(before, after, f"a/{FILE}", f"b/{FILE}"))
    header = HEADER.format(tests=tests)
    (broken.PATCHES / f"{name}.patch").write_text(f"{header}diff --git a/{FILE} b/{FILE}\n{diff}")


VERSION_TEST = "tests/unit/test_project.py -k version"


def test_a_broken_line_is_flagged_and_taken_back(
    broken: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patch(broken, "one", '__version__ = "broken"', VERSION_TEST)
    write_patch(broken, "two", '__version__ = "1"', VERSION_TEST)
    assert broken.main([]) == 0
    assert "2 of 2 flagged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("new", "tests", "old", "result"),
    [
        ('__version__ = "9.9.9"', VERSION_TEST, "", "NOT FLAGGED"),
        ('__version__ = "broken"', VERSION_TEST, "no such line", "DOES NOT APPLY"),
        ('__version__ = "broken"', "tests/unit/test_absent.py", "", "TESTS CANNOT RUN"),
        ("def", VERSION_TEST, "", "TESTS CANNOT RUN"),
    ],
)
def test_what_is_not_flagged_fails(
    broken: ModuleType,
    capsys: pytest.CaptureFixture[str],
    new: str,
    tests: str,
    old: str,
    result: str,
) -> None:
    write_patch(broken, "bad", new, tests, old)
    assert broken.main(["--no-baseline"]) == 1
    output = capsys.readouterr().out
    assert f"bad: {result}" in output
    assert "0 of 1 flagged" in output


def test_tests_that_fail_anyway_prove_nothing(
    broken: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patch(broken, "one", '__version__ = "broken"', "tests/unit/test_absent.py")
    assert broken.main([]) == 1
    assert "fail without any patch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# invariant: 1 loss\n", "lacks ['guards', 'tests', 'why']"),
        (HEADER.format(tests="x") + "# colour: red\n", "unknown: ['colour']"),
        (HEADER.format(tests="x") + "# needs: java\n", "'java'"),
        (HEADER.format(tests="x") + "# timeout: soon\n", "'soon'"),
    ],
)
def test_a_wrong_header_is_an_error_that_names_the_file(
    broken: ModuleType, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (broken.PATCHES / "wrong.patch").write_text(text)
    assert broken.main(["wrong"]) == 2
    error = capsys.readouterr().err
    assert "wrong.patch" in error
    assert message in error


def test_an_unknown_name_lists_the_known_ones(
    broken: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patch(broken, "known", "x", VERSION_TEST)
    assert broken.main(["unknown"]) == 2
    assert "no such patch: unknown (known)" in capsys.readouterr().err


def test_every_patch_still_applies():
    patches = sorted((ROOT / "tests" / "broken").glob("*.patch"))
    assert patches
    for patch in patches:
        done = subprocess.run(
            ["git", "apply", "--check", str(patch)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{patch.name}: {done.stderr}"
