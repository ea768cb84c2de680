"""Handlers in real modules: each test writes the files that a user would have."""

import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import msgspec
import pytest

from kqmp import handler as handler_package
from kqmp.errors import ExitCode, HandlerImportError
from kqmp.handler import (
    Context,
    Handler,
    HandlerInfo,
    HandlerRef,
    load,
    parse_target,
    ref_of,
    resolve,
)
from kqmp.message import Message

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def app(tmp_path):
    """Return write(name, source) -> directory; what the test imports is forgotten after it."""
    path, argv, modules = list(sys.path), list(sys.argv), dict(sys.modules)

    def write(name, source):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))
        return tmp_path

    yield write
    sys.path[:], sys.argv[:] = path, argv
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


@pytest.fixture
def one(app):
    """Return one(source, attribute="consume") -> the Handler that module mqs has there."""

    def loaded(source, attribute="consume"):
        return load(parse_target(f"mqs:{attribute}", str(app("mqs.py", source))))

    return loaded


def refused(one, source, attribute="consume"):
    with pytest.raises(HandlerImportError) as caught:
        one(source, attribute)
    text = str(caught.value)
    assert text.startswith(f"handler mqs:{attribute}: ")
    assert caught.value.exit_code is ExitCode.HANDLER_IMPORT
    return text.removeprefix(f"handler mqs:{attribute}: ")


# --- targets ---


@pytest.mark.parametrize(
    ("text", "module", "attribute"),
    [
        ("mqs:consume", "mqs", "consume"),
        (" app.mqs:Thumb.consume ", "app.mqs", "Thumb.consume"),
    ],
)
def test_a_target_names_a_module_and_what_is_in_it(text, module, attribute):
    ref = parse_target(text, "etc")
    assert (ref.module, ref.attribute, ref.app_dir) == (module, attribute, "etc")
    assert ref.name == text.strip()


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "write it as module:function, as in mqs:consume"),
        ("mqs", "write it as mqs:function"),
        ("mqs.consume", "write it as mqs.consume:function, or mqs:consume"),
        ("mqs:", "write it as mqs:function"),
        ("mqs.py:consume", "write it as mqs:consume"),
        ("mqs.py", "write it as mqs:function"),
        ("./app/mqs.py:consume", "write it as app.mqs:consume"),
        ("/srv/app/mqs.py:consume", "write it as mqs:consume"),
        ("../mqs.py:consume", "write it as mqs:consume"),
        ("app/mqs:consume", "write it as app.mqs:consume"),
        (":consume", "'' is no Python name"),
        (".mqs:consume", "'' is no Python name"),
        ("mqs:consume:x", "'consume:x' is no Python name"),
        ("mqs:consume()", "'consume()' is no Python name"),
        ("my-app:consume", "'my-app' is no Python name"),
    ],
)
def test_a_target_written_in_another_way_is_refused_with_the_right_way(text, fix):
    with pytest.raises(HandlerImportError) as caught:
        parse_target(text)
    assert fix in str(caught.value)


def test_a_ref_and_an_info_cross_processes():
    ref = HandlerRef(target="a:b", path="/x.py", app_dir="/", sys_path=("/y",), argv=("z",))
    info = HandlerInfo("a:b", "message", ("headers",))
    for sent in (ref, info):
        wire = msgspec.msgpack.encode(sent)
        assert msgspec.msgpack.decode(wire, type=type(sent)) == sent


# --- forms ---


@pytest.mark.parametrize(
    "parameters",
    [
        "key, value",
        "a, b",
        "key, value, extra=1",
        "key, value, *rest, **options",
        "key, value, /",
        "key, value, *, timeout=1",
        "key, value=None",
        "key=None, value=None",
        "key, *rest",
        "a: bytes, b=None",
        "key: 'bytes', value: 'bytes | None'",
        "key: 'NotThere', value: 'also.missing[int]'",
        "key: print, value: [1]",
        "key, message",
    ],
)
def test_two_parameters_are_key_and_value(one, parameters):
    source = f"""
        seen = []
        def consume({parameters}):
            seen.append(list(locals().values())[:2])
    """
    handler = one(source)
    assert handler.form == "key_value"
    assert handler.columns == frozenset()
    assert handler.info() == HandlerInfo("mqs:consume", "key_value", ())
    handler.call(b"k", None)
    # The user's own function: the plain form costs nothing extra.
    assert handler.call is sys.modules["mqs"].consume
    first, second = sys.modules["mqs"].seen[0]
    assert first == b"k"
    assert second in (None, (None,))


