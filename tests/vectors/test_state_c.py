# SPDX-License-Identifier: Apache-2.0
"""The state directory of the loader: same file, rules and lock as the Python verifier's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.sig import RELEASE, copy_test_key, test_key, unsigned
from labs.states import DAMAGED

from buildtool.core.errors import RefusedError
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import parse_object
from buildtool.signing.sign import Origin, ReleaseInfo, sign_object
from buildtool.trust.store import load_trust
from buildtool.trust.verify import verify_and_remember
from buildtool.trust.versions import open_state

LOADER = TOP / "loader"
NOW = "2026-06-01T00:00:00Z"


@pytest.fixture(scope="module")
def sanitized(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the loader for verification only, with ASan and UBSan."""
    output = tmp_path_factory.mktemp("loader") / "sanitized"
    argv = ["make", "-C", LOADER, "sanitized", f"CLANG={clang}", f"OUT={output}"]
    subprocess.run(argv, check=True, capture_output=True)
    return output


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with objects of versions 2 to 4, a trust store and an empty state."""
    copy_test_key(tmp_path)
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    (tmp_path / "state").mkdir()
    for version in (2, 3, 4):
        write_object(tmp_path / f"v{version}.bpf.o", version)
    return tmp_path


def write_object(path: Path, version: int, *, project: str = "demo", name: str = "x.bpf.o") -> None:
    """Write a signed object."""
    release = ReleaseInfo(project=project, version=version, release="1", created=RELEASE.created)
    origin = Origin(platform=PLATFORMS["amd64"])
    path.write_bytes(sign_object(parse_object(unsigned()), name, test_key(), release, origin)[0])


def arguments(loader: Path, place: Path, objects: str, trust: str = "alice.pub") -> list[str | Path]:
    """Return the command that verifies *objects* with the state."""
    options = ["--time", NOW, "--platform", "linux/amd64"]
    paths = ["--objects", place / objects, "--trust", place / trust, "--state", place / "state"]
    return [loader, "--verify-only", *options, *paths]


def run(
    loader: Path, place: Path, objects: str, trust: str = "alice.pub"
) -> tuple[int, list[dict[str, Any]]]:
    """Return exit code and decision lines."""
    done = subprocess.run(
        arguments(loader, place, objects, trust), capture_output=True, text=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def python_decides(place: Path, name: str, store: str = "alice.pub") -> str:
    """Return the Python verifier's decision with the same state."""
    trust = load_trust([place / store])
    (verdict,) = verify_and_remember([place / name], trust, place / "state", platform=None, now=1_780_000_000)
    if verdict.accepted:
        return "accepted"
    assert isinstance(verdict.error, RefusedError)
    return str(verdict.error.reason)


def test_a_lower_version_is_rolled_back(sanitized: Path, loader_binary: Path, place: Path) -> None:
    """A version that one verifier accepted binds the other, whatever the name of the file."""
    assert run(sanitized, place, "v3.bpf.o")[0] == 0
    assert run(sanitized, place, "v3.bpf.o")[0] == 0
    code, lines = run(loader_binary, place, "v2.bpf.o")
    assert (code, lines[0]["reason"]) == (3, "rolled-back")
    assert python_decides(place, "v2.bpf.o") == "rolled-back"
    assert python_decides(place, "v4.bpf.o") == "accepted"
    assert run(sanitized, place, "v3.bpf.o")[0] == 3
    text = (place / "state/versions.json").read_text()
    assert text == '{"projects":{"demo":{"x.bpf.o":4}},"stateVersion":1}'


@pytest.mark.parametrize("allowed", [True, False])
def test_a_policy_allows_older_versions(sanitized: Path, place: Path, *, allowed: bool) -> None:
    """A policy with allowRollback accepts versions down to minimumVersion; the recorded one stays."""
    key = {"name": "alice", "publicKey": b64encode(test_key().public.der).decode()}
    policy = {"policyVersion": 1, "threshold": 1, "keys": [key], "allowRollback": allowed}
    policy["objects"] = {"x.bpf.o": {"minimumVersion": 3}}
    (place / "state/versions.json").write_text('{"projects":{"demo":{"x.bpf.o":4}},"stateVersion":1}')
    (place / "policy.json").write_text(json.dumps(policy))
    wanted = {"v2.bpf.o": "rolled-back", "v3.bpf.o": "accepted" if allowed else "rolled-back"}
    for name, decision in wanted.items():
        code, lines = run(sanitized, place, name, "policy.json")
        assert lines[0].get("reason", "accepted") == decision
        assert code == (0 if decision == "accepted" else 3)
        assert python_decides(place, name, "policy.json") == decision
    assert '"x.bpf.o":4' in (place / "state/versions.json").read_text()


def test_both_write_the_same_bytes(sanitized: Path, place: Path) -> None:
    """Both verifiers write the same file, in the order of names."""
    objects = place / "objects"
    objects.mkdir()
    write_object(objects / "b.bpf.o", 7, project="z/1", name="b.bpf.o")
    write_object(objects / "a.bpf.o", 5, project="z/1", name="a.bpf.o")
    write_object(objects / "c.bpf.o", 0, project="A", name="c.bpf.o")
    assert run(sanitized, place, "objects")[0] == 0
    written = (place / "state/versions.json").read_bytes()
    (place / "state/versions.json").unlink()
    trust = load_trust([place / "alice.pub"])
    verify_and_remember(sorted(objects.iterdir()), trust, place / "state", platform=None, now=1_780_000_000)
    assert (place / "state/versions.json").read_bytes() == written
    assert written == b'{"projects":{"A":{"c.bpf.o":0},"z/1":{"a.bpf.o":5,"b.bpf.o":7}},"stateVersion":1}'


