# SPDX-License-Identifier: Apache-2.0
"""Refusals of the loader: reason and exit code, and nothing is loaded."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from labs.handsig import Key, append_section, policy, sign
from labs.loader import PREFIX, Lab

pytestmark = pytest.mark.usefixtures("nothing_left")

REASONS = Path(__file__).resolve().parents[2] / "docs/reference/reasons.md"
ORDER = 2**252 + 27742317777372353535851937790883648493


def flip(data: bytes, offset: int) -> bytes:
    """Return *data* with one bit of one byte changed."""
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


Case = tuple[str, Callable[[Lab], bytes], Callable[[Lab], str] | None]

CASES: dict[str, Case] = {
    "unsigned": ("unsigned", lambda lab: lab.object("raw_tp"), None),
    "not elf": ("malformed", lambda _: b"#!/bin/sh\n", None),
    "empty": ("malformed", lambda _: b"", None),
    "truncated": ("malformed", lambda lab: lab.signed("raw_tp")[:-1], None),
    "one byte more": ("malformed", lambda lab: lab.signed("raw_tp") + b"\0", None),
    "two records": ("malformed", lambda lab: append_section(lab.signed("raw_tp"), bytes(1024))[0], None),
    "zero record": ("malformed", lambda lab: append_section(lab.object("raw_tp"), bytes(1024))[0], None),
    "unknown member": ("malformed", lambda lab: lab.signed("raw_tp", extra=1), None),
    "version is real": ("malformed", lambda lab: lab.signed("raw_tp", version=1.0), None),
    "stranger": ("unknown-key", lambda lab: sign(lab.object("raw_tp"), [Key()]), None),
    "code changed": ("digest-mismatch", lambda lab: flip(lab.signed("raw_tp"), 0x48), None),
    "statement changed": (
        "bad-signature",
        lambda lab: lab.signed("raw_tp").replace(b'"release":"1.0"', b'"release":"1.1"'),
        None,
    ),
    "other platform": ("wrong-platform", lambda lab: lab.signed("raw_tp", platform="linux/arm64"), None),
    "expired": ("expired", lambda lab: lab.signed("raw_tp", notAfter="2026-01-02T00:00:00Z"), None),
    "expired key": (
        "expired",
        lambda lab: lab.signed("raw_tp"),
        lambda lab: policy((lab.key, {"notAfter": "2026-01-02T00:00:00Z"})),
    ),
    "future key": (
        "not-yet-valid",
        lambda lab: lab.signed("raw_tp"),
        lambda lab: policy((lab.key, {"notBefore": "2126-01-02T00:00:00Z"})),
    ),
    "revoked": (
        "revoked",
        lambda lab: lab.signed("raw_tp"),
        lambda lab: policy((lab.key, {"revoked": True})),
    ),
    "one of two": (
        "below-threshold",
        lambda lab: lab.signed("raw_tp"),
        lambda lab: policy(lab.key, threshold=2),
    ),
    "rolled back": (
        "rolled-back",
        lambda lab: lab.signed("raw_tp", version=4),
        lambda lab: policy(lab.key, objects={"raw_tp.bpf.o": {"minimumVersion": 5}}),
    ),
    "other project": (
        "denied-by-policy",
        lambda lab: lab.signed("raw_tp"),
        lambda lab: policy(lab.key, project="another"),
    ),
    "denied type": (
        "denied-by-policy",
        lambda lab: lab.signed("xdp", programs=[{"name": "x", "section": "xdp", "type": "xdp"}]),
        lambda lab: policy(lab.key, programTypes=["tracepoint"]),
    ),
    "large": ("too-large", lambda lab: lab.signed("raw_tp"), lambda lab: policy(lab.key, maxObjectBytes=99)),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(lab: Lab, tmp_path: Path, name: str) -> None:
    """Each bad object is refused with its reason, and a workload does not start."""
    reason, make, store = CASES[name]
    objects = lab.put(tmp_path, "xdp")
    (objects / "raw_tp.bpf.o").write_bytes(make(lab))
    (objects / "xdp.bpf.o").unlink()
    if store:
        (tmp_path / "trust/policy.json").write_text(store(lab))
    for arguments in (["--verify-only"], ["--", "echo", "started"]):
        result = lab.run(tmp_path, *arguments)
        assert (result.code, result.reasons) == (3, [reason]), result.lines
        assert result.stdout == ""
        assert result.events("load") == []


def test_good_object_beside_a_bad_one(lab: Lab, tmp_path: Path) -> None:
    """One bad object of two: each has a decision, and neither is loaded."""
    objects = lab.put(tmp_path, "raw_tp")
    (objects / "bad.bpf.o").write_bytes(lab.object("xdp"))
    result = lab.run(tmp_path, "--", "echo", "started")
    assert result.code == 3
    assert [line["decision"] for line in result.events("verify")] == ["refused", "accepted"]
    assert result.events("refuse")[0]["message"] == (
        "1 of 2 objects refused, none loaded: bad.bpf.o: unsigned: no section .sig;"
        " buildtool sign OBJECT signs it"
    )
    assert result.events("load") == []
    assert result.stdout == ""


def test_accepted_line_says_what_and_who(lab: Lab, tmp_path: Path) -> None:
    """The line of an accepted object has digest, keys, policy and platform."""
    second = Key()
    objects = lab.put(tmp_path)
    signed = sign(lab.object("raw_tp"), [lab.key, second, Key()])
    (objects / "raw_tp.bpf.o").write_bytes(signed)
    (tmp_path / "trust/policy.json").write_text(policy(lab.key, second, threshold=2))
    result = lab.run(tmp_path, "--verify-only")
    (line,) = result.events("verify")
    assert result.code == 0, line
    assert line["decision"] == "accepted"
    assert line["keyIds"] == sorted([lab.key.id.hex(), second.id.hex()])
    assert line["platform"] == "linux/amd64"
    assert len(line["digest"]) == len(line["policy"]) == 64
    assert "reason" not in line
    assert line["durationUs"] > 0


def test_every_bit_of_the_record_and_every_hundredth_of_the_rest(lab: Lab, tmp_path: Path) -> None:
    """A flipped bit is refused in the record's header and at every 97th byte of the file."""
    objects = lab.put(tmp_path, "raw_tp")
    path = objects / "raw_tp.bpf.o"
    good = path.read_bytes()
    start = good.index(b"\x7fBPFSIG")
    # A set: an offset in both ranges has one file.
    offsets = sorted({*range(start, start + 32), *range(0, len(good), 97)})
    path.unlink()
    for chunk in range(0, len(offsets), 200):
        for offset in offsets[chunk : chunk + 200]:
            (objects / f"{offset}.o").write_bytes(flip(good, offset))
        result = lab.run(tmp_path, "--verify-only")
        assert result.code == 3
        assert len(result.reasons) == len(offsets[chunk : chunk + 200])
        for file in objects.iterdir():
            file.unlink()