@pytest.mark.parametrize(
    "parameters",
    [
        "message",
        "msg",
        "anything",
        "record, extra=1",
        "message, *rest",
        "message=None",
        "m: Message, extra=1",
        "m: 'Message | None', extra=1",
        "value: Message",
        "m: Annotated[Message, 'x'], extra=1",
        "m: 'typing_only.Message', extra=1",
        "m: 'Optional[typing_only.Message]', extra=1",
    ],
)
def test_one_parameter_is_the_message(one, parameters):
    handler = one(f"""
        from typing import Annotated, Optional
        from kqmp.message import Message
        def consume({parameters}):
            return next(iter(locals().values())).value
    """)
    assert handler.form == "message"
    assert handler.call(Message.of(value=b"v")) == b"v"
    assert handler.info() == HandlerInfo("mqs:consume", "message", ("headers", "timestamp"))


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("key: str, value: str", ("k", "vü")),
        ("key: str, value: bytes", ("k", "vü".encode())),
        ("key, value: 'str'", (b"k", "vü")),
        ("key: str | None, value: Optional[str]", ("k", "vü")),
        ("key: Text, value: Annotated['str', 'x']", ("k", "vü")),
        ("key: str, value: Unknown", ("k", "vü".encode())),
        ("key: str, value: str | bytes", ("k", "vü".encode())),
        ("key: bytes, value: str = ''", (b"k", "vü")),
    ],
)
def test_str_asks_for_text(one, parameters, expected, future):
    if not future:
        parameters = parameters.replace("Unknown", "'Unknown'")
    handler = one(f"""
        {future}
        from typing import Annotated, NewType, Optional
        Text = NewType("Text", str)
        def consume({parameters}):
            return key, value
    """)
    assert handler.form == "key_value"
    assert handler.call(b"k", "vü".encode()) == expected
    assert handler.call(None, None) == (None, None)


def test_text_that_is_none_fails_that_message_only(one):
    handler = one("def consume(key: str, value: str): return key, value")
    with pytest.raises(UnicodeDecodeError):
        handler.call(b"\xff", b"v")
    assert handler.call(b"", b"v") == ("", "v")


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("def consume(): ...", "handler without arguments: write it as (key, value) or (message)"),
        ("def consume(*, key): ...", "it needs the keyword argument key"),
        ("def consume(key, value, *, db): ...", "it needs the keyword argument db"),
        ("def consume(ctx, key, value): ...", "it takes 3 arguments (ctx, key, value)"),
        ("def consume(value): ...", "(value) takes one of key and value"),
        ("def consume(data: bytes): ...", "(data) takes one of key and value"),
        ("def consume(data: str): ...", "(data) takes one of key and value"),
        ("def consume(message, context): ...", "(message, context) takes a message and something"),
        ("def consume(a, b=1): ...", "(a, b) may take a key and a value, or a message"),
        ("def consume(*args, **kwargs): ...", "its parameters are hidden behind *args"),
        ("consume = print", "its parameters are hidden behind *args"),
        ("consume = min", "its parameters cannot be known"),
        ("def consume(key, value: dict): ...", "parameter value is annotated dict, but"),
        ("def consume(key: int, value): ...", "parameter key is annotated int, but"),
        ("def consume(key, value: 'dict[str, int]'): ...", "annotated dict[str, int], but"),
        ("async def consume(key, value): ...", "async handlers come in a later release"),
        ("async def consume(key, value): yield", "async handlers come in a later release"),
        ("def consume(key, value): yield", "it is a generator"),
        ("consume = 5", "int object has no method consume: add consume(self, key, value)"),
        ("class consume:\n  def Consume(self, k, v): ...", "rename Consume to consume"),
        ("class consume:\n  pass", "class consume has no method consume: add consume("),
        ("class consume:\n  consume = 5", "class consume has no method consume"),
        (
            "class consume:\n  def __init__(self, db): ...\n  def consume(self, k, v): ...",
            "class consume needs arguments (db), but processors make it without any",
        ),
        ("class consume:\n  async def consume(self, k, v): ...", "async handlers come"),
        ("class consume:\n  async def __call__(self, k, v): ...", "async handlers come"),
        ("class consume:\n  def consume(self): ...", "handler without arguments"),
        (
            "class consume:\n  def consume(self, k, v): ...\n  async def setup(self): ...",
            "its setup is async",
        ),
        (
            "class consume:\n  def consume(self, k, v): ...\n  def setup(self, a, b): ...",
            "its setup takes (a, b), but is called with (context) or nothing",
        ),
        (
            "class consume:\n  def consume(self, k, v): ...\n  def close(self, a): ...",
            "its close takes (a), but is called with nothing",
        ),
        (
            "class consume:\n  close = 1\n  def consume(self, k, v): ...",
            "its close is not callable but int",
        ),
        (
            "class consume:\n  columns = ('header',)\n  def consume(self, message): ...",
            "columns: 'header' is none of 'headers' and 'timestamp'",
        ),
        ("class consume:\n  columns = 5\n  def consume(self, message): ...", "columns: 5 is none"),
    ],
)
def test_what_would_fail_on_each_message_is_refused_at_the_start(one, definition, reason):
    assert reason in refused(one, definition)


