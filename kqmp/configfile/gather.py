"""Gather what a user gave, from a section, from flags and from `-X`, with the place of each.

Checks what only a file can get wrong (unknown keys, `no` read as false, a number without its
unit); everything else is checked by `kqmp.config.checks`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kqmp.config.checks import Problem, shown
from kqmp.config.keys import CONSUMER, SERVICE, Key, KeyTable, Kind
from kqmp.configfile.expand import ExpansionError, expand
from kqmp.configfile.names import misspelt, unknown
from kqmp.configfile.sections import SERVICE_KEYS, Section
from kqmp.configfile.tree import Entry, Item, Listing, Place, Scalar, Table, flattened, plain

_TEXT_KINDS: set[Kind] = {"text", "topic", "identifier", "secret", "brokers", "url", "path"}
_SERVICE_KEYS = {name.lower() for name in SERVICE_KEYS}
# After every line of a file, in the order given.
_FLAG_PLACE = Place((2**31, 0), "--set ")
_SHORTCUT_PLACE = Place((2**31, 0), "--")
_PROPERTY_PLACE = Place((2**31, 1), "-X ")
#: `missing_place` where there is no file: all that is required has a flag of its own.
FLAGS_ALONE = Place((2**31, 2), "--")


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a key was given, and how it was spelled there."""

    place: Place
    spelled: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """One problem as the user reads it."""

    order: tuple[int, int]
    line: str
    #: The key or property concerned: a flag that sets it instead makes the complaint void.
    about: str


