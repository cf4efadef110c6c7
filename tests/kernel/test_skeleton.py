# SPDX-License-Identifier: Apache-2.0
"""Skeletons of signed objects: agents in C, Go and Rust load what they embed, and refuse what was changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from labs import TOP
from labs.bindings import BUILT, find_cargo, find_go, run_with_registry
from labs.compile import find_tool
from labs.run import run
from labs.skeletons import OFFSETS, SHARED_TYPES, SOURCE, make_counter

from buildtool.cli.main import run as buildtool
from buildtool.core.platforms import this_platform

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PAGE = TOP / "docs/how-to/embed-in-an-agent.md"
GO_EBPF = "github.com/cilium/ebpf@v0.21.0"
BPF2GO = "github.com/cilium/ebpf/cmd/bpf2go@v0.21.0"
AYA = "aya@0.13.1"
MEMBERS = ("src", "port", "proto", "in", "u", "v", "big", "comm", "ok")
C_MAIN = r"""
int main(int argc, char **argv)
{
	static char trust[4096];
	FILE *file = fopen(argv[1], "r");
	char message[SIGVERIFY_MESSAGE_SIZE];
	struct sigverify_store *store = sigverify__open(trust, fread(trust, 1, sizeof(trust), file), message);
	const struct sigverify_question elsewhere = { .platform = "linux/none", .now = time(NULL) };
	struct counter *skel;
	int zero = 0;
	unsigned long long value = 0;

	libbpf_set_print(NULL);
	skel = argc > 2 ? counter__open_verified(store, &elsewhere, NULL, message) : open_agent(store);
	sigverify__close(store);
	fclose(file);
	if (!skel) {
		fprintf(stderr, "%d %s\n", errno == EACCES, message);
		return 3;
	}
	if (counter__load(skel) || counter__attach(skel))
		return 1;
	getppid();
	if (bpf_map__lookup_elem(skel->maps.enter_total, &zero, sizeof(zero), &value, sizeof(value), 0))
		return 1;
	printf("%llu\n", value);
	return 0;
}
"""


GO_TEST = """\
package main

import "testing"

func TestWithoutAStore(t *testing.T) {
	_, err := loadCounter()
	if err == nil || err.Error() != "counter: no trust store: set counterTrust first" {
		t.Fatal(err)
	}
}
"""


@pytest.fixture(scope="module")
def prefix(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory that libsigverify was installed to."""
    directory = tmp_path_factory.mktemp("prefix")
    run("make", "-C", TOP / "loader", "install", f"CLANG={clang}", f"PREFIX={directory}")
    return directory


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried_headers: object) -> Path:
    """Compile and sign the object for this machine; return the directory of the agent to be."""
    assert carried_headers
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    make_counter(tmp_path, this_platform().arch)
    return tmp_path


def skeleton(agent: Path, language: str, *options: str) -> None:
    """Write the skeleton beside the agent's source."""
    signed = agent / "build" / this_platform().arch / "counter.bpf.o"
    assert buildtool(["skeleton", str(signed), "--lang", language, "-o", str(agent / "agent"), *options]) == 0