def test_the_function_of_a_class_is_not_the_class(one):
    source = """
        class Thumb:
            def consume(self, key, value): ...
    """
    assert "(pass the class, not its function)" in refused(one, source, "Thumb.consume")


def test_a_decorated_handler_has_the_form_of_what_it_wraps(one):
    handler = one("""
        import functools
        def retried(function):
            @functools.wraps(function)
            def wrapper(*args): return "retried", *function(*args)
            return wrapper
        def run(function):
            @functools.wraps(function)
            def wrapper(*args):
                try: function(*args).send(None)
                except StopIteration as done: return done.value
            return wrapper
        @retried
        def consume(key: str, value): return key, value
        @run
        async def sync(key, value): return key, value
    """)
    assert handler.call(b"k", b"v") == ("retried", "k", b"v")
    sync = load(parse_target("mqs:sync"))
    assert sync.call(b"k", b"v") == (b"k", b"v")


def test_a_partial_at_the_top_of_a_module(one):
    handler = one("""
        import functools
        def store(db, key: "str", value): return db, key, value
        consume = functools.partial(store, "db")
    """)
    assert handler.call(b"k", b"v") == ("db", "k", b"v")


def test_a_class_is_made_once_with_its_hooks(one):
    handler = one(
        """
        class Thumb:
            made = 0
            columns = ("headers",)
            def __init__(self): Thumb.made += 1; self.log = []
            def setup(self, context): self.log.append(context.worker)
            def consume(self, message): self.log.append(message.value)
            def close(self): self.log.append("closed")
        """,
        "Thumb",
    )
    context = Context(fetcher=0, processor=3, section={"Password": "s3cret"})
    handler.setup(context)
    handler.call(Message.of(value=b"v"))
    handler.close()
    assert handler.call.__self__.log == ["0.3", b"v", "closed"]
    assert sys.modules["mqs"].Thumb.made == 1
    assert handler.columns == frozenset({"headers"})
    assert "s3cret" not in repr(context)
    assert isinstance(context.logger, logging.Logger)


@pytest.mark.parametrize("attribute", ["thumb", "thumb.consume"])
def test_an_object_keeps_its_state_and_its_setup_may_take_nothing(one, attribute):
    handler = one(
        """
        class Thumb:
            columns = ()
            def __init__(self, size): self.size = size
            def setup(self): self.size += 1
            def consume(self, message): return self.size
        thumb = Thumb(3)
        """,
        attribute,
    )
    handler.setup(Context(fetcher=0, processor=0))
    assert handler.call(Message.of()) == 4
    assert handler.columns == frozenset()
    handler.close()


def test_a_falsy_object_is_a_handler_too(one):
    handler = one("""
        class Handler(list):
            columns = "timestamp"
            def consume(self, message): ...
        consume = Handler()
    """)
    assert handler.columns == frozenset({"timestamp"})


def test_a_callable_object_is_called(one):
    handler = one("""
        class Thumb:
            def __call__(self, key: str, value): return key, value
            def close(self): raise OSError("gone")
        consume = Thumb()
    """)
    assert handler.call(b"k", b"v") == ("k", b"v")
    handler.setup(Context(fetcher=0, processor=0))
    with pytest.raises(OSError, match="gone"):
        handler.close()


def test_columns_of_a_key_value_handler_are_its_own_affair(one):
    handler = one("""
        class consume:
            columns = ("id", "name")
            def consume(self, key, value): ...
    """)
    assert handler.columns == frozenset()


# --- import errors ---


