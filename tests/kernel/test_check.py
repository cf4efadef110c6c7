# SPDX-License-Identifier: Apache-2.0
"""`buildtool check` on this machine's kernel: dry runs and reports; no program stays loaded."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.check import NEVER, NEVER_HEAD, PRINT, PRIVILEGED, SOURCE, read_junit, run_check
from labs.compile import compile_object
from labs.kernel import program_ids
from labs.sig import RELEASE
from labs.sig import test_key as alice
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from buildtool.check.kernelfacts import GPL_HELPERS
from buildtool.core.platforms import host_platform
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.signing.sign import sign_files

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(scope="module")
def sample(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an object with programs that this kernel loads and programs that it rejects."""
    return compile_object(tmp_path_factory.mktemp("check"), clang, sysroot, SOURCE)


def test_each_program_has_its_verdict(probes: Path, sample: Path) -> None:
    """Each program loads, is rejected by the kernel verifier, or fails before it; no program stays."""
    done = run_check(probes, sample, "--kernel", "host", "--json")
    report = json.loads(done.stdout)
    assert program_ids(*{r["program"] for r in report["runs"]}) == set()
    assert report["passed"] is False
    outcomes = {r["program"]: r["verdict"]["outcome"] for r in report["runs"]}
    assert outcomes == {
        "everywhere": "loads",
        "out_of_bounds": "refused",
        "no_target": "failed",
        "no_member": "refused",
        "optional": "loads",
        "tail_call": "loads",
    }
    runs = {r["program"]: r for r in report["runs"]}
    assert runs["everywhere"]["verdict"]["instructions"] > 5
    assert runs["everywhere"]["release"] == platform.release()
    refused = runs["out_of_bounds"]["verdict"]
    assert refused["reason"].startswith("invalid access to packet")
    source = refused["source"]
    assert (source["file"], source["text"]) == ("bpf/x.bpf.c", "return data[0];")
    assert source["line"] == SOURCE[: SOURCE.index("return data[0]")].count("\n") + 1
    assert "no_such_member" in runs["no_member"]["verdict"]["reason"]
    assert "no_such_tracepoint" in runs["no_target"]["verdict"]["reason"]
    rules = {(f["rule"], f["program"]) for f in report["findings"]}
    assert rules == {("BT100", "out_of_bounds"), ("BT100", "no_member"), ("BT101", "no_target")}


def test_no_kernel_loads_what_the_rules_refuse(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path
) -> None:
    """No source that a rule refuses loads on this kernel, and every corrected source does."""
    for name, never in NEVER.items():
        for directory, source in (("broken", never.source), ("mended", never.mended)):
            (tmp_path / directory).mkdir(exist_ok=True)
            compile_object(tmp_path / directory, clang, sysroot, NEVER_HEAD + source, name)
    loaded: dict[tuple[str, str], set[str]] = {}
    for directory in ("broken", "mended"):
        done = run_check(
            probes, tmp_path / directory, "--kernel", "host", "--json", code=directory == "broken"
        )
        for run in json.loads(done.stdout)["runs"]:
            loaded.setdefault((directory, run["object"]), set()).add(run["verdict"]["outcome"])
    assert loaded.keys() == {(place, f"{name}.bpf.o") for place in ("broken", "mended") for name in NEVER}
    assert [key for key, outcomes in loaded.items() if (outcomes == {"loads"}) != (key[0] == "mended")] == []


