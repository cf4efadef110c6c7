# SPDX-License-Identifier: Apache-2.0
"""Programs of sections that libbpf does not know: from the configuration to the signed statement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labs.project import make_local_project

from buildtool.cli.main import run
from buildtool.objects.elf import parse_object
from buildtool.signing.statement import read_statement

SOURCE = """#define SEC(name) __attribute__((section(name), used))
SEC("classifier/ingress") int in(void *c) { return 0; }
SEC("?classifier/egress") int out(void *c) { return 0; }
SEC("classifier") int known(void *c) { return 0; }
SEC("socket1") int filter(void *c) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
DECLARED = """
[[compile.program]]
section = "classifier/egress"
loaded-as = "tcx/egress"
[[compile.program]]
section = "classifier/*"
loaded-as = "tcx/ingress"
[[compile.program]]
section = "socket1"
loaded-as = "socket"
"""
EXPECTED = {
    "in": ("classifier/ingress", "sched_cls", "tcx/ingress"),
    "out": ("?classifier/egress", "sched_cls", "tcx/egress"),
    "known": ("classifier", "sched_cls", ""),
    "filter": ("socket1", "socket_filter", "socket"),
}

pytestmark = pytest.mark.tools


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the project, as the working directory, with a key and stand-ins for the parts of an image."""
    root = make_local_project(tmp_path / "parts", monkeypatch)
    (root / "bpf/answer.bpf.c").write_text(SOURCE)
    return root


def declare(root: Path, text: str = DECLARED) -> None:
    """Add *text* to the configuration."""
    config = root / "buildtool.toml"
    config.write_text(config.read_text() + text)


def programs(data: bytes) -> dict[str, tuple[str, str, str]]:
    """Return section, type and declaration of each program in the statement of *data*."""
    statement = read_statement(parse_object(data))
    return {item.name: (item.section, item.type, item.declared) for item in statement.programs}


def test_the_statement_has_what_the_project_declares(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compile record carries the declarations to the signature; inspect and check show the types."""
    path = Path("build/amd64/answer.bpf.o")
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    assert run(["check", str(path), "--json"]) == 1
    found = {(item["rule"], item["program"]) for item in json.loads(capsys.readouterr().out)["findings"]}
    assert {item for item in found if item[0] == "BT005"} == {("BT005", n) for n in ("in", "out", "filter")}
    declare(project)
    assert run(["sign", str(path), "--output", "early"]) == 1
    assert "compile.program has changed" in capsys.readouterr().err
    assert run(["compile", "--arch", "amd64"]) == 0
    Path("away").mkdir()
    for name in (path.name, ".compile.json"):
        Path("away", name).write_bytes((path.parent / name).read_bytes())
    assert run(["sign", str(path)]) == 0
    assert programs(path.read_bytes()) == EXPECTED
    capsys.readouterr()
    assert run(["inspect", str(path)]) == 0
    assert "in  sched_cls  SEC(classifier/ingress)  loaded as tcx/ingress" in capsys.readouterr().out
    assert run(["check", str(path), "--json"]) == 0
    types = {
        item["name"]: item["type"] for item in json.loads(capsys.readouterr().out)["objects"][0]["programs"]
    }
    assert types == {name: kind for name, (_, kind, _) in EXPECTED.items()}
    # A record has the declarations without the project. Another signature keeps them.
    empty = project / "empty.toml"
    empty.write_text('[project]\nname = "demo"\n')
    argv = ["--config", str(empty), "--key", "keys/dev.pem", "--output", "signed"]
    assert run(["sign", f"away/{path.name}", *argv]) == 0
    assert programs(Path("signed", path.name).read_bytes()) == EXPECTED
    assert run(["sign", "--force", f"signed/{path.name}", *argv[:-1], "again"]) == 0
    assert programs(Path("again", path.name).read_bytes()) == EXPECTED


def test_an_object_of_another_compiler_is_declared_when_it_is_signed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a compile record, the configuration alone declares. --add checks the statement."""
    assert run(["compile", "--arch", "amd64"]) == 0
    Path("foreign.o").write_bytes(Path("build/amd64/answer.bpf.o").read_bytes())
    declare(project)
    assert run(["sign", "foreign.o", "--arch", "amd64"]) == 0
    assert programs(Path("foreign.o").read_bytes()) == EXPECTED
    assert run(["keygen", "second"]) == 0
    assert run(["sign", "--add", "foreign.o", "--key", "keys/second.pem"]) == 0, capsys.readouterr().err


def test_images_have_the_capabilities_of_declared_programs(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The embedded engine builds, and the label needs NET_ADMIN for the declared tc programs."""
    source = SOURCE.replace('SEC("classifier") int known', "int known")
    (project / "bpf/answer.bpf.c").write_text(source)
    declare(project)
    archive = tmp_path / "image.tar"
    argv = ["build", "--engine", "local", "--arch", "amd64", "--output", f"type=oci,dest={archive}"]
    assert run(argv) == 0
    said = capsys.readouterr().out
    assert "--cap-add BPF --cap-add NET_ADMIN" in said
    assert "--attach in=INTERFACE --attach filter=none" in said
    assert run(["rebuild", "--check", "--objects-only", str(archive)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('section = "classifier/x"', "table 1: the key loaded-as is missing"),
        ('section = "tc"\nloaded-as = "xdp"', "libbpf loads section tc as sched_cls"),
        ('section = "kprobe/x"\nloaded-as = "xdp"', "libbpf loads section kprobe/x as kprobe"),
        ('section = "a*b"\nloaded-as = "xdp"', "'a*b' is not a section name"),
        ('section = "*"\nloaded-as = "xdp"', "'*' is not a section name"),
        ('section = "?x"\nloaded-as = "xdp"', "'?x' is not a section name"),
        ('section = "x"\nloaded-as = "sched_cls"', "'sched_cls' is not a section of libbpf without a target"),
        ('section = "x"\nloaded-as = "kprobe"', "'kprobe' is not a section of libbpf without a target"),
        ('section = "x"\nloaded-as = "kprobe+"', "'kprobe+' is not a section of libbpf without a target"),
    ],
)
def test_wrong_declarations(
    project: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """One line says what is wrong, and nothing is compiled."""
    declare(project, f"\n[[compile.program]]\n{text}\n")
    assert run(["compile", "--arch", "amd64"]) == 2
    assert message in capsys.readouterr().err
    assert not (project / "build").exists()
