# SPDX-License-Identifier: Apache-2.0
"""Metrics in the BTF of objects: what compilers write is found, and hostile BTF is refused at little cost."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from labs.compile import compile_sample

from buildtool.core.errors import MetricTagError, ObjectFormatError
from buildtool.metrics.declared import (
    MAX_METRICS,
    FieldPlace,
    Label,
    Metric,
    Table,
    read_metrics,
    read_object_metrics,
)
from buildtool.metrics.grammar import How, Kind
from buildtool.metrics.header import header_text
from buildtool.objects.btf import Btf
from buildtool.objects.elf import parse_object

HEAD = """
typedef unsigned int __u32; typedef unsigned long long __u64; typedef unsigned char __u8;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
"""
ONE_MAP = """
enum what { WHAT_A, WHAT_B = 5, WHAT_COUNT };
struct inner { __u64 bytes; __u32 bits : 3; };
struct key { __u32 netns; __u32 ifindex KEY_TAG; union { __u32 low; __u8 address[4]; }; int zone;
    __u64 cgroup; };
struct value { __u64 packets VALUE_TAG; struct inner in[2]; __u8 name[8]; __u64 slots[32]; __u64 sum;
    int sign; };
struct { __uint(type, TYPE); METRIC_ENTRIES(enum what, 10); __type(key, struct key);
    __type(value, struct value); } table SEC(".maps") MAP_TAG;