def test_non_canonical_s_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A signature with S + L satisfies the equation and is refused as not canonical."""
    objects = lab.put(tmp_path, "raw_tp")
    path = objects / "raw_tp.bpf.o"
    data = path.read_bytes()
    at = data.index(lab.key.id) + 64
    scalar = int.from_bytes(data[at : at + 32], "little") + ORDER
    path.write_bytes(data[:at] + scalar.to_bytes(32, "little") + data[at + 32 :])
    assert lab.run(tmp_path, "--verify-only").reasons == ["bad-signature"]


def test_one_key_and_one_object_as_files(lab: Lab, tmp_path: Path) -> None:
    """--trust accepts a .pub file or a policy of any name, --objects one object."""
    lab.put(tmp_path, "raw_tp")
    (tmp_path / "rules").write_text(policy(lab.key))
    for store in ("trust/dev.pub", "rules"):
        arguments = ["--objects", str(tmp_path / "objects/raw_tp.bpf.o"), "--trust", str(tmp_path / store)]
        result = lab.run(tmp_path, "--verify-only", *arguments)
        assert result.code == 0, result.lines
        assert result.events("verify")[0]["object"] == "raw_tp.bpf.o"


def test_strange_entries_are_refused_at_once(lab: Lab, tmp_path: Path) -> None:
    """A FIFO, a directory, a link to a device and a 4 GiB file are refused without waiting."""
    objects = lab.put(tmp_path, "raw_tp")
    os.mkfifo(objects / "fifo")
    (objects / "folder").mkdir()
    (objects / "null").symlink_to("/dev/null")
    with (objects / "sparse").open("wb") as stream:
        stream.truncate(4 << 30)
    result = lab.run(tmp_path, "--verify-only")
    assert result.code == 3
    reasons = {line["object"]: line.get("reason") for line in result.events("verify")}
    assert reasons == {
        "fifo": "malformed",
        "folder": "malformed",
        "null": "malformed",
        "raw_tp.bpf.o": None,
        "sparse": "too-large",
    }


def test_symlinks_are_followed_and_hidden_files_are_not_objects(lab: Lab, tmp_path: Path) -> None:
    """A directory mounted by Kubernetes works: its links point into a hidden directory."""
    objects = lab.put(tmp_path, "raw_tp")
    (objects / "..data").mkdir()
    (objects / "raw_tp.bpf.o").rename(objects / "..data/raw_tp.bpf.o")
    (objects / "raw_tp.bpf.o").symlink_to("..data/raw_tp.bpf.o")
    assert lab.run(tmp_path, "--verify-only").code == 0


def test_what_cannot_be_read(lab: Lab, tmp_path: Path) -> None:
    """A missing or empty directory or a loop of links is exit code 1 with the reason."""
    objects = lab.put(tmp_path)
    assert "no object in it" in lab.run(tmp_path).message
    assert lab.run(tmp_path).code == 1
    (objects / "loop").symlink_to("loop")
    result = lab.run(tmp_path)
    assert result.code == 1
    assert "Too many levels of symbolic links" in result.message
    result = lab.run(tmp_path, "--objects", str(tmp_path / "missing"))
    assert result.code == 1
    assert "No such file or directory" in result.message


def test_too_many_objects(lab: Lab, tmp_path: Path) -> None:
    """More than 256 files are one error line, before any file is read."""
    objects = lab.put(tmp_path)
    for number in range(300):
        (objects / str(number)).touch()
    assert "more than 256 objects" in lab.run(tmp_path).message
    for number in range(300, 1100):
        (objects / str(number)).touch()
    assert "more than 256 objects" in lab.run(tmp_path).message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-option"], "unknown option --no-such-option"),
        (["--insecure"], "unknown option"),
        (["--objects"], "--objects requires a value"),
        (["--objects="], "empty value"),
        (["--log", "xml"], "--log: bad value xml"),
        (["--attach", "x"], "not PROGRAM=TARGET"),
        (["--attach", "=lo"], "not PROGRAM=TARGET"),
        (["--attach", "x="], "not PROGRAM=TARGET"),
        (["--attach", "x+="], "not PROGRAM=TARGET"),
        (["--attach", "+=lo"], "not PROGRAM=TARGET"),
        (["--image-attach", "x"], "not PROGRAM=TARGET"),
        (["--verify-only", "--", "true"], "--verify-only cannot be combined with a workload"),
        (["--platform", "linux/arm64"], "require --verify-only"),
        (["--verify-only", "--time", "yesterday"], "--time: bad value"),
        (["--wait-interface=99999"], "--wait-interface: bad value 99999"),
        (["--health-wait", "soon"], "--health-wait: bad value soon"),
        (["--health-command=true"], "not an absolute path"),
        (["--no-seccomp"], "require a workload"),
        (["--workload-user=1"], "require a workload"),
        (["--workload-user=me", "--", "true"], "bad value me"),
        (["--workload-user=1:", "--", "true"], "bad value 1:"),
        (["--workload-user=4294967295", "--", "true"], "bad value"),
        (["--seccomp", "--", "true"], "unknown option --seccomp"),
        (["--capabilities=ALL"], "--capabilities: bad value ALL"),
        (["--capabilities", "BPF,"], "--capabilities: bad value BPF,"),
        (["--capabilities", "bpf"], "--capabilities: bad value bpf"),
        (["--reload=yes"], "unknown option --reload=yes"),
        (["--json"], "--json: not an option of run"),
        (["show"], "unknown command show; -- show starts it as the workload"),
        (["--reload", "sh", "-c", "id"], "docker run --entrypoint sh in place of verify-and-load"),
        (["run", "sh"], "unknown command sh"),
        (["list", "list"], "unknown option list"),
        (["--"], "no workload after --"),
    ],
)
def test_usage(lab: Lab, tmp_path: Path, arguments: list[str], words: str) -> None:
    """Each wrong command line gives one line and exit code 2."""
    result = lab.run(tmp_path, *arguments)
    assert result.code == 2
    assert words in result.message


@pytest.mark.parametrize("word", ["list", "detach", "rollback"])
def test_commands_of_the_other_program(lab: Lab, tmp_path: Path, word: str) -> None:
    """The loader runs commands about pins by ebpf-pins beside it, or says how an image gets that program."""
    alone = Path(shutil.copy2(lab.loader, tmp_path))
    done = subprocess.run([alone, word, "--pin-root=/"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    message = (
        f"{word}: there is no ebpf-pins beside verify-and-load; set image.tools = true and build the image"
    )
    assert f"{message} again, or run buildtool load {word} on the host" in done.stderr
    # As `docker run IMAGE list` does it: after the options of the entrypoint, whose places count.
    script = tmp_path / "ebpf-pins"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    image = [str(alone), "--image-attach", "a=eth0", "--pin-root", "/run/pins", "--reload"]
    for more, shown in (
        ([], f"{word} --pin-root /run/pins\n"),
        (["--share", "/x"], f"{word} --share /x --share /x\n"),
    ):
        done = subprocess.run([*image, word, *more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, shown), done.stderr


@pytest.mark.parametrize("arguments", [[], ["run"], ["--pin-root=/"], ["--objects", "/"]])
def test_ebpf_pins_loads_nothing(lab: Lab, arguments: list[str]) -> None:
    """ebpf-pins without one of its commands is exit code 2."""
    done = subprocess.run([lab.pins, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no command; use list, status, detach or rollback" in done.stderr


def test_unknown_command_of_ebpf_pins(lab: Lab) -> None:
    """The line has the commands, and nothing about workloads."""
    done = subprocess.run([lab.pins, "--share=/x", "show"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown command show; use list, status, detach or rollback" in done.stderr


def test_verify_only_ignores_an_images_options(lab: Lab, tmp_path: Path) -> None:
    """--verify-only ignores an image's options for attaching, pinning and sharing."""
    lab.put(tmp_path, "xdp")
    options = ["--image-attach=no=eth9", "--attach=other=eth9", "--attach-file=/not/there", "--reload"]
    places = ["--pin-root=/not/there", "--share=/not/there", "--health-command=/not/there"]
    result = lab.run(tmp_path, *options, *places, "--verify-only")
    assert result.code == 0, result.lines
    assert [line["event"] for line in result.lines] == ["verify"]