@dataclass(slots=True)
class Gathered:
    """All values given, by the keys' names in Python, and what is wrong with them so far."""

    #: Where what is missing would have to stand.
    missing_place: Place
    #: The keys that there are.
    table: KeyTable = CONSUMER
    values: dict[str, object] = field(default_factory=dict)
    problems: list[Complaint] = field(default_factory=list)
    #: ServiceConf keys that were accepted.
    without_effect: list[str] = field(default_factory=list)
    _origins: dict[str, _Origin] = field(default_factory=dict)
    _property_places: dict[str, Place] = field(default_factory=dict)
    #: Places of the keys of tables: (the table's name in Python, kq's name of the key).
    _field_places: dict[tuple[str, str], Place] = field(default_factory=dict)
    #: Keys whose value was found wrong here: the checks have nothing to add.
    _spoilt: set[str] = field(default_factory=set)

    def spell(self, key: Key) -> str:
        """The key as the user wrote it, or kq's name where it was not written."""
        origin = self._origins.get(key.name)
        return origin.spelled if origin else key.kq

    def add_section(self, section: Section, env: Mapping[str, str]) -> None:
        """Take the values of a section of a file; at the top level foreign keys may stand too."""
        for entry in section.table.entries:
            key = self.table.by_kq.get(entry.key.lower()) if isinstance(entry.key, str) else None
            if key is not None:
                self._add_entry(key, entry, env)
            elif isinstance(entry.key, str) and entry.key.lower() in _SERVICE_KEYS:
                self.without_effect.append(entry.key)
            elif section.name or _is_misspelt(entry, self.table):
                text = f"{shown_key(entry.key)}: {unknown(entry.key, self.table.keys)}"
                self.complain(entry.place, text)

    def add_flags(self, values: Mapping[str, str]) -> None:
        """Take `--set Key=Value` pairs; names in kq's or Python's spelling, in any case."""
        for spelled, value in values.items():
            folded = spelled.strip().lower()
            if self._is_field_put(spelled, value):
                continue
            key = self.table.by_kq.get(folded) or self.table.by_name.get(folded)
            if key is None:
                text = f"{spelled}: {unknown(spelled, self.table.keys)}"
                self.complain(_FLAG_PLACE, text)
            elif key.kind == "properties":
                self.complain(_FLAG_PLACE, f"{spelled}: give properties with -X name=value")
            elif key.kind == "table":
                field = f"{key.kq}.{key.fields[0].kq}"
                self.complain(_FLAG_PLACE, f"{spelled}: a map; set one key of it, as {field}=...")
            else:
                self._put(key, value, _Origin(_FLAG_PLACE, spelled))

    def _is_field_put(self, spelled: str, value: str) -> bool:
        """Take a flag that sets one key of a table, such as DevServer.Port; tell whether it is."""
        name, _, field = spelled.strip().lower().partition(".")
        key = self.table.by_kq.get(name) or self.table.by_name.get(name)
        if key is None or key.kind != "table" or not field:
            return False
        given = self.values.get(key.name)
        kq = next((f.kq for f in key.fields if field in (f.kq.lower(), f.name)), field)
        self.values[key.name] = {**(given if isinstance(given, dict) else {}), kq: value}
        self._origins.setdefault(key.name, _Origin(_FLAG_PLACE, key.kq))
        self._field_places[key.name, kq] = _FLAG_PLACE
        self._forgive({f"{key.name}.{kq}"})
        return True

    def add_shortcuts(self, values: Mapping[str, str]) -> None:
        """Take flags of their own, such as `--group`, by the keys' names in Python."""
        for name, value in values.items():
            key = self.table.by_name[name]
            self._put(key, value, _Origin(_SHORTCUT_PLACE, name.replace("_", "-")))

    def add_properties(self, values: Mapping[str, str]) -> None:
        """Take `-X name=value` pairs, which win over the section's `Kafka`."""
        if not values:
            return
        given = self.values.get("kafka", {})
        if isinstance(given, dict):  # else it is an error of its own already
            self.values["kafka"] = {**given, **values}
            self._forgive(values.keys())
            self._property_places |= dict.fromkeys(values, _PROPERTY_PLACE)

    def add_problem(self, problem: Problem) -> None:
        """Take a problem of the checks, unless its cause was found here before.

        Its place is that of the first of its keys that was given.
        """
        if not self._spoilt.isdisjoint(problem.keys):
            return
        first = self.table.by_name[problem.keys[0]]
        name = f"{self.spell(first)}: "
        places = [self._origins[key].place for key in problem.keys if key in self._origins]
        place = (*places, self.missing_place)[0]
        if place is FLAGS_ALONE:
            name = f"{first.name}: "
        if (first.name, problem.item) in self._field_places:
            place = self._field_places[first.name, problem.item]
        elif problem.item in self._property_places:
            place = self._property_places[problem.item]
            name = "" if place is _PROPERTY_PLACE else name
        item = f"{problem.item}: " if problem.item else ""
        self.complain(place, f"{name}{item}{problem.text}")

    def complain(self, place: Place, text: str, about: str = "") -> None:
        """Note one problem."""
        self.problems.append(Complaint(place.order, f"{place.prefix}{text}", about))

    def _put(self, key: Key, value: object, origin: _Origin) -> None:
        """Set a key by a flag, whatever the file says."""
        self.values[key.name] = value
        self._origins[key.name] = origin
        self._spoilt.discard(key.name)
        self._forgive({key.name})

    def _forgive(self, about: Collection[str]) -> None:
        self.problems = [problem for problem in self.problems if problem.about not in about]

    def _add_entry(self, key: Key, entry: Entry, env: Mapping[str, str]) -> None:
        """Take one key of a section, unless it is wrong already."""
        spelled = str(entry.key)
        if key.name in self._origins:
            self.complain(entry.place, f"{spelled}: given twice, in different case")
            return
        place = _value_place(entry)
        self._origins[key.name] = _Origin(place, spelled)
        complaint = _misread(key, entry.item)
        if complaint:
            self._spoilt.add(key.name)
            self.complain(place, f"{spelled}: {complaint}", key.name)
        elif isinstance(entry.item, Table) and key.kind == "properties":
            self.values[key.name] = self._properties(entry, entry.item, env)
        elif isinstance(entry.item, Table) and key.kind == "table":
            self.values[key.name] = self._fields(key, entry, entry.item, env)
        elif not _is_empty(entry.item):
            try:
                self.values[key.name] = plain(entry.item, lambda text: expand(text, env))
            except ExpansionError as error:
                self._spoilt.add(key.name)
                self.complain(place, f"{spelled}: {error}", key.name)

    def _properties(
        self, kafka: Entry, table: Table, env: Mapping[str, str]
    ) -> dict[object, object]:
        """The properties of `Kafka`; the place of each is kept."""
        found: dict[object, object] = {}
        for entry in flattened(table):
            if not isinstance(entry.key, str):
                found[entry.key] = ""
                continue
            name = entry.key.strip()
            place = entry.item.place if entry.item.place.order[1] else kafka.place
            self._property_places[name] = place
            try:
                found[name] = _as_written(entry.item, env)
            except ExpansionError as error:
                self.complain(place, f"{kafka.key}: {name}: {error}", name)
        return found

    def _fields(
        self, key: Key, above: Entry, table: Table, env: Mapping[str, str]
    ) -> dict[str, object]:
        """The keys of a table; the place of each is kept. What is wrong here is left out."""
        known = {spelled.kq.lower(): spelled for spelled in key.fields}
        ignored = {name.lower() for name in key.ignored}
        found: dict[str, object] = {}
        for entry in table.entries:
            name = entry.key.lower() if isinstance(entry.key, str) else ""
            place = _value_place(entry) if entry.place.order[1] else above.place
            named = f"{above.key}: {shown_key(entry.key)}"
            if name in ignored:
                self.without_effect.append(f"{above.key}.{entry.key}")
            elif name not in known:
                key_place = entry.place if entry.place.order[1] else above.place
                self.complain(key_place, f"{named}: {unknown(entry.key, key.fields)}")
            elif known[name].kq in found:
                self.complain(place, f"{named}: given twice, in different case")
            elif complaint := _misread(known[name], entry.item):
                self.complain(place, f"{named}: {complaint}", f"{key.name}.{known[name].kq}")
            else:
                self._field_places[key.name, known[name].kq] = place
                try:
                    value = plain(entry.item, lambda text: expand(text, env))
                    found[known[name].kq] = value
                except ExpansionError as error:
                    self.complain(place, f"{named}: {error}", f"{key.name}.{known[name].kq}")
        return found


