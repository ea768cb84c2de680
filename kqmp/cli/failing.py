"""How a command ends when it cannot do what it was asked to."""

import logging
import sys
from typing import NoReturn

import click

from kqmp.errors import ConfigError, KqmpError


def fail(error: KqmpError, log_format: str = "plain") -> NoReturn:
    """Say why, one line a problem, and exit with the error's code."""
    problems = error.problems if isinstance(error, ConfigError) else (str(error),)
    for problem in problems:
        if log_format == "json":
            logging.getLogger("kqmp").error("%s", problem)
        else:
            click.echo(f"error: {problem}", err=True)
    sys.exit(int(error.exit_code))
