# SPDX-License-Identifier: Apache-2.0
"""--hand-over: a workload with its own loader gets the verified bytes, and the capabilities to load them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from labs.loader import PREFIX, Lab, Result
from labs.privileges import AS_USER, root_with, user_with

from buildtool.objects.capabilities import CAPABILITY_NUMBERS

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

WORKLOAD = ("--", "/usr/bin/python3", str(Path(__file__).with_name("handed_workload.py")))
GIVEN = ("bpf", "perfmon")
RAW_TP = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
XDP = {"name": f"{PREFIX}_xdp", "section": "xdp", "type": "xdp"}
SEALED = {
    "write": "EPERM",
    "reopen": "EPERM",
    "grow": "EPERM",
    "shrink": "EPERM",
    "map": "EPERM",
    "seal": "EPERM",
}


# PR_SET_SECUREBITS with SECBIT_NO_CAP_AMBIENT_RAISE (prctl(2)), which setpriv does not know.
FORBID_AMBIENT = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(28, 1 << 6, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def mask(*names: str) -> str:
    """Return the capabilities as in /proc/PID/status."""
    return f"{sum(1 << CAPABILITY_NUMBERS[name] for name in names):016x}"


def handed(result: Result) -> dict[str, Any]:
    """Return the report of the workload."""
    assert result.code == 0, (result.lines, result.stdout)
    assert [line["event"] for line in result.lines][-2:] == ["ready", "exec"]
    return dict(json.loads(result.stdout))


def check_object(found: dict[str, Any], name: str, data: bytes) -> None:
    """Check that the workload got exactly *data*, could not change it, and loaded it."""
    assert found["objects"][name] == {
        "offset": 0,
        "sha256": hashlib.sha256(data).hexdigest(),
        "changes": SEALED,
        "unchanged": True,
        "load": "",
    }
    assert found["agree"]


def check_capabilities(found: dict[str, Any], *names: str) -> None:
    """Check that the workload has *names*, and can get no others."""
    status = found["status"]
    assert {status[of] for of in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {mask(*names)}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "0")


@pytest.mark.parametrize(
    ("before", "uid"),
    [([], "0"), (user_with(*GIVEN), "65532")],
    ids=["root", "user with ambient capabilities"],
)
def test_workload_loads_the_verified_bytes(lab: Lab, tmp_path: Path, before: list[str], uid: str) -> None:
    """The workload gets sealed files of the verified bytes and just the capabilities for them."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    result = lab.run(tmp_path, "--hand-over", *WORKLOAD, before=before)
    found = handed(result)
    check_object(found, "raw_tp.bpf.o", (objects / "raw_tp.bpf.o").read_bytes())
    check_capabilities(found, "BPF", "PERFMON")
    assert found["status"]["Uid"] == uid
    assert set(found["variables"]) == {"BUILDTOOL_OBJECTS", "BUILDTOOL_OBJECT_FD_raw_tp"}
    assert [line["event"] for line in result.lines] == ["verify", "handover", "ready", "exec"]


def test_workload_of_another_user(lab: Lab, tmp_path: Path) -> None:
    """--workload-user keeps the capabilities for the objects, and loses those for the change of the user."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    found = handed(lab.run(tmp_path, "--hand-over", "--workload-user=65531", *WORKLOAD))
    check_object(found, "raw_tp.bpf.o", (objects / "raw_tp.bpf.o").read_bytes())
    check_capabilities(found, "BPF", "PERFMON")
    assert found["status"]["Uid"] == "65531"


def test_capabilities_of_the_loaders_file(lab: Lab, tmp_path: Path) -> None:
    """As in an image: the capabilities of the loader's file reach the workload of a user without any."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    loader = Path(shutil.copy(lab.loader, tmp_path / "verify-and-load"))
    subprocess.run(["setcap", "cap_bpf,cap_perfmon=p", loader], check=True)
    argv = [str(loader), *lab.argv(tmp_path, "--hand-over", *WORKLOAD)[1:]]
    before = [*AS_USER, "--bounding-set=-all,+bpf,+perfmon"]
    done = subprocess.run([*before, *argv], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_object(found, "raw_tp.bpf.o", (objects / "raw_tp.bpf.o").read_bytes())
    check_capabilities(found, "BPF", "PERFMON")


def test_capabilities_that_the_workload_is_said_to_need(lab: Lab, tmp_path: Path) -> None:
    """--capabilities adds to those of the objects; all others of root are gone."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    options = ["--hand-over", "--capabilities=NET_RAW,NET_ADMIN"]
    found = handed(lab.run(tmp_path, *options, *WORKLOAD))
    check_capabilities(found, "BPF", "PERFMON", "NET_RAW", "NET_ADMIN")


def test_capability_that_includes_the_others(lab: Lab, tmp_path: Path) -> None:
    """SYS_ADMIN counts as BPF and PERFMON, as for the kernel, and reaches the workload in their place."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    found = handed(lab.run(tmp_path, "--hand-over", *WORKLOAD, before=root_with("sys_admin")))
    check_object(found, "raw_tp.bpf.o", (objects / "raw_tp.bpf.o").read_bytes())
    check_capabilities(found, "SYS_ADMIN")


def test_several_objects(lab: Lab, tmp_path: Path) -> None:
    """Each object has its variable, named after the signed name and not after the file."""
    objects = lab.put(tmp_path, "xdp", programs=[XDP])
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    (objects / "raw_tp.bpf.o").rename(objects / "other name")
    found = handed(lab.run(tmp_path, "--hand-over", *WORKLOAD))
    assert set(found["objects"]) == {"raw_tp.bpf.o", "xdp.bpf.o"}
    check_object(found, "raw_tp.bpf.o", (objects / "other name").read_bytes())
    check_object(found, "xdp.bpf.o", (objects / "xdp.bpf.o").read_bytes())


def test_one_refused_object_hands_over_nothing(lab: Lab, tmp_path: Path) -> None:
    """All objects are verified before the workload starts."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    (objects / "x.bpf.o").write_bytes(lab.object("xdp"))
    result = lab.run(tmp_path, "--hand-over", *WORKLOAD)
    assert (result.code, result.stdout, result.reasons) == (3, "", ["unsigned"])
    assert "handover" not in [line["event"] for line in result.lines]


def test_versions_are_remembered(lab: Lab, tmp_path: Path) -> None:
    """The state directory refuses a lower version after a hand-over."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP], version=2)
    options = ["--hand-over", f"--state={state}"]
    handed(lab.run(tmp_path, *options, *WORKLOAD))
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP], version=1)
    result = lab.run(tmp_path, *options, *WORKLOAD)
    assert (result.code, result.reasons) == (3, ["rolled-back"])