FUNCTION = "__attribute__((noinline)) int f{}(struct __sk_buff *s) {{ return {}; }}"
DEEP = f"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
{FUNCTION.format(0, "s->len")}
{"".join(FUNCTION.format(n, f"f{n - 1}(s) + {n}") for n in range(1, 10))}
SEC("tc") int deep(struct __sk_buff *s) {{ return f9(s); }}
/* An address below the frame, and a store inside it. */
SEC("socket") __attribute__((naked)) int low(void)
{{
	asm volatile("r1 = r10; r1 += -513; r0 = 7; *(u8 *)(r1 + 1) = r0; exit;" ::: "memory");
}}
char LICENSE[] SEC("license") = "GPL";
"""


def test_global_functions_and_addresses(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """The kernel's objection is reported, not its remark about the last good function before it."""
    path = compile_object(tmp_path, clang, sysroot, DEEP)
    given = [word for name in ("BPF", "NET_ADMIN", "PERFMON") for word in ("--capability", name)]
    done = run_check(probes, path, "--kernel", "host", *given, "--json", code=1)
    report = json.loads(done.stdout)
    verdicts = {run["program"]: run["verdict"] for run in report["runs"]}
    assert verdicts["deep"]["reason"] == "the call stack of 8 frames is too deep !"
    assert verdicts["low"]["outcome"] == "loads"
    assert {(f["rule"], f["program"]) for f in report["findings"]} == {("BT023", "deep"), ("BT100", "deep")}


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    """Return the outcome of each program."""
    return {run["program"]: run["verdict"]["outcome"] for run in report["runs"]}


def test_programs_get_the_capabilities_of_the_image(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path
) -> None:
    """BT104: a program that needs more than the image's label has is an error that names the capability."""
    path = compile_object(tmp_path, clang, sysroot, PRIVILEGED.replace("PRINT", ""))
    host = (path, "--kernel", "host", "--json")
    report = json.loads(run_check(probes, *host).stdout)
    assert outcomes(report) == {"plain": "loads", "options": "refused"}
    assert {tuple(run["capabilities"]) for run in report["runs"]} == {("BPF", "NET_ADMIN")}
    (finding,) = report["findings"]
    assert (finding["rule"], finding["program"]) == ("BT104", "options")
    assert "requires PERFMON beside BPF NET_ADMIN: " in finding["message"]
    assert "image.capabilities" in finding["hint"]
    assert report["runs"][1]["verdict"]["missing"] == ["PERFMON"]
    # The same capabilities by option, and then by buildtool.toml.
    more = [word for name in ("bpf", "CAP_NET_ADMIN", "PERFMON") for word in ("--capability", name)]
    assert outcomes(json.loads(run_check(probes, *host, *more, code=0).stdout))["options"] == "loads"
    config = tmp_path / "buildtool.toml"
    config.write_text('[image]\ncapabilities = ["BPF", "NET_ADMIN", "PERFMON"]\n')
    assert run_check(probes, *host, "--config", config, code=0)
    config.write_text('[image]\ncapabilities = ["BPF"]\n')
    report = json.loads(run_check(probes, *host, "--config", config).stdout)
    missing = {run["program"]: run["verdict"]["missing"] for run in report["runs"]}
    assert missing == {"plain": ["NET_ADMIN"], "options": ["NET_ADMIN", "PERFMON"]}


