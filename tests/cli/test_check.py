# SPDX-License-Identifier: Apache-2.0
"""`buildtool check` without a kernel: the objects that it finds, its output, and its errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from labs.check import loadable
from labs.sig import sign

from buildtool.check.model import CheckReport, Finding, Level, LoadVerdict, Outcome, ProgramRun, SourceLine
from buildtool.check.reports import junit_report, sarif_report
from buildtool.check.run import _guest_memory
from buildtool.cli.check import markdown
from buildtool.cli.main import cli
from buildtool.core.errors import BuildtoolError, FileAccessError, UsageError
from buildtool.objects.elf import parse_object


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory with an object for amd64 in build/, and make it the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build/amd64").mkdir(parents=True)
    (tmp_path / "build/amd64/x.bpf.o").write_bytes(loadable())
    return tmp_path


def check(*arguments: str) -> Result:
    """Run `buildtool check` and let what is no exit code go on."""
    return CliRunner().invoke(cli, ["check", *arguments], standalone_mode=False, catch_exceptions=False)


def fail(*arguments: str) -> BuildtoolError:
    """Run `buildtool check` and return its error."""
    with pytest.raises(BuildtoolError) as caught:
        check(*arguments)
    return caught.value


def test_the_built_objects_are_checked(project: Path) -> None:
    """Without arguments, objects of build/ARCH are checked. Facts go to stdout, the summary to stderr."""
    result = check("--arch", "amd64")
    assert result.return_value == 0
    assert result.stdout.startswith("amd64/x.bpf.o: ")
    assert result.stderr.startswith("buildtool: 1 object")
    assert result.stderr.endswith(": passed\n")


def test_directories_by_architecture(project: Path) -> None:
    """All architectures in a directory are checked. --arch selects some of them."""
    (project / "build/arm64").mkdir()
    (project / "build/arm64/x.bpf.o").write_bytes(loadable())
    names = [fact["name"] for fact in json.loads(check("build", "--json").stdout)["objects"]]
    assert names == ["amd64/x.bpf.o", "arm64/x.bpf.o"]
    one = json.loads(check("build", "--json", "--arch", "arm64").stdout)["objects"]
    assert [fact["name"] for fact in one] == ["arm64/x.bpf.o"]


def test_a_file_in_such_a_directory(project: Path) -> None:
    """build/amd64/x.bpf.o is for amd64, unless a signature says otherwise."""
    assert check("build/amd64/x.bpf.o").stdout.startswith("amd64/x.bpf.o: ")
    (project / "build/amd64/x.bpf.o").write_bytes(sign(parse_object(loadable()), arch="arm64"))
    assert check("build/amd64/x.bpf.o").stdout.startswith("arm64/x.bpf.o: ")


def test_signed_objects_say_what_they_are_for(project: Path) -> None:
    """The statement's platform decides; asking for another is a mistake that is told."""
    (project / "signed.bpf.o").write_bytes(sign(parse_object(loadable()), arch="arm64"))
    facts = json.loads(check("signed.bpf.o", "--json").stdout)["objects"][0]
    assert (facts["name"], facts["platform"]) == ("arm64/signed.bpf.o", "linux/arm64")
    error = fail("signed.bpf.o", "--arch", "amd64")
    assert isinstance(error, UsageError)
    assert error.message == "signed.bpf.o: compiled for arm64, which --arch does not name"


def test_one_bad_object_hides_no_other(project: Path) -> None:
    """A file that is no object is a finding. The facts of the others are printed, and the check fails."""
    (project / "build/amd64/bad.bpf.o").write_bytes(b"not ELF")
    result = check("build/amd64")
    assert result.return_value == 1
    assert "error BT001 amd64/bad.bpf.o: not an ELF file" in result.stdout
    assert "amd64/x.bpf.o: " in result.stdout
    assert "hint: " in result.stdout


def test_two_objects_of_one_name(project: Path) -> None:
    """Each has its own line, by its path; a file that is named twice is checked once."""
    for directory in ("a", "b"):
        (project / directory).mkdir()
        (project / directory / "x.bpf.o").write_bytes(loadable())
    facts = json.loads(check("a", "b/x.bpf.o", "./b", "--json").stdout)["objects"]
    assert [fact["name"] for fact in facts] == ["a/x.bpf.o", "b/x.bpf.o"]
    one = json.loads(check("build/amd64", "build/amd64/x.bpf.o", "--json").stdout)["objects"]
    assert [fact["name"] for fact in one] == ["amd64/x.bpf.o"]


