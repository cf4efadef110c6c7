# SPDX-License-Identifier: Apache-2.0
"""`skeleton`: names and types of the written code, and objects that it does not embed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from labs.cli import check_error
from labs.sig import unsigned
from labs.skeletons import make_counter

from buildtool.cli.main import run
from buildtool.skeleton.names import go_name, rust_constant, rust_field, rust_type

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path, carried_headers: object
) -> list[Path]:
    """Compile and sign an object for two architectures in the working directory."""
    assert clang
    assert carried_headers
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    return make_counter(tmp_path, "amd64", "arm64")


def test_go_names_are_those_of_bpf2go() -> None:
    """Underscores go where bpf2go drops them, and stay elsewhere."""
    pairs = {
        "count_packets": "CountPackets",
        "_private": "Private",
        "XDP_PASS": "XDP_PASS",
        "tcp4_in": "Tcp4In",
        "a__b": "A__b",
        "__": "X",
        "4tuple": "X4tuple",
        "inner_t": "InnerT",
        "Some_thing": "SomeThing",
    }
    assert {name: go_name(name) for name in pairs} == pairs


def test_rust_names() -> None:
    """Keywords are escaped, and names are those that Rust's compiler does not warn about."""
    assert [rust_field(name) for name in ("in", "self", "port", "a$b")] == ["r#in", "self_", "port", "a_b"]
    assert [rust_type(name) for name in ("packet_key", "4tuple")] == ["PacketKey", "T4tuple"]
    assert [rust_constant(name) for name in ("count_packets", "4tuple")] == ["COUNT_PACKETS", "_4TUPLE"]


def test_go_files_for_each_architecture(objects: list[Path], capsys: Capture) -> None:
    """Each file has its build constraint and embeds the signed object, byte for byte."""
    capsys.readouterr()
    arguments = [*map(str, objects), "--lang", "go", "--package", "agent", "-o", "out", "--json"]
    assert run(["skeleton", *arguments]) == 0
    names = [Path(name).name for name in json.loads(capsys.readouterr().out)["files"]]
    assert names == [
        "counter_x86_bpfel.go",
        "counter_x86_bpfel.o",
        "counter_arm64_bpfel.go",
        "counter_arm64_bpfel.o",
    ]
    for path, token, arch in zip(objects, ("x86", "arm64"), ("amd64", "arm64"), strict=True):
        assert Path(f"out/counter_{token}_bpfel.o").read_bytes() == path.read_bytes()
        text = Path(f"out/counter_{token}_bpfel.go").read_text()
        assert f"\n//go:build {arch}\n" in text
        assert "\npackage agent\n" in text
        assert f"//go:embed counter_{token}_bpfel.o\nvar _CounterBytes []byte" in text
        assert '\tRawEnter *ebpf.Program `ebpf:"raw_enter"`\n' in text
        assert '\tLimitPackets *ebpf.VariableSpec `ebpf:"limit_packets"`\n' in text
        assert '\tLast         *ebpf.VariableSpec `ebpf:"last"`\n' in text
        # Static variables, and the licence, which is no variable of the program.
        assert "Hidden" not in text
        assert "License" not in text.replace("LICENSE", "License")
        # Where Go would place the number elsewhere than the packed struct does, bytes stand.
        assert re.search(r"type counterPacked struct \{\n\tA uint8\n\tB \[8\]byte\n\}", text)


def test_names_of_go_are_exported_on_request(objects: list[Path]) -> None:
    """A capital first letter exports all."""
    assert run(["skeleton", str(objects[0]), "--lang", "go", "--name", "Counter"]) == 0
    text = Path("counter_x86_bpfel.go").read_text()
    assert "func LoadCounter() (" in text
    assert "var CounterTrust *sigverify.Trust" in text
    assert "type CounterObjects struct" in text


