# SPDX-License-Identifier: Apache-2.0
"""`init --from`: the readers of build files, and projects that nobody has checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from labs.adopting import program

from buildtool.adopt import tree as tree_module
from buildtool.adopt.csource import find_includes, find_programs
from buildtool.adopt.makefile import Makefile
from buildtool.adopt.model import ARCH, UNKNOWN, Found, Recipe
from buildtool.adopt.patterns import name_sources, object_paths
from buildtool.adopt.settings import read_settings
from buildtool.adopt.survey import Survey, survey_project
from buildtool.adopt.tree import Tree
from buildtool.adopt.words import compiles_bpf, split_commands, split_words
from buildtool.core.errors import BuildtoolError, FileAccessError

SOURCE = program("x")


def _write(root: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def _make(root: Path, text: str) -> Makefile:
    _write(root, Makefile=text)
    made = Makefile(tree=Tree(root), directory="")
    made.read("Makefile")
    return made


def _survey(root: Path, makefile: str = "", **more: str) -> Survey:
    return survey_project(_write(root, bpf__x_DOT_bpf_DOT_c=SOURCE, Makefile=makefile, **more))


# -- make


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("X = a\nX += b", "a b"),
        ("Y = 1\nX = $(Y)\nY = 2", "2"),
        ("Y = 1\nX := $(Y)\nY = 2", "1"),
        ("X ?= a\nX ?= b", "a"),
        ("X = one \\\n  two", "one two"),
        ("X = a # comment", "a "),
        ("S = a.c b.c\nX = $(S:.c=.o)", "a.o b.o"),
        ("S = a.c b.h\nX = $(patsubst %.c,out/%.o,$(filter %.c,$(S)))", "out/a.o"),
        ("X = $(if $(Z),a,b)", "b"),
        ("X = $(addprefix -I,a b)", "-Ia -Ib"),
        ("X = $(dir a/b) $(notdir a/b) $(basename a.c)", "a/ b a"),
        ("X = $(subst a,b,aca)", "bcb"),
        ("X = $(shell cat secret)", UNKNOWN),
        ("X != cat secret", UNKNOWN),
        ("X = $(word 2,a b c)", UNKNOWN),
        ("ARCH := $(shell uname -m)\nX = -I$(ARCH)", f"-I{ARCH}"),
        ("M = $(shell uname -m | sed s/x86_64/x86/)\nX = $M$(M)", f"{ARCH}{ARCH}"),
        ("ifeq ($(V),1)\nX = loud\nelse\nX = quiet\nendif", "quiet"),
        ("V = 1\nifeq ($(V),1)\nX = loud\nelse ifeq ($(V),2)\nX = two\nelse\nX = quiet\nendif", "loud"),
        ("V = 2\nifeq ($(V),1)\nX = loud\nelse ifeq ($(V),2)\nX = two\nelse\nX = quiet\nendif", "two"),
        ("ifdef V\nX = a\nendif\nifndef V\nX = b\nendif", "b"),
        ("define X\n\tignored\nendef\nX ?= b", "b"),
        ("X = $(X)", UNKNOWN),
        ("X = $$HOME", "$HOME"),
        ("X = $(wildcard *.mk) $(wildcard none*)", " "),
        ("export X := a", "a"),
    ],
)
def test_make_variables(tmp_path: Path, text: str, value: str) -> None:
    """The subset of make has make's values, and no value where only a shell would tell."""
    assert _make(tmp_path, text + "\n").expand("$(X)").strip() == value.strip()


def test_a_makefile_includes_others(tmp_path: Path) -> None:
    """Included files set variables in the directory of the Makefile, and a loop of includes ends."""
    _write(tmp_path, lib__flags_DOT_mk="FLAGS = -DSHARED\ninclude lib/flags.mk\n")
    assert _make(tmp_path, "L = lib\ninclude $(L)/flags.mk\n").expand("$(FLAGS)") == "-DSHARED"


def test_doubling_variables_end(tmp_path: Path) -> None:
    """2^60 expansions of nothing are not made."""
    lines = "".join(f"V{at} = $(V{at + 1})$(V{at + 1})\n" for at in range(60))
    assert UNKNOWN in _make(tmp_path, lines + "V60 =\n").expand("$(V0)")
    deep = "$(A" * 500 + ")" * 500
    assert _make(tmp_path, f"X = {deep}\n").expand("$(X)") in ("", UNKNOWN)


