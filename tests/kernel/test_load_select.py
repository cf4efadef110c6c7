# SPDX-License-Identifier: Apache-2.0
"""--load and --no-load: which programs of an object are loaded, apart from where they are attached."""

from __future__ import annotations

from pathlib import Path

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs.handsig import policy
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, SOURCES, Lab, in_kernel, is_clean
from labs.net import veth

from buildtool.objects.types import program_type

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
# One of two ways to see the same event, and a program that is always there.
SOURCES |= {
    "choice": 'SEC("?raw_tp/sys_enter") int @_one(void *c) { count(); return 0; }'
    ' SEC("?tp_btf/sys_enter") int @_two(void *c) { count(); return 0; }'
    ' SEC("cgroup_skb/egress") int @_always(void *c) { count(); return 1; }',
    "choice_copy": 'SEC("?raw_tp/sys_enter") int @_one(void *c) { count(); return 0; }',
    "leaves": 'SEC("xdp") int @_leaf(struct xdp_md *c) { return XDP_PASS; }'
    ' SEC("?xdp") int @_extra(struct xdp_md *c) { count(); return XDP_PASS; }'
    " struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4);"
    ' __array(values, int (void *)); } @_table SEC(".maps") ='
    " { .values = { [0] = (void *)&@_leaf, [1] = (void *)&@_extra } };"
    ' SEC("xdp") int @_entry(struct xdp_md *c) { bpf_tail_call(c, &@_table, 1); return XDP_PASS; }',
    "ops_optional": SOURCES["struct_ops"].replace(".struct_ops.link", "?.struct_ops.link"),
}
SECTIONS = {
    "one": "?raw_tp/sys_enter",
    "two": "?tp_btf/sys_enter",
    "always": "cgroup_skb/egress",
}
CHOICE = [
    {"name": f"{PREFIX}_{name}", "section": section, "type": program_type(section)}
    for name, section in SECTIONS.items()
]
NOWHERE = f"--attach={PREFIX}_always=none"


def option(word: str, *names: str) -> list[str]:
    """Return an option for each program."""
    return [f"--{word}={PREFIX}_{name}" for name in names]


@pytest.mark.parametrize(
    ("options", "attached"),
    [
        ([], []),
        (option("load", "one"), ["one"]),
        (option("load", "two"), ["two"]),
        (option("load", "one", "two"), ["one", "two"]),
        (option("image-load", "one"), ["one"]),
        ([*option("image-load", "one"), *option("no-load", "one"), *option("load", "two")], ["two"]),
        ([*option("no-load", "two"), *option("image-load", "two")], []),
        ([f"--load=choice.bpf.o:{PREFIX}_one"], ["one"]),
    ],
)
def test_one_of_two(lab: Lab, tmp_path: Path, options: list[str], attached: list[str]) -> None:
    """An optional program is loaded and attached where its section says if --load names it, and only then."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    with lab.started(tmp_path, NOWHERE, *options) as (_, stop):
        loaded = in_kernel()
        result = stop()
    assert result.code == 0
    assert sorted(line["program"] for line in result.events("attach")) == [f"{PREFIX}_{n}" for n in attached]
    assert sorted({*loaded} - {f"{PREFIX}_map"}) == sorted(
        f"{PREFIX}_{name}" for name in ("always", *attached)
    )


def test_program_that_is_not_loaded(lab: Lab, tmp_path: Path) -> None:
    """--no-load leaves out any program, and the image's target of that program has no effect."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    options = [*option("no-load", "always"), *option("load", "one")]
    image = f"--image-attach={PREFIX}_always=/no/such/cgroup"
    with lab.started(tmp_path, image, *options) as (_, stop):
        assert in_kernel() == [f"{PREFIX}_map", f"{PREFIX}_one"]
        assert stop().code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            option("load", "none"),
            "--load @_none: no object has this program; use one of: @_one",
        ),
        (option("no-load", "none"), "--no-load @_none: no object has this program"),
        (option("load", "one"), "--load @_one: several objects have it; use OBJECT:@_one"),
        (["--load=a:"], "--load a:: not PROGRAM or OBJECT:PROGRAM"),
        (["--load=one=eth0"], "not PROGRAM or OBJECT:PROGRAM; --attach says where"),
        (
            [*option("no-load", "always"), NOWHERE],
            "choice.bpf.o: program @_always: --no-load and a target exclude each other",
        ),
    ],
)
def test_wrong_options(lab: Lab, tmp_path: Path, options: list[str], words: str) -> None:
    """A wrong name, two objects with it, or a target beside --no-load: exit code 2, nothing is loaded."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    lab.put(tmp_path, "choice_copy", programs=[CHOICE[0]])
    result = lab.run(tmp_path, *options, *TRUE)
    assert result.code == 2
    assert words.replace("@", PREFIX) in result.message  # the names of tests are the same in each process
    assert result.events("load") == []


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ([NOWHERE], ["BPF", "NET_ADMIN"]),
        ([NOWHERE, *option("load", "two")], ["BPF", "NET_ADMIN", "PERFMON"]),
        ([*option("no-load", "always"), *option("load", "two")], ["BPF", "PERFMON"]),
    ],
)
def test_capabilities_are_those_of_the_loaded_programs(
    lab: Lab, tmp_path: Path, options: list[str], needs: list[str]
) -> None:
    """A program that is not loaded requires nothing; a loader with --reload keeps no more."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    with lab.started(tmp_path, *options, "--reload") as (process, stop):
        status = Path(f"/proc/{process.pid}/status").read_text()
        result = stop()
    (verify,), (ready,) = result.events("verify"), result.events("ready")
    assert sorted(verify["capabilities"]) == sorted(ready["capabilities"]) == needs
    numbers = {"NET_ADMIN": 12, "PERFMON": 38, "BPF": 39}
    assert f"CapPrm:\t{sum(1 << numbers[name] for name in needs):016x}" in status