def test_a_missing_module_is_told_from_a_missing_import(app):
    directory = app("mqs.py", "import no_such_library\ndef consume(key, value): ...\n")
    with pytest.raises(HandlerImportError) as caught:
        resolve(parse_target("mq:consume", str(directory)))
    text = f"handler mq:consume: module mq not found in {directory}; did you mean 'mqs'?"
    assert str(caught.value) == text

    with pytest.raises(HandlerImportError) as caught:
        resolve(parse_target("elsewhere.mod:consume", str(directory)))
    assert f"module elsewhere not found in {directory} or on the rest of sys.path" in str(
        caught.value
    )

    with pytest.raises(HandlerImportError) as caught:
        resolve(parse_target("mqs:consume", str(directory)))
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "handler mqs:consume: importing module mqs failed:"
        " ModuleNotFoundError: No module named 'no_such_library'"
    )
    assert lines[1:] == [
        f'  File "{directory}/mqs.py", line 1, in <module>',
        "    import no_such_library",
    ]


def test_a_missing_submodule(app):
    app("pkg/__init__.py", "")
    directory = app("pkg/thumbs.py", "")
    app("plain.py", "")
    app("broken/__init__.py", "import broken.mod")
    for target, expected in {
        "pkg.thumb:consume": f"module pkg.thumb not found in {directory}; did you mean 'pkg.thumbs",
        "plain.mod:consume": "'plain' is not a package",
        "broken.mod:consume": "importing module broken.mod failed: ModuleNotFoundError",
    }.items():
        with pytest.raises(HandlerImportError) as caught:
            resolve(parse_target(target, str(directory)))
        assert expected in str(caught.value)


def test_a_missing_attribute_names_a_close_one(one):
    source = "def consume_all(key, value): ...\nclass Thumb:\n  def consume(self, k, v): ..."
    text = refused(one, source, "consume_al")
    assert text.startswith("module mqs has no 'consume_al' (")
    assert text.endswith("mqs.py); did you mean 'consume_all'?")
    assert refused(one, source, "Thumb.Consume") == (
        "Thumb has no 'Consume'; did you mean 'consume'?"
    )


def test_a_module_hidden_by_another_of_its_name_is_named(app):
    directory = app("queue.py", "def consume(key, value): ...")
    with pytest.raises(HandlerImportError) as caught:
        resolve(parse_target("queue:consume", str(directory)))
    assert f"{directory}/queue.py is hidden by that module of the same name: rename it" in str(
        caught.value
    )


def test_a_syntax_error_has_its_place(app):
    app("mqs.py", "import helper\ndef consume(key, value): ...\n")
    directory = app("helper.py", "x = 1\ndef broken(:\n    pass\n")
    with pytest.raises(HandlerImportError) as caught:
        resolve(parse_target("mqs:consume", str(directory)))
    first, second, *_ = str(caught.value).splitlines()
    assert first.startswith(f"handler mqs:consume: {directory}/helper.py:2: ")
    assert second.strip() == "def broken(:"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('usage')", "it called sys.exit('usage')"),
        ("from os import no_such_name", "ImportError: cannot import name 'no_such_name'"),
    ],
)
def test_a_module_that_fails_is_one_error_with_the_users_lines(one, source, reason):
    text = refused(one, f"def work():\n    pass\n{source}\n")
    assert text.startswith(f"importing module mqs failed: {reason}")
    file, line, *marks = text.splitlines()[1:]
    assert file.endswith(f'mqs.py", line {2 + len(source.splitlines())}, in <module>')
    assert line.strip() == source.splitlines()[-1]
    assert not "".join(marks).strip("~^ ")


def test_a_traceback_is_bounded(one):
    steps = "".join(f"def f{n}():\n    f{n - 1}()\n" for n in range(1, 51))
    text = refused(one, f"def f0():\n    1 / 0\n{steps}f50()\n")
    assert text.count("  File ") == handler_package.loading.FRAMES_MAX
    assert "in f0" in text


def test_an_interrupt_is_not_an_import_error(one):
    with pytest.raises(KeyboardInterrupt):
        one("raise KeyboardInterrupt")


def test_an_instance_that_cannot_be_made_is_one_error(one):
    text = refused(
        one,
        """
        class Thumb:
            def __init__(self): self.size = int("x")
            def consume(self, key, value): ...
        """,
        "Thumb",
    )
    assert text.startswith("making an instance of Thumb failed: ValueError: invalid literal")
    assert 'self.size = int("x")' in text
    assert "forms.py" not in text