def example(language: str) -> str:
    """Return the page's code in *language*."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def start(*argv: str | Path, **more: str) -> tuple[int, str, str]:
    """Run an agent; return its exit code, output and errors."""
    done = subprocess.run(argv, env=os.environ | more, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def build_c(agent: Path, clang: Path, prefix: Path) -> Path:
    """Build the agent of the page with the skeleton that lies there."""
    shared = "#include <linux/types.h>\n#include <unistd.h>\n" + "\n".join(SHARED_TYPES) + "\n"
    (agent / "agent/main.c").write_text(shared + example("c") + C_MAIN)
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    ask = [find_tool("pkg-config", "pkgconf"), "--cflags", "--libs", "libsigverify"]
    flags = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout.split()
    run(clang, "-Wall", "-O1", agent / "agent/main.c", *flags, "-lbpf", "-o", agent / "c-agent")
    return agent / "c-agent"


def test_c(agent: Path, clang: Path, prefix: Path) -> None:
    """The agent loads what it embeds and counts; it refuses another key, platform, and a changed byte."""
    skeleton(agent, "c")
    built = build_c(agent, clang, prefix)
    library = {"LD_LIBRARY_PATH": str(prefix / "lib")}
    code, output, errors = start(built, agent / "keys/k.pub", **library)
    assert (code, errors) == (0, "")
    assert int(output) > 0
    code, output, errors = start(built, agent / "keys/k.pub", "elsewhere", **library)
    assert (code, output, errors[:2]) == (3, "", "1 ")
    assert buildtool(["keygen", "other"]) == 0
    assert start(built, agent / "keys/other.pub", **library)[0] == 3
    header = agent / "agent/counter.skel.h"
    wrap = r"(?:\\\n)?"
    text, found = re.subn(rf"\\x47({wrap}\\x50{wrap}\\x4c)", r"\\x46\1", header.read_text(), count=1)
    assert found == 1
    header.write_text(text)
    code, output, errors = start(build_c(agent, clang, prefix), agent / "keys/k.pub", **library)
    assert (code, output) == (3, "")
    assert "counter: the file is not the one that was signed" in errors


def go_fields() -> str:
    """Return Go's expressions for the offsets of the members."""
    fields = (f"unsafe.Offsetof(k.{name[:1].upper() + name[1:]})" for name in MEMBERS)
    return ", ".join([*fields, "unsafe.Sizeof(k)"])


def test_go(agent: Path) -> None:
    """The generated package loads the object and has its types; nothing loads without a store, or changed."""
    go, project = find_go(), agent / "agent"
    skeleton(agent, "go")
    main = f"""
func main() {{
	if err := open(os.Args[1]); err != nil {{
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}}
	defer objects.Close()
	options := link.RawTracepointOptions{{Name: "sys_enter", Program: objects.RawEnter}}
	attached, err := link.AttachRawTracepoint(options)
	if err != nil {{
		panic(err)
	}}
	os.Getppid()
	attached.Close()
	var total uint64
	if err := objects.EnterTotal.Lookup(uint32(0), &total); err != nil {{
		panic(err)
	}}
	var value counterPacked
	if err := objects.PacketCounts.Lookup(counterPacketKey{{}}, &value); err != nil {{
		panic(err)
	}}
	var k counterPacketKey
	fmt.Println(total > 0, {go_fields()}, unsafe.Sizeof(value), counterVerdictPASS_IT)
}}
"""
    imports = '"fmt"\n"os"\n"unsafe"\n"buildtool/sigverify"\n"github.com/cilium/ebpf/link"\n'
    (project / "main.go").write_text(f"package main\nimport (\n{imports})\n{example('go')}{main}")
    run_with_registry([go, "mod", "init", "example.org/agent"], project)
    replaced = f"-replace=buildtool/sigverify={TOP}/bindings/go"
    run_with_registry([go, "mod", "edit", "-require=buildtool/sigverify@v0.0.0", replaced], project)
    run_with_registry([go, "get", GO_EBPF], project)
    run_with_registry([go, "vet", "-mod=mod", "."], project)
    (generated,) = project.glob("counter_*.go")
    assert run(go.with_name("gofmt"), "-d", generated) == ""
    run_with_registry([go, "build", "-mod=mod", "-o", "agent", "."], project)
    code, output, errors = start(project / "agent", agent / "keys/k.pub")
    assert (code, errors) == (0, "")
    assert output.split() == ["true", *map(str, OFFSETS), "9", "7"]
    assert buildtool(["keygen", "other"]) == 0
    code, _, errors = start(project / "agent", agent / "keys/other.pub")
    assert code == 3
    assert "refused: unknown-key" in errors
    (embedded,) = project.glob("*.o")
    data = bytearray(embedded.read_bytes())
    data[data.index(b"GPL\0")] ^= 1
    embedded.write_bytes(data)
    run_with_registry([go, "build", "-mod=mod", "-o", "agent", "."], project)
    code, _, errors = start(project / "agent", agent / "keys/k.pub")
    assert code == 3
    assert "refused: digest-mismatch" in errors
    (project / "none_test.go").write_text(GO_TEST)
    run_with_registry([go, "test", "-mod=mod", "."], project)