def test_policy_sees_every_program(lab: Lab, tmp_path: Path) -> None:
    """A denied type refuses the object, whether its program is loaded or not."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    (tmp_path / "trust/dev.pub").unlink()
    for types, code in (
        (["cgroup_skb", "raw_tracepoint"], 3),
        (["cgroup_skb", "raw_tracepoint", "tracing"], 0),
    ):
        (tmp_path / "trust/policy.json").write_text(policy(lab.key, programTypes=types))
        result = lab.run(tmp_path, NOWHERE, *option("no-load", "two"), *TRUE)
        assert result.code == code, result.lines


def test_optional_leaf_of_a_table(lab: Lab, tmp_path: Path) -> None:
    """--load puts an optional leaf into its table and attaches it nowhere; without it the message says so."""
    lab.put(tmp_path, "leaves")
    with veth() as (left, _):
        options = [f"--attach={PREFIX}_entry={left}", f"--attach={PREFIX}_leaf=none"]
        result = lab.run(tmp_path, *options, *TRUE)
        assert result.code == 1
        assert f"--load {PREFIX}_extra" in result.message, result.message
        with lab.started(tmp_path, *options, *option("load", "extra")) as (_, stop):
            assert f"{PREFIX}_extra" in in_kernel()
            result = stop()
    assert [line["program"] for line in result.events("attach")] == [f"{PREFIX}_entry"]


def test_optional_struct_ops_map(lab: Lab, tmp_path: Path) -> None:
    """--load turns on a map of struct_ops and its programs; --no-load turns one off."""
    lab.put(tmp_path, "ops_optional", "nowhere")
    nowhere = f"--attach={PREFIX}_tp=none"
    for options, attached in (([], 0), (option("load", "ops"), 1)):
        with lab.started(tmp_path, nowhere, *options) as (_, stop):
            result = stop()
        assert (result.code, len(result.events("attach"))) == (0, attached), result.lines
    lab.put(tmp_path, "struct_ops")
    options = [nowhere, *option("no-load", "ops")]
    (tmp_path / "objects/ops_optional.bpf.o").unlink()
    assert is_clean(), in_kernel()  # the kernel frees programs of struct_ops after a grace period
    with lab.started(tmp_path, *options) as (_, stop):
        assert f"{PREFIX}_ssthresh" not in in_kernel()
        assert stop().events("attach") == []
    result = lab.run(tmp_path, nowhere, *option("no-load", "ssthresh"), *TRUE)
    assert (result.code, "with the name of the map" in result.message) == (2, True), result.lines


def test_pins_of_another_selection_are_loaded_anew(lab: Lab, tmp_path: Path) -> None:
    """The next start with another choice loads again, and detaches what it no longer chooses."""
    lab.put(tmp_path, "choice", programs=CHOICE)
    with bpf_file_system(tmp_path) as mount:
        root = f"--pin-root={mount}/pins"
        for name in ("one", "two"):
            result = lab.run(tmp_path, root, NOWHERE, *option("load", name), *TRUE)
            assert (result.code, len(result.events("load"))) == (0, 1), result.lines
            assert [line["program"] for line in result.events("attach")] == [f"{PREFIX}_{name}"]
        assert [line["program"] for line in result.events("detach")] == [f"{PREFIX}_one"]
        result = lab.run(tmp_path, root, NOWHERE, *option("load", "two"), *TRUE)
        assert (result.events("load"), len(result.events("reuse"))) == ([], 1)