def test_an_error_that_has_said_it_all_is_passed_on(one):
    with pytest.raises(HandlerImportError, match=r"^start.. reached in a processor$"):
        one("""
            from kqmp.errors import HandlerImportError
            raise HandlerImportError("start() reached in a processor")
        """)


def test_the_app_directory_comes_first_and_the_programs_path_last(app, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "mqs.py").write_text("def consume(key, value): raise AssertionError('wrong one')")
    (other / "only_there.py").write_text("NAME = 'found'")
    directory = app("mqs.py", "import only_there\ndef consume(key, value): return only_there.NAME")
    sys.path.insert(0, str(other))
    ref = HandlerRef(target="mqs:consume", app_dir=str(directory), sys_path=(str(other),))
    before = list(sys.path)
    assert load(ref).call(b"", b"") == "found"
    assert sys.path == [str(directory), *before]
    sys.path.remove(str(other))
    resolve(ref)
    assert sys.path[-1] == str(other)


def test_the_current_directory_is_the_default(app, monkeypatch):
    monkeypatch.chdir(app("mqs.py", "def consume(key, value): return 'here'"))
    assert load(parse_target("mqs:consume")).call(b"", b"") == "here"


# --- names for the objects of a program ---


def imported(directory, name):
    sys.path.insert(0, str(directory))
    __import__(name)
    return sys.modules[name]


LIBRARY = """
    import functools
    def consume(key, value): ...
    class Thumb:
        def __init__(self, size=1): self.size = size
        def consume(self, key, value): ...
        @classmethod
        def made(cls, key, value): ...
        @staticmethod
        def plain(key, value): ...
    class Outer:
        class Inner(Thumb): pass
    thumb = Thumb(3)
    cached = functools.lru_cache(consume)
    shout = lambda key, value: None
    def closure():
        def inner(key, value): ...
        return inner
    inner = closure()
    partial = functools.partial(consume, b"")
    def replaced(key, value): ...
    old, replaced = replaced, consume
"""


@pytest.mark.parametrize(
    ("expression", "attribute"),
    [
        ("consume", "consume"),
        ("Thumb", "Thumb"),
        ("Outer.Inner", "Outer.Inner"),
        ("thumb", "thumb"),
        ("thumb.consume", "thumb.consume"),
        ("Thumb.made", "Thumb.made"),
        ("Thumb.plain", "Thumb.plain"),
    ],
)
def test_an_object_is_named_so_that_it_is_found_again(app, expression, attribute):
    directory = app("pkg/library.py", LIBRARY)
    module = imported(directory, "pkg.library")
    obj = eval(expression, vars(module))
    ref = ref_of(obj)
    assert (ref.target, ref.path, ref.app_dir) == (
        f"pkg.library:{attribute}",
        "",
        str(directory),
    )
    assert str(directory) in ref.sys_path
    assert ref.argv == ()
    assert resolve(ref) == obj


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("shout", "a lambda has no name, and a handler must be importable by name"),
        ("inner", "closure.<locals>.inner is made inside a function"),
        ("partial", "functools.partial of consume is made at run time"),
        ("Thumb(4)", "an instance of Thumb has no name"),
        ("Thumb(4).consume", "an instance of Thumb has no name"),
        ("old", "replaced is not what module pkg.library has under that name"),
        ("[].append", "list.append is not what module None has under that name"),
        ("5", "an instance of int has no name"),
        ("functools", "module functools is not a handler: it must"),
    ],
)
def test_what_another_process_cannot_import_is_refused(app, expression, reason):
    module = imported(app("pkg/library.py", LIBRARY), "pkg.library")
    with pytest.raises(HandlerImportError) as caught:
        ref_of(eval(expression, vars(module)))
    assert reason.removesuffix(": it must") in str(caught.value)
    assert "importable by name in a process of its own" in str(caught.value)


def test_a_string_is_a_target():
    assert ref_of("mqs:consume") == parse_target("mqs:consume")


def test_a_module_made_at_run_time_is_refused():
    module = types.ModuleType("made_up")
    exec("def consume(key, value): ...", vars(module))
    sys.modules["made_up"] = module
    try:
        with pytest.raises(HandlerImportError, match="module made_up was made at run time"):
            ref_of(module.consume)
    finally:
        del sys.modules["made_up"]