@pytest.mark.parametrize(
    ("makefile", "flags", "include"),
    [
        ("%.o: %.c\n\tclang -target bpf -DA=1 -Ibpf -c $< -o $@\n", ["-DA=1"], []),
        ("C = clang\n%.o: %.c\n\t@$(C) --target=bpfel -D B -c $< -o $@\n", ["-DB"], []),
        ("%.o: %.c\n\tgcc -DUSER -c $< -o $@\n", [], []),
        ("%.o: %.c\n\tclang -DB -emit-llvm -c $< -o - | llc -march=bpf -filetype=obj -o $@\n", ["-DB"], []),
        ('%.o: %.c\n\tclang -target bpf -DNAME=\\"a\\ b\\" -c $<\n', ['-DNAME="a b"'], []),
        ("%.o: %.c\n\tcd x && clang -target bpf -O2 -g -Werror -mcpu=v2 -c $<; strip\n", ["-mcpu=v2"], []),
    ],
)
def test_rules_that_compile(tmp_path: Path, makefile: str, flags: list[str], include: list[str]) -> None:
    """Only commands for eBPF count; flags that are always on are left out."""
    source = SOURCE + "int used[] = { sizeof(A) + sizeof(B) + sizeof(NAME) + sizeof(USER) };\n"
    made = _survey(tmp_path, makefile, bpf__y_DOT_bpf_DOT_c=source)
    assert (made.flags, made.include) == (flags, include)


@pytest.mark.parametrize(
    ("word", "note"),
    [
        ("-include bpf/all.h", "-include bpf/all.h: write #include in the source"),
        ("-fplugin=x.so", "-fplugin=x.so: left out: reads or writes other files"),
        ("-DA=$(shell date)", "-DA=…: left out: its value is known only when make runs"),
        ('-I../a"b', ""),
    ],
)
def test_what_a_rule_does_not_tell_is_a_note(tmp_path: Path, word: str, note: str) -> None:
    """Each note begins with the file and line of the rule."""
    made = _survey(tmp_path, f"X = 1\nbpf/x.bpf.o: bpf/x.bpf.c\n\tclang -target bpf {word} -c $<\n")
    assert [str(each) for each in made.notes if note and each.place == "Makefile:2"] == (
        [f"Makefile:2: {note}" + (", or in a header of its own" if "#include" in note else "")]
        if note
        else []
    )


def test_an_unknown_condition_about_flags_is_a_note(tmp_path: Path) -> None:
    """A condition that only a shell tells counts as false, and the line says so."""
    made = _survey(
        tmp_path,
        "ifeq ($(shell cat /etc/release),9)\nCFLAGS += -DNINE\nOTHER = 1\nendif\n"
        "%.o: %.c\n\tclang -target bpf $(CFLAGS) -c $<\n",
    )
    (note,) = made.notes
    assert str(note).startswith("Makefile: ifeq ($(shell cat /etc/release),9): taken as false")


# -- words


def test_commands_and_words() -> None:
    """Separators inside quotes do not separate; quotes that do not fit leave blanks."""
    assert split_commands("a 'b;c' && d | e") == ["a 'b;c'", "d", "e"]
    assert split_words("a 'b c") == ("a", "'b", "c")
    assert compiles_bpf(["clang", "-c", "-target", "bpf"], "")
    assert not compiles_bpf(["clang", "-c", "-target", "x86_64-linux-gnu"], "")
    assert not compiles_bpf(["bpftool", "-target", "bpf"], "")


def test_settings_of_words() -> None:
    """Directories are relative to the project; those of the system and of products are left out."""
    words = ["-I", "../inc", "-I/usr/include", f"-I{UNKNOWN}/gen", f"-Iarch/{ARCH}", "-isystem", "sys", "-I."]
    found = Found()
    got = read_settings(Recipe(place="x:1", directory="a/b", words=tuple(words)), found)
    assert got.include == ("a/inc", f"a/b/arch/{ARCH}", "a/b/sys", "a/b")
    assert not found.notes


# -- sources


def test_sources_by_contents(tmp_path: Path) -> None:
    """Programs count, and neither user space nor comments nor files that a source includes."""
    _write(
        tmp_path,
        a_DOT_c=SOURCE,
        part_DOT_c='SEC("xdp") int part(void *c) { return 2; }\n',
        whole_DOT_c='#include "part.c"\nchar LICENSE[] SEC("license") = "GPL";\n',
        user_DOT_c='#include <bpf/libbpf.h>\n/* SEC("xdp") */\nint main(void) { return 0; }\n',
        text_DOT_c='// SEC("xdp")\nint x;\n',
        vendor__v_DOT_c=SOURCE,
        sub__s_DOT_c=SOURCE,
        _DOT_gitmodules='[submodule "s"]\n\tpath = sub\n',
    )
    assert find_programs(Tree(tmp_path), set()) == ["a.c", "whole.c"]


def test_includes_know_conditions(tmp_path: Path) -> None:
    """The guard around a header is no condition."""
    _write(
        tmp_path,
        h_DOT_h='#ifndef H\n#define H\n#include "a.h"\n#ifdef X\n# include <b.h>\n#endif\n'
        "#include MACRO\n#endif\n",
    )
    found = find_includes(Tree(tmp_path), "h.h")
    assert [(each.name, each.line, each.quotes, each.conditional) for each in found] == [
        ("a.h", 3, True, False),
        ("b.h", 5, False, True),
    ]