@pytest.mark.parametrize("log", [["--log", "human"], ["--log=human"]])
def test_log_format_of_a_bad_command_line(lab: Lab, tmp_path: Path, log: list[str]) -> None:
    """--log human applies to errors of options before it, in both programs."""
    for argv in (lab.argv(tmp_path, "--no-such", *log), [str(lab.pins), "list", "--no-such", *log]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"{Path(argv[0]).name}: error: unknown option --no-such"), done.stderr
    json_form = subprocess.run(
        [lab.loader, "--no-such", "--", "--log", "human"], capture_output=True, check=False
    )
    assert json_form.stderr.startswith(b"{")


def test_platform_and_time_of_another_machine(lab: Lab, tmp_path: Path) -> None:
    """--verify-only accepts the platform and the time of another machine."""
    lab.put(tmp_path, "raw_tp", platform="linux/arm64", notAfter="2026-01-02T00:00:00Z")
    options = ["--verify-only", "--platform=linux/arm64"]
    assert lab.run(tmp_path, *options, "--time=2026-01-02T00:00:00Z").code == 0
    assert lab.run(tmp_path, *options, "--time=2026-01-02T00:00:01Z").reasons == ["expired"]
    assert lab.run(tmp_path, *options, "--time=1970-01-01T00:00:00Z").reasons == ["not-yet-valid"]