def test_helpers_bring_their_capabilities(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """bpf_printk adds PERFMON to the label, so the other programs of the object have it as well."""
    path = compile_object(tmp_path, clang, sysroot, PRIVILEGED.replace("PRINT", PRINT))
    report = json.loads(run_check(probes, path, "--kernel", "host", "--json", code=0).stdout)
    assert outcomes(report) == {"plain": "loads", "options": "loads", "print": "loads"}
    assert report["runs"][0]["capabilities"] == ["BPF", "NET_ADMIN", "PERFMON"]
    few = ["--capability", "BPF", "--capability", "NET_ADMIN"]
    report = json.loads(run_check(probes, path, "--kernel", "host", "--json", *few).stdout)
    assert {f["program"]: f["rule"] for f in report["findings"]} == {"options": "BT104", "print": "BT104"}


def test_the_table_on_stdout(probes: Path, sample: Path) -> None:
    """The table has a row per program, then each objection with its line of C; the summary is on stderr."""
    done = run_check(probes, sample, "--kernel", "host")
    lines = done.stdout.splitlines()
    own = host_platform(platform.machine())
    assert own
    assert f"object\tprogram\thost {own.arch}" in lines
    assert "x.bpf.o\tout_of_bounds\trefused" in lines
    at = next(
        i for i, line in enumerate(lines) if line.startswith("error BT100 x.bpf.o: out_of_bounds: host")
    )
    assert lines[at + 1].endswith("return data[0];")
    assert done.stderr.endswith("1 object, 6 dry runs on 1 kernel, 3 errors: failed\n")


def test_signed_objects_and_directories(probes: Path, tmp_path: Path) -> None:
    """All shipped programs load from a directory by architecture, signed, and the check passes."""
    own = host_platform(platform.machine())
    assert own
    build = tmp_path / "build" / own.arch
    argv = [sys.executable, "-m", "buildtool", "compile", "--output", build, "--arch", own.arch]
    subprocess.run(argv, cwd=TOP, check=True, capture_output=True)
    sign_files(sorted(build.glob("*.bpf.o")), alice(), RELEASE, platform=own)
    done = run_check(probes, build.parent, "--kernel", "host", "--json", code=0)
    report = json.loads(done.stdout)
    assert {fact["platform"] for fact in report["objects"]} == {own.oci}
    assert len(report["runs"]) == sum(len(fact["programs"]) for fact in report["objects"]) >= 6
    assert report["passed"] is True


def test_a_program_near_the_limit(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """BT103: a program near the instruction limit passes with a warning."""
    source = """#include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        SEC("xdp") int heavy(struct xdp_md *ctx)
        { volatile int sum = 0; for (int i = 0; i < 60000; i++) sum += i; return XDP_PASS; }
        char LICENSE[] SEC("license") = "GPL";"""
    path = compile_object(tmp_path, clang, sysroot, source)
    # Without PERFMON the kernel verifier also walks the paths of speculative execution.
    more = [word for name in ("BPF", "NET_ADMIN", "PERFMON") for word in ("--capability", name)]
    report = json.loads(run_check(probes, path, "--kernel", "host", "--json", *more, code=0).stdout)
    assert [(f["rule"], f["level"], f["program"]) for f in report["findings"]] == [
        ("BT103", "warning", "heavy")
    ]
    assert 500_000 < report["runs"][0]["verdict"]["instructions"] < 1_000_000


def test_bpftool_counts_the_same(probes: Path, tmp_path: Path) -> None:
    """The numbers of verified instructions are those that bpftool reports for the shipped programs."""
    argv = [sys.executable, "-m", "buildtool", "compile", "--output", tmp_path / "out"]
    subprocess.run(argv, cwd=TOP, check=True, capture_output=True)
    report = json.loads(run_check(probes, tmp_path / "out", "--kernel", "host", "--json", code=0).stdout)
    ours = {r["program"]: r["verdict"]["instructions"] for r in report["runs"]}
    (tmp_path / "bpffs").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpffs", tmp_path / "bpffs"], check=True)
    try:
        theirs = {}
        for path in (tmp_path / "out").glob("*.bpf.o"):
            loadall = [
                "bpftool",
                "-d",
                "prog",
                "loadall",
                path,
                tmp_path / "bpffs" / path.name.partition(".")[0],
            ]
            done = subprocess.run(loadall, capture_output=True, text=True, check=True)
            text = done.stdout + done.stderr
            for name, log in re.findall(
                r"prog '(\w+)': -- BEGIN PROG LOAD LOG --\n(.*?)-- END", text, re.DOTALL
            ):
                theirs[name] = int(re.findall(r"^processed (\d+) insns", log, re.MULTILINE)[-1])
    finally:
        subprocess.run(["umount", tmp_path / "bpffs"], check=True)
    assert theirs == ours


def test_the_stack_is_what_the_kernel_says(probes: Path, clang: Path, sysroot: Path, tmp_path: Path) -> None:
    """The reported stack is the sum of the kernel verifier's frames, each rounded up to 16 bytes."""
    source = """#include <linux/bpf.h>
        #include <bpf/bpf_helpers.h>
        static __attribute__((noinline)) long inner(long x)
        { volatile long room[9]; room[x & 7] = x; return room[3]; }
        static __attribute__((noinline)) long outer(long x)
        { volatile char room[100]; room[50] = x; return room[50] + inner(x); }
        SEC("xdp") int deep(struct xdp_md *ctx)
        { volatile long room[3]; room[1] = outer(ctx->rx_queue_index); return room[1] ? XDP_PASS : XDP_DROP; }
        char LICENSE[] SEC("license") = "GPL";"""
    path = compile_object(tmp_path, clang, sysroot, source)
    own = host_platform(platform.machine())
    assert own
    said = subprocess.run([probes / own.arch / "bpf-probe", path], capture_output=True, text=True, check=True)
    log = next(
        event["log"] for line in said.stdout.splitlines() if (event := json.loads(line)).get("program")
    )
    frames = next(line for line in log.splitlines() if line.startswith("stack depth ")).split()[2].split("+")
    assert len(frames) == 3
    facts = json.loads(run_check(probes, path, "--json", code=0).stdout)["objects"][0]
    assert facts["programs"][0]["stack_bytes"] == sum(-(-int(frame) // 16) * 16 for frame in frames)


GOOD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int one(struct __sk_buff *s) { return s->len; }
SEC("socket") int two(struct __sk_buff *s) { return s->mark; }
char LICENSE[] SEC("license") = "GPL";
"""
BAD = 'SEC("socket") int bad(struct __sk_buff *s) { return *(int *)(long)s->len; }\n'


@pytest.mark.parametrize("more", ["", BAD])
def test_an_object_that_loads_is_loaded_once(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path, more: str
) -> None:
    """Programs of one load share its time; after a refusal, each is loaded alone, with its own time."""
    own = host_platform(platform.machine())
    assert own
    path = compile_object(tmp_path, clang, sysroot, GOOD + more)
    done = subprocess.run([probes / own.arch / "bpf-probe", path], capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = {event["program"]: event for event in events if event["event"] == "program"}
    assert {name: event["errno"] == 0 for name, event in found.items()} == {
        "one": True,
        "two": True,
        **({"bad": False} if more else {}),
    }
    assert all("processed" in found[name]["log"] for name in ("one", "two"))
    if not more:
        assert found["one"]["durationUs"] == found["two"]["durationUs"]


@pytest.mark.parametrize("words", [[], ["--open"], ["--link", "x"], ["--capabilities", "0"]])
def test_probe_without_an_object(probes: Path, words: list[str]) -> None:
    """The probe prints its usage."""
    own = host_platform(platform.machine())
    assert own
    argv = [probes / own.arch / "bpf-probe", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    modes = "[--open | --link OUTPUT | --capabilities MASK]"
    options = f"{modes} [--declare SECTION NAME]... [--map-entries MAP N]..."
    assert done.stderr == f"usage: bpf-probe {options} OBJECT...\n"


def test_junit_has_a_case_for_each_program(probes: Path, sample: Path, tmp_path: Path) -> None:
    """Each suite counts its cases and failures; a failure has reason, line of C and log."""
    run_check(probes, sample, "--kernel", "host", "--junit", tmp_path / "check.xml")
    top = read_junit(tmp_path / "check.xml")
    suites = {suite.attrib["name"].partition(" ")[0]: suite for suite in top}
    assert set(suites) == {"rules", "host"}
    for suite in suites.values():
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    case = next(case for case in suites["host"] if case.attrib["name"] == "out_of_bounds")
    failure = case.find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("invalid access to packet")
    assert failure.text
    assert "bpf/x.bpf.c:" in failure.text
    assert "processed" in failure.text


SPARE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int always(struct xdp_md *c) { return XDP_PASS; }
SEC("?raw_tp/sys_enter") int spare(__u64 *c) { return *(__u64 *)(long)c[0]; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_a_kernel_may_refuse_an_optional_program(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that the image does not load is a warning; one that image.load names is an error."""
    path, junit = compile_object(tmp_path, clang, sysroot, SPARE), tmp_path / "check.xml"
    monkeypatch.chdir(tmp_path)
    project = '[project]\nname = "lab"\nversion = 1\nrelease = "1"\n'
    for image, code, level in (("", 0, "warning"), ('[image]\nload = ["spare"]\n', 1, "error")):
        (tmp_path / "buildtool.toml").write_text(project + image)
        arguments = (path, "--kernel", "host", "--json", "--junit", junit)
        report = json.loads(run_check(probes, *arguments, code=code).stdout)
        [finding] = report["findings"]
        assert (finding["rule"], finding["program"], finding["level"]) == ("BT100", "spare", level)
        assert {run["program"]: run["is_spare"] for run in report["runs"]} == {
            "always": False,
            "spare": not code,
        }
        [suite] = [suite for suite in read_junit(junit) if suite.attrib["name"].startswith("host")]
        assert (suite.attrib["failures"], suite.attrib["skipped"]) == (str(code), str(1 - code))
        junit.unlink()


def test_sarif_is_valid_and_points_at_the_source(probes: Path, sample: Path, tmp_path: Path) -> None:
    """The report fits the SARIF model; each result names a listed rule, and has the line of C if known."""
    run_check(probes, sample, "--kernel", "host", "--sarif", tmp_path / "check.sarif")
    text = (tmp_path / "check.sarif").read_text()
    assert Sarif.model_validate_json(text)
    document = json.loads(text)
    only = document["runs"][0]
    rules = only["tool"]["driver"]["rules"]
    for result in only["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
    places = [result["locations"][0] for result in only["results"]]
    known = [p for p in places if p["logicalLocations"][0]["name"] == "out_of_bounds"]
    (without,) = [p for p in places if p["logicalLocations"][0]["name"] == "no_target"]
    assert without["physicalLocation"]["artifactLocation"]["uri"] == sample.as_uri()
    physical = known[0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == "bpf/x.bpf.c"
    assert physical["region"]["snippet"]["text"] == "return data[0];"


def test_missing_capability_is_an_error(probes: Path, sample: Path) -> None:
    """Without CAP_BPF a dry run is exit code 1 with a hint; the rules alone run without it."""
    setpriv = shutil.which("setpriv")
    assert setpriv
    bare = (setpriv, "--bounding-set", "-all", "--inh-caps", "-all")
    done = run_check(probes, sample, "--kernel", "host", prefix=bare)
    assert "buildtool: error: this user may not load eBPF programs: CAP_BPF is missing" in done.stderr
    assert "hint: " in done.stderr
    run_check(probes, sample, code=0, prefix=bare)


def test_a_probe_that_ends_early_is_an_error(sample: Path, tmp_path: Path) -> None:
    """A probe that ends before its last event fails the check."""
    own = host_platform(platform.machine())
    assert own
    (tmp_path / own.arch).mkdir()
    fake = tmp_path / own.arch / "bpf-probe"
    fake.write_text('#!/bin/sh\necho \'{"event":"kernel","release":"1.0"}\'\n')
    fake.chmod(0o755)
    done = run_check(tmp_path, sample, "--kernel", "host")
    assert "buildtool: error: bpf-probe: ended early" in done.stderr


def test_a_probe_that_hangs_is_ended(sample: Path, tmp_path: Path) -> None:
    """--timeout also ends a probe on this host: one line, and no process stays."""
    own = host_platform(platform.machine())
    assert own
    (tmp_path / own.arch).mkdir()
    fake = tmp_path / own.arch / "bpf-probe"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    fake.chmod(0o755)
    done = run_check(tmp_path, sample, "--kernel", "host", "--timeout", "1")
    assert "buildtool: error: bpf-probe: no answer in 1 seconds" in done.stderr.splitlines()
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def load_without_license(kind: int, attach: int, helper: int) -> str:
    """Load a program of type *kind* that calls *helper* and is not GPL; return the kernel's log."""
    slots = (0x85, helper), (0xB7, 0), (0x95, 0)  # call, r0 = 0, exit
    code = b"".join(struct.pack("=BBhi", opcode, 0, 0, number) for opcode, number in slots)
    log = ctypes.create_string_buffer(65536)
    texts = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Proprietary")
    at = [ctypes.addressof(text) for text in texts]
    # union bpf_attr for BPF_PROG_LOAD, up to expected_attach_type.
    attr = struct.pack("=IIQQIIQII16sII", kind, 3, *at, 1, 65536, ctypes.addressof(log), 0, 0, b"", 0, attach)
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    call = {"x86_64": 321}.get(platform.machine(), 280)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(call, 5, buffer, 128)
    if descriptor >= 0:
        os.close(descriptor)
    return log.value.decode(errors="replace")


def test_the_table_of_gpl_helpers_is_that_of_the_kernel() -> None:
    """For each helper that a program type may call, the table and this kernel agree."""
    # socket filter, kprobe, sched_cls, tracepoint, xdp, perf_event, cgroup_skb, sock_ops, sk_msg, raw_tp
    kinds = [(kind, 0) for kind in (1, 2, 3, 5, 6, 7, 8, 13, 16, 17)] + [(18, 8), (22, 0)]
    gpl, free = set(), set()
    for number in HELPER_NUMBERS.values():
        for kind, attach in kinds:
            said = load_without_license(kind, attach, number)
            if "GPL-restricted" in said:
                gpl.add(number)
            elif said and "unknown func" not in said and "cannot use helper" not in said:
                free.add(number)
    assert len(gpl) > 30
    assert len(free) > 100
    assert gpl <= GPL_HELPERS
    assert not (free - gpl) & GPL_HELPERS


BOUNDED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile __u32 limit = 4;
const volatile char label[4] = "a";
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32);
    __type(value, __u64[2]); } values SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
    __type(value, __u32); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
    __array(values, struct inner); } outer SEC(".maps");
SEC("socket") int sum(void *c)
{
    __u32 zero = 0;
    void *inside = bpf_map_lookup_elem(&outer, &zero);
    const char *value = bpf_map_lookup_elem(&values, &zero);

    if (inside)
        bpf_map_lookup_elem(inside, &zero);
    /* The kernel verifier knows the limit, and refuses one behind the value's 16 bytes. */
    return value ? value[limit] + label[0] : 0;
}
char LICENSE[] SEC("license") = "GPL";
"""
RULES = """
[load.settable."x.bpf.o"]
limit = { max = 100 }
label = true
values = { max-entries = 0xffffffff }
"outer.inner" = { max-entries = 0xffffffff }
"""


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ([], "loads"),
        (["--set", "limit=15", "--set", "label=bcd", "--map-entries", "outer.inner=64"], "loads"),
        (["--set", "limit=16"], "refused"),
        (["--map-entries", "values=0xffffffff"], "failed"),
        (["--map-entries", "outer.inner=0xffffffff"], "failed"),
    ],
)
def test_dry_runs_have_the_settings(
    probes: Path, clang: Path, sysroot: Path, tmp_path: Path, options: list[str], outcome: str
) -> None:
    """The kernel judges the program with the values and sizes that it will have."""
    compile_object(tmp_path, clang, sysroot, BOUNDED)
    (tmp_path / "buildtool.toml").write_text(RULES)
    config = ["--config", str(tmp_path / "buildtool.toml")]
    arguments = [tmp_path / "x.bpf.o", "--kernel", "host", "--json", *config, *options]
    done = run_check(probes, *arguments, code=int(outcome != "loads"))
    (run,) = json.loads(done.stdout)["runs"]
    assert run["verdict"]["outcome"] == outcome, done.stdout + done.stderr