__u64 plain PLAIN_TAG; __u64 many[3] MANY_TAG; char text[4] TEXT_TAG = "abc";
const volatile int level LEVEL_TAG = 3;
SEC("xdp") int f(void *c) { return plain + many[1] + text[2] + level + (int)(long)&table; }
"""
TAGS = ("KEY_TAG", "VALUE_TAG", "MAP_TAG", "PLAIN_TAG", "MANY_TAG", "TEXT_TAG", "LEVEL_TAG")


def read(directory: Path, *, target: str = "bpfel", kind: int = 1, **tags: str) -> dict[str, Table]:
    """Compile a program with *tags*, and return the tables by name."""
    values = {**dict.fromkeys(TAGS, ""), "TYPE": str(kind), **tags}
    defines = "".join(f"#define {name} {value}\n" for name, value in values.items())
    path = compile_sample(directory, source=f"{HEAD}{header_text()}{defines}{ONE_MAP}", target=target)
    return {table.name: table for table in read_object_metrics(parse_object(path.read_bytes()))}


def tag(options: str, name: str = "a_total", kind: str = "counter") -> str:
    """Return an attribute."""
    return f'METRIC_TAG("metric: {name} {kind} {options} help H")'


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_fields_are_found(tmp_path: Path, target: str) -> None:
    """Members, elements, anonymous unions, enums, and arrays have their places."""
    labels = "label=netns:netns label=what=low:enum(what) label=ip=address:ipv4 label=cgroup:cgroup"
    found = read(
        tmp_path,
        target=target,
        MAP_TAG=tag(f"value=in[1].bytes {labels}")
        + tag("value=slots sum=sum", "waits", "log2")
        + tag("label=n=value.name label=who=value.sign", "who_info", "info"),
        KEY_TAG="METRIC_LABEL(interface:ifname(netns))",
        VALUE_TAG=tag("", "p_total"),
    )
    table = found["table"]
    assert (table.section, table.key_size, table.value_size) == ("", 24, 8 + 32 + 8 + 256 + 8 + 8)
    interface = Label(
        name="interface",
        how=How.IFNAME,
        field=FieldPlace(offset=4, size=4),
        netns=FieldPlace(offset=0, size=4),
    )
    metrics = {metric.name: metric for metric in table.metrics}
    assert metrics["a_total"] == Metric(
        name="a_total",
        kind=Kind.COUNTER,
        help="H",
        labels=(
            interface,
            Label(name="netns", how=How.NETNS, field=FieldPlace(offset=0, size=4)),
            Label(
                name="what",
                how=How.ENUM,
                field=FieldPlace(offset=8, size=4),
                names={0: "A", 5: "B", 6: "COUNT"},
            ),
            Label(name="ip", how=How.IPV4, field=FieldPlace(offset=8, size=4, is_integer=False)),
            Label(name="cgroup", how=How.CGROUP, field=FieldPlace(offset=16, size=8)),
        ),
        value=FieldPlace(offset=24, size=8),
    )
    assert metrics["p_total"].value == FieldPlace(offset=0, size=8)
    assert metrics["waits"].value == FieldPlace(offset=48, size=8, count=32)
    assert (metrics["waits"].sum, metrics["waits"].slots) == (FieldPlace(offset=304, size=8), 32)
    assert metrics["who_info"].labels[1:] == (
        Label(name="n", how=How.TEXT, field=FieldPlace(offset=40, size=8, is_integer=False), in_value=True),
        Label(name="who", how=How.NUMBER, field=FieldPlace(offset=312, size=4, signed=True), in_value=True),
    )


@pytest.mark.tools
def test_variables_are_found(tmp_path: Path) -> None:
    """Single ones, arrays with an index, strings and constants, with their sections."""
    found = read(
        tmp_path,
        PLAIN_TAG=tag(""),
        MANY_TAG=tag("label=what=key:enum(what)", "many_total") + tag("", "sizes", "log2"),
        TEXT_TAG=tag("label=text=value", "t_info", "info"),
        LEVEL_TAG=tag("", "level", "gauge"),
    )
    assert {name: (table.section, table.count, table.value_size) for name, table in found.items()} == {
        "plain": (".bss", 1, 8),
        "many": (".bss", 3, 8),
        "text": (".data", 1, 4),
        "level": (".rodata", 1, 4),
    }
    counter, sizes = found["many"].metrics
    assert counter.labels[0].field == FieldPlace(offset=0, size=4)
    assert (sizes.slot, sizes.slots) == (FieldPlace(offset=0, size=4), 3)
    assert found["level"].metrics[0].value == FieldPlace(offset=0, size=4, signed=True)


@pytest.mark.tools
def test_one_name_for_two_directions(tmp_path: Path) -> None:
    """A constant label tells two declarations of one name apart."""
    one = tag("value=in[0].bytes const=direction:in")
    two = tag("value=in[1].bytes const=direction:out")
    assert len(read(tmp_path, MAP_TAG=one + two)["table"].metrics) == 2
    with pytest.raises(MetricTagError, match="a_total: declared twice: const=LABEL:VALUE"):
        read(tmp_path, MAP_TAG=one + one.replace("in[0]", "in[1]"))
    for other in (
        two.replace("help H", "help J"),
        two.replace("const=direction", "const=way"),
        tag("value=packets"),
    ):
        with pytest.raises(MetricTagError, match="a_total: declared twice, with another"):
            read(tmp_path, MAP_TAG=one + other)
    with pytest.raises(MetricTagError, match="declared twice, with another"):
        read(tmp_path, MAP_TAG=tag("value=packets"), LEVEL_TAG=tag("", "a", "gauge"))


WRONG = {
    "no such member": ({"MAP_TAG": tag("value=nothing")}, "nothing: no member nothing in map table"),
    "no such member of the key": ({"MAP_TAG": tag("value=packets label=area")}, "no member area"),
    "no such element": ({"MAP_TAG": tag("value=in[2].bytes")}, "no element 2"),
    "an element of no array": ({"MAP_TAG": tag("value=packets[0]")}, "no element 0"),
    "a member of a number": ({"MAP_TAG": tag("value=packets.x")}, "no member x"),
    "a struct as a number": ({"MAP_TAG": tag("")}, "a struct of 320 bytes; name a member of it"),
    "an array as a number": ({"MAP_TAG": tag("value=slots")}, "a array of 256 bytes; name a member of it"),
    "a bit field": ({"MAP_TAG": tag("value=in[0].bits")}, "a bit field"),
    "a counter with a sign": ({"MAP_TAG": tag("value=sign")}, "a number without sign"),
    "a division of a number with a sign": (
        {"LEVEL_TAG": tag("label=x=value/2", "l", "gauge")},
        "/ and % require",
    ),
    "a histogram of one number": ({"MAP_TAG": tag("value=packets", "sizes", "log2")}, "an array of counts"),
    "a histogram with a text": (
        {"MAP_TAG": tag("value=name slot=low slots=4", "sizes", "log2")},
        "a array of 8 bytes",
    ),
    "a sum of the key": ({"MAP_TAG": tag("value=slots sum=netns", "sizes", "log2")}, "no member netns"),
    "a slot with a sign": (
        {"MAP_TAG": tag("value=packets slot=zone", "sizes", "log2")},
        "slot= requires a number without sign",
    ),
    "a quotient of a sum": (
        {"MAP_TAG": tag("value=slots sum=sum/2", "sizes", "log2")},
        "sum= has no / and no %",
    ),
    "a quotient of a value": ({"MAP_TAG": tag("value=packets/2")}, "value= has no / and no %"),
    "a slot in the value": (
        {"MAP_TAG": tag("value=packets slot=value.sum", "sizes", "log2")},
        "a field of the key",
    ),
    "an unknown enum": ({"MAP_TAG": tag("value=packets label=low:enum(who)")}, "no enum who"),
    "no enum": ({"MAP_TAG": tag("value=packets label=low:enum")}, "not an enum: write enum(NAME)"),
    "an address of eight bytes": ({"MAP_TAG": tag("value=packets label=cgroup:ipv4")}, "ipv4 does not fit"),
    "a cgroup of four bytes": (
        {"MAP_TAG": tag("value=packets label=low:cgroup")},
        "requires a field of 8 bytes",
    ),
    "a key of a variable": ({"PLAIN_TAG": tag("label=a=key.b")}, "variable plain has no key"),
    "a member of an index": ({"MANY_TAG": tag("label=a=key.b")}, "the key of variable many is its index"),
    "a label at a value": ({"VALUE_TAG": "METRIC_LABEL(a)"}, "the struct is the key of no map"),
    "a metric at a key": ({"KEY_TAG": tag("")}, "the struct is the value of no map"),
    "a label at a map": ({"MAP_TAG": "METRIC_LABEL(a)"}, "not at a member of a key"),
    "two labels": (
        {"MAP_TAG": tag("value=packets label=a=netns"), "KEY_TAG": "METRIC_LABEL(a)"},
        "two labels of one name",
    ),
    "a ring buffer": ({"MAP_TAG": tag("value=packets"), "TYPE": "27"}, "type ringbuf has no entries"),
    "a long tag": (
        {"MAP_TAG": f'METRIC_TAG("metric: a_total counter help {"x" * 1100}")'},
        "more than 1024 bytes",
    ),
}


@pytest.mark.tools
@pytest.mark.parametrize("name", WRONG)
def test_wrong_declarations(tmp_path: Path, name: str) -> None:
    """Each has its reason, and the word that finds its line."""
    tags, reason = WRONG[name]
    with pytest.raises(MetricTagError) as caught:
        read(tmp_path, **tags)
    assert reason in caught.value.message
    assert caught.value.word
    assert caught.value.hint


@pytest.mark.tools
def test_tags_of_others_are_left_alone(tmp_path: Path) -> None:
    """A tag without our prefix is no metric, even at a ring buffer."""
    assert read(tmp_path, MAP_TAG='METRIC_TAG("user") METRIC_TAG("label: x")', TYPE="27") == {}


@pytest.mark.tools
def test_damaged_btf_is_refused_or_read(tmp_path: Path) -> None:
    """Three thousand changes of a good section end in a result or in ObjectFormatError only."""
    read(
        tmp_path,
        MAP_TAG=tag("value=in[1].bytes label=what=low:enum(what)")
        + tag("value=slots sum=sum", "waits", "log2"),
        KEY_TAG="METRIC_LABEL(interface:ifname(netns))",
        MANY_TAG=tag("label=what=key:enum(what)", "many_total"),
    )
    obj = parse_object((tmp_path / "x.bpf.o").read_bytes())
    (section,) = (each for each in obj.sections if each.name == b".BTF")
    good = obj.contents(section)
    source = random.Random(16)  # noqa: S311 - test data
    refused, messages = 0, set[str]()
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(source.randrange(1, 4)):
            at = source.randrange(len(data))
            data[at] = source.choice((0, 1, 0x7F, 0xFF, source.randrange(256), data[at] ^ 1))
        try:
            read_metrics(Btf(bytes(data), "<"))
        except ObjectFormatError as error:
            refused += 1
            messages.add(error.message)
    assert 100 < refused < 3000
    assert all(message.isprintable() for message in messages)


# Hostile sections by hand: names and types as words (Documentation/bpf/btf.rst, section 2).
INT, PTR, ARRAY, STRUCT, VAR, DATASEC, TAG = (number << 24 for number in (1, 2, 3, 4, 14, 15, 17))
GOOD_TAG = "metric: a_total counter help A"


class Section:
    """Collects names and types."""

    def __init__(self) -> None:
        self.names = bytearray(1)
        self.types: list[bytes] = []

    def name(self, text: str | bytes) -> int:
        """Return the offset of a new name."""
        at = len(self.names)
        self.names += (text if isinstance(text, bytes) else text.encode()) + b"\0"
        return at

    def add(self, name: int | str, info: int, word: int, *more: int) -> int:
        """Return the number of a new type."""
        offset = self.name(name) if isinstance(name, str) else name
        self.types.append(struct.pack(f"<{3 + len(more)}I", offset, info, word, *more))
        return len(self.types)

    def struct(self, size: int, members: Sequence[tuple[int, int, int]], name: int = 0) -> int:
        """Return the number of a struct of *members*: name, type, bit offset."""
        return self.add(name, STRUCT | len(members), size, *(word for member in members for word in member))

    def tag(self, target: int, text: str | bytes | int = GOOD_TAG, component: int = 0xFFFFFFFF) -> int:
        """Return the number of a tag."""
        offset = text if isinstance(text, int) else self.name(text)
        return self.add(offset, TAG, target, component)

    def read(self) -> tuple[Table, ...]:
        """Return the metrics of the section."""
        types = b"".join(self.types)
        names = bytes(self.names)
        head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
        return read_metrics(Btf(head + types + names, "<"))

    def variable(self, kind: int, *, section: str = ".bss", times: int = 1) -> int:
        """Return the number of a variable of type *kind*, which its section lists *times* times."""
        number = self.add("v", VAR, kind, 1)
        self.add(section, DATASEC | times, 8, *[number, 0, 8] * times)
        return number


@pytest.fixture
def section() -> Section:
    """Return a section whose type 1 is an integer of 8 bytes."""
    made = Section()
    made.add("u64", INT, 8, 64)
    return made


def test_sections_by_hand_are_read(section: Section) -> None:
    """The sections below would be read but for their faults."""
    section.tag(section.variable(1))
    (table,) = section.read()
    assert (table.name, table.metrics[0].value) == ("v", FieldPlace(offset=0, size=8))


@pytest.mark.parametrize("target", [0, 99, 0xFFFFFFFF])
def test_tags_of_types_that_do_not_exist(section: Section, target: int) -> None:
    """A tag's target must be a type."""
    section.variable(1)
    section.tag(target)
    with pytest.raises(ObjectFormatError, match="no such type"):
        section.read()


