# SPDX-License-Identifier: Apache-2.0
"""`build` ends before anything is written when its image could not start: attach settings, rules, policy."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import pytest
from labs.cli import BUILD, left

from buildtool.cli.main import run
from buildtool.core.platforms import host_platform
from buildtool.runtime.carried import list_path, loader_digest, part_path
from buildtool.signing.keys import load_signing_key

SOURCE = """\
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define MAP(kind) \\
	struct { __uint(type, kind); __uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 4); }
MAP(15) socks SEC(".maps");
MAP(1) seen SEC(".maps");
static __attribute__((unused)) long (*bpf_trace_printk)(const char *text, unsigned size, ...) = (void *)6;
SEC("SECTION") int watch(void *context) { BODY return 0; }
SEC("xdp") int pass(void *context) { return 2; }
char LICENSE[] SEC("license") = "LICENCE";
"""
PRINT = 'char text[] = "x"; bpf_trace_printk(text, 2);'


def write(*, section: str = "xdp", body: str = "", licence: str = "GPL", config: str = "") -> None:
    """Replace the project's source, and add *config* to its configuration."""
    text = SOURCE.replace("SECTION", section).replace("BODY", body).replace("LICENCE", licence)
    Path("bpf/answer.bpf.c").write_text(text)
    with Path("buildtool.toml").open("a") as file:
        file.write(config)


def attach(*settings: str) -> str:
    """Return the table [image] with attach settings."""
    return f"[image]\nattach = {json.dumps(settings)}\n"


def fails(capsys: pytest.CaptureFixture[str], text: str, code: int = 2) -> str:
    """Build; expect one line with *text*, and nothing written. Return what was said."""
    assert run([*BUILD]) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith("buildtool: error:")]
    assert len(lines) == 1, said.err
    assert text in lines[0]
    assert left(Path()) == []
    return said.err


@pytest.mark.parametrize(
    ("section", "setting", "problem", "hint"),
    [
        ("xdp", "count_packets=eth0", "no object has a program count_packets", "watch (answer.bpf.o)"),
        ("xdp", "other.bpf.o:watch=eth0", "other.bpf.o has no program watch", "pass (answer.bpf.o)"),
        ("xdp", "watch=/sys/fs/cgroup", "'/sys/fs/cgroup' is not the name of an interface", "watch=eth0"),
        ("xdp", "watch=interface-too-long", "is not the name of an interface", "watch=eth0"),
        ("xdp", "watch=eth0:egress", "'egress' is not a mode of XDP", "INTERFACE:driver"),
        ("tc", "watch=eth0", "section tc names no direction", "watch=eth0:ingress or watch=eth0:egress"),
        ("classifier", "watch=eth0", "section classifier names no direction", "watch=eth0:ingress"),
        ("tc", "watch=eth0:both", "'both' is not a direction", "INTERFACE:egress"),
        ("tcx/egress", "watch=eth0:ingress", "section tcx/egress has the other direction", "watch=eth0"),
        ("cgroup_skb/ingress", "watch=eth0", "eth0 is not the path of a cgroup", "watch=/PATH"),
        ("lsm_cgroup/socket_bind", "watch=eth0", "eth0 is not the path of a cgroup", "watch=/PATH"),
        ("sk_lookup", "watch=eth0", "eth0 is not the path of a network namespace", "watch=/PATH"),
        ("sk_skb/verdict", "watch=seen", "answer.bpf.o has no sockmap seen", "sockmaps are socks"),
        ("sk_skb", "watch=socks", "section sk_skb names no hook", "sk_skb/verdict"),
        ("fentry/do_exit", "watch=do_fork", "section fentry/do_exit names its target already", "remove"),
        ("iter/bpf_map_elem", "watch=eth0", "answer.bpf.o has no map eth0", "seen, socks"),
        ("netfilter", "watch=eth0", "eth0 is not a hook of netfilter", "ipv4:prerouting:0"),
        ("perf_event", "watch=cpu", "cpu is not a perf event", "cpu-clock:FREQUENCY"),
        ("socket", "watch=eth0", "section socket has no place that the loader attaches to", "watch=none"),
        ("xdp/devmap", "watch=eth0", "section xdp/devmap has no place", "watch=none"),
        ("freplace/pass", "watch=none", "loads the program for a target only", "PROGRAM=OBJECT:PROGRAM"),
        ("freplace/pass", "watch=eth0", "eth0 is no program of the objects", "PROGRAM=OBJECT:PROGRAM"),
        (
            "freplace/pass",
            "watch=answer.bpf.o:pass",
            "answer.bpf.o has programs of freplace itself",
            "an object of its own",
        ),
        ("?usdt//bin/x:p:n", "watch=eth0", "section usdt//bin/x:p:n names its target already", "remove"),
    ],
)
def test_attach_settings_that_no_start_could_follow(
    project: Path, capsys: pytest.CaptureFixture[str], section: str, setting: str, problem: str, hint: str
) -> None:
    """The error names the setting, the program and what it could be."""
    write(section=section, config=attach(setting))
    said = fails(capsys, f"image.attach: {setting}: ")
    assert problem in said
    assert hint in said.partition("hint: ")[2]


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("xdp", "answer.bpf.o:watch=eth0:generic"),
        ("xdp", "watch=a-pattern-that-is-long*"),
        ("tc", "watch=eth0:egress"),
        ("tcx/ingress", "watch=eth*"),
        ("cgroup_skb/egress", "watch=/sys/fs/cgroup"),
        ("sk_skb/verdict", "watch=socks"),
        ("iter/bpf_map_elem", "watch=seen"),
        ("fentry", "watch=do_unlinkat"),
        ("netfilter", "watch=ipv6:input:-100"),
        ("perf_event", "watch=cpu-clock:99"),
        ("socket", "watch=none"),
        ("?xdp", "watch=eth0"),
    ],
)
def test_attach_settings_that_are_fine(
    project: Path, capsys: pytest.CaptureFixture[str], section: str, setting: str
) -> None:
    """What the loader could follow is built, and the last lines say what the image attaches to."""
    write(section=section, config=attach(setting))
    assert run([*BUILD]) == 0, capsys.readouterr().err
    program, _, target = setting.partition("=")
    shown = "nowhere" if target == "none" else f"to {target}"
    assert f"attach  {program} {shown}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ("freplace", "BT014 replaces a function"),
        ("classifier/x", "BT005 unknown section"),
    ],
)
def test_sections_that_only_another_loader_loads(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    section: str,
    rule: str,
) -> None:
    """They end a build whose image loads them, and warn when the workload does (loader.hand-over)."""
    write(section=section)
    assert rule in fails(capsys, section, code=1)
    write(section=section, config='[image]\nworkload = ["/agent"]\n[loader]\nhand-over = true\n')
    assert run([*BUILD]) == 0
    assert rule in caplog.text