def test_rust_module(objects: list[Path]) -> None:
    """One module for all architectures; each embeds its own object."""
    assert run(["skeleton", *map(str, objects), "--lang", "rust", "-o", "src"]) == 0
    text = Path("src/counter.rs").read_text()
    for arch, target, path in zip(("amd64", "arm64"), ("x86_64", "aarch64"), objects, strict=True):
        cfg = f'#[cfg(target_arch = "{target}")]\n'
        assert f'{cfg}static BYTES: &[u8] = aya::include_bytes_aligned!("counter.{arch}.bpf.o");' in text
        assert Path(f"src/counter.{arch}.bpf.o").read_bytes() == path.read_bytes()
    assert "    pub r#in: InnerT,\n" in text
    assert '    pub const RAW_ENTER: &str = "raw_enter";\n' in text


def test_skeletons_are_written_again(objects: list[Path]) -> None:
    """What a skeleton wrote is replaced; a file of somebody else is not, and nothing is written."""
    arguments = ["skeleton", *map(str, objects), "--lang", "rust", "-o", "src"]
    assert run(arguments) == 0
    assert run(arguments) == 0
    Path("src/counter.rs").write_text("fn mine() {}\n")
    Path("src/counter.amd64.bpf.o").unlink()
    assert run(arguments) == 1
    assert Path("src/counter.rs").read_text() == "fn mine() {}\n"
    assert not Path("src/counter.amd64.bpf.o").exists()


def test_what_is_not_embedded(objects: list[Path], capsys: Capture) -> None:
    """An object that the agent would refuse is refused now, and so are two of one architecture."""
    Path("unsigned.bpf.o").write_bytes(unsigned())
    data = bytearray(objects[0].read_bytes())
    data[data.index(b"GPL\0")] ^= 1
    Path("changed.bpf.o").write_bytes(data)
    Path("copy.bpf.o").write_bytes(objects[0].read_bytes())
    one, other = map(str, objects)
    capsys.readouterr()
    for arguments, code, text in (
        (["unsigned.bpf.o"], 1, "unsigned.bpf.o: not signed"),
        (["changed.bpf.o"], 1, "changed.bpf.o: changed since it was signed"),
        ([one, "copy.bpf.o"], 2, "are both for linux/amd64"),
        (["none.bpf.o"], 1, "none.bpf.o: cannot read"),
        ([one, "--name", "4x"], 2, "--name '4x': not a name in go"),
        ([one, "--name", "type"], 2, "--name 'type': not a name in go"),
        ([one, "--package", "a-b"], 2, "--package 'a-b': not a name in go"),
        ([one, "--lang", "c", "--name", "int"], 2, "--name 'int': not a name in c"),
        ([one, "--lang", "rust", "--name", "fn"], 2, "--name 'fn': not a name in rust"),
        ([one, "--lang", "c", "--package", "agent"], 2, "--package is for --lang go"),
        ([one, "--lang", "rust", "--sigverify", "x/y"], 2, "--sigverify is for --lang go"),
    ):
        assert run(["skeleton", "--lang", "go", *arguments, "-o", "out"]) == code, arguments
        check_error(capsys, text)
    assert not Path("out").exists()
    Path("counter.bpf.c").write_text(Path("counter.bpf.c").read_text().replace("pass_all", "pass_none"))
    assert run(["compile", "--arch", "arm64"]) == 0
    assert run(["sign", other]) == 0
    capsys.readouterr()
    assert run(["skeleton", one, other, "--lang", "go"]) == 2
    check_error(capsys, "has other programs, maps or variables")


@pytest.mark.parametrize("language", ["c", "go", "rust"])
def test_variables_inside_of_functions(objects: list[Path], language: str) -> None:
    """bpf_printk makes one, whose name has a dot: no code names it, so it is in nobody's way."""
    assert b"raw_enter.____fmt" in objects[0].read_bytes()
    assert run(["skeleton", str(objects[0]), "--lang", language, "-o", "out"]) == 0
    assert "____fmt" not in next(path for path in Path("out").iterdir() if path.suffix != ".o").read_text()