@pytest.mark.parametrize(
    ("sources", "others", "patterns", "exclude"),
    [
        (["a/x.bpf.c", "a/y.bpf.c"], ["a/x.c"], ["a/*.bpf.c"], []),
        (["a/x.bpf.c", "a/b/y.bpf.c"], [], ["a/**/*.bpf.c"], []),
        (["a/x.bpf.c", "a/b/y.bpf.c"], ["a/t/z.bpf.c"], ["a/**/*.bpf.c"], ["a/t/**"]),
        (["x.c"], ["y.c"], ["x.c"], []),
        (["a/x.bpf.c", "a/y.bpf.c", "a/z.c"], ["a/u.c"], ["a/*.bpf.c", "a/z.c"], []),
    ],
)
def test_patterns_match_the_sources_alone(
    sources: list[str], others: list[str], patterns: list[str], exclude: list[str]
) -> None:
    """One pattern for a folder, and few exclusions."""
    assert name_sources(sources, [*sources, *others]) == (patterns, exclude)


def test_equal_base_names_keep_folders() -> None:
    """Objects of equal base names have different names, whatever the other files are."""
    sources = [f"p/{name}/main.c" for name in ("one", "two")] + ["p/one/other.c"]
    others = [f"p/{name}/user{at}.c" for name in ("one", "two") for at in range(9)]
    patterns, _ = name_sources(sources, [*sources, *others])
    paths = object_paths(patterns, sources)
    assert len({path.replace("/", ".") for path in paths.values()}) == 3, (patterns, paths)


# -- projects that nobody has checked


def test_links_and_special_files_are_no_trap(tmp_path: Path) -> None:
    """Loops of links, links out of the project, FIFOs and unreadable names end, and are left out."""
    root = _write(tmp_path / "project", bpf__x_DOT_bpf_DOT_c=SOURCE)
    (tmp_path / "outside.bpf.c").write_text(SOURCE)
    (root / "loop").symlink_to(root)
    (root / "self.c").symlink_to("self.c")
    (root / "bpf/out.bpf.c").symlink_to(tmp_path / "outside.bpf.c")
    (root / "bpf/in.bpf.c").symlink_to("x.bpf.c")
    os.mkfifo(root / "Makefile")
    (root / os.fsdecode(b"name\xff.bpf.c")).write_text(SOURCE)
    made = survey_project(root)
    assert made.files == ["bpf/in.bpf.c", "bpf/x.bpf.c"]


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe" + "x := 1\n".encode("utf-16-le"), b"\xe9\xe8 = 1\r\nx := 2\r\n", b"\x00\x01\x02", b""],
)
def test_foreign_encodings(tmp_path: Path, data: bytes) -> None:
    """Build files of any bytes are read, and change nothing else."""
    _write(
        tmp_path, Makefile=data, CMakeLists_DOT_txt=data + b"bpf(", meson_DOT_build=data + b"custom_target("
    )
    _write(tmp_path, build_DOT_rs=data + b"SkeletonBuilder", x_DOT_go=data + b"\n//go:generate bpf2go\n")
    made = _survey(tmp_path, "")
    assert made.files == ["bpf/x.bpf.c"]


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files, and many bytes, end with a note or an error."""
    _write(tmp_path, **{f"f{at}": "x" for at in range(30)}, a_DOT_bpf_DOT_c=SOURCE)
    monkeypatch.setattr(tree_module, "MAX_ENTRIES", 10)
    assert not Tree(tmp_path).is_complete
    assert any("more than" in str(note) for note in survey_project(tmp_path).notes)
    monkeypatch.setattr(tree_module, "MAX_ENTRIES", 100)
    monkeypatch.setattr(tree_module, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(BuildtoolError, match="more than 100 bytes of sources"):
        survey_project(tmp_path)
    with pytest.raises(FileAccessError, match="not a directory"):
        survey_project(tmp_path / "nowhere")


def test_projects_without_sources_are_explained(tmp_path: Path) -> None:
    """BCC scripts, programs in Rust, and nothing at all each have a line of their own."""
    assert "no eBPF source" in str(survey_project(_write(tmp_path / "a", readme="x")).notes)
    script = "from bcc import BPF\nBPF(text='int x;')\n"
    assert "BCC compiles at run time" in str(survey_project(_write(tmp_path / "b", x_DOT_py=script)).notes)
    cargo = '[dependencies]\naya-ebpf = "0.1"\n'
    assert "programs in Rust (aya)" in str(survey_project(_write(tmp_path / "c", Cargo_DOT_toml=cargo)).notes)


def test_a_header_template_is_named(tmp_path: Path) -> None:
    """A header that a configuration step makes has a line with its template."""
    made = _survey(
        tmp_path, bpf__y_DOT_bpf_DOT_c='#include "config.h"\n' + SOURCE, cmake__config_DOT_h_DOT_in="x\n"
    )
    assert "bpf/y.bpf.c:1: config.h: made of cmake/config.h.in; configure the project" in str(made.notes[0])