def declarations(text: str) -> dict[str, list[str]]:
    """Return functions, variables and types of a Go file, each with its fields, without comments."""
    found: dict[str, list[str]] = {}
    text = re.sub(r"//.*|/\*.*?\*/|_ +structs\.HostLayout", "", text)
    pattern = r"^(type|var) (\w+) (struct \{\n(?:[^}\n].*\n)*\}|.*)$"
    for kind, name, body in re.findall(pattern, text, re.MULTILINE):
        found[f"{kind} {name}"] = [" ".join(line.split()) for line in body.splitlines() if line.strip()]
    for signature in re.findall(r"^func (.*) \{$", text, re.MULTILINE):
        found[f"func {signature}"] = []
    return found


def test_names_of_bpf2go(agent: Path, clang: Path, carried_headers: Path) -> None:
    """What bpf2go declares for the same source, ours declares alike, but for a layout that it gets wrong."""
    go, theirs = find_go(), agent / "theirs"
    theirs.mkdir()
    (theirs / "counter.bpf.c").write_text(SOURCE)
    run_with_registry([go, "mod", "init", "example.org/agent"], theirs)
    run_with_registry([go, "get", "-tool", BPF2GO], theirs)
    arch = this_platform().arch
    headers = [f"-I{carried_headers / name}" for name in (arch, "common")]
    command = [go, "tool", "bpf2go", "-go-package", "main", "-cc", clang, "-no-strip", "-target", arch]
    run_with_registry([*command, "counter", "counter.bpf.c", "--", *headers], theirs)
    skeleton(agent, "go")
    (made,) = (agent / "agent").glob("*.go")
    expected = declarations((theirs / made.name).read_text())
    ours = declarations(made.read_text())
    # Go would place the second member of the packed struct at 8, not at 1.
    assert expected.pop("type counterPacked")[2] == "B uint64"
    assert {name: ours.get(name) for name in expected} == expected


@pytest.mark.weekly
@pytest.mark.timeout(900)
def test_rust(agent: Path) -> None:
    """The generated module loads the object and has its types; another key is refused."""
    cargo, project = find_cargo(), agent / "rust"
    main = """
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("no store")?;
    let mut object = open(std::path::Path::new(&path))?;
    let program: &mut aya::programs::RawTracePoint =
        object.program_mut(counter::programs::RAW_ENTER).ok_or("no program")?.try_into()?;
    program.load()?;
    program.attach("sys_enter")?;
    std::fs::metadata("/")?;
    let totals: aya::maps::Array<_, u64> =
        object.map(counter::maps::ENTER_TOTAL).ok_or("no map")?.try_into()?;
    let counts: aya::maps::HashMap<_, counter::PacketKey, counter::Packed> =
        object.map(counter::maps::PACKET_COUNTS).ok_or("no map")?.try_into()?;
    counts.get(&counter::PacketKey::default(), 0)?;
    let key = counter::PacketKey::default();
    let at = std::ptr::addr_of!(key) as usize;
    let big = std::ptr::addr_of!(key.big) as usize - at;
    let ok = std::ptr::addr_of!(key.ok) as usize - at;
    println!("{} {} {} {}", totals.get(&0, 0)? > 0, big, ok, std::mem::size_of::<counter::PacketKey>());
    Ok(())
}
"""
    run_with_registry([cargo, "new", "--vcs=none", "--name=agent", project], agent)
    skeleton(agent, "rust")
    for path in (agent / "agent").iterdir():
        shutil.copy(path, project / "src")
    (project / "src/main.rs").write_text(example("rust") + main)
    run_with_registry([cargo, "add", "--quiet", "--no-default-features", AYA], project)
    run_with_registry([cargo, "add", "--quiet", "--path", TOP / "bindings/rust"], project)
    run_with_registry([cargo, "build", "--quiet"], project)
    built = shutil.copy(BUILT / "rust/debug/agent", agent / "rust-agent")
    assert start(built, agent / "keys/k.pub") == (0, "true 24 52 56\n", "")
    assert buildtool(["keygen", "other"]) == 0
    code, _, errors = start(built, agent / "keys/other.pub")
    assert code == 1
    assert "UnknownKey" in errors or "unknown-key" in errors
