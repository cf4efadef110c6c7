# SPDX-License-Identifier: Apache-2.0
"""`inspect`: what an object carries, and no claim of trust."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
from pathlib import Path

import pytest
from labs.image import BASE, make_base
from labs.sig import other_key, sign, unsigned, vector
from labs.sig import test_key as alice
from labs.vectors.builder import build
from labs.vectors.maps import LINK, Btf, ops, pinned, with_maps

from buildtool.cli.main import run
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import write_archive, write_directory

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.bpf.o").write_bytes(sign())
    Path("unsigned.bpf.o").write_bytes(unsigned())
    Path("bad.bpf.o").write_bytes(vector("record-padding"))
    Path("alice.pub").write_bytes(alice().public.pem)
    Path("other.pub").write_bytes(other_key().public.pem)


def test_table_does_not_claim_trust(capsys: Capture) -> None:
    """Without a trust store, the output states that signatures were not checked."""
    assert run(["inspect", "x.bpf.o"]) == 0
    output = capsys.readouterr().out
    assert f"signer      {alice().key_id}" in output
    assert "signatures  not checked" in output
    assert "accepted" not in output
    assert "  digest    this file's" in output


def test_trust_gives_a_verdict(capsys: Capture) -> None:
    """Accepted or refused, exit code 0: showing it was the job."""
    assert run(["inspect", "x.bpf.o", "--trust", "alice.pub"]) == 0
    assert f"accepted    by key {alice().key_id}" in capsys.readouterr().out
    assert run(["inspect", "x.bpf.o", "--trust", "other.pub"]) == 0
    assert "refused     unknown-key: " in capsys.readouterr().out
    for name, words in {
        "unsigned.bpf.o": "none\nrefused     unsigned: ",
        "bad.bpf.o": "none that can be read\nrefused     malformed: ",
    }.items():
        assert run(["inspect", name, "--trust", "alice.pub"]) == 0
        assert f"signatures  {words}" in capsys.readouterr().out


def test_capabilities(capsys: Capture) -> None:
    """A line for each program, then what goes to docker run; --json has the same."""
    assert run(["inspect", "unsigned.bpf.o", "--capabilities"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""  # only an image has targets that could be missing
    assert lines[-1].startswith("--cap-drop ALL --cap-add BPF")
    assert run(["inspect", "unsigned.bpf.o", "--capabilities", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert " ".join(value["runOptions"]) == lines[-1]
    assert len(value["programs"]) == len(lines) - 1
    assert value["capabilities"][0] == "BPF"
    Path("text.bpf.o").write_text("text")
    assert run(["inspect", "text.bpf.o", "--capabilities"]) == 1
    assert capsys.readouterr().err.startswith("buildtool: error: text.bpf.o: not an ELF file\n")


def test_json(capsys: Capture) -> None:
    """The statement as it was signed, the envelope and the contents."""
    assert run(["inspect", "x.bpf.o", "--json", "--trust", "alice.pub"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["statement"]["subject"][0]["digest"]["sha256"] == value["sha256"]
    assert value["signers"] == [alice().key_id]
    assert value["envelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert value["verification"]["decision"] == "accepted"


def test_helpers_have_names(capsys: Capture) -> None:
    """People read bpf_map_lookup_elem; machines get the numbers of the statement, and the names."""
    Path("code.bpf.o").write_bytes(vector("code-helper-allowed"))
    names = ["bpf_map_lookup_elem", "bpf_ktime_get_ns"]
    assert run(["inspect", "code.bpf.o"]) == 0
    assert f"helpers     {' '.join(names)}" in capsys.readouterr().out.splitlines()
    assert run(["inspect", "code.bpf.o", "--json"]) == 0
    contents = json.loads(capsys.readouterr().out)["contents"]
    assert (contents["helpers"], contents["helperNames"]) == ([1, 5], names)


def test_envelope_and_subject_file(capsys: Capture) -> None:
    """The pair for standard verifiers; an existing file is kept."""
    assert run(["inspect", "x.bpf.o", "--envelope", "--subject-file", "subject"]) == 0
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["signatures"][0]["keyid"] == alice().key_id
    digest = hashlib.sha256(Path("subject").read_bytes()).hexdigest()
    assert run(["inspect", "x.bpf.o", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == digest
    assert run(["inspect", "x.bpf.o", "--subject-file", "subject"]) == 1
    assert "subject: already exists" in capsys.readouterr().err


def test_unsigned_and_malformed_are_shown(capsys: Capture) -> None:
    """The readable parts of unsigned and malformed objects are shown."""
    assert run(["inspect", "unsigned.bpf.o"]) == 0
    assert "signatures  none\n" in capsys.readouterr().out
    assert run(["inspect", "bad.bpf.o"]) == 0
    output = capsys.readouterr().out
    assert "malformed   signature record: padding not zero" in output
    assert "signatures  none that can be read" in output


@pytest.mark.parametrize("flag", [["--envelope"], ["--subject-file", "subject"]])
def test_nothing_is_exported_of_an_unsigned_object(flag: list[str], capsys: Capture) -> None:
    """One line, exit code 1, no file."""
    assert run(["inspect", "unsigned.bpf.o", *flag]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "unsigned.bpf.o: not signed" in output.err
    assert not Path("subject").exists()


def test_control_characters_do_not_reach_the_terminal(capsys: Capture) -> None:
    """Names in an unverified file cannot send control characters to the terminal."""
    data = bytearray(unsigned())
    at = data.index(b"GPL\0")
    data[at : at + 3] = b"\x1b[2"
    Path("evil.bpf.o").write_bytes(data)
    assert run(["inspect", "evil.bpf.o"]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "license     \\x1b[2" in output


LOADER = (
    "/sbin/tini",
    "-g",
    "--",
    "/usr/bin/verify-and-load",
    "--image-attach",
    "count=eth0",
    "--image-load",
    "probe",
)
ENTRYPOINT = (*LOADER, "--image-workload", "/app", "--image-workload", "two words")


def write_images(objects: dict[str, bytes], architectures: tuple[str, ...] = ("amd64", "arm64")) -> None:
    """Write image.tar and directory image, of an image with *objects*."""
    files = [TarEntry(path=f"usr/lib/buildtool/objects/{name}", data=data) for name, data in objects.items()]
    images = make_base([*BASE, *files], architectures, ENTRYPOINT)
    write_archive(Path("image.tar"), images, "agent:1")
    write_directory(Path("image"), images, "agent:1")


@pytest.mark.parametrize("target", ["image.tar", "image", "oci-layout://image", "./image.tar"])
def test_an_image_in_a_file(capsys: Capture, target: str) -> None:
    """An archive or a layout that build wrote shows what the image of an engine shows; no engine is asked."""
    write_images({"x.bpf.o": sign(), "bad.bpf.o": b"text"})
    assert run(["inspect", target, "--trust", "alice.pub"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("platform    linux/amd64") == lines.count("platform    linux/arm64") == 1
    assert lines.count(f"accepted    by key {alice().key_id}") == 2
    assert lines.count("object      bad.bpf.o: not an ELF file") == 2
    assert run(["inspect", target, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [image["platform"] for image in value] == ["linux/amd64", "linux/arm64"]
    assert value[0]["objects"][1]["signers"] == [alice().key_id]
    assert value[0]["labels"] == {"org.example.base": "yes"}
    assert (value[0]["attach"], value[0]["workload"]) == (["count=eth0"], ["/app", "two words"])
    assert (value[0]["load"], lines.count("load        probe")) == (["probe"], 2)
    assert lines.count("attach      count to eth0") == lines.count("workload    /app 'two words'") == 2


def test_an_image_of_one_platform_is_one_value(capsys: Capture) -> None:
    """As for the image of an engine; its capabilities are those of its objects."""
    write_images({"x.bpf.o": sign()}, ("amd64",))
    assert run(["inspect", "image.tar", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["platform"] == "linux/amd64"
    for target in ("image.tar", "x.bpf.o"):
        assert run(["inspect", target, "--capabilities"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert lines[-1].startswith("--cap-drop ALL")


@pytest.mark.parametrize(
    ("target", "code", "message", "hint"),
    [
        (["nothere"], 1, "nothere: no such file, and no Docker engine answers: ", "start the engine"),
        (["empty.tar"], 1, "empty.tar: no objects in /usr/lib/buildtool/objects", "buildtool build"),
        (["image.tar.gz"], 1, "image.tar.gz: compressed with gzip", "gunzip --keep image.tar.gz"),
        (
            ["cut.tar"],
            1,
            "cut.tar: not an image archive (tar), or damaged: damaged header",
            "buildtool build",
        ),
        (["other.tar"], 1, "other.tar: not an OCI archive: it has no index.json", "buildtool build"),
        (["alice.pub"], 1, "alice.pub: not an ELF file", "buildtool compile"),
        (
            ["dir"],
            1,
            "dir: a directory, neither an object nor an OCI layout",
            "name one object: dir/NAME.bpf.o",
        ),
        (["image.tar", "--envelope"], 2, "--envelope requires an object, and image.tar is none", ".bpf.o"),
        (
            ["nothere", "--subject-file", "s"],
            2,
            "--subject-file requires an object, and nothere is",
            ".bpf.o",
        ),
    ],
)
def test_what_is_neither_object_nor_image(
    capsys: Capture, target: list[str], code: int, message: str, hint: str
) -> None:
    """The line says what it is, the hint what inspect takes."""
    write_images({"x.bpf.o": sign()})
    write_archive(Path("empty.tar"), make_base(), "base:1")
    Path("image.tar.gz").write_bytes(gzip.compress(Path("image.tar").read_bytes()))
    Path("cut.tar").write_bytes(Path("image.tar").read_bytes()[:1400])
    Path("other.tar").write_bytes(pack_tar([TarEntry(path="x", data=b"y")]))
    Path("dir").mkdir()
    assert run(["inspect", *target]) == code
    error, advice = capsys.readouterr().err.splitlines()
    assert error.startswith(f"buildtool: error: {message}")
    assert hint in advice


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gone.bpf.o", "gone.bpf.o: cannot read: no such file"),
        ("alice.pub", "alice.pub: not an ELF file"),
        (".", ".: a directory, neither an object nor an OCI layout"),
        ("no/such/image:1", "no/such/image:1: no such file, and no Docker engine answers: unix:"),
    ],
)
def test_bad_input_is_one_line(
    target: str, message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without an engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    assert run(["inspect", target]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[0]
    assert len(output.err.splitlines()) <= 2
    gc.collect()  # a socket that was left open would be a warning here, which is an error


def test_maps_that_act_beyond_the_object(capsys: Capture) -> None:
    """A struct_ops map and a pin by name show their attach points, in `inspect` and in `check`."""
    Path("ops.bpf.o").write_bytes(build(with_maps(ops(pinned(Btf())), LINK, b".maps")))
    assert run(["inspect", "ops.bpf.o"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("map ")]
    assert rows[0].endswith("  attach point pin/counts")
    assert rows[1].startswith("map         ops  struct_ops  key 4  value 0  entries 1")
    assert rows[1].endswith("  SEC(.struct_ops.link)  attach point struct_ops/sched_ext_ops")
    assert run(["inspect", "ops.bpf.o", "--json"]) == 0
    counts, maps = json.loads(capsys.readouterr().out)["contents"]["maps"]
    assert (maps["section"], maps["struct"], maps["pinned"]) == (".struct_ops.link", "sched_ext_ops", False)
    assert (counts["section"], counts["struct"], counts["pinned"]) == ("", "", True)
    run(["check", "ops.bpf.o"])
    assert "  attach points of maps: pin/counts struct_ops/sched_ext_ops\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--capabilities", "--trust"],
        ["--capabilities", "--envelope"],
        ["--capabilities", "--subject-file"],
        ["--envelope", "--trust"],
        ["--subject-file", "--trust"],
        ["--subject-file", "--json"],
    ],
)
def test_options_without_effect_are_refused(capsys: Capture, options: list[str]) -> None:
    """An option that another one would leave without effect ends the command, and nothing is written."""
    Path("x.bpf.o").write_bytes(sign())
    values = {"--trust": "--trust=alice.pub", "--subject-file": "--subject-file=subject"}
    assert run(["inspect", "x.bpf.o", *(values.get(option, option) for option in options)]) == 2
    first, second = options
    assert capsys.readouterr().err.splitlines() == [
        f"buildtool: error: {first} cannot be combined with {second}",
        f"buildtool: hint: run inspect once with {first}, and once with {second}",
    ]
    assert not Path("subject").exists()