def test_a_refused_set_is_not_remembered(sanitized: Path, place: Path) -> None:
    """One bad object of a set keeps every version of the set out of the state."""
    objects = place / "objects"
    objects.mkdir()
    write_object(objects / "a.bpf.o", 9)
    (objects / "b.bpf.o").write_bytes(unsigned())
    assert run(sanitized, place, "objects")[0] == 3
    assert list((place / "state").iterdir()) == []


def test_the_state_is_on_the_disk_before_it_has_its_name(loader_binary: Path, place: Path) -> None:
    """A crash leaves the old file or the new one, and the directory knows which."""
    trace = place / "trace"
    before = ["strace", "-y", "-o", trace, "-e", "trace=fsync,rename,renameat,renameat2"]
    argv = [*before, *arguments(loader_binary, place, "v3.bpf.o")]
    subprocess.run(argv, check=True, capture_output=True)
    calls = [line for line in trace.read_text().splitlines() if "state" in line]
    names = [re.findall(r"^\w+|versions[^>\"]*|/state(?=>)", line) for line in calls]
    new, old = "versions.json.new", "versions.json"
    assert [name for name in names if name[0] == "fsync"] == [["fsync", new], ["fsync", "/state"]]
    assert [(name[0][:6], new in name, old in name) for name in names] == [
        ("fsync", True, False),
        ("rename", True, True),
        ("fsync", False, False),
    ]


def test_a_file_that_grows_while_it_is_read_is_an_error(sanitized: Path, place: Path) -> None:
    """A file in /proc has more bytes than its size, like one that was appended to after its fstat(2)."""
    (place / "grows.bpf.o").symlink_to("/proc/version")
    code, (line,) = run(sanitized, place, "grows.bpf.o")
    assert (code, line["event"]) == (1, "error")
    assert line["message"] == "cannot read: the file changes; write beside it and rename"
    assert list((place / "state").iterdir()) == []


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_state_is_an_error(name: str, sanitized: Path, place: Path) -> None:
    """A damaged state is one line and exit code 1, and the file stays unchanged."""
    (place / "state/versions.json").write_text(DAMAGED[name])
    code, lines = run(sanitized, place, "v3.bpf.o")
    assert code == 1
    assert [line["event"] for line in lines] == ["error"]
    assert "versions.json" in lines[0]["message"]
    assert (place / "state/versions.json").read_text() == DAMAGED[name]


def test_missing_state_is_an_error(sanitized: Path, place: Path) -> None:
    """A missing directory, a file in its place and a dangling link are errors."""
    (place / "state/versions.json").symlink_to("gone")
    assert run(sanitized, place, "v3.bpf.o")[0] == 1
    (place / "state/versions.json").unlink()
    (place / "state").rmdir()
    assert run(sanitized, place, "v3.bpf.o")[0] == 1
    (place / "state").write_text("")
    code, lines = run(sanitized, place, "v3.bpf.o")
    assert (code, len(lines)) == (1, 1)


def test_it_waits_for_the_lock(sanitized: Path, place: Path) -> None:
    """A second verifier waits for the lock, and sees the version that the first one recorded."""
    with open_state(place / "state") as state:
        process = subprocess.Popen(arguments(sanitized, place, "v3.bpf.o"), stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.5)
        state.raise_version("demo", "x.bpf.o", 4)
        state.save()
    assert "rolled-back" in process.communicate(timeout=10)[1]
    assert process.returncode == 3


def test_a_signal_ends_the_wait(sanitized: Path, place: Path) -> None:
    """SIGTERM ends the wait for the lock: anybody who can open the directory could hold it."""
    with open_state(place / "state"):
        process = subprocess.Popen(arguments(sanitized, place, "v3.bpf.o"), stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.5)
        process.terminate()
        (line,) = process.communicate(timeout=10)[1].splitlines()
    assert (process.returncode, json.loads(line)["event"]) == (1, "error")
    assert "stopped by a signal while another loader holds the lock" in json.loads(line)["message"]


@pytest.mark.parametrize("python", [False, True])
def test_existing_temporary_file_is_not_written(sanitized: Path, place: Path, *, python: bool) -> None:
    """A FIFO or a hard link under the temporary name is replaced, not written to."""
    new, victim = place / "state/.versions.json.new", place / "victim"
    victim.write_text("precious")
    for version, plant in enumerate((os.mkfifo, lambda path: path.hardlink_to(victim)), start=2):
        plant(new)
        if python:
            assert python_decides(place, f"v{version}.bpf.o") == "accepted"
        else:
            assert run(sanitized, place, f"v{version}.bpf.o")[0] == 0
        with open_state(place / "state") as state:
            assert state.version("demo", "x.bpf.o") == version
    assert (victim.read_text(), victim.stat().st_nlink) == ("precious", 1)


def test_killed_at_any_moment_the_file_is_whole(loader_binary: Path, place: Path) -> None:
    """After SIGKILL at any moment the state is missing or readable."""
    for round_number in range(40):
        objects = place / "rising.bpf.o"
        write_object(objects, 10 + round_number)
        process = subprocess.Popen(arguments(loader_binary, place, objects.name), stderr=subprocess.DEVNULL)
        time.sleep(round_number * 0.00025)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open_state(place / "state") as state:
            assert state.version("demo", "x.bpf.o") in {0, *range(10, 11 + round_number)}


def test_state_that_cannot_be_written_is_an_error(sanitized: Path, place: Path) -> None:
    """An object whose version cannot be recorded is not accepted."""
    (place / "state/.versions.json.new").mkdir()
    code, lines = run(sanitized, place, "v3.bpf.o")
    assert code == 1
    assert lines[-1]["event"] == "error"
    assert "cannot write" in lines[-1]["message"]
