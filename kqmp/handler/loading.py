"""Import what a `HandlerRef` names, and say clearly why where that fails.

Runs in processors and in the probe, the only processes that execute a user's module. Everything
that goes wrong on the way, an exception of the module's own code included, is one
`HandlerImportError` that ends with the user's lines of the traceback.
"""

import difflib
import importlib
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Final

from kqmp.errors import HandlerImportError
from kqmp.handler.refs import MAIN_MODULE, HandlerRef

#: Most frames of a traceback that an import error shows, the innermost ones.
FRAMES_MAX: Final = 8

_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_IMPORTLIB = str(Path(importlib.__file__).parent) + os.sep

_state = {"processor": False}
#: The modules that stood as `__main__` before a script took their place; their functions live on.
_displaced: list[ModuleType | None] = []


def mark_processor() -> None:
    """Note that this process runs a handler, or imports one to look at it: it starts no engine."""
    _state["processor"] = True


def inside_processor() -> bool:
    """Tell whether `mark_processor` was called: then a `Queue.start()` is a script's missing guard.

    Without that check a script that starts its queue at the top level would start another engine
    in each processor, for ever.
    """
    return _state["processor"]


def refuse_in_processor(what: object, handler: str) -> None:
    """Refuse to start `what` in a process that imports its script for `handler` ("its handler").

    Raises:
        HandlerImportError: this is such a process.
    """
    if inside_processor():
        msg = (
            f"start() of {what!r} is reached while its script is imported to run {handler}:"
            ' put it under `if __name__ == "__main__":`'
        )
        raise HandlerImportError(msg)


def resolve(ref: HandlerRef) -> object:
    """Import the module that `ref` names and return the attribute.

    Changes `sys.path` as `ref` asks for, and where a script is loaded by path, makes it this
    process's `__main__`, as multiprocessing does: what was pickled in the script unpickles here.

    Caller: processor or probe, from the main thread.

    Raises:
        HandlerImportError: There is no such module or attribute, or the module's code failed.
    """
    _prepare(ref)
    try:
        module = _load_file(ref) if ref.path else importlib.import_module(ref.module)
    except HandlerImportError:
        # A start() that the module reached, which has already said all there is to say.
        raise
    except ModuleNotFoundError as error:
        raise HandlerImportError(_not_found(ref, error) or _failed(ref, error)) from error
    except SyntaxError as error:
        raise HandlerImportError(_syntax(ref, error)) from error
    except (Exception, SystemExit) as error:
        raise HandlerImportError(_failed(ref, error)) from error
    return _attribute(ref, module)


def _prepare(ref: HandlerRef) -> None:
    app_dir = _app_dir(ref)
    if sys.path[:1] != [app_dir]:
        sys.path.insert(0, app_dir)
    sys.path.extend(entry for entry in ref.sys_path if entry not in sys.path)
    if ref.argv:
        sys.argv[:] = ref.argv


def _app_dir(ref: HandlerRef) -> str:
    return str(Path(ref.app_dir).absolute())


def _load_file(ref: HandlerRef) -> ModuleType:
    name = MAIN_MODULE if ref.module == "__main__" else ref.module
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == ref.path:
        return loaded
    loader = SourceFileLoader(name, ref.path)
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    before = {key: sys.modules.get(key) for key in (name, "__main__")}
    sys.modules[name] = module
    if name == MAIN_MODULE:
        module.__spec__ = None
        _displaced.append(before["__main__"])
        sys.modules["__main__"] = module
    try:
        # Not exec_module: it would leave a __pycache__ beside a script, which Python never does.
        code = loader.source_to_code(loader.get_data(ref.path), ref.path)
        exec(code, module.__dict__)  # noqa: S102 - running the user's module is the purpose
    except BaseException:
        for key, previous in before.items():
            if previous is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = previous
        raise
    return module


def _attribute(ref: HandlerRef, module: ModuleType) -> object:
    obj: object = module
    where = f"module {module.__name__}" if not ref.path else ref.path
    for part in ref.attribute.split("."):
        try:
            obj = getattr(obj, part)
        except AttributeError:
            raise HandlerImportError(_no_attribute(ref, module, (where, obj, part))) from None
        where = part
    return obj


def _no_attribute(ref: HandlerRef, module: ModuleType, found: tuple[str, object, str]) -> str:
    where, obj, missing = found
    file = getattr(module, "__file__", None)
    text = f"handler {ref.name}: {where} has no {missing!r}"
    if obj is module and file and not ref.path:
        text += f" ({file})"
    public = [name for name in dir(obj) if not name.startswith("__")]
    # Case first: go-queue's users write Consume.
    close = [name for name in public if name.lower() == missing.lower()]
    close = close or difflib.get_close_matches(missing, public, n=1)
    if close:
        text += f"; did you mean {close[0]!r}?"
    if ref.module == "__main__":
        text += ' (what stands under `if __name__ == "__main__":` is not there in a processor)'
    elif not ref.path and (hidden := _hidden(ref)):
        text += f"; {hidden} is hidden by that module of the same name: rename it"
    return text


def _hidden(ref: HandlerRef) -> Path | None:
    """Return the user's module that was not imported, since a loaded one has its name."""
    name = ref.module.partition(".")[0]
    top = Path(_app_dir(ref)) / name
    loaded = getattr(sys.modules.get(name), "__file__", None)
    for candidate in (top.with_suffix(".py"), top / "__init__.py"):
        if candidate.is_file() and str(candidate) != loaded:
            return candidate
    return None


def _not_found(ref: HandlerRef, error: ModuleNotFoundError) -> str | None:
    """Say that the handler's own module is missing; None where another one is."""
    missing = error.name or ""
    if ref.path or _frames(error) or not f"{ref.module}.".startswith(f"{missing}."):
        return None
    app_dir = Path(_app_dir(ref))
    text = f"handler {ref.name}: module {missing} not found in {app_dir}"
    if "is not a package" in str(error):
        return f"{text}: {error.msg}"
    parent = app_dir.joinpath(*missing.split(".")[:-1])
    names = sorted({path.stem for path in parent.glob("*.py")}) if parent.is_dir() else []
    close = difflib.get_close_matches(missing.rpartition(".")[2], names, n=1)
    if close:
        return f"{text}; did you mean {'.'.join([*missing.split('.')[:-1], close[0]])!r}?"
    return f"{text} or on the rest of sys.path: start kqmp in the directory that has it"


def _syntax(ref: HandlerRef, error: SyntaxError) -> str:
    line = (error.text or "").strip()
    place = f"{error.filename}:{error.lineno}" if error.lineno else str(error.filename)
    text = f"handler {ref.name}: {place}: {error.msg}"
    return text + (f"\n    {line}" if line else "") + trace_of(error)


def _failed(ref: HandlerRef, error: BaseException) -> str:
    what = traceback.format_exception_only(error)[-1].strip()
    source = ref.path or f"module {ref.module}"
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({error.code!r})"
    return f"handler {ref.name}: importing {source} failed: {what}{trace_of(error)}"


def trace_of(error: BaseException) -> str:
    """Return the user's frames of a traceback, innermost last, each on lines of its own.

    Empty where none of the frames is the user's. Frames of kqmp and of the import system are left
    out, and all but the `FRAMES_MAX` innermost ones.
    """
    lines = traceback.format_list(_frames(error)[-FRAMES_MAX:])
    return "".join("\n" + line.rstrip("\n") for line in lines)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PACKAGE, _IMPORTLIB, "<frozen importlib"))
    ]
