# SPDX-License-Identifier: Apache-2.0
"""Objects of several sources: linked by libbpf, the same bytes anywhere, recorded, cached and rebuilt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from labs.image import read_image
from labs.linked import MARK, OBJECTS, write_linked
from labs.project import make_local_project
from labs.readelf import read_with_llvm

from buildtool.cli.main import run
from buildtool.compile.record import CompiledObject, read_compile_record
from buildtool.core.platforms import PLATFORMS, this_platform
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import parse_object
from buildtool.runtime.probe import PROBES_VARIABLE
from buildtool.signing.statement import read_statement

pytestmark = [pytest.mark.tools, pytest.mark.network]

Capture = pytest.CaptureFixture[str]
ENTRY, PARTS = "bpf/agent/entry.bpf.c", "bpf/agent/parts.bpf.c"


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: Path, carried_headers: Path, capsys: Capture
) -> Path:
    """Give the project, as the working directory, with stand-ins for the parts of an image."""
    made = make_local_project(tmp_path / "parts", monkeypatch)
    root = write_linked(tmp_path / "linked")
    (root / "base.tar").symlink_to(made / "base.tar")
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "oci-layout://base.tar")
    monkeypatch.setenv("BUILDTOOL_HEADERS", str(carried_headers))
    monkeypatch.setenv(PROBES_VARIABLE, str(probes))
    monkeypatch.chdir(root)
    assert run(["keygen", "dev"]) == 0
    capsys.readouterr()
    return root


def _record(name: str, arch: str = "amd64") -> CompiledObject:
    return read_compile_record(Path("build", arch))[name]


def _objects() -> dict[str, bytes]:
    return {str(path.relative_to("build")): path.read_bytes() for path in Path("build").rglob("*.o")}


def _error(capsys: Capture) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("buildtool: error: ")]
    return line.removeprefix("buildtool: error: ")


def test_linked_objects_are_the_same_anywhere(project: Path, tmp_path: Path) -> None:
    """For all architectures, of both byte orders: no DWARF, and no difference in a longer directory."""
    arches = ",".join(PLATFORMS)
    assert run(["compile", "--arch", arches]) == 0
    first = _objects()
    assert sorted(first) == sorted(f"{arch}/{name}" for arch in PLATFORMS for name in OBJECTS)
    for arch, platform in PLATFORMS.items():
        obj = parse_object(first[f"{arch}/agent.bpf.o"])
        assert obj.is_little_endian == platform.little_endian
        assert not any(section.name.startswith(b".debug") for section in obj.sections)
        contents = describe_object(obj)
        assert [program.name for program in contents.programs] == [f"{MARK}_count"]
        assert [item.name for item in contents.maps] == [f"{MARK}_counts"]
        assert contents.kfuncs == ()
    # The order of the sources and their flags tell the two objects apart.
    assert first["amd64/agent.bpf.o"] != first["amd64/agent-3.bpf.o"]
    assert read_with_llvm(Path("build/s390x/agent.bpf.o")).section(".BTF").size > 0
    other = tmp_path / ("d" * 150) / "project"
    shutil.copytree(project, other, symlinks=True, ignore=shutil.ignore_patterns("build"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(other)
        assert run(["compile", "--arch", arches, "--jobs", "1"]) == 0
        assert _objects() == first


def test_a_configuration_in_another_directory(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories of headers start at the configuration, wherever the command runs."""
    assert run(["compile", "--arch", "amd64"]) == 0
    first = _objects()
    shutil.rmtree(project / "build")
    monkeypatch.chdir(tmp_path)
    assert run(["compile", "--arch", "amd64", "--config", str(project / "buildtool.toml")]) == 0
    monkeypatch.chdir(project)
    assert _objects() == first


