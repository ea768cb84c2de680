"""YAML and JSON text -> tree, read by PyYAML, whose marks give every part its line and column.

YAML 1.1 as PyYAML reads it, with anchors and merge keys; without tags, duplicate keys and second
documents. JSON is checked by `json` first, then read the same way for the marks.

No text of the file stands in an error but keys: PyYAML's own texts quote the line they complain
of, which may hold a password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from kqmp.configfile.tree import Entry, Item, Listing, Place, Scalar, Table
from kqmp.errors import ConfigError

#: A file that aliases blow up to more parts than this is refused.
PARTS_HIGH = 100_000

_TAG = "tag:yaml.org,2002:"
_TYPED = {_TAG + name for name in ("bool", "int", "float", "null", "timestamp")}
_MERGE = _TAG + "merge"
_QUOTED = re.compile(r"""(['"])((?:\\.|(?!\1).)*)\1""")


def read_yaml(text: str, file: str) -> Item | None:
    """Parse YAML; None for an empty document.

    Raises:
        ConfigError: it cannot be read; all tags and duplicate keys at once.
    """
    return _read(text, file, _YamlBuilder)


def read_json(text: str, file: str) -> Item | None:
    """Parse JSON.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # Some of its texts end in "at", as a place follows.
        what = error.msg.removesuffix(" at").removesuffix(" starting")
        raise ConfigError(f"{file}:{error.lineno}:{error.colno}: {what}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    except ValueError:
        raise ConfigError(f"{file}: holds a number that is too long") from None
    # JSON may be indented with tabs, YAML may not; in a JSON text no tab stands inside a string.
    return _read(text.replace("\t", " "), file, _JsonBuilder)


def _read(text: str, file: str, builder_type: type[_YamlBuilder]) -> Item | None:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        builder = builder_type(loader, file)
        item = builder.build(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise ConfigError(f"{file}:{line}:{column}: a character that YAML forbids") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{_where(file, mark)}: {_without_content(error)}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    if builder.problems:
        raise ConfigError(*(text for _, text in sorted(builder.problems)))
    return item


class _Loader(yaml.SafeLoader):
    """Composes nodes, and notes tags and undefined aliases before PyYAML acts on them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        #: (mark, name of the key it stands under) of each tag.
        self.tags: list[tuple[Any, str]] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                problem = "undefined alias; quote the value if it begins with *"
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        elif event.tag is not None:
            key = f"{index.value}: " if isinstance(index, yaml.ScalarNode) else ""
            self.tags.append((event.start_mark, key))
        return super().compose_node(parent, index)


class _YamlBuilder:
    """Turns nodes into the tree; collects what is wrong in `problems`, sorted by their order."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self._loader = loader
        self._file = file
        # By id(): the nodes live as long as this object, the items as long as their nodes' entry.
        self._built: dict[int, tuple[Item, int]] = {}
        self._parts: dict[int, int] = {}
        self._open: set[int] = set()
        self.problems: list[tuple[tuple[int, int], str]] = []
        for mark, key in loader.tags:
            text = f"{key}a YAML tag is not allowed; quote the value if it begins with !"
            self._complain(self._place(mark), text)

    def build(self, node: Any) -> Item:
        """Build a node; one that aliases share is built once."""
        return self._sized(node)[0]

    def _sized(self, node: Any) -> tuple[Item, int]:
        """The item of a node and the number of parts it would have without aliases."""
        if id(node) in self._built:
            return self._built[id(node)]
        place = self._place(node.start_mark)
        if id(node) in self._open:
            self._complain(place, "an anchor that contains itself")
            return Scalar(None, "", place), 1
        self._open.add(id(node))
        built: tuple[Item, int]
        if isinstance(node, yaml.MappingNode):
            built = self._table(node, place)
        elif isinstance(node, yaml.SequenceNode):
            parts = [self._sized(part) for part in node.value]
            built = Listing(tuple(item for item, _ in parts), place), 1 + sum(n for _, n in parts)
        else:
            built = Scalar(self._value(node, place), node.value, place), 1
        self._open.discard(id(node))
        if built[1] > PARTS_HIGH:
            raise ConfigError(f"{place.prefix}aliases make more than {PARTS_HIGH} parts of it")
        self._built[id(node)] = built
        self._parts[id(built[0])] = built[1]
        return built

    def _table(self, node: Any, place: Place) -> tuple[Item, int]:
        own: dict[object, Entry] = {}
        merged: dict[object, Entry] = {}
        parts = 1
        for key_node, value_node in node.value:
            key_place = self._place(key_node.start_mark)
            if key_node.tag == _MERGE:
                for entry in self._merged(value_node):
                    merged.setdefault(entry.key, entry)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_place, "a key must be text, not a list or a map")
                continue
            key = self._value(key_node, key_place)
            item, count = self._sized(value_node)
            parts += count
            if key in own:
                first = own[key].place.order[0]
                self._complain(key_place, f"{key_node.value}: given twice, first on line {first}")
            own.setdefault(key, Entry(key, key_place, item))
        entries = [entry for entry in merged.values() if entry.key not in own]
        parts += sum(self._parts.get(id(entry.item), 1) for entry in entries)
        return Table((*entries, *own.values()), place), parts

    def _merged(self, node: Any) -> Iterator[Entry]:
        """The entries of the maps that a merge key `<<` names, the first to win first."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in nodes:
            item = self.build(part)
            if isinstance(item, Table):
                yield from item.entries
            else:
                self._complain(item.place, "<<: only maps can be merged")

    def _value(self, node: Any, place: Place) -> object:
        """The value of a scalar node: text unless YAML 1.1 reads it as something else."""
        if node.tag not in _TYPED:
            return node.value
        try:
            return self._loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            self._complain(place, "a number or date that does not exist; quote it if it is text")
            return None

    def _place(self, mark: Any) -> Place:
        order = (mark.line + 1, mark.column + 1)
        return Place(order, f"{_where(self._file, mark)}: ")

    def _complain(self, place: Place, text: str) -> None:
        self.problems.append((place.order, f"{place.prefix}{text}"))


class _JsonBuilder(_YamlBuilder):
    """As YAML, but values are what JSON says they are: 1e3 is a number, a date is text."""

    def _value(self, node: Any, place: Place) -> object:  # noqa: ARG002
        if node.style is None:
            return json.loads(node.value)
        # JSON writes a character outside the BMP as two surrogates; PyYAML leaves them apart.
        pairs: str = node.value
        return pairs.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _where(file: str, mark: Any) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file


def _without_content(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's text without what it quotes of the file, single characters excepted."""
    problem = error.problem or error.context or "cannot be read as YAML"
    if "'\\t'" in problem:
        return "a tab; YAML is indented with spaces"
    return _QUOTED.sub(lambda quoted: quoted[0] if _harmless(quoted[2]) else "'...'", problem)


def _harmless(quoted: str) -> bool:
    """Whether a quotation is one character or the name of a token such as `<scalar>`."""
    return len(quoted) <= 1 or re.fullmatch("<[a-z ]+>", quoted) is not None
