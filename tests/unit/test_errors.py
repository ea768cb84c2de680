"""Errors: exit codes, pickling, texts."""

import pickle

import pytest

from kqmp import errors
from kqmp.errors import ConfigError, ExitCode, InternalError, KqmpError

CODES = {
    KqmpError: 6,
    ConfigError: 2,
    errors.WorkerStartError: 3,
    errors.HandlerImportError: 4,
    errors.BrokerError: 5,
    errors.RingCorrupt: 6,
    InternalError: 6,
}


def test_exit_codes_are_the_published_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "CLEAN": 0,
        "CONFIG": 2,
        "WORKER_START": 3,
        "HANDLER_IMPORT": 4,
        "BROKER": 5,
        "GAVE_UP": 6,
        "DRAIN_DEADLINE": 7,
        "UNDELIVERED": 8,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_has_one_line_for_help(code: ExitCode) -> None:
    assert code.description
    assert "\n" not in code.description
    assert ExitCode(int(code)) is code


@pytest.mark.parametrize("error_type", CODES)
def test_each_error_has_its_published_exit_code(error_type: type[KqmpError]) -> None:
    assert error_type("x").exit_code == CODES[error_type]


@pytest.mark.parametrize(
    "error_type",
    [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, KqmpError)
    ],
)
def test_errors_keep_type_text_and_code_through_pickle(error_type: type[KqmpError]) -> None:
    error = error_type("lane 3: bad magic")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_type
    assert str(copy) == str(error)
    assert "lane 3: bad magic" in str(copy)
    assert copy.exit_code is error.exit_code


def test_a_config_error_gives_one_problem_a_line_and_pickles_with_all() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("a: wrong", "b: wrong too")))
    assert error.problems == ("a: wrong", "b: wrong too")
    assert str(error) == "a: wrong\nb: wrong too"


def test_an_internal_error_asks_for_a_report() -> None:
    assert "please report" in str(InternalError("no epoch"))