def test_what_is_compiled_is_checked(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After `compile --arch amd64`, the project's other architectures are named as not checked."""
    toml = '[project]\nname = "x"\n[build]\narch = ["amd64", "arm64", "s390x"]\n'
    (project / "buildtool.toml").write_text(toml)
    (project / "build/arm64").mkdir()
    done = check("--json")
    assert {fact["name"] for fact in json.loads(done.stdout)["objects"]} == {"amd64/x.bpf.o"}
    for name in ("arm64", "s390x"):
        told = f"build/{name}: no objects: {name} is not checked; buildtool compile --arch {name} makes them"
        assert told in caplog.messages
    assert fail("--arch", "amd64", "--arch", "s390x").message == "build/s390x: no such directory"


def test_only_another_architecture_is_compiled(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The objects of arm64 are checked by rules on an amd64 machine, and a line names what is not checked."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (project / "build/amd64").rename(project / "build/arm64")
    done = check("--json")
    assert [fact["name"] for fact in json.loads(done.stdout)["objects"]] == ["arm64/x.bpf.o"]
    assert done.return_value == 0
    told = "build/amd64: no objects: amd64 is not checked; buildtool compile --arch amd64 makes them"
    assert caplog.messages == [told]
    assert fail("--arch", "amd64").message == "build/amd64: no such directory"
    error = fail("--kernel", "host")
    assert error.message == "no object is compiled for amd64"
    assert error.hint is not None
    assert error.hint.endswith("--kernel 6.12 boots a kernel of the objects' own architecture")


def test_a_kernel_that_is_none(project: Path) -> None:
    """A file that is no kernel is an error before a machine boots."""
    (project / "README.md").write_text("# text\n" * 1000)
    error = fail("--arch", "amd64", "--kernel", "README.md")
    assert isinstance(error, FileAccessError)
    assert error.message == "README.md: not a kernel image"
    assert error.hint is not None
    assert "host, 6.1, 6.12, newest" in error.hint


def test_what_the_rules_found_survives_a_missing_kernel(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the rules is printed although no probe can be had for the dry run."""
    (project / "build/amd64/x.bpf.o").write_bytes(loadable().replace(b"GPL\0", b"MIT\0"))
    (project / "probes").mkdir()
    monkeypatch.setattr("buildtool.runtime.probe.find_probe", _no_probe)
    monkeypatch.setattr("buildtool.runtime.probe.make_parts", _no_probe)
    monkeypatch.setattr("buildtool.check.run._may_load", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    done = check("--arch", "amd64", "--kernel", "host", "--oldest", "4.1", "--json")
    rules = [finding["rule"] for finding in json.loads(done.stdout)["findings"]]
    assert "BT050" in rules
    assert "BT102" in rules
    assert done.return_value == 1


def _no_probe(*_: object, **__: object) -> None:
    raise FileAccessError("no compiler")


def test_names_cannot_drive_a_terminal(project: Path) -> None:
    """A name with an escape sequence is printed without it."""
    (project / "\x1b[31mred.bpf.o").write_bytes(b"")
    assert "\x1b" not in check("\x1b[31mred.bpf.o").stdout


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("none.bpf.o",), FileAccessError, "none.bpf.o: cannot read: no such file or directory"),
        (("empty",), UsageError, "empty: no objects"),
        (("fifo.bpf.o",), FileAccessError, "fifo.bpf.o: not a regular file"),
        (("--arch", "s390x"), FileAccessError, "build/s390x: no such directory"),
        (("--arch", "vax"), UsageError, "unknown architecture 'vax'"),
        (("--arch", "amd64", "--markdown"), UsageError, "--markdown requires --kernel"),
        (("--arch", ""), UsageError, "--arch requires a name"),
        (("--arch", "amd64", "--kernel", ","), UsageError, "--kernel requires a name"),
        (("--arch", "amd64", "--sarif", "no/such/x"), FileAccessError, "no/such"),
    ],
    ids=["file", "empty", "fifo", "not-built", "arch", "markdown", "no-arch", "no-kernel", "output"],
)
def test_what_cannot_be_checked(
    project: Path, arguments: tuple[str, ...], kind: type[BuildtoolError], message: str
) -> None:
    """Each error is one line. The hint for a missing object names the command that builds it."""
    (project / "empty").mkdir()
    os.mkfifo(project / "fifo.bpf.o")
    error = fail(*arguments)
    assert type(error) is kind
    assert message in error.message
    if arguments == ("--arch", "s390x"):
        assert error.hint == "buildtool compile --arch s390x makes it"


def test_a_kernel_of_an_architecture_without_objects(project: Path) -> None:
    """Nothing to load is a mistake, not a success; no kernel is looked for."""
    error = fail("build/amd64/x.bpf.o", "build", "--kernel", "6.1", "--arch", "amd64", "--arch", "s390x")
    assert isinstance(error, UsageError)
    assert error.message == "no object is compiled for s390x"


def test_an_oldest_release_that_is_none(project: Path) -> None:
    """A wrong release in --oldest is a usage error."""
    result = CliRunner().invoke(cli, ["check", "--oldest", "new"])
    assert result.exit_code == 2
    assert "not a Linux release" in result.stderr


def test_memory_of_machines() -> None:
    """A machine's memory grows with the maps, in steps, up to a limit of all architectures."""
    sizes = [_guest_memory(mib * 2**20) for mib in (0, 1, 128, 129, 2000)]
    assert sizes == [1024, 1280, 1280, 1536, 3072]


def test_markdown_puts_the_longer_side_down() -> None:
    """Two programs on one kernel are two rows; one program on two kernels is two rows as well."""
    two = CheckReport(objects=(), findings=(), runs=(dry_run("a", "6.1"), dry_run("b", "6.1")))
    assert markdown(two).splitlines() == [
        "| | amd64 6.1.0 |",
        "|---|---:|",
        "| `a` | 7 |",
        "| `b` | 7 |",
    ]
    one = CheckReport(objects=(), findings=(), runs=(dry_run("a", "6.1"), dry_run("a", "6.12")))
    assert markdown(one).splitlines() == [
        "| | `a` |",
        "|---|---:|",
        "| amd64 6.1.0 | 7 |",
        "| amd64 6.12.0 | 7 |",
    ]


def test_names_in_markdown_are_text() -> None:
    """A program's name ends neither its cell nor the code in it."""
    report = CheckReport(objects=(), findings=(), runs=(dry_run("a|b`<i>", "6.1"),))
    assert markdown(report).splitlines()[2:] == ["| <code>a&#124;b&#96;&#60;i&#62;</code> | 7 |"]


def test_reports_carry_what_kernels_write() -> None:
    """Control characters and markup of a log neither break JUnit XML nor SARIF."""
    source = SourceLine(text='a < "b" && c;', file="/abs/x y.c", line=3)
    verdict = LoadVerdict(outcome=Outcome.REFUSED, reason="<&\x01\ud800>", source=source, log="\x1b[0m]]>\0")
    run = dry_run("p<rogram", "6.1", verdict)
    finding = Finding(
        rule="BT100",
        level=Level.ERROR,
        object="x",
        program="p",
        message="<&\x01>",
        hint="h",
        source=source,
    )
    report = CheckReport(objects=(), findings=(finding,), runs=(run,))
    failure = ET.fromstring(junit_report(report)).find("testsuite/testcase/failure")  # noqa: S314 - ours
    assert failure is not None
    assert failure.attrib["message"] == "<&\ufffd\ufffd>"
    result = json.loads(sarif_report(report))["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "file:///abs/x%20y.c"
    assert place["region"]["startLine"] == 3


def dry_run(program: str, kernel: str, verdict: LoadVerdict | None = None) -> ProgramRun:
    """Return a dry run of *program* on *kernel*, which loads it by default."""
    return ProgramRun(
        object="x.bpf.o",
        path="build/amd64/x.bpf.o",
        program=program,
        section="xdp",
        kernel=kernel,
        release=f"{kernel}.0-1-cloud-amd64",
        arch="amd64",
        duration_us=1,
        verdict=verdict or LoadVerdict(outcome=Outcome.LOADS, instructions=7),
    )