def test_human_log_lines(lab: Lab, tmp_path: Path) -> None:
    """--log human writes a short line without JSON; unprintable bytes become question marks."""
    objects = lab.put(tmp_path, "raw_tp")
    (objects / "raw_tp.bpf.o").rename(objects / "a\x1b[31mb\n.o")
    argv = lab.argv(tmp_path, "--verify-only", "--log=human")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == "verify-and-load: verify a?[31mb?.o: accepted\n"
    (line,) = lab.run(tmp_path, "--verify-only").lines
    assert line["object"] == "a\ufffd[31mb\ufffd.o"


def test_human_log_of_a_whole_run(lab: Lab, tmp_path: Path) -> None:
    """A line has event, object, program and target."""
    lab.put(tmp_path, "raw_tp")
    argv = lab.argv(tmp_path, "--log=human", "--reload", "--", "/bin/true")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    name, lines = f"raw_tp.bpf.o {PREFIX}_raw", done.stderr.splitlines()
    assert f"verify-and-load: attach {name} -> raw_tp/sys_enter" in lines
    assert "verify-and-load: exec -> /bin/true" in lines
    assert f"verify-and-load: detach {name} -> raw_tp/sys_enter" in lines


def test_big_endian_object(lab: Lab, tmp_path: Path) -> None:
    """A big-endian file is read as big-endian."""
    objects = lab.put(tmp_path)
    fields = (b"\x7fELF", 2, 2, 1, 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, 2, 1)
    header = struct.pack(">4sBBB9xHHIQQQIHHHHHH", *fields)
    names = b"\0.shstrtab\0"
    table = bytes(64) + struct.pack(">IIQQQQIIQQ", 1, 3, 0, 0, 192, len(names), 0, 0, 1, 0)
    (objects / "big.o").write_bytes(header + table + names)
    assert lab.run(tmp_path, "--verify-only").reasons == ["unsigned"]


