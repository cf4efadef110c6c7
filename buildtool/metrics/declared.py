# SPDX-License-Identifier: Apache-2.0
"""
Read the metrics that an object declares, from its BTF. Source: spec/metrics.md, sections 1 and 5.

BTF may be hostile: every number of a type is checked by `objects/btf.py`, and the steps through types are
counted here, so that a section of a few kilobytes cannot cost minutes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from buildtool.core.errors import MetricTagError, ObjectFormatError
from buildtool.core.text import escape
from buildtool.metrics.grammar import (
    LABEL_PREFIX,
    MAX_LABELS,
    MAX_LOG2_SLOTS,
    MAX_SLOTS,
    MAX_TAG_BYTES,
    PREFIX,
    UNITS,
    FieldText,
    How,
    Kind,
    LabelText,
    MetricText,
    parse_label,
    parse_metric,
)
from buildtool.objects.btf import Btf, BtfEntry, BtfTag, BtfType
from buildtool.objects.elf import ElfObject
from buildtool.objects.types import map_type

MAX_METRICS = 256
MAX_VALUE_BYTES = 1 << 24
_MANY_HINT = "divide the programs among several objects"
_MAX_STEPS = 1 << 18
_MAX_TEXT_BYTES = 256
_INDEX_BYTES = 4
_INDEX = -1  # the number of the type of an index, which is no type of the BTF
_INDEX_TYPE = BtfType(kind="integer", name="index", size=_INDEX_BYTES)
_READABLE = frozenset(
    ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array", "lpm_trie")
)
_SECTIONS = re.compile(r"\.(?:bss|data|rodata)(?:\..*)?")
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]")
_SIZES = {How.IPV4: 4, How.IPV6: 16, How.MAC: 6, How.CGROUP: 8}
_INTEGERS = frozenset((1, 2, 4, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlace:
    """
    A part of a key or a value: *offset* and *size* in bytes, of one of *count* elements.

    *is_integer* fields are *signed* or not. The number is divided by *divide*, and then the remainder of
    *modulo* is taken; 0 stands for none.
    """

    offset: int
    size: int
    count: int = 1
    is_integer: bool = True
    signed: bool = False
    divide: int = 0
    modulo: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """
    A label: its *name*, and the *field* of the key, or of the value with *in_value*.

    *names* are those of an enum's values. *netns* has the namespace of an interface's index. A label with a
    *constant* has no field.
    """

    name: str
    how: How = How.NUMBER
    field: FieldPlace | None = None
    in_value: bool = False
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    netns: FieldPlace | None = None
    constant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    A declared metric. Its numbers are in the base *unit* after multiplication by *factor* / *divisor*.

    A histogram has the number of its slot in *slot*, a field of the key, or its slots in the array *value*.
    Slot n of a linear one begins at *start* + n * *step*. *sum* is the sum of all values.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    factor: int = 1
    divisor: int = 1
    labels: tuple[Label, ...] = ()
    value: FieldPlace | None = None
    slot: FieldPlace | None = None
    sum: FieldPlace | None = None
    slots: int = 0
    step: int = 0
    start: int = 0

    @property
    def family(self) -> str:
        """The name of the metric's family in OpenMetrics: without _total and _info."""
        return self.name.removesuffix("_total").removesuffix("_info")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels, in the order of the declaration."""
        return tuple(label.name for label in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    The *metrics* of one map, or of one global variable of an ELF section.

    A map has *section* "". A variable is *count* elements of *value_size* bytes from *offset* in its section.
    """

    name: str
    section: str = ""
    key_size: int
    value_size: int
    offset: int = 0
    count: int = 1
    metrics: tuple[Metric, ...] = ()


def read_object_metrics(obj: ElfObject) -> tuple[Table, ...]:
    """
    Return the metrics that *obj* declares, none without BTF.

    Raises: ObjectFormatError; MetricTagError, for a wrong tag.
    """
    found = [section for section in obj.sections if section.name == b".BTF"]
    return read_metrics(Btf(obj.contents(found[0]), obj.order)) if found else ()


def read_metrics(btf: Btf) -> tuple[Table, ...]:
    """
    Return the metrics that *btf* declares, by maps and variables in the order of their names.

    Offsets of variables in sections are those of the BTF, which are right after libbpf opened the object.

    Raises: ObjectFormatError; MetricTagError, for a wrong tag.
    """
    ours = (PREFIX, LABEL_PREFIX)
    tags = [tag for tag in btf.tags() if any(btf.begins(tag.text, prefix) for prefix in ours)]
    if not tags:
        return ()
    if len(tags) > MAX_METRICS:
        raise MetricTagError(f"metrics: more than {MAX_METRICS} tags in one object", hint=_MANY_HINT)
    return _Resolver(btf).resolve(tags)