@pytest.mark.parametrize("component", [1, 2, 0x7FFFFFFF, 0xFFFFFFFE])
def test_tags_of_members_that_do_not_exist(section: Section, component: int) -> None:
    """A tag's component must be a member."""
    number = section.struct(8, [(section.name("m"), 1, 0)])
    section.variable(number)
    section.tag(number, component=component)
    with pytest.raises(ObjectFormatError, match="a member that does not exist"):
        section.read()


@pytest.mark.parametrize("text", [0xFFFFFF, 0x7FFFFFFF])
def test_tags_without_a_text(section: Section, text: int) -> None:
    """A string outside of the table is no tag of ours."""
    section.tag(section.variable(1), text)
    assert section.read() == ()


def test_texts_of_a_megabyte_are_not_copied(section: Section) -> None:
    """Two hundred tags that share a text of a megabyte are refused at the first, and copy none of it."""
    number = section.variable(1)
    offset = section.name(b"metric: a_total counter help " + b"x" * 1_000_000)
    for _ in range(200):
        section.tag(number, offset)
    tracemalloc.start()
    try:
        with pytest.raises(MetricTagError, match="more than 1024 bytes"):
            section.read()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_bytes_that_are_no_text(section: Section) -> None:
    """A tag is UTF-8."""
    section.tag(section.variable(1), b"metric: a_total counter help \xff")
    with pytest.raises(MetricTagError, match="not in UTF-8"):
        section.read()


