"""The compiled module: built where there is a compiler, left out where not, never half there."""

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from kqmp.kafka import compiled

ROOT = Path(__file__).parents[2]


def hook():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import build_columns
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return build_columns


def has_compiler():
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(name) is not None and header.exists()


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "kqmp/kafka").mkdir(parents=True)
    for name in hook().SOURCES:
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.skipif(not has_compiler(), reason="no C compiler with Python's headers")
def test_where_there_is_a_compiler_the_fast_path_is_on():
    assert compiled.why_not() == ""


@pytest.mark.skipif(not has_compiler(), reason="no C compiler with Python's headers")
def test_what_the_hook_compiles_can_be_imported(tree):
    built = hook().compile_module(tree)
    assert built.parent == tree / "kqmp/kafka"
    spec = importlib.util.spec_from_file_location("kqmp.kafka._columns", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(RuntimeError, match="no client was made with this plugin"):
        module.Reader(None, False, False)


def test_a_compiler_that_fails_leaves_no_module_of_an_earlier_source(tree, monkeypatch):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    stale = tree / f"kqmp/kafka/_columns{suffix}"
    stale.write_bytes(b"of an earlier source")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(Exception, match="false"):
        hook().compile_module(tree)
    assert not stale.exists()


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("KQMP_COMPILED", "0")
    assert compiled.why_not() == "KQMP_COMPILED=0"


@pytest.mark.skipif(bool(compiled.why_not()), reason=compiled.why_not())
def test_a_users_own_plugin_is_kept():
    name = "plugin.library.paths"
    ours = compiled.with_plugin({})[name]
    assert Path(ours).suffix == ".so"
    assert compiled.with_plugin({name: "monitor"}) == {name: f"monitor;{ours}"}