@dataclass(slots=True, kw_only=True)
class _Owner:
    """A map or a variable with the numbers of its *key* and *value* types. 0 is the type of an index."""

    name: str
    section: str
    key: int
    value: int
    offset: int = 0
    count: int = 1
    labels: list[LabelText] = dataclasses.field(default_factory=list)
    metrics: list[tuple[MetricText, str]] = dataclasses.field(default_factory=list)

    @property
    def has_key(self) -> bool:
        return bool(self.key) or self.count > 1

    def __str__(self) -> str:
        return f"variable {self.name}" if self.section else f"map {self.name}"


class _Resolver:
    """Finds the owners of tags, and the places of the fields that the tags name."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._types: dict[int, BtfType] = {}
        self._enums: dict[str, int] | None = None
        self._map_members: dict[int, dict[str, int]] = {}
        self._by_struct: dict[tuple[bool, int], list[_Owner]] = {}
        self._steps = _MAX_STEPS
        self._left = MAX_METRICS

    def resolve(self, tags: Sequence[BtfTag]) -> tuple[Table, ...]:
        owners = dict(self._find_owners(tags))
        for owner in owners.values():
            for is_key, number in ((True, owner.key), (False, owner.value)):
                if number:
                    self._by_struct.setdefault((is_key, self._btf.plain(number)), []).append(owner)
        for tag in tags:
            self._assign(tag, owners)
        tables = [self._table(owner) for owner in owners.values() if owner.metrics]
        _check_names([metric for table in tables for metric in table.metrics])
        return tuple(sorted(tables, key=lambda table: (table.section, table.name)))

    def _find_owners(self, tags: Sequence[BtfTag]) -> Iterator[tuple[int, _Owner]]:
        """Yield maps and variables that a tag, or a tag of a member, may be for."""
        tagged = {tag.target for tag in tags}
        for section_name, group, _ in self._btf.groups():
            section = section_name.decode("utf-8", "replace")
            if section != ".maps" and not _SECTIONS.fullmatch(section):
                continue
            for number, offset, _ in self._btf.group_entries(group):
                self._step()
                try:
                    name, kind = self._btf.variable(number)
                except ObjectFormatError:
                    continue  # a function
                owner = (
                    self._map_owner(name, kind, is_tagged=number in tagged)
                    if section == ".maps"
                    else self._variable_owner(name, kind, section, offset)
                )
                if owner is not None:
                    yield number, owner

    def _map_owner(self, name: str, number: int, *, is_tagged: bool) -> _Owner | None:
        if number not in self._map_members:
            self._map_members[number] = {entry.name: entry.type for entry in self._type(number).entries}
        members = self._map_members[number]
        kind = map_type(self._btf.encoded_integer(members["type"])) if "type" in members else ""
        if kind in _READABLE and "key" in members and "value" in members:
            key, value = (self._btf.pointed(members[word]) for word in ("key", "value"))
            if key and value:  # 0 is void
                return _Owner(name=name, section="", key=key, value=value)
        if not is_tagged:
            return None
        if kind not in _READABLE:
            raise _fault(f"map {name}", f"a map of type {kind or 'unknown'} has no entries to read", name)
        raise _fault(f"map {name}", "metrics require __type(key, …) and __type(value, …)", name)

    def _variable_owner(self, name: str, number: int, section: str, offset: int) -> _Owner:
        found = self._type(number)
        if found.kind != "array" or self._size(found.element) == 1:
            return _Owner(name=name, section=section, key=0, value=number, offset=offset)
        count = found.count
        return _Owner(name=name, section=section, key=0, value=found.element, offset=offset, count=count)

    def _assign(self, tag: BtfTag, owners: Mapping[int, _Owner]) -> None:
        """Give *tag* to the tagged variable, or to each one whose key or value the tagged struct is."""
        text = self._btf.text(tag.text)
        is_label = self._btf.begins(tag.text, LABEL_PREFIX)
        word = (text.partition(":")[2].split() or [""])[0].partition(":")[0]
        if len(text.encode()) > MAX_TAG_BYTES or "\ufffd" in text:
            raise _fault("metrics", f"a tag of more than {MAX_TAG_BYTES} bytes, or not in UTF-8", word)
        rest = text.partition(":")[2]
        what = "label" if is_label else "metric"
        label = parse_label(rest) if is_label else None
        metric = None if is_label else parse_metric(rest)
        if tag.component is None:
            owner = owners.get(tag.target)
            if owner is None or metric is None:
                place = "a member of a key" if is_label else "a map, a variable, or a member of its value"
                raise _fault(f"{what} {word}", f"the tag is not at {place}", word)
            self._add(owner, metric, "")
            return
        member = self._member(tag, word)
        struct = self._btf.plain(tag.target)
        found = self._by_struct.get((is_label, struct), [])
        if not found:
            place = "the key of no map" if is_label else "the value of no map and no variable"
            raise _fault(f"{what} {word}", f"the struct is {place}", word)
        for owner in found:
            if label is not None:
                at = label.field or FieldText(path=f"key.{member}")
                owner.labels.append(replace(label, field=at))
            if metric is not None:
                self._add(owner, metric, member)

    def _add(self, owner: _Owner, metric: MetricText, member: str) -> None:
        self._left -= 1
        if self._left < 0:
            problem = f"more than {MAX_METRICS} metrics in one object"
            raise _fault(f"metric {metric.name}", problem, metric.name)
        owner.metrics.append((metric, member))

    def _member(self, tag: BtfTag, word: str) -> str:
        found = self._type(tag.target)
        if found.kind != "struct" or tag.component is None or not found.entries[tag.component].name:
            raise _fault(f"metric {word}", "the tag is at no named member of a struct", word)
        return found.entries[tag.component].name

    def _table(self, owner: _Owner) -> Table:
        key_size = self._size(owner.key) if owner.key else _INDEX_BYTES
        value_size = self._size(owner.value)
        if not 0 < value_size <= MAX_VALUE_BYTES or not 0 < owner.count * value_size <= MAX_VALUE_BYTES:
            raise _fault(str(owner), f"a value of more than {MAX_VALUE_BYTES} bytes, or of none", owner.name)
        return Table(
            name=owner.name,
            section=owner.section,
            key_size=key_size,
            value_size=value_size,
            offset=owner.offset,
            count=owner.count,
            metrics=tuple(self._metric(owner, text, member) for text, member in owner.metrics),
        )

    def _metric(self, owner: _Owner, text: MetricText, member: str) -> Metric:
        labels = tuple(self._label(owner, text.name, label) for label in (*owner.labels, *text.labels))
        names = [label.name for label in labels]
        if len(set(names)) < len(names) or len(names) > MAX_LABELS:
            problem = f"two labels of one name, or more than {MAX_LABELS}"
            raise _fault(f"metric {text.name}", problem, text.name)
        is_plain = not (member or text.slot or text.value) and owner.section and owner.count > 1
        if is_plain and text.kind.is_histogram and self._type(owner.value).kind == "integer":
            # The elements of the variable are the slots.
            text = replace(text, slot=FieldText(path="key"), slots=owner.count)
            self._check_slots(text)
        unit = UNITS[text.unit] if text.unit else None
        value, slots = self._value(owner, text, member)
        if value is not None and value.signed and text.kind is not Kind.GAUGE:
            raise _fault(f"metric {text.name}", f"a {text.kind} counts in a number without sign", text.name)
        return Metric(
            name=text.name,
            kind=text.kind,
            help=text.help,
            unit=unit.base if unit else "",
            factor=unit.factor if unit else 1,
            divisor=unit.divisor if unit else 1,
            labels=labels,
            value=value,
            slot=self._integer(owner, text.name, text.slot, of_key=True) if text.slot else None,
            sum=self._integer(owner, text.name, text.sum) if text.sum else None,
            slots=slots,
            step=text.step,
            start=text.start,
        )

    def _value(self, owner: _Owner, text: MetricText, member: str) -> tuple[FieldPlace | None, int]:
        """Return the field of the value, and the number of slots of a histogram."""
        if text.kind is Kind.INFO:
            return None, 0
        path = text.value.path if text.value else ""
        if text.value and (text.value.divide or text.value.modulo):
            raise _fault(f"metric {text.name}", "value= has no / and no %", text.name)
        path = ".".join(filter(None, (member, path.removeprefix("value.") if path != "value" else "")))
        number, offset = self._walk(owner, text.name, owner.value, path)
        found = self._type(number)
        if text.slot or not text.kind.is_histogram:
            return self._as_integer(text.name, path or owner.name, number, offset), text.slots
        if found.kind != "array":
            problem = "a histogram requires slot=FIELD, or a value that is an array of counts"
            raise _fault(f"metric {text.name}", problem, text.name)
        self._check_slots(replace(text, slots=found.count))
        element = self._as_integer(text.name, path or owner.name, found.element, offset)
        return replace(element, count=found.count), found.count

    @staticmethod
    def _check_slots(text: MetricText) -> None:
        limit = MAX_LOG2_SLOTS if text.kind is Kind.LOG2 else MAX_SLOTS
        if not 1 < text.slots <= limit:
            raise _fault(f"metric {text.name}", f"{text.slots} slots, not 2 to {limit}", text.name)

    def _label(self, owner: _Owner, metric: str, text: LabelText) -> Label:
        if text.constant:
            return Label(name=text.name, constant=text.constant)
        at = text.field or self._default_field(owner, text.name)
        in_value, number, offset = self._locate(owner, metric, at.path)
        found = self._type(number)
        how = text.how or _default_how(found)
        problem = f"metric {metric}"
        if how in (How.IPV4, How.IPV6, How.MAC, How.TEXT):
            size = self._size(number)
            if size != _SIZES.get(how, size) or not 0 < size <= _MAX_TEXT_BYTES or at.divide or at.modulo:
                wrong = f"label {text.name}: {how} does not fit {at.path} of {size} bytes"
                raise _fault(problem, wrong, metric)
            place = FieldPlace(offset=offset, size=size, is_integer=False)
            return Label(name=text.name, how=how, field=place, in_value=in_value)
        place = replace(self._as_integer(metric, at.path, number, offset), divide=at.divide, modulo=at.modulo)
        if place.signed and (place.divide or place.modulo):
            raise _fault(problem, f"label {text.name}: / and % require a number without sign", metric)
        if place.size < _SIZES.get(how, 0):
            wrong = f"label {text.name}: {how} requires a field of {_SIZES[how]} bytes"
            raise _fault(problem, wrong, metric)
        netns = None
        if how is How.IFNAME and text.argument:
            _, other, other_at = self._locate(owner, metric, text.argument)
            netns = self._as_integer(metric, text.argument, other, other_at)
        names = self._enum_names(metric, text, found) if how is How.ENUM else {}
        return Label(name=text.name, how=how, field=place, in_value=in_value, names=names, netns=netns)

    def _default_field(self, owner: _Owner, name: str) -> FieldText:
        """Return the member of the key called *name*, or the whole key if it has no members."""
        if not owner.has_key:
            return FieldText(path=f"value.{name}")
        is_struct = owner.key and self._type(owner.key).kind == "struct"
        return FieldText(path=f"key.{name}" if is_struct else "key")

    def _locate(self, owner: _Owner, metric: str, path: str) -> tuple[bool, int, int]:
        """Return whether *path* is of the value, and the type and offset of its field."""
        first, _, rest = path.partition(".")
        if first == "value":
            return (True, *self._walk(owner, metric, owner.value, rest))
        if not owner.has_key:
            raise _fault(f"metric {metric}", f"{owner} has no key: write value.{path}", metric)
        if not owner.key:
            if path != "key":
                raise _fault(f"metric {metric}", f"{path}: the key of {owner} is its index, key", metric)
            return False, _INDEX, 0
        return (False, *self._walk(owner, metric, owner.key, rest if first == "key" else path))

    def _integer(self, owner: _Owner, metric: str, text: FieldText, *, of_key: bool = False) -> FieldPlace:
        path = text.path if of_key or text.path.startswith("value") else f"value.{text.path}"
        in_value, number, offset = self._locate(owner, metric, path)
        if of_key and in_value:
            raise _fault(f"metric {metric}", "slot= names a field of the key", metric)
        found = self._as_integer(metric, path, number, offset)
        if of_key and found.signed:
            raise _fault(f"metric {metric}", "slot= requires a number without sign", metric)
        if not of_key and (text.divide or text.modulo):
            raise _fault(f"metric {metric}", "sum= has no / and no %", metric)
        return replace(found, divide=text.divide, modulo=text.modulo)

    def _as_integer(self, metric: str, path: str, number: int, offset: int) -> FieldPlace:
        found = self._type(number)
        if found.kind not in ("integer", "enum") or found.size not in _INTEGERS:
            what = f"{found.kind} of {found.size} bytes"
            hint = "a member of it" if found.kind in ("struct", "array") else "an integer"
            raise _fault(f"metric {metric}", f"{path or 'value'}: a {what}; name {hint}", metric)
        return FieldPlace(offset=offset, size=found.size, signed=found.signed)

    def _walk(self, owner: _Owner, metric: str, root: int, path: str) -> tuple[int, int]:
        """Return type and offset in bytes of the field at *path* of type *root*."""
        number, bits = root, 0
        for name, index in _STEP.findall(path):
            found = self._type(number)
            if index:
                if found.kind != "array" or int(index) >= found.count:
                    raise _fault(f"metric {metric}", f"{path}: no element {index} in {owner}", metric)
                number, bits = found.element, bits + 8 * int(index) * self._size(found.element)
                continue
            entry = self._find(found, name, 8) if found.kind in ("struct", "union") else None
            if entry is None:
                raise _fault(f"metric {metric}", f"{path}: no member {name} in {owner}", metric)
            number, bits = entry.type, bits + entry.bit_offset
            if entry.bits or bits % 8:
                raise _fault(f"metric {metric}", f"{path}: a bit field, which readers cannot name", metric)
        if bits // 8 + self._size(number) > self._size(root):
            raise ObjectFormatError("BTF: a member outside of its struct")
        return number, bits // 8

    def _find(self, found: BtfType, name: str, depth: int) -> BtfEntry | None:
        """Return the member called *name*, with the offset from *found*; also one of an anonymous member."""
        for entry in found.entries:
            self._step()
            if entry.name == name:
                return entry
            if not entry.name and depth:
                inner = self._type(entry.type)
                if inner.kind in ("struct", "union") and (below := self._find(inner, name, depth - 1)):
                    return replace(below, bit_offset=below.bit_offset + entry.bit_offset)
        return None

    def _enum_names(self, metric: str, text: LabelText, found: BtfType) -> dict[int, str]:
        if text.argument:
            if self._enums is None:
                self._enums = dict(self._btf.enums())
            number = self._enums.get(text.argument, 0)
            if not number:
                problem = f"label {text.name}: the object has no enum {text.argument}"
                raise MetricTagError(
                    f"metric {metric}: {problem}",
                    word=metric,
                    hint="METRIC_ENTRIES(enum NAME, N) in the map's definition keeps the enum in the object",
                )
            found = self._type(number)
        if found.kind != "enum":
            raise _fault(f"metric {metric}", f"label {text.name}: not an enum: write enum(NAME)", metric)
        return name_values(found)

    def _type(self, number: int) -> BtfType:
        if number == _INDEX:
            return _INDEX_TYPE
        if number not in self._types:
            self._types[number] = self._btf.type(number)
            self._steps -= len(self._types[number].entries)
            self._step()
        return self._types[number]

    def _size(self, number: int) -> int:
        return _INDEX_BYTES if number == _INDEX else self._btf.size(number)

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise ObjectFormatError("BTF: too many members to search for metrics")


def name_values(found: BtfType) -> dict[int, str]:
    """Return the names of enum *found* by value, without the words that all of the names begin with."""
    names = [entry.name for entry in found.entries]
    common = ""
    if len(names) > 1:
        first, last = min(names), max(names)
        same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        common = first[: first[:same].rfind("_") + 1]
    named: dict[int, str] = {}
    for entry in found.entries:
        named.setdefault(entry.value, entry.name.removeprefix(common))
    return named


def _default_how(found: BtfType) -> How:
    if found.kind == "enum":
        return How.ENUM
    return How.TEXT if found.kind == "array" else How.NUMBER


def _check_names(metrics: Sequence[Metric]) -> None:
    """Check that metrics of one name agree, and that a constant label tells their series apart."""
    families: dict[str, list[Metric]] = {}
    for metric in metrics:
        before = families.setdefault(metric.family, [])
        for other in before:
            same = (other.name, other.kind, other.unit, other.help) == (
                metric.name,
                metric.kind,
                metric.unit,
                metric.help,
            )
            if not same or set(other.label_names) != set(metric.label_names):
                problem = "declared twice, with another kind, unit, help or other labels"
                raise _fault(f"metric {metric.name}", problem, metric.name)
            mine, theirs = _constants(metric), _constants(other)
            if not any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
                problem = "declared twice: const=LABEL:VALUE tells two declarations apart"
                raise _fault(f"metric {metric.name}", problem, metric.name)
        before.append(metric)


def _constants(metric: Metric) -> dict[str, str]:
    return {label.name: label.constant for label in metric.labels if label.constant}


def _fault(owner: str, problem: str, word: str) -> MetricTagError:
    # Names of maps and members may be hostile.
    hint = "spec/metrics.md has the form of a tag and the rules"
    return MetricTagError(escape(f"{owner}: {problem}"), word=word, hint=hint)