def load(*settings: str) -> str:
    """Return the table [image] with programs to load."""
    return f"[image]\nload = {json.dumps(settings)}\n"


def test_optional_program_that_is_loaded(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The image's capabilities are those of the programs that it loads, and the last lines say which."""
    write(section="?fentry/do_unlinkat")
    assert run([*BUILD]) == 0, capsys.readouterr().err
    assert "PERFMON" not in capsys.readouterr().out
    Path("buildtool.toml").write_text(Path("buildtool.toml").read_text() + load("answer.bpf.o:watch"))
    assert run([*BUILD]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "with    answer.bpf.o:watch\n" in shown
    assert "--cap-add PERFMON" in shown


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("none", "no object has a program none"),
        ("other.bpf.o:watch", "other.bpf.o has no program watch"),
        ("pass", "the program is not optional, so it is always loaded"),
    ],
)
def test_load_settings_that_no_start_could_follow(
    project: Path, capsys: pytest.CaptureFixture[str], setting: str, problem: str
) -> None:
    """A setting names an optional program of the objects."""
    write(section="?fentry/do_unlinkat", config=load(setting))
    assert problem in fails(capsys, f"image.load: {setting}: ")


def test_several_objects_with_the_program(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that two objects have means neither; with the object's name it does."""
    write(config=attach("pass=eth0"))
    Path("bpf/two.bpf.c").write_text(Path("bpf/answer.bpf.c").read_text())
    fails(capsys, "image.attach: pass=eth0: answer.bpf.o, two.bpf.o have a program pass")
    Path("buildtool.toml").write_text(Path("buildtool.toml").read_text().replace('"pass', '"two.bpf.o:pass'))
    assert run([*BUILD]) == 0


@pytest.mark.parametrize(
    ("change", "rule", "problem"),
    [
        ({"section": "xpd"}, "BT005", "program watch: section 'xpd' means no type"),
        (
            {"body": PRINT, "licence": "Proprietary"},
            "BT010",
            "calls bpf_trace_printk, for GPL programs only; license: Proprietary",
        ),
        ({"section": "lsm/file_open", "licence": "MIT"}, "BT010", "program watch: is of type lsm"),
    ],
)
def test_rules_of_check_end_a_build(
    project: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], rule: str, problem: str
) -> None:
    """An error of `check` is one of `build`, unless the configuration names its rule."""
    write(**change)
    said = fails(capsys, "amd64/answer.bpf.o: ", code=1)
    assert problem in said
    assert f'build.allow-findings = ["{rule}"]' in said
    write(**change, config=f'[build]\nallow-findings = ["{rule}"]\n')
    assert run([*BUILD]) == 0, capsys.readouterr().err