def test_variables_of_others_are_removed(lab: Lab, tmp_path: Path) -> None:
    """Names of descriptors that the environment had before lead to no descriptor of an attacker."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    evil = ["env", "BUILDTOOL_OBJECTS=evil=3", "BUILDTOOL_OBJECT_FD_evil=3", "BUILDTOOL_FD_evil=3"]
    found = handed(lab.run(tmp_path, "--hand-over", *WORKLOAD, before=evil))
    assert set(found["variables"]) == {"BUILDTOOL_OBJECTS", "BUILDTOOL_OBJECT_FD_raw_tp"}
    assert "evil" not in str(found["variables"])
    # Without --hand-over as well.
    result = lab.run(tmp_path, *WORKLOAD, before=evil)
    assert (result.code, "evil" in result.stdout) == (0, False), result.lines


def test_missing_capability_is_named_before_the_workload_starts(lab: Lab, tmp_path: Path) -> None:
    """A container that lacks a capability gets the line that a load would get."""
    lab.put(tmp_path, "xdp", programs=[XDP])
    options = ["--hand-over", "--capabilities=PERFMON"]
    result = lab.run(tmp_path, *options, *WORKLOAD, before=user_with(*GIVEN))
    assert (result.code, result.stdout) == (1, "")
    assert result.message.startswith("the workload cannot load the objects; missing CAP_NET_ADMIN")


def test_capabilities_that_cannot_be_handed_over(lab: Lab, tmp_path: Path) -> None:
    """A process that may raise no ambient capability is an error before the version is remembered."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP], version=7)
    before = ["/usr/bin/python3", "-c", FORBID_AMBIENT]
    result = lab.run(tmp_path, "--hand-over", f"--state={state}", *WORKLOAD, before=before)
    assert (result.code, result.stdout) == (1, "")
    assert "SECBIT_NO_CAP_AMBIENT_RAISE is set; start the loader without this bit" in result.message
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP], version=6)
    handed(lab.run(tmp_path, "--hand-over", f"--state={state}", *WORKLOAD))


@pytest.mark.parametrize("before", [[], ["unshare", "--user", "--map-root-user"]], ids=["host", "rootless"])
def test_capabilities_of_a_user_namespace(lab: Lab, tmp_path: Path, before: list[str]) -> None:
    """They do not count for bpf(2), which the line of each object says before the workload starts."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    result = lab.run(tmp_path, "--hand-over", "--", "/bin/true", before=before)
    assert result.code == 0, result.lines
    (line,) = result.events("handover")
    expected = "capabilities of a user namespace (a rootless container) do not count for bpf(2)"
    assert line.get("message", "").startswith(expected) == bool(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hand-over"], "--hand-over requires a workload"),
        (["--hand-over", "--attach=x=lo", *WORKLOAD], "--hand-over cannot be combined with --attach"),
        (["--image-attach=x=lo", "--hand-over", *WORKLOAD], "cannot be combined with --image-attach"),
        (["--pin-root=/x", "--hand-over", *WORKLOAD], "cannot be combined with --pin-root"),
        (["--share=/x", "--hand-over", *WORKLOAD], "cannot be combined with --share"),
        (["--reload", "--hand-over", *WORKLOAD], "cannot be combined with --reload"),
        (["--hand-over", "--no-seccomp", *WORKLOAD], "cannot be combined with --no-seccomp"),
    ],
)
def test_options_of_loading(lab: Lab, tmp_path: Path, options: list[str], words: str) -> None:
    """Options of loading and attaching would have no effect: they are errors."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    result = lab.run(tmp_path, *options)
    assert (result.code, result.stdout) == (2, "")
    assert words in result.message


def test_two_objects_of_one_name(lab: Lab, tmp_path: Path) -> None:
    """Two objects that would have one variable are an error, and nothing starts."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    shutil.copy(objects / "raw_tp.bpf.o", objects / "copy.bpf.o")
    result = lab.run(tmp_path, "--hand-over", *WORKLOAD)
    assert (result.code, result.stdout) == (2, "")
    assert "BUILDTOOL_OBJECT_FD_raw_tp: two objects have this variable" in result.message


def test_verify_only_hands_over_nothing(lab: Lab, tmp_path: Path) -> None:
    """An image whose entrypoint hands over can be verified alone."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    result = lab.run(tmp_path, "--hand-over", "--image-workload=/bin/false", "--verify-only")
    assert (result.code, [line["event"] for line in result.lines]) == (0, ["verify"])
