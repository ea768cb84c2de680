"""What crosses processes of a handler: its name, and what was learned of it.

Pure look-ups: nothing is imported or called here. A target on the command line becomes a
`HandlerRef` by `parse_target`; an object that a program passes to `Queue` becomes one by
`ref_of`, which proves that the name leads back to that very object.
"""

import functools
import inspect
import os
import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, NoReturn

import msgspec

from kqmp.errors import HandlerImportError

#: The name under which a `__main__` script is loaded in a processor, so that what stands under
#: `if __name__ == "__main__":` does not run. It is the name that multiprocessing gives such a
#: script: only then do the children of a Pool that a handler starts find the script's functions.
MAIN_MODULE: Final = "__mp_main__"

#: How a handler is called: call(key, value) or call(message).
Form = Literal["key_value", "message"]

#: The columns of a record that cost extra and are only built for a handler that asks for them.
COLUMNS: Final = frozenset({"timestamp", "headers"})


class HandlerRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a handler is found; plain strings, so that it can be sent to any process."""

    #: "module:attribute"; both may be dotted.
    target: str
    #: Absolute path of the file to load as that module; "" = import it by name.
    path: str = ""
    #: The directory put first on `sys.path`; "" = the current one.
    app_dir: str = ""
    #: Directories put last on `sys.path` where they are missing: the program's own search path.
    sys_path: tuple[str, ...] = ()
    #: The program's `sys.argv`, for scripts that read it at their top level; () = leave it.
    argv: tuple[str, ...] = ()
    #: The function that is told of failures, where it is none of the handler's own.
    on_error: "HandlerRef | None" = None

    @property
    def module(self) -> str:
        """Name of the module, before the colon."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """Dotted name inside the module, after the colon."""
        return self.target.partition(":")[2]

    @property
    def name(self) -> str:
        """The handler's name for messages: `mqs:consume`, `script.py:consume` for a script."""
        place = Path(self.path).name if self.path else self.module
        return f"{place}:{self.attribute}"


class HandlerInfo(msgspec.Struct, frozen=True):
    """What the other processes must know of a handler that only a processor or a probe imports."""

    name: str
    form: Form
    #: Sorted; some of `COLUMNS`. The fetcher builds these and no other.
    columns: tuple[str, ...] = ()


def parse_target(text: str, app_dir: str = "") -> HandlerRef:
    """Read TARGET of the command line or the key Handler of a file.

    Args:
        text: "module:attribute", both dotted where needed.
        app_dir: The directory that the module is looked up in first; "" = the current one.

    Raises:
        HandlerImportError: It is written in another way; the text shows how to write it.
    """
    text = text.strip()
    module, colon, attribute = text.partition(":")
    wrong = f"handler {text!r}: "
    if not text:
        raise HandlerImportError("handler is empty: write it as module:function, as in mqs:consume")
    if "/" in module or module.endswith(".py"):
        raise HandlerImportError(
            f"{wrong}a module is named without path and suffix: write it as"
            f" {_dotted(module)}:{attribute or 'function'}"
        )
    if not colon:
        head, _, tail = text.rpartition(".")
        hint = f"{text}:function, or {head}:{tail}" if head else f"{text}:function"
        raise HandlerImportError(f"{wrong}write it as {hint}")
    if not attribute:
        raise HandlerImportError(f"{wrong}the function is missing: write it as {module}:function")
    for part in (*module.split("."), *attribute.split(".")):
        if not part.isidentifier():
            raise HandlerImportError(
                f"{wrong}{part!r} is no Python name: write it as module:function, as in mqs:consume"
            )
    return HandlerRef(target=text, app_dir=app_dir)


def _dotted(path: str) -> str:
    parts = [part for part in path.removesuffix(".py").split("/") if part not in {"", ".", ".."}]
    # An absolute path, or one that leads out, says nothing about where the search starts.
    return ".".join(parts[-1:] if path.startswith(("/", "..")) else parts) or "module"


def ref_of(obj: object) -> HandlerRef:
    """Name an object of this program in such a way that another process finds it again.

    A function, a class, an object bound to a name at the top level of its class's module or of
    the script, or a bound method of such a class or object; a string is read as by `parse_target`.
    The module's search path goes along, so that the processor imports it as this program did.

    Caller: the process that makes a `Queue`.

    Raises:
        HandlerImportError: Another process could not import it: a lambda, something made inside
            a function, a `functools.partial`, an object without a name, or something typed into
            an interactive session.
    """
    if isinstance(obj, str):
        return parse_target(obj)
    if isinstance(obj, functools.partial):
        _refuse(
            f"functools.partial of {_described(obj.func)}",
            "is made at run time",
            "write a function that makes that call",
        )
    if isinstance(obj, ModuleType):
        _refuse(f"module {obj.__name__}", "is not a handler", "pass its function or class")
    module, attribute = _bound(obj) if inspect.ismethod(obj) else _named(obj)
    return _located(module, attribute)