def test_a_text_without_an_end(section: Section) -> None:
    """The table of names must end in a zero, so that every text has an end."""
    section.tag(section.variable(1))
    section.names[-1:] = b"x"
    with pytest.raises(ObjectFormatError, match="names without an end"):
        section.read()


def test_thousands_of_tags(section: Section) -> None:
    """More tags than a reader shows are refused before one is read; those of others do not count."""
    number = section.variable(1)
    other = section.name("btf_type_tag of another tool")
    for _ in range(50_000):
        section.tag(number, other)
    section.tag(number)
    assert len(section.read()) == 1
    for _ in range(MAX_METRICS):
        section.tag(number)
    with pytest.raises(MetricTagError, match="more than 256 tags"):
        section.read()


def test_one_tag_for_thousands_of_variables(section: Section) -> None:
    """A tag at a member counts for each variable of the struct."""
    number = section.struct(8, [(section.name("m"), 1, 0)])
    variables = [section.add("v", VAR, number, 1) for _ in range(MAX_METRICS + 1)]
    section.add(".bss", DATASEC | len(variables), 8, *(word for each in variables for word in (each, 0, 8)))
    section.tag(number, component=0)
    with pytest.raises(MetricTagError, match="more than 256 metrics"):
        section.read()


def test_types_that_refer_to_themselves(section: Section) -> None:
    """Typedefs, arrays, pointers and structs in a circle come to an end."""
    own = len(section.types) + 1
    for kind, more in (
        (8 << 24, ()),  # a typedef of itself
        (ARRAY, (own, 1, 2)),  # an array of itself
        (STRUCT | 1, (0, own, 0)),  # a struct with itself as an anonymous member
    ):
        fresh = Section()
        fresh.add("u64", INT, 8, 64)
        assert fresh.add(0, kind, own if kind == 8 << 24 else 8, *more) == own
        fresh.tag(fresh.variable(own), "metric: a_total counter value=x help A")
        with pytest.raises(ObjectFormatError):
            fresh.read()