def test_records_and_statements_name_all_sources(project: Path, capsys: Capture) -> None:
    """With their headers and flags; one of the sources stands for the object."""
    assert run(["compile", "--arch", "amd64"]) == 0
    entry = _record("agent.bpf.o")
    assert entry.inputs == (ENTRY, PARTS, "include/shared.h")
    assert entry.source.path == ENTRY
    tail = ("-I", "include", "-DSTEP=2", ENTRY, "-I", "include", "-DSTEP=2", PARTS)
    assert entry.toolchain.flags[-8:] == tail
    assert _record("agent-3.bpf.o").source.path == PARTS
    assert "bpf/alone.bpf.c" not in _record("alone.bpf.o").toolchain.flags
    (project / "build/amd64/agent.bpf.o").unlink()
    capsys.readouterr()
    assert run(["compile", "--arch", "amd64", PARTS]) == 0
    made = ["build/amd64/agent-3.bpf.o", "build/amd64/agent.bpf.o"]
    assert capsys.readouterr().out.splitlines() == made
    assert _record("agent.bpf.o") == entry
    assert run(["sign", *made]) == 0
    statement = read_statement(parse_object(Path(made[1]).read_bytes()))
    assert statement.source == entry.source
    assert statement.toolchain == entry.toolchain
    capsys.readouterr()
    assert run(["verify", "--trust", "keys/dev.pub", "--arch", "amd64", *made]) == 0
    assert run(["inspect", made[1]]) == 0
    assert f"  source    {ENTRY}, {PARTS}  sha256 {entry.source.sha256}\n" in capsys.readouterr().out
    assert run(["check", *made]) == 0