def _refuse(what: str, why: str, instead: str) -> NoReturn:
    raise HandlerImportError(
        f"handler: {what} {why}, and a handler must be importable by name in a process of its own:"
        f" {instead}"
    )


def _described(obj: object) -> str:
    return getattr(obj, "__qualname__", None) or f"an instance of {type(obj).__qualname__}"


def _named(obj: object) -> tuple[str, str]:
    """Return (module, dotted name) of what carries its own name, or is bound to one."""
    qualname = getattr(obj, "__qualname__", None)
    module = getattr(obj, "__module__", None)
    if not isinstance(qualname, str):
        return _instance(obj)
    if "<lambda>" in qualname:
        _refuse("a lambda", "has no name", "write it as a def at the top level of a module")
    if "<locals>" in qualname:
        _refuse(
            qualname,
            "is made inside a function",
            "move it to the top level of a module (where a decorator made it: functools.wraps)",
        )
    if not isinstance(module, str) or _walk(module, qualname) is not obj:
        _refuse(
            qualname,
            f"is not what module {module} has under that name",
            "define it at the top level of a module, under its own name",
        )
    return module, qualname


def _instance(obj: object) -> tuple[str, str]:
    cls = type(obj)
    for module in (cls.__module__, "__main__", MAIN_MODULE):
        loaded = sys.modules.get(module)
        for name, value in [] if loaded is None else list(vars(loaded).items()):
            if value is obj and name.isidentifier():
                return module, name
    _refuse(
        f"an instance of {cls.__qualname__}",
        "has no name",
        f"pass the class {cls.__qualname__} itself (each processor makes its own instance), or"
        f" bind the instance to a name at the top level of module {cls.__module__}",
    )


def _bound(method: object) -> tuple[str, str]:
    owner = method.__self__  # type: ignore[attr-defined]
    name: str = method.__name__  # type: ignore[attr-defined]
    module, attribute = _named(owner)
    if _walk(module, f"{attribute}.{name}") != method:
        _refuse(
            f"method {name} of {_described(owner)}",
            f"is not what {attribute} has under that name",
            "pass a function, a class or an object with a method `consume`",
        )
    return module, f"{attribute}.{name}"


def _walk(module: str, dotted: str) -> object:
    """Follow a dotted name in a module that is loaded already; None where it does not lead on."""
    obj: object = sys.modules.get(module)
    for part in dotted.split("."):
        obj = getattr(obj, part, None)
    return obj


def _located(module: str, attribute: str) -> HandlerRef:
    path = ""
    root: Path | None = None
    file = _file_of(module)
    is_main = module in {"__main__", MAIN_MODULE}
    if is_main:
        # `python -m package.module` knows its real name; a script has none.
        spec = getattr(sys.modules[module], "__spec__", None)
        module = "__main__" if spec is None else str(spec.name)
        if module == "__main__" and (file is None or not file.is_file()):
            _refuse(
                attribute,
                "was typed into an interactive session or read from standard input",
                "save it in a file",
            )
    if file is not None:
        root = file.parent if module == "__main__" else _root_of(module, file)
        if module == "__main__" or root is None:
            path = str(file)
    return HandlerRef(
        target=f"{module}:{attribute}",
        path=path,
        app_dir=_program_dir() if root is None or _is_installed(root) else str(root),
        sys_path=tuple(entry for entry in map(_absolute, sys.path) if Path(entry).exists()),
        argv=tuple(sys.argv) if is_main else (),
    )


def _file_of(module: str) -> Path | None:
    loaded = sys.modules[module]
    file = getattr(loaded, "__file__", None)
    if file is None and module not in {"__main__", MAIN_MODULE} and loaded.__spec__ is None:
        _refuse(f"module {module}", "was made at run time", "save it in a file")
    return None if file is None else Path(_absolute(file))


def _root_of(module: str, file: Path) -> Path | None:
    """Return the directory from which `module` is imported, None where names and path differ."""
    *packages, last = module.split(".")
    place, stem = file.parent, file.name.partition(".")[0]
    if stem == "__init__":
        place, stem = place.parent, place.name
    if stem != last:
        return None
    for package in reversed(packages):
        if place.name != package:
            return None
        place = place.parent
    return place


def _is_installed(root: Path) -> bool:
    """Tell whether `root` is on every Python's path; first on it, it would hide newer modules."""
    places = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return str(root) in places.union(site.getsitepackages(), [site.getusersitepackages()])


def _program_dir() -> str:
    first = _absolute(sys.path[0]) if sys.path else ""
    return first if Path(first).is_dir() else ""


def _absolute(path: str) -> str:
    # Not Path.resolve: a link's own directory is where Python looks for the neighbours.
    return os.path.abspath(path)  # noqa: PTH100