def shown_key(key: object) -> str:
    """A key of a file, for an error."""
    return key if isinstance(key, str) else shown(key)


def _value_place(entry: Entry) -> Place:
    """The place of the value; where the file tells no lines, that of the key."""
    return entry.item.place if entry.item.place.order[1] else entry.place


def _is_empty(item: Item) -> bool:
    return isinstance(item, Scalar) and item.value is None


def _as_written(item: Item, env: Mapping[str, str]) -> object:
    """A property's value; a number as it stands in the file, since 0.10 is a version."""
    if isinstance(item, Scalar) and not isinstance(item.value, str | bool | None):
        return item.text
    return plain(item, lambda text: expand(text, env))


def _is_misspelt(entry: Entry, table: KeyTable) -> bool:
    """Whether a key beside ours at the top level is one of ours with a letter or two wrong."""
    if not isinstance(entry.key, str):
        return False
    # A map of somebody else's is no misspelling of a key that holds one value.
    is_map = isinstance(entry.item, Table)
    keys = [key for key in table.keys if not is_map or key.kind == "properties"]
    # Short common words, of which a foreign key may well be near: they mean nothing there.
    keys = [key for key in keys if key.kq.lower() not in SERVICE]
    return misspelt(entry.key, keys) is not None


def _misread(key: Key, item: Item) -> str | None:
    """What is wrong with how a value was written; None if nothing is."""
    if isinstance(item, Listing) and key.kind == "brokers":
        return next(filter(None, (_misread(key, part) for part in item.items)), None)
    if not isinstance(item, Scalar) or isinstance(item.value, str):
        return None
    if item.value is None:
        return None if key.kind == "properties" else f"empty; use {key.allowed}, or leave it out"
    written = item.text[:60]
    if key.kind == "duration" and isinstance(item.value, int | float):
        return f"{written} has no unit; write {written}s or {written}ms"
    return _not_text(key, item.value, written) if key.kind in _TEXT_KINDS else None


def _not_text(key: Key, value: object, written: str) -> str:
    if key.kind == "secret":
        return "the value (not shown) is read as something else than text; write it in quotes"
    what = "true/false" if isinstance(value, bool) else "a number or date"
    return f'{written} is read as {what}, not as text; write it in quotes: "{written}"'