LARGER = f"""\
struct {{
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
}} {MARK}_counts"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "int add",
            f'SEC("tc") int {MARK}_count(void *c) {{ return 0; }}\nint add',
            f"({MARK}_count) definition",
        ),
        (f"struct counts {MARK}_counts", LARGER, f"global '{MARK}_counts': map max_entries mismatch"),
        ("int add(int x)", "long add(long x)", "global 'add': incompatible int"),
        ('"shared.h"', '"other.h"', "contents of section 'license'"),
    ],
    ids=["function", "map", "type", "license"],
)
def test_conflicts_are_one_line(project: Path, capsys: Capture, old: str, new: str, expected: str) -> None:
    """Two definitions, other maps, types or licenses: libbpf's words, with sources for objects."""
    shared = (project / "include/shared.h").read_text()
    (project / "include/other.h").write_text(shared.replace('"GPL"', '"BSD"'))
    text = (project / PARTS).read_text()
    assert old in text
    (project / PARTS).write_text(text.replace(old, new))
    assert run(["compile", "--arch", "amd64", ENTRY]) == 1
    message = _error(capsys)
    # The first object has the sources in the other order.
    assert message.startswith(f"agent-3.bpf.o (amd64): cannot link {ENTRY}: ")
    assert expected in message
    assert str(project) not in message
    assert ".compile-" not in message
    assert not (project / "build").exists()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("int add(int x) { return x + base; }", "add"),
        (f'struct counts {MARK}_counts SEC(".maps");', f"{MARK}_counts"),
    ],
    ids=["function", "map"],
)
def test_names_that_no_source_defines(project: Path, capsys: Capture, line: str, name: str) -> None:
    """A function or a map that is only declared is an error, unless a kernel or its settings have it."""
    path = project / PARTS
    text = path.read_text()
    given = "extern void bpf_rcu_read_lock(void) __ksym;\nextern void bpf_rcu_read_unlock(void) __ksym;\n"
    given += "extern int LINUX_KERNEL_VERSION __kconfig;\nint more(void)\n{\n\tbpf_rcu_read_lock();\n"
    given += "\tbpf_rcu_read_unlock();\n\treturn LINUX_KERNEL_VERSION;\n}\n"
    path.write_text(text + given)
    assert run(["compile", "--arch", "amd64", PARTS]) == 0
    contents = describe_object(parse_object(Path("build/amd64/agent.bpf.o").read_bytes()))
    assert contents.kfuncs == ("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
    assert line in text
    path.write_text(text.replace(line, ""))
    capsys.readouterr()
    assert run(["compile", "--arch", "amd64", PARTS]) == 1
    assert _error(capsys) == (
        f"agent-3.bpf.o (amd64): {name}: declared extern, and defined in none of {PARTS}, {ENTRY}"
    )


def test_a_source_alone_calls_a_function_of_another(project: Path, capsys: Capture) -> None:
    """Without the table, check names the call, and how to link the sources."""
    config = project / "buildtool.toml"
    before, _, after = config.read_text().partition("[[compile.object]]")
    config.write_text(before + 'flags = ["-DSTEP=1"]\n' + after[after.index("[sign]") :])
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    assert run(["check", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    found = {(each["object"], each["rule"]): each for each in report["findings"]}
    finding = found["amd64/agent.entry.bpf.o", "BT016"]
    assert finding["message"].startswith("calls add, which is neither in the object nor a kernel function")
    assert "[[compile.object]]" in finding["hint"]


def test_changed_sources_and_settings_make_objects_stale(project: Path, capsys: Capture) -> None:
    """A change of each source, of a shared header, of flags and of the list of sources is named."""
    assert run(["compile", "--arch", "amd64"]) == 0
    changed = f"one of {ENTRY}, {PARTS} or a file that they include has changed"
    for name in (PARTS, "include/shared.h"):
        path = project / name
        text = path.read_text()
        path.write_text(text + "\n")
        capsys.readouterr()
        assert run(["sign", "build/amd64/agent.bpf.o", "--output", "signed"]) == 1
        assert changed in _error(capsys)
        path.write_text(text)
    config = project / "buildtool.toml"
    text = config.read_text()
    for old, new in ((f'["{PARTS}", "{ENTRY}"]', f'["{ENTRY}", "{PARTS}"]'), ("STEP=3", "STEP=4")):
        assert old in text
        config.write_text(text.replace(old, new))
        assert run(["sign", "build/amd64/agent.bpf.o", "--output", "signed", "--force"]) == 0
        capsys.readouterr()
        assert run(["sign", "build/amd64/agent-3.bpf.o", "--output", "signed"]) == 1
        assert "compile.object has changed" in _error(capsys)


def _build(archive: Path) -> int:
    argv = ["build", "--engine", "local", "--arch", "amd64,arm64", "--force"]
    return run([*argv, "--output", f"type=oci,dest={archive}"])


def test_images_hold_linked_objects_and_rebuild_equal(project: Path, tmp_path: Path, capsys: Capture) -> None:
    """The embedded engine links as compile does; rebuild needs the image and the sources alone."""
    archive = tmp_path / "image.tar"
    assert _build(archive) == 0
    for _, tree in read_image(archive).values():
        found = [path for path, entry in tree.items() if "/objects/" in path and entry.is_file]
        assert sorted(path.rpartition("/")[2] for path in found) == sorted(OBJECTS)
    config = project / "buildtool.toml"
    config.write_text(config.read_text().replace("STEP=2", "STEP=7"))  # the statement has the flags
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 0
    assert capsys.readouterr().out.count("  equal\n") == 6
    path = project / PARTS
    text = path.read_text()
    path.write_text(text.replace("base = 40", "base = 41"))
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 1
    output = capsys.readouterr().out
    assert "linux/amd64  agent.bpf.o  not equal\n    differs in .rodata" in output
    assert "linux/amd64  alone.bpf.o  equal\n" in output


def test_cached_objects_depend_on_each_source_and_on_the_linker(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probes: Path, capsys: Capture
) -> None:
    """An unchanged project runs no linker; a changed source does, and so does another linker."""
    archive, arch = tmp_path / "image.tar", this_platform().arch
    place = tmp_path / "probes" / arch / "bpf-probe"
    place.parent.mkdir(parents=True)
    log = tmp_path / "links"
    script = f'#!/bin/sh\n[ "$1" != --link ] || echo "$2" >>{log}\nexec {probes}/{arch}/bpf-probe "$@"\n'
    place.write_text(script)
    place.chmod(0o755)
    monkeypatch.setenv(PROBES_VARIABLE, str(tmp_path / "probes"))

    def links() -> int:
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count

    assert _build(archive) == 0
    first = archive.read_bytes()
    assert links() == 4
    assert _build(archive) == 0
    assert links() == 0
    assert archive.read_bytes() == first
    path = project / PARTS
    text = path.read_text()
    path.write_text(text.replace("base = 40", "base = 41"))
    assert _build(archive) == 0
    assert links() == 4
    assert archive.read_bytes() != first
    path.write_text(text)
    place.write_text(script + "# changed\n")
    assert _build(archive) == 0
    assert links() == 4
    assert archive.read_bytes() == first
    place.write_text("#!/bin/sh\nkill -9 $$\n")
    capsys.readouterr()
    assert _build(archive) == 1
    expected = "agent-3.bpf.o (amd64): cannot link agent-3.bpf.o: the linker was ended"
    assert _error(capsys) == expected
    assert archive.read_bytes() == first


def test_without_the_linker(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A directory of probes without one is an error before anything is compiled."""
    monkeypatch.setenv(PROBES_VARIABLE, str(project / "none"))
    assert run(["compile", "--arch", "amd64"]) == 2
    assert _error(capsys).startswith("BUILDTOOL_PROBES: ")
    assert run(["compile", "--arch", "amd64", "bpf/alone.bpf.c"]) == 0