def test_warnings_of_check_are_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning is a line of the build, and does not end it; its number silences it."""
    write(licence="")
    assert run([*BUILD]) == 0
    assert "amd64/answer.bpf.o: says nothing about its license" in caplog.text
    caplog.clear()
    write(licence="", config='[build]\nallow-findings = ["BT011"]\n')
    assert run([*BUILD, "--force"]) == 0
    assert "license" not in caplog.text


def test_rules_that_do_not_exist(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of no rule would silence nothing."""
    write(config='[build]\nallow-findings = ["BT999"]\n')
    fails(capsys, "build.allow-findings: unknown rule BT999")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ('program-types = ["sched_cls"]', "denied-by-policy: program 'watch' of type 'xdp' is not allowed"),
        ('attach-points = ["tc"]', "denied-by-policy: attach point 'xdp' is not allowed"),
        ('denied-helpers = ["bpf_trace_printk"]', "denied-by-policy: the code calls bpf_trace_printk"),
        ("max-object-bytes = 512", "too-large: larger than 512 bytes"),
    ],
)
def test_policies_under_which_the_image_refuses_its_own_objects(
    project: Path, capsys: pytest.CaptureFixture[str], rules: str, problem: str
) -> None:
    """The error names the object, the reason, what is refused and the bound."""
    write(body=PRINT, config=f"[trust]\n{rules}\n")
    said = fails(capsys, f"amd64/answer.bpf.o: {problem}")
    assert "the image would refuse its own object" in said


def test_targets_that_the_policy_denies(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target that makes a bare section whole must be among the attach points, as in the loader."""
    write(section="fentry", config='[trust]\nattach-points = ["fentry", "xdp"]\n' + attach("watch=do_exit"))
    fails(capsys, "trust.attach-points lacks fentry/do_exit")


def test_keys_and_objects_that_have_expired(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image that no clock of today lets start is not built, whatever time it is dated."""
    write(config="")
    text = Path("buildtool.toml").read_text()
    Path("buildtool.toml").write_text(text.replace("[sign]\n", "[sign]\nnot-after = 2024-01-01T00:00:00Z\n"))
    fails(capsys, "not-after 2024-01-01T00:00:00Z has passed: verifiers would refuse the objects as expired")


def test_a_signing_key_that_has_expired_in_the_policy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old times of sources build with a key of their time, but no image that starts nowhere today."""
    write(config='[trust]\npolicy = "policy.json"\n')
    Path("keys/dev.pub").write_bytes(load_signing_key(Path("keys/dev.pem"), None).public.pem)
    assert run(["trust", "add", "keys/dev.pub", "--not-after", "2999-01-01T00:00:00Z"]) == 0
    capsys.readouterr()
    policy = Path("policy.json").read_text()
    Path("include/policy.json").write_text(policy.replace("2999-01-01", "2024-01-01"))
    Path("policy.json").unlink()
    write(config="")
    text = Path("buildtool.toml").read_text()
    Path("buildtool.toml").write_text(text.replace('"policy.json"', '"include/policy.json"'))
    fails(capsys, "expired at 2024-01-01T00:00:00Z: the image would refuse its own objects")


def test_the_loader_has_the_last_word(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The loader of this machine is asked about each platform, under the image's policy."""
    own = host_platform(platform.machine())
    assert own
    data, said = tmp_path / "parts", tmp_path / "asked"
    path = part_path(data, "loader", own.arch)
    line = {
        "event": "verify",
        "object": "answer.bpf.o",
        "decision": "refused",
        "reason": "revoked",
        "message": "no",
    }
    path.write_text(
        f'#!/bin/sh\necho "$*" >> {said}\n[ -f {said}.ok ] && exit 0\n'
        f"echo '{json.dumps(line)}' >&2\nexit 3\n"
    )
    listed = json.loads(list_path(data).read_text())
    listed["platforms"][own.arch]["loader"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    list_path(data).write_text(json.dumps(listed))
    fails(capsys, "amd64/answer.bpf.o: revoked: no: the image would refuse its own object")
    Path(f"{said}.ok").touch()
    assert run(["build", "--engine", "local", "--arch", "amd64", "--arch", "arm64"]) == 0
    asked = said.read_text().splitlines()
    assert [line.partition("--platform ")[2].split()[0] for line in asked] == [
        "linux/amd64",
        "linux/amd64",
        "linux/arm64",
    ]
    assert all("--verify-only" in line and "policy.json" in line for line in asked)
    assert all("--time 2023-11-14T22:13:20Z" in line for line in asked)


def test_what_the_loaders_libbpf_does_not_open(
    project: Path, tmp_path: Path, probes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With bpf-probe for this machine, the libbpf of the loader opens each object before it is packed."""
    own = host_platform(platform.machine())
    assert own
    data = tmp_path / "parts"
    path = part_path(data, "probe", own.arch)
    path.write_bytes((probes / own.arch / "bpf-probe").read_bytes())
    path.chmod(0o755)
    listed = json.loads(list_path(data).read_text())
    record = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "source": loader_digest()}
    listed["platforms"][own.arch]["probe"] = record
    list_path(data).write_text(json.dumps(listed))
    write(config="")
    assert run([*BUILD]) == 0, capsys.readouterr().err
    capsys.readouterr()
    Path("agent-1.2.0.oci.tar").unlink()
    text = Path("bpf/answer.bpf.c").read_text()
    Path("bpf/answer.bpf.c").write_text(text.replace('SEC(".maps");', 'SEC("maps");', 1))
    fails(capsys, "(BT007 ", code=1)