def test_a_module_whose_file_has_another_name_is_loaded_by_path(app):
    """As pytest's importlib mode and plug-in loaders import their files."""
    directory = app("file_name.py", "def consume(key, value): return __name__")
    spec = handler_package.loading.spec_from_loader(
        "pkg.other_name",
        handler_package.loading.SourceFileLoader("pkg.other_name", str(directory / "file_name.py")),
    )
    module = handler_package.loading.module_from_spec(spec)
    sys.modules["pkg.other_name"] = module
    spec.loader.exec_module(module)
    ref = ref_of(module.consume)
    assert (ref.target, ref.path) == ("pkg.other_name:consume", str(directory / "file_name.py"))
    assert load(ref).call(b"", b"") == "pkg.other_name"
    assert resolve(ref) is module.consume
    del sys.modules["pkg.other_name"]
    main = sys.modules["__main__"]
    again = resolve(ref)
    assert again is not module.consume
    assert sys.modules["__main__"] is main


def test_a_handler_in_a_test_module_is_found_from_anywhere():
    ref = ref_of(consume_here)
    done = python("-c", PROCESSOR, msgspec.json.encode(ref).decode(), cwd="/")
    assert done.stdout == f"{ref.name} ('here', b'k', b'v')\n", done.stderr


def consume_here(key, value):
    return "here", key, value


def test_an_installed_module_does_not_put_its_directory_first():
    ref = ref_of(json.dumps)
    assert ref.target == "json:dumps"
    assert ref.app_dir != str(Path(json.__file__).parent.parent)
    assert ref_of(functools.reduce).path == ""


# --- __main__: a program, and a processor that loads its handler ---

SCRIPT = """
    import sys
    from neighbour import NAME
    print("top level", __name__, sys.argv[1:])

    def consume(key, value):
        return __name__, NAME, key, value

    class Thumb:
        def consume(self, key, value): return pickled()

    def pickled():
        import pickle
        # As a producer of this script wrote it, and as a Pool of the handler sends it.
        assert pickle.loads(b"c__main__\\nThumb\\n.") is Thumb
        return pickle.loads(pickle.dumps(Thumb)) is Thumb

    def pooled(key, value):
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(work, (value,))

    def work(value):
        return value.upper()

    if __name__ == "__main__":
        import msgspec
        from kqmp.errors import HandlerImportError
        from kqmp.handler import ref_of
        late = Thumb()
        try:
            ref = ref_of(eval(sys.argv[1]))
        except HandlerImportError as error:
            raise SystemExit(f"refused: {error}")
        print(msgspec.json.encode(ref).decode())
"""

PROCESSOR = """
import sys, msgspec
from kqmp.errors import HandlerImportError
from kqmp.handler import HandlerRef, inside_processor, load, mark_processor
assert not inside_processor()
mark_processor()
assert inside_processor()
ref = msgspec.json.decode(sys.argv[1], type=HandlerRef)
try:
    handler = load(ref)
    assert load(ref).name == handler.name
except HandlerImportError as error:
    raise SystemExit(f"refused: {error}")
print(handler.name, handler.call(b"k", b"v"))
"""


def python(*arguments, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        **options,
    )


@pytest.fixture
def script(app):
    app("program/neighbour.py", "NAME = 'neighbour'")
    return app("program/script.py", SCRIPT)


def handled(directory, *program):
    """Run the program, then a processor with the ref that it prints; return both."""
    asked = python(*program, cwd=directory)
    assert asked.returncode == 0, asked.stderr
    ref = asked.stdout.splitlines()[-1]
    (directory / "elsewhere").mkdir()
    done = python("-c", PROCESSOR, ref, cwd=directory / "elsewhere")
    return msgspec.json.decode(ref, type=HandlerRef), done


def test_a_script_is_loaded_by_path_without_its_guarded_part(script):
    ref, done = handled(script, "program/script.py", "consume", "x")
    assert ref.target == "__main__:consume"
    assert ref.path == str(script / "program" / "script.py")
    assert ref.app_dir == str(script / "program")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "top level __mp_main__ ['consume', 'x']",
            "script.py:consume ('__mp_main__', 'neighbour', b'k', b'v')",
        ],
    ), done.stderr
    # Python leaves no cache beside a script, and neither does a processor.
    assert not list(script.glob("program/__pycache__/script*"))


