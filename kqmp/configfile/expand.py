"""`${VAR}`, `${VAR:-default}` and `${file:/path}` in text values.

Runs after parsing, so that no value of the environment can change the structure of a file. Reads
the files named; writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

#: Most bytes that `${file:...}` takes: it is meant for secrets, not for data.
FILE_BYTES_HIGH = 1024 * 1024

_REFERENCE = re.compile(r"\$(?:(\$)|\{([^}]*)(\}?))")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_RULE = "use ${NAME}, ${NAME:-default} or ${file:/path}, and $$ for a plain $"


class ExpansionError(ValueError):
    """A reference cannot be followed; the text names it and never shows a value."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace every reference in `text`; `$$` becomes `$`, another lone `$` stays.

    A file's one trailing line break is left out. A default is taken where the variable is unset or
    empty, as in a shell; it is plain text up to the next `}`.

    Raises:
        ExpansionError: a variable is not set, a file cannot be read, a reference is malformed.
    """
    return _REFERENCE.sub(lambda match: _value(match, env), text)


def _value(match: re.Match[str], env: Mapping[str, str]) -> str:
    dollar, body, end = match.groups()
    if dollar:
        return "$"
    if not end:
        raise ExpansionError(f"${{ without its }}; {_RULE}")
    if body.startswith("file:"):
        return _content(body.removeprefix("file:"))
    variable = _VARIABLE.fullmatch(body)
    if variable is None:
        raise ExpansionError(f"${{...}} without the name of a variable; {_RULE}")
    name, default = variable.groups()
    value = env.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise ExpansionError(
            f"the environment variable {name} is not set; set it or write ${{{name}:-default}}"
        )
    return value


def _content(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_HIGH + 1)
        text = data.decode()
    except UnicodeDecodeError:
        raise ExpansionError(f"the file {path!r} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise ExpansionError(f"the file {path!r} cannot be read: {why}") from None
    if len(data) > FILE_BYTES_HIGH:
        raise ExpansionError(f"the file {path!r} is larger than {FILE_BYTES_HIGH} bytes")
    return text.removesuffix("\n").removesuffix("\r")