def test_refused_files_are_not_kept(lab: Lab, tmp_path: Path) -> None:
    """A directory of large unsigned files needs memory for one of them only."""
    objects = lab.put(tmp_path, "raw_tp")
    for number in range(24):
        with (objects / f"{number}.bpf.o").open("wb") as file:
            file.truncate(64 << 20)
    result = lab.run(tmp_path, "--verify-only", before=["prlimit", f"--as={128 << 20}"])
    assert (result.code, result.reasons) == (3, ["malformed"] * 24)


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (("llvm-strip", "-g"), "digest-mismatch"),
        (("llvm-strip", "--strip-unneeded"), "digest-mismatch"),
        (("llvm-strip", "--strip-all"), "unsigned"),
        (("bpftool", "gen", "object"), "digest-mismatch"),
    ],
    ids=" ".join,
)
def test_tools_that_run_after_signing(
    lab: Lab, clang: Path, tmp_path: Path, tool: tuple[str, ...], reason: str
) -> None:
    """The result of strip and `bpftool gen object` on a signed object has the documented reason."""
    objects = lab.put(tmp_path, "raw_tp")
    path, signed = objects / "raw_tp.bpf.o", tmp_path / "signed.o"
    path.rename(signed)
    if tool[0] == "llvm-strip":
        program = clang.resolve().with_name("llvm-strip")
        argv = [program, *tool[1:], signed, "-o", path]
    else:
        argv = [*tool, path, signed]
    subprocess.run(argv, check=True, capture_output=True)
    assert path.read_bytes() != signed.read_bytes()
    result = lab.run(tmp_path, "--verify-only")
    assert (result.code, result.reasons) == (3, [reason])
    row = re.search(rf"^\| `{reason}` \|.*$", REASONS.read_text("utf-8"), re.MULTILINE)
    assert row is not None
    assert f"`{' '.join(tool)}`" in row[0] or "unneeded" in tool[-1]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"programTypes": ["xdp"]}, "section '.struct_ops.link' of type struct_ops is not allowed, only xdp"),
        (
            {"attachPoints": ["xdp", "struct_ops/tcp_congestion_ops"]},
            "attach point 'struct_ops/sched_ext_ops'",
        ),
        ({"attachPoints": ["xdp", "struct_ops/sched_ext_ops"], "programTypes": ["struct_ops", "xdp"]}, ""),
    ],
    ids=["type", "point", "allowed"],
)
def test_an_empty_scheduler_is_refused(
    lab: Lab, tmp_path: Path, rules: dict[str, list[str]], said: str
) -> None:
    """A policy refuses a struct_ops map without programs, although the statement does not list it."""
    lab.put(tmp_path, "scheduler")
    (tmp_path / "trust/policy.json").write_text(policy(lab.key, **rules))
    result = lab.run(tmp_path, "--verify-only")
    assert (result.code, result.reasons) == ((3, ["denied-by-policy"]) if said else (0, []))
    assert said in "".join(line.get("message", "") for line in result.events("verify"))