@pytest.mark.parametrize(("stem", "language"), [("func", "go"), ("default", "c"), ("4to6", "rust")])
def test_objects_whose_name_is_no_name(
    objects: list[Path], stem: str, language: str, capsys: Capture
) -> None:
    """The message is about the object, and names the option that no such user has given yet."""
    moved = objects[0].rename(f"{stem}.bpf.o")
    assert run(["sign", str(moved), "--arch", "amd64", "--force"]) == 0
    arguments = ["skeleton", str(moved), "--lang", language, "-o", "out"]
    capsys.readouterr()
    assert run(arguments) == 2
    check_error(capsys, f"{moved}: its name gives '{stem}', which is not a name in {language}")
    assert not Path("out").exists()
    assert run([*arguments, "--name", "mine"]) == 0


def test_files_of_types_alone(objects: list[Path], capsys: Capture) -> None:
    """A kernel's types have no program that a skeleton could open."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("needs-kernel-feature: /sys/kernel/btf/vmlinux")
    assert run(["btf", "--arch", "amd64", "--whole", "--output", "types", "/sys/kernel/btf/vmlinux"]) == 0
    (types,) = Path("types").iterdir()
    assert run(["sign", "--arch", "amd64", str(types)]) == 0
    capsys.readouterr()
    assert objects
    assert run(["skeleton", str(types), "--lang", "go", "-o", "out"]) == 2
    check_error(capsys, "holds no program and no map")


@pytest.mark.parametrize(
    ("old", "new", "languages"),
    [
        (b"raw_enter", b'raw"\nnter', ("c", "go", "rust")),
        (b"packet_counts", b"packet\ncounts", ("c", "go", "rust")),
        (b"limit_packets", b"limit`packets", ("c", "go", "rust")),
        (b"packet_key", b"packet{key", ("c", "go", "rust")),
        (b"comm", b"c*/m", ("go", "rust")),
        (b"PASS_IT", b"PASS=IT", ("go", "rust")),
        (b"inner_t", b"inner;t", ("c", "go", "rust")),
    ],
    ids=["program", "map", "variable", "struct", "member", "value", "typedef"],
)
def test_names_that_would_be_code(
    objects: list[Path], old: bytes, new: bytes, languages: tuple[str, ...], capsys: Capture
) -> None:
    """An object may come from anybody: a name that is no name of C goes into no source code."""
    data = objects[0].read_bytes()
    assert old in data
    hostile = Path("hostile.bpf.o")
    hostile.write_bytes(data.replace(old, new))
    assert run(["sign", str(hostile), "--arch", "amd64", "--force"]) == 0
    for language in languages:
        capsys.readouterr()
        assert run(["skeleton", str(hostile), "--lang", language, "-o", "out"]) == 1
        check_error(capsys, "is not a name in C")
    assert not Path("out").exists()


def test_c_needs_bpftool(objects: list[Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the hint names the package."""
    monkeypatch.setenv("PATH", "/nonexistent")
    capsys.readouterr()
    assert run(["skeleton", str(objects[0]), "--lang", "c"]) == 1
    output = capsys.readouterr()
    assert "bpftool: not found" in output.err
    assert "apt install bpftool" in output.err


def test_types_that_double(objects: list[Path], capsys: Capture) -> None:
    """Twenty-four structs of two structs each are sixteen million members, when spelled out."""
    doubled = (f"struct s{n} {{ struct s{n - 1} a, b; }};\n" for n in range(1, 25))
    types = "struct s0 { int a; };\n" + "".join(doubled)
    source = Path("counter.bpf.c")
    text = source.read_text().replace("enum verdict {", f"{types}enum verdict {{", 1)
    source.write_text(text.replace("__type(key, __u32)", "__type(key, struct s24)", 1))
    assert run(["compile", "--arch", "amd64"]) == 0
    assert run(["sign", str(objects[0])]) == 0
    for language in ("go", "rust"):
        capsys.readouterr()
        assert run(["skeleton", str(objects[0]), "--lang", language, "-o", "out"]) == 1
        check_error(capsys, "too many members")
