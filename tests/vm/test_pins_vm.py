# SPDX-License-Identifier: Apache-2.0
"""Pins on other kernels than this machine's: an update, a kill, a rollback, a shared start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs import loader
from labs.loader import PREFIX
from labs.pins import NAME, XDP, Releases

from buildtool.check.vm.kernels import Kernel
from buildtool.check.vm.machine import VmRequest, run_vm

SCRIPT = """\
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
ip link set lo up
root=/sys/fs/bpf/pins
start() { release=$1; shift; /lab/loader --objects /lab/$release --trust /lab/trust "$@"; }
pinned() { release=$1; shift; start $release --pin-root $root --attach XDP=lo:generic "$@"; }
home=$root/count,bpf,o
hostile="ls $root && echo LISTED; rm -rf $home && echo REMOVED; mv $home $root/x && echo MOVED;"
hostile="$hostile mkdir $root/made && echo MADE; cat $home/current/record && echo READ;"
deadly='kill -9 $PPID && echo ENDED; kill -0 $PPID && echo REACHED; kill -0 -1 && echo ALL; true'
try() { name=$1; shift; echo "@ $name"; "$@"; echo "@ $name $?"; }
try first pinned v1 -- true
try again pinned v1 -- true
try second pinned v2 -- true
try older pinned v1 -- true
try unhealthy pinned v3 --health-command /bin/false -- true
/lab/loader --objects /lab/v3 --trust /lab/trust --pin-root $root --attach XDP=lo:generic \\
    --health-command '/bin/sleep 60' --health-wait 60 2>/dev/null &
while [ ! -e $root/count,bpf,o/next/record ]; do :; done
sleep 1
kill -9 $!
try killed pinned v2 -- true
try hostile pinned v2 -- sh -c "$hostile"
try supervised start v2 --pin-root $root --attach XDP=lo:generic --reload -- sh -c "$hostile $deadly"
try unhurt /lab/ebpf-pins status --pin-root $root
try rollback /lab/ebpf-pins rollback --pin-root $root
try status /lab/ebpf-pins status --pin-root $root --json
try detach /lab/ebpf-pins detach --pin-root $root
try share1 start v1 --share /sys/fs/bpf/share --attach XDP=none -- true
try share2 start v1 --share /sys/fs/bpf/share --attach XDP=none -- true
try unshare /lab/ebpf-pins detach --share /sys/fs/bpf/share
try empty ls /sys/fs/bpf
"""
KERNELS = ["6.1", "newest"]
# The first use of a kernel downloads it. Machines are emulated and may share processors.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=KERNELS)
def output(
    request: pytest.FixtureRequest,
    vm_kernel: Callable[[str, str], Kernel],
    clang: Path,
    sysroot: Path,
    loader_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Boot once, run all cases and return the output."""
    directory = tmp_path_factory.mktemp("pins")
    lab = loader.Lab(clang=clang, sysroot=sysroot, loader=loader_binary, directory=directory)
    releases = Releases(lab, directory, directory, XDP)
    files: dict[str, Path | bytes] = {
        "/lab/loader": loader_binary,
        "/lab/ebpf-pins": lab.pins,
        "/lab/trust/dev.pub": lab.key.pem,
    }
    for version, release in ((1, 1), (2, 2), (3, 1)):
        releases.put(version, release=release)
        files[f"/lab/v{version}/{NAME}"] = (directory / "objects" / NAME).read_bytes()
    script = SCRIPT.replace("XDP", f"{PREFIX}_xdp")
    result = run_vm(VmRequest(kernel=vm_kernel(request.param, "amd64"), argv=script, files=files))
    assert result.code == 0, result.output
    return result.output


def case_of(output: str, name: str) -> tuple[int, list[str]]:
    """Return the exit code of a case and the events of its lines."""
    lines = output.splitlines()
    begin = lines.index(f"@ {name}")
    end = next(i for i, line in enumerate(lines) if i > begin and line.startswith(f"@ {name} "))
    told: list[dict[str, Any]] = [json.loads(line) for line in lines[begin + 1 : end] if line[:1] == "{"]
    return int(lines[end].split()[-1]), [line["event"] for line in told]


@pytest.mark.parametrize(
    ("name", "code", "events"),
    [
        ("first", 0, ["verify", "load", "attach", "ready", "exec"]),
        ("again", 0, ["verify", "reuse", "keep", "ready", "exec"]),
        ("second", 0, ["verify", "load", "update", "ready", "exec"]),
        ("older", 3, ["verify", "refuse"]),
        ("unhealthy", 1, ["verify", "load", "update", "rollback", "error"]),
        ("killed", 0, ["verify", "reuse", "keep", "ready", "exec"]),
        ("hostile", 1, ["verify", "reuse", "keep", "ready", "exec"]),
        ("supervised", 0, ["verify", "reuse", "keep", "ready", "exec"]),
        ("unhurt", 0, []),
        ("rollback", 0, ["rollback"]),
        ("status", 0, []),
        ("detach", 0, ["detach"]),
        ("share1", 0, ["verify", "load", "ready", "exec"]),
        ("share2", 0, ["verify", "reuse", "ready", "exec"]),
        ("unshare", 0, []),
        ("empty", 0, []),
    ],
)
def test_pins_on_another_kernel(output: str, name: str, code: int, events: list[str]) -> None:
    """The cases have the same events as on this machine's kernel."""
    assert case_of(output, name) == (code, events), output


def test_hostile_workload_reaches_nothing(output: str) -> None:
    """The hostile workload changes no pin, and sends the loader no signal, on either kernel."""
    said = output[output.index("@ hostile") : output.index("@ unhurt")].splitlines()
    words = {"LISTED", "REMOVED", "MOVED", "MADE", "READ", "ENDED", "REACHED", "ALL"}
    assert words.isdisjoint(said), output
    denied = [line.split(":")[0] for line in said if "Permission denied" in line]
    assert {word: denied.count(word) for word in ("ls", "mv", "mkdir", "cat")} == dict.fromkeys(
        ("ls", "mv", "mkdir", "cat"), 2
    ), output
    assert sum("can't kill" in line for line in said) == 3, output
