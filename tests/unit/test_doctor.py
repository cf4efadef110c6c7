# SPDX-License-Identifier: Apache-2.0
"""The conclusions of doctor from the state of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from labs.headers import write_headers
from labs.image import make_parts

from buildtool.compile.headers import HEADERS_VARIABLE
from buildtool.core.process import Completed, Runner
from buildtool.doctor import Check, Host, Use, examine, is_ready
from buildtool.runtime.carried import LOADERS_VARIABLE, part_path

ROOT = {
    "sys/kernel/btf/vmlinux": "x" * 10,
    "sys/kernel/security/lsm": "capability,landlock,bpf\n",
    "proc/mounts": "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n",
    "proc/self/status": "Name:\tx\nCapEff:\t000000c000001000\n",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Docker(Runner):
    """Answers as a docker client would; *engine* is the server's version, empty when none answers."""

    engine: str
    buildx: str

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Answer the four questions that doctor asks."""
        if argv[-1] == "{{.Server.Version}}":
            return self._answer(self.engine, "Cannot connect to the Docker daemon")
        if argv[-1] == "version":
            return self._answer(self.buildx, "unknown command")
        if "info" in argv:
            return self._answer('[["driver-type","io.containerd.snapshotter.v1"]]', "")
        return self._answer("clang version 19.1.7" if "--version" in argv else "", "none")

    def _answer(self, good: str, bad: str) -> Completed:
        return Completed(returncode=0 if good else 1, stdout=good.encode(), stderr=bad.encode())


def _examine(root: Path, *, engine: str = "28.5.2", buildx: str = "buildx 0.29") -> dict[str, Check]:
    runner = _Docker(engine=engine, buildx=buildx)
    environ = {LOADERS_VARIABLE: str(root / "parts"), HEADERS_VARIABLE: str(root / "headers")}
    machine = Host(root=root, environ=environ, clang="", runner=runner, architectures=("amd64",))
    checks = examine(machine)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the files of a kernel that has everything."""
    for name, text in ROOT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_a_machine_with_everything(root: Path) -> None:
    """All is ok, without advice."""
    checks = _examine(root)
    for name in ("docker engine", "buildx", "kernel BTF", "bpffs", "BPF LSM", "unprivileged BPF off"):
        assert checks[name].ok
        assert checks[name].advice == ""
    assert checks["capabilities"].found == "NET_ADMIN, PERFMON, BPF"
    assert checks["capabilities"].ok
    assert is_ready(list(checks.values()))


def test_a_machine_with_nothing(tmp_path: Path) -> None:
    """Each missing part comes with what to do, and only what `build` needs decides."""
    checks = _examine(tmp_path, engine="", buildx="")
    missing = [check for check in checks.values() if not check.ok]
    assert {"docker engine", "buildx", "kernel BTF", "bpffs", "capabilities", "BPF LSM"} <= {
        check.name for check in missing
    }
    assert all(check.advice for check in missing)
    assert checks["docker engine"].found == "Cannot connect to the Docker daemon"
    assert not is_ready(list(checks.values()))
    kernel_only = [check for check in missing if check.needed_for not in (Use.DOCKER, Use.LOCAL)]
    assert is_ready(kernel_only)


@pytest.mark.parametrize(
    ("missing", "ready"),
    [
        ([Use.DOCKER], True),
        ([Use.LOCAL, Use.COMPILE, Use.LOAD], True),
        ([Use.DOCKER, Use.LOAD, Use.OPTIONAL], True),
        ([Use.DOCKER, Use.LOCAL], False),
        ([Use.DOCKER, Use.COMPILE], False),
    ],
)
def test_one_engine_is_enough(missing: list[Use], ready: bool) -> None:  # noqa: FBT001 - a table's row
    """One engine is enough: Docker, or the local one with carried parts and a compiler."""
    checks = [Check(name=use, needed_for=use, ok=use not in missing, found="") for use in Use]
    assert is_ready(checks) is ready


def test_the_local_engine_needs_all_that_it_carries(root: Path) -> None:
    """Loader, tini and the default base; a damaged file is not there."""
    assert not _examine(root)["carried loaders"].ok
    parts = make_parts(root / "parts", ["amd64"], base=True)
    check = _examine(root)["carried loaders"]
    assert (check.ok, check.found, check.needed_for) == (True, "amd64", Use.LOCAL)
    make_parts(root / "parts", ["amd64", "arm64", "s390x"], base=True)
    check = _examine(root)["carried loaders"]
    assert (check.ok, check.found) == (True, "amd64, arm64, s390x")
    part_path(parts, "tini", "s390x").write_bytes(b"damaged")
    assert _examine(root)["carried loaders"].found == "amd64, arm64"
    part_path(parts, "tini", "amd64").write_bytes(b"damaged")
    check = _examine(root)["carried loaders"]
    assert (check.ok, "not the file that loaders.json lists" in check.found) == (False, True)
    assert "apt-get install clang-19 lld-19" in check.advice


def test_headers_of_programs_are_named_with_their_versions(root: Path) -> None:
    """Without them the first compilation needs Debian's mirror."""
    check = _examine(root)["headers"]
    assert (check.ok, check.needed_for) == (False, Use.OPTIONAL)
    assert "a release's wheel carries them" in check.advice
    write_headers(root / "headers")
    check = _examine(root)["headers"]
    assert (check.ok, check.found) == (True, "linux-libc-dev 1")


@pytest.mark.parametrize(("version", "ok"), [("20.10.24", False), ("23.0.0", True), ("28.5.2+dfsg4", True)])
def test_old_engines_cannot_build(root: Path, version: str, ok: bool) -> None:  # noqa: FBT001 - a table's row
    """BuildKit of 20.10 has no RUN --network."""
    check = _examine(root, engine=version)["docker engine"]
    assert (check.ok, check.found) == (ok, version)


@pytest.mark.parametrize(
    ("effective", "ok", "found"),
    [
        ("0000000000000000", False, "none of NET_ADMIN, SYS_ADMIN, PERFMON, BPF"),
        ("0000000000201000", True, "NET_ADMIN, SYS_ADMIN"),
        ("0000008000001000", False, "NET_ADMIN, BPF"),
    ],
)
def test_capabilities_of_this_process(root: Path, effective: str, ok: bool, found: str) -> None:  # noqa: FBT001
    """SYS_ADMIN stands for BPF and PERFMON."""
    (root / "proc/self/status").write_text(f"CapEff:\t{effective}\n", encoding="utf-8")
    check = _examine(root)["capabilities"]
    assert (check.ok, check.found) == (ok, found)


def test_everybody_may_load_programs(root: Path) -> None:
    """0 is worth a word."""
    (root / "proc/sys/kernel/unprivileged_bpf_disabled").write_text("0\n", encoding="utf-8")
    assert not _examine(root)["unprivileged BPF off"].ok