@pytest.mark.parametrize(("handler", "result"), [("Thumb", True), ("pooled", b"V")])
def test_pickles_and_pools_of_a_script_work_in_its_handler(script, handler, result):
    _, done = handled(script, "program/script.py", handler)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"script.py:{handler} {result}"


def test_a_module_run_with_m_is_imported_by_its_name(script):
    (script / "neighbour.py").write_text("NAME = 'above'")
    ref, done = handled(script, "-m", "program.script", "consume")
    assert ref.target == "program.script:consume"
    assert (ref.path, ref.app_dir) == ("", str(script))
    assert done.stdout.splitlines() == [
        "top level program.script ['consume']",
        "program.script:consume ('program.script', 'above', b'k', b'v')",
    ], done.stderr


def test_what_is_made_under_the_guard_is_not_there(script):
    _, done = handled(script, "program/script.py", "late")
    assert done.returncode == 1
    assert (
        f"refused: handler script.py:late: {script}/program/script.py has no 'late'" in done.stderr
    )
    assert 'under `if __name__ == "__main__":` is not there in a processor' in done.stderr


def test_a_script_that_fails_leaves_main_as_it_was(app):
    directory = app("script.py", "import sys\nassert sys.modules['__main__'].__file__\n1 / 0\n")
    code = f"""
import sys
from kqmp.errors import HandlerImportError
from kqmp.handler import HandlerRef, load
main = sys.modules["__main__"]
try:
    load(HandlerRef(target="__main__:consume", path={str(directory / "script.py")!r}))
except HandlerImportError as error:
    print(error)
assert sys.modules["__main__"] is main and "__mp_main__" not in sys.modules
"""
    done = python("-c", code, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"handler script.py:consume: importing {directory}/script.py failed:"
        " ZeroDivisionError: division by zero",
        f'  File "{directory}/script.py", line 3, in <module>',
        *done.stdout.splitlines()[2:],
    ]


@pytest.mark.parametrize("way", ["-c", "-"])
def test_what_was_typed_in_cannot_be_imported(script, way):
    source = textwrap.dedent(SCRIPT).replace("from neighbour import NAME", "NAME = 1")
    source = source.replace("eval(sys.argv[1])", "consume")
    done = (
        python("-c", source, cwd=script) if way == "-c" else python("-", cwd=script, input=source)
    )
    assert done.returncode == 1
    assert "refused: handler: consume was typed into an interactive session" in done.stderr
    assert "save it in a file" in done.stderr


def test_load_is_resolve_and_wrap(one):
    handler = one("def consume(key, value): ...")
    assert isinstance(handler, Handler)
    again = handler_package.wrap(sys.modules["mqs"].consume, parse_target("mqs:consume"))
    assert again == handler


def test_a_method_on_error_is_told_of_failures(one):
    handler = one(
        """
        class Thumb:
            def consume(self, key, value): ...
            def on_error(self, message, error): return message.offset, error.args
        class Bare(Thumb):
            columns = ()
        def consume(key, value): ...
        """,
        "Thumb",
    )
    assert handler.on_error(Message.of(offset=7), ValueError("x")) == (7, ("x",))
    # What failed is shown whole, as kq's error handler sees it, unless that is not wanted.
    assert handler.columns == {"headers", "timestamp"}
    assert load(parse_target("mqs:Bare")).columns == frozenset()
    plain = load(parse_target("mqs:consume"))
    assert (plain.on_error, plain.columns) == (None, frozenset())


def test_a_function_on_error_is_found_by_its_own_name(app):
    ref = parse_target("mqs:Thumb", str(app("mqs.py", """
        class Thumb:
            def consume(self, message): ...
            def on_error(self, message, error): return "method"
        def told(message, error=None, *rest): return "function"
    """)))  # fmt: skip
    given = msgspec.structs.replace(ref, on_error=parse_target("mqs:told"))
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=HandlerRef)
    assert load(sent).on_error(None, None) == "function"
    assert load(ref).on_error(None, None) == "method"


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("def on_error(self, error): ...", "its on_error takes (error), but is called with (mes"),
        ("def on_error(self, m, e, key): ...", "its on_error takes (m, e, key), but is called"),
        ("async def on_error(self, m, e): ...", "its on_error is async: write it as a plain def"),
        ("on_error = 5", "its on_error is not callable but int"),
    ],
)
def test_an_on_error_that_cannot_be_called_is_refused(one, definition, reason):
    source = f"class Thumb:\n  def consume(self, key, value): ...\n  {definition}"
    assert reason in refused(one, source, "Thumb")
