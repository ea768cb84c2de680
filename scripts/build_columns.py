"""Compiles `kqmp/kafka/_columns.c` while a wheel or an editable installation is built.

Called by hatchling (pyproject.toml). Where there is no C compiler, or it fails, the installation
goes on without: kqmp then takes messages by Python alone, and says so when an engine starts.
"""

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "kqmp.kafka._columns"
SOURCES = ("kqmp/kafka/_columns.c", "kqmp/kafka/_librdkafka.h")


class ColumnsHook(BuildHookInterface[Any]):
    """Adds the compiled module to the package, if it can be made here."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatch's
        """Compile into the source tree, from where an editable installation imports it too."""
        root = Path(self.root)
        try:
            built = compile_module(root)
        except Exception as error:  # noqa: BLE001 - whatever it is, kqmp works without
            self.app.display_warning(f"{MODULE} is left out, kqmp will be slower: {error}")
            return
        build_data["artifacts"].append(f"/{built.relative_to(root).as_posix()}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_module(root: Path) -> Path:
    """Compile the module in its place and return its file.

    Raises:
        Exception: no compiler, no header of Python, or the compiler refuses the source.
    """
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        MODULE,
        [str(root / SOURCES[0])],
        extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden"],
        extra_link_args=["-ldl"],
    )
    distribution = Distribution({"name": "kqmp", "ext_modules": [extension]})
    command = build_ext(distribution)
    command.build_lib = str(root)
    command.ensure_finalized()
    built = Path(command.get_ext_fullpath(MODULE))
    built.unlink(missing_ok=True)  # one of an earlier source is worse than none
    with tempfile.TemporaryDirectory(prefix="kqmp-build-") as command.build_temp:
        command.run()
    assert built.is_file(), built
    return built
