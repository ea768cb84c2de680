"""What no linter checks: the size of modules and functions, and unfinished marks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka import ROOT

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SOURCES = [
    path
    for path in (*ROOT.glob("kqmp/**/*.py"), *ROOT.glob("scripts/*"), *ROOT.glob("perf/*"))
    if path.is_file() and (path.suffix == ".py" or path.read_bytes().startswith(b"#!"))
]
PYTHON = [
    path
    for path in SOURCES
    if path.suffix == ".py" or b"python" in path.read_bytes().split(b"\n", 1)[0]
]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_one_reason_and_is_finished(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MODULE_LINES_MAX
    marks = [f"{path}:{n}" for n, line in enumerate(lines, 1) if UNFINISHED.search(line)]
    assert not marks


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_fits_a_screen(path: Path) -> None:
    long = [
        f"{function.name}: {size} lines"
        for function in functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long