def test_members_by_the_thousand_are_counted(section: Section) -> None:
    """Structs of 60,000 anonymous structs of 60,000 members: the search ends."""
    inner = section.struct(8, [(0, 1, 0)] * 60_000)
    middle = section.struct(8, [(0, inner, 0)] * 60_000)
    section.tag(section.variable(middle), "metric: a_total counter value=x help A")
    with pytest.raises(ObjectFormatError, match="too many members"):
        section.read()


def test_variables_by_the_thousand_are_counted(section: Section) -> None:
    """Sections that list one variable again and again: the search ends."""
    number = section.variable(1, times=65_535)
    for _ in range(20):
        section.add(".data", DATASEC | 65_535, 8, *[number, 0, 8] * 65_535)
    section.tag(number)
    with pytest.raises(ObjectFormatError, match="too many members"):
        section.read()


@pytest.mark.parametrize("size", [0, (1 << 24) + 8, 0xFFFFFFF8])
def test_values_without_a_sensible_size(section: Section, size: int) -> None:
    """A value of nothing, and one that would fill the memory."""
    number = section.struct(size, [(section.name("m"), 1, 0)])
    section.tag(section.variable(number), "metric: a_total counter value=m help A")
    with pytest.raises(ObjectFormatError, match=r"or of none|outside of its struct"):
        section.read()


@pytest.mark.parametrize("place", [8, 64, 0xFFFFFFF8])
def test_members_outside_of_their_struct(section: Section, place: int) -> None:
    """A reader would read beyond the value."""
    number = section.struct(8, [(section.name("m"), 1, place)])
    section.tag(section.variable(number), "metric: a_total counter value=m help A")
    with pytest.raises(ObjectFormatError, match="outside of its struct"):
        section.read()


def test_arrays_of_billions(section: Section) -> None:
    """A variable of 2^32 - 1 elements is larger than a reader reads."""
    number = section.add(0, ARRAY, 0, 1, 1, 0xFFFFFFFF)
    section.tag(section.variable(number), "metric: a_total counter label=i=key help A")
    with pytest.raises(MetricTagError, match="a value of more than"):
        section.read()


def test_maps_of_void(section: Section) -> None:
    """`void *key` in a definition has no size."""
    pointer = section.add(0, PTR, 0)
    kind = section.add(0, PTR, section.add(0, ARRAY, 0, 1, 1, 1))
    names = [section.name(word) for word in ("type", "key", "value")]
    members = list(zip(names, (kind, pointer, pointer), (0, 64, 128), strict=True))
    section.tag(section.variable(section.struct(24, members), section=".maps"))
    with pytest.raises(MetricTagError, match="metrics require __type"):
        section.read()
