# SPDX-License-Identifier: Apache-2.0
"""Programs of sections that libbpf does not know, loaded by the section that their statement declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from labs.check import run_check
from labs.handsig import policy, sign
from labs.kernel import program_ids
from labs.loader import HEAD, PREFIX, Lab, counted
from labs.net import send, veth
from labs.run import run, wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PROGRAM = f"{PREFIX}_own"
VERDICT = 2  # XDP_PASS, and a drop of sched_cls
TYPES = {
    "tc": "sched_cls",
    "tcx/ingress": "sched_cls",
    "xdp": "xdp",
    "xdp.frags": "xdp",
    "socket": "socket_filter",
    "perf_event": "perf_event",
    "sk_skb/verdict": "sk_skb",
}
SOCKMAP = """
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 2); __type(key, int); __type(value, int); }
    @_sockets SEC(".maps");
"""


def put(lab: Lab, directory: Path, section: str, declared: str, extra: str = "") -> bytes:
    """
    Write an object with a program of *section*, signed with *declared* (empty: nothing), and the trust.

    Return the unsigned object.
    """
    text = f'{HEAD}{extra} SEC("{section}") int @_own(void *c) {{ count(); return {VERDICT}; }}'
    data = lab.compile(directory, text.replace("@", PREFIX))
    program = {"name": PROGRAM, "section": section, "type": TYPES.get(declared, "unspec")}
    stated = program | ({"declared": declared} if declared else {})
    (directory / "objects").mkdir(exist_ok=True)
    (directory / "objects/own.bpf.o").write_bytes(sign(data, [lab.key], name="own.bpf.o", programs=[stated]))
    lab.trust(directory)
    return data


@pytest.mark.parametrize(
    ("section", "declared", "target"),
    [
        ("classifier/x", "tcx/ingress", "{left}"),
        ("classifier/ingress", "tc", "{left}:ingress"),
        ("?classifier/x", "tcx/ingress", "{left}"),
        ("xdp/lo", "xdp", "{left}"),
    ],
)
def test_declared_program_counts_packets(
    lab: Lab, tmp_path: Path, section: str, declared: str, target: str
) -> None:
    """The program is attached as one of the declared section, and counts the packets of its interface."""
    put(lab, tmp_path, section, declared)
    with veth() as (left, right):
        option = f"--attach={PROGRAM}={target.format(left=left)}"
        with lab.started(tmp_path, option) as (_, stop):
            send(right, 7)
            assert wait_until(lambda: counted() == 7), counted()
            result = stop()
    assert result.code == 0
    assert [line["event"] for line in result.lines] == ["verify", "load", "attach", "ready", "detach"]
    assert set(result.events("verify")[0]["capabilities"]) == {"BPF", "NET_ADMIN"}


def test_program_without_a_declaration_has_no_type(lab: Lab, tmp_path: Path) -> None:
    """Without the declaration, libbpf refuses the section."""
    put(lab, tmp_path, "classifier/x", "")
    result = lab.run(tmp_path, f"--attach={PROGRAM}=none")
    assert result.code == 1
    assert "missing BPF prog type" in result.message


@pytest.mark.parametrize(("declared", "code"), [("xdp", 1), ("xdp.frags", 0)])
def test_fragments_are_declared_too(lab: Lab, tmp_path: Path, declared: str, code: int) -> None:
    """An interface with large packets accepts only programs that libbpf marks for fragments."""
    put(lab, tmp_path, "xdp/lo", declared)
    with veth() as (left, right):
        for name in (left, right):
            run("ip", "link", "set", name, "mtu", "9000")
        result = lab.run(tmp_path, f"--attach={PROGRAM}={left}:driver", "--", "/bin/true")
    assert result.code == code, result.lines


def test_other_types(lab: Lab, tmp_path: Path) -> None:
    """A socket filter has no hook of the loader, and sk_skb takes its hook from the declared section."""
    put(lab, tmp_path, "socket1", "socket")
    assert lab.run(tmp_path, f"--attach={PROGRAM}=none", "--", "/bin/true").code == 0
    put(lab, tmp_path, "perf_event/cpu", "perf_event")
    assert lab.run(tmp_path, f"--attach={PROGRAM}=cpu-clock:10", "--", "/bin/true").code == 0
    put(lab, tmp_path, "redirect", "sk_skb/verdict", extra=SOCKMAP)
    assert lab.run(tmp_path, "--", "/bin/true").code == 0


@pytest.mark.parametrize(
    ("rules", "reasons"),
    [
        ({"programTypes": ["sched_cls"]}, []),
        ({"programTypes": ["xdp"]}, ["denied-by-policy"]),
        ({"attachPoints": ["tcx/*"]}, []),
        ({"attachPoints": ["classifier/*"]}, ["denied-by-policy"]),
    ],
)
def test_policy_sees_the_declared_section(
    lab: Lab, tmp_path: Path, rules: dict[str, Any], reasons: list[str]
) -> None:
    """Types and attach points of a policy are those of the declared section."""
    put(lab, tmp_path, "classifier/x", "tcx/ingress")
    (tmp_path / "trust/policy.json").write_text(policy(lab.key, **rules))
    assert lab.run(tmp_path, "--verify-only").reasons == reasons


def test_check_loads_what_the_project_declares(probes: Path, lab: Lab, tmp_path: Path) -> None:
    """`check` knows declarations of buildtool.toml, and the kernel verifies the program by its type."""
    objects = tmp_path / "unsigned"
    objects.mkdir()
    (objects / "x.bpf.o").write_bytes(put(lab, tmp_path, "classifier/x", ""))
    done = run_check(probes, objects, "--kernel", "host", "--json", code=1)
    assert {f["rule"] for f in json.loads(done.stdout)["findings"]} >= {"BT005"}
    config = tmp_path / "buildtool.toml"
    config.write_text(
        '[project]\nname = "demo"\n[[compile.program]]\nsection = "classifier/*"\nloaded-as = "tc"\n'
    )
    done = run_check(probes, objects, "--kernel", "host", "--json", "--config", config, code=0)
    report = json.loads(done.stdout)
    assert report["findings"] == []
    assert [(r["program"], r["verdict"]["outcome"]) for r in report["runs"]] == [(PROGRAM, "loads")]
    assert report["objects"][0]["programs"][0]["type"] == "sched_cls"
    assert program_ids(PROGRAM) == set()


def test_declaration_of_another_section(lab: Lab, tmp_path: Path) -> None:
    """A policy decides by the file's sections, so what a statement declares of others counts for nothing."""
    data = put(lab, tmp_path, "perf_event", "")
    stated = {"name": PROGRAM, "section": "nowhere", "type": "xdp", "declared": "xdp"}
    (tmp_path / "objects/own.bpf.o").write_bytes(sign(data, [lab.key], name="own.bpf.o", programs=[stated]))
    (tmp_path / "trust/policy.json").write_text(policy(lab.key, attachPoints=["perf_event"]))
    with veth() as (left, _):
        result = lab.run(tmp_path, f"--attach={PROGRAM}={left}", "--", "/bin/true")
        assert result.code == 2, result.lines
        # A target of its own type is wanted, not an interface.
        assert "cpu-clock" in result.message
