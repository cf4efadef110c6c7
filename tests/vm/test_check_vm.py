# SPDX-License-Identifier: Apache-2.0
"""`buildtool check` on kernels of virtual machines: the report, and faults of the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.check import NEWER, PRIVILEGED, SOURCE, build_probes, read_junit, run_check
from labs.compile import compile_object
from labs.linked import MARK, write_linked

from buildtool.check.vm.kernels import find_kernel
from buildtool.compile.headers import read_headers
from buildtool.compile.sources import CompileOptions, compile_sources
from buildtool.compile.toolchain import find_toolchain
from buildtool.config.file import load_config
from buildtool.config.project import plan_units
from buildtool.core.platforms import PLATFORMS, Platform

OFFLINE = ("unshare", "--net")
# The first use of a kernel downloads it. Machines are emulated and may share processors.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def probes(clang: Path, sysroot: Path) -> Path:
    """Return the directory with bpf-probe for amd64."""
    amd64 = PLATFORMS["amd64"]
    options = [f"--target={amd64.triple}", amd64.static_option]
    return build_probes(TOP / ".cache/loader", clang, sysroot, amd64.arch, options)


@pytest.fixture(scope="module")
def objects(clang: Path, sysroot: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two objects: one that every kernel can check, one with programs for newer kernels."""
    directory = tmp_path_factory.mktemp("check")
    return [
        compile_object(directory, clang, sysroot, source, name)
        for name, source in (("common", SOURCE), ("newer", NEWER))
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's cache directory with the kernels of the tests."""
    directory = tmp_path_factory.mktemp("cache")
    (directory / "buildtool").mkdir()
    (TOP / ".cache/vm").mkdir(parents=True, exist_ok=True)
    (directory / "buildtool/vm").symlink_to(TOP / ".cache/vm")
    return directory


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kernel image that no other test boots."""
    found = find_kernel("6.1", "amd64", TOP / ".cache/vm").image
    return Path(shutil.copy(found, tmp_path_factory.mktemp("image")))


def run(
    probes: Path, cache: Path, *arguments: str | Path, code: int = 1, prefix: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `buildtool check` with *cache* as the user's cache, and check the exit *code*."""
    return run_check(probes, *arguments, code=code, prefix=prefix, XDG_CACHE_HOME=str(cache), **env)


@pytest.mark.usefixtures("as_root")
def test_a_program_for_newer_kernels(probes: Path, objects: list[Path], cache: Path, tmp_path: Path) -> None:
    """One boot of kernel 6.1 serves two objects; programs for newer kernels load only on this host."""
    junit = tmp_path / "check.xml"
    arguments = "--kernel", "host,6.1", "--arch", "amd64", "--module", "veth", "--json", "--junit", junit
    done = run(probes, cache, *objects, *arguments)
    assert done.stderr.count("boot 6.1") == 1
    report = json.loads(done.stdout)
    verdicts: dict[tuple[str, str], Any] = {
        (r["program"], r["kernel"]): r["verdict"] for r in report["runs"] if r["object"] == "newer.bpf.o"
    }
    outcomes = {where: verdict["outcome"] for where, verdict in verdicts.items()}
    assert outcomes["everywhere", "6.1"] == outcomes["everywhere", "host"] == "loads"
    assert outcomes["kernel_function", "host"] == "loads"
    assert outcomes["kernel_function", "6.1"] == "refused"
    assert "bpf_dynptr_from_xdp" in verdicts["kernel_function", "6.1"]["reason"]
    # Only CAP_SYS_ADMIN may read a module's BTF, so the function is found with it alone.
    assert verdicts["in_a_module", "6.1"]["missing"] == ["SYS_ADMIN"]
    # The first helper of 6.2 is unknown to 6.1, and the last one of 6.1 is known.
    assert "invalid func" not in verdicts["last_helper", "6.1"]["reason"]
    said = verdicts["next_helper", "6.1"]
    assert said["reason"] == "invalid func bpf_cgrp_storage_get#210 (since Linux 6.2)"
    assert "invalid func" not in verdicts["next_helper", "host"]["reason"]
    # 6.1 logs only the text of the line; file and number come from the object's BTF.
    assert (said["source"]["file"], said["source"]["text"]) == ("bpf/newer.bpf.c", "return of_6_2();")
    assert said["source"]["line"] == NEWER[: NEWER.index("return of_6_2")].count("\n") + 1
    assert {r["release"][:4] for r in report["runs"] if r["kernel"] == "6.1"} == {"6.1."}
    suites = [suite.attrib["name"] for suite in read_junit(junit)]
    assert [name.partition(" (")[0] for name in suites] == ["rules", "host amd64", "6.1 amd64"]
    assert suites[2].startswith("6.1 amd64 (6.1.")


def test_machines_give_the_capabilities_of_the_image(
    probes: Path, clang: Path, sysroot: Path, cache: Path, tmp_path: Path
) -> None:
    """BT104 is found in a virtual machine too, although everything there runs as root."""
    path = compile_object(tmp_path, clang, sysroot, PRIVILEGED.replace("PRINT", ""))
    report = json.loads(run(probes, cache, path, "--kernel", "6.1", "--arch", "amd64", "--json").stdout)
    missing = {r["program"]: r["verdict"]["missing"] for r in report["runs"]}
    assert missing == {"plain": [], "options": ["PERFMON"]}
    assert [(f["rule"], f["program"]) for f in report["findings"]] == [("BT104", "options")]


def test_another_byte_order(
    clang: Path, sysroot_of: Callable[[Platform], Path], cache: Path, tmp_path: Path
) -> None:
    """s390x gives the same verdicts with their lines of C."""
    target, own = PLATFORMS["s390x"], PLATFORMS["amd64"]
    foreign, sysroot = sysroot_of(target), sysroot_of(own)
    # Fetch the kernel here, so that a mirror without the package skips the test.
    find_kernel("6.12", target.arch, TOP / ".cache/vm")
    options = [f"--target={target.triple}", target.static_option]
    probes = build_probes(TOP / ".cache/loader", clang, foreign, target.arch, options)
    path = compile_object(tmp_path, clang, sysroot, SOURCE, target=target.bpf_target)
    report = json.loads(run(probes, cache, path, "--kernel", "6.12", "--arch", target.arch, "--json").stdout)
    verdicts = {r["program"]: r["verdict"] for r in report["runs"]}
    taken = {name for name, verdict in verdicts.items() if verdict["outcome"] == "loads"}
    assert taken == {"everywhere", "optional", "tail_call"}
    assert verdicts["out_of_bounds"]["source"]["text"] == "return data[0];"
    assert "no_such_member" in verdicts["no_member"]["reason"]
    assert {r["arch"] for r in report["runs"]} == {target.arch}


def test_a_linked_object_on_another_architecture(
    clang: Path,
    probes: Path,
    cache: Path,
    carried_headers: Path,
    tmp_path: Path,
    sysroot_of: Callable[[Platform], Path],
) -> None:
    """An object that was linked here for s390x, of the other byte order, loads on its kernel."""
    target = PLATFORMS["s390x"]
    root = write_linked(tmp_path / "project")
    config = load_config(root / "buildtool.toml")
    units = plan_units(config, target)
    options = CompileOptions(
        root=root, headers=read_headers(carried_headers), linker=probes / "amd64/bpf-probe"
    )
    compile_sources(find_toolchain(str(clang)), [(target, tmp_path / "made", units)], options)
    foreign = sysroot_of(target)
    argv = [f"--target={target.triple}", target.static_option]
    theirs = build_probes(TOP / ".cache/loader", clang, foreign, target.arch, argv)
    path = tmp_path / "made/agent.bpf.o"
    found = run(theirs, cache, path, "--kernel", "6.12", "--arch", target.arch, "--json", code=0)
    (ran,) = json.loads(found.stdout)["runs"]
    assert (ran["program"], ran["verdict"]["outcome"]) == (f"{MARK}_count", "loads")


@pytest.fixture
def sleeper(probes: Path, tmp_path: Path) -> Path:
    """Return a directory with a probe for amd64 that opens objects and never ends a dry run."""
    (tmp_path / "probes/amd64").mkdir(parents=True)
    fake = tmp_path / "probes/amd64/bpf-probe"
    real = probes / "amd64/bpf-probe"
    fake.write_text(f'#!/bin/sh\n[ "$1" != --open ] || exec {real} "$@"\nsleep 3600\n')
    fake.chmod(0o755)
    return tmp_path / "probes"


def test_a_machine_that_hangs_is_ended(objects: list[Path], cache: Path, image: Path, sleeper: Path) -> None:
    """The time limit ends the machine with one line, and no process stays. The kernel is a given file."""
    arguments = "--arch", "arm64,amd64", "--timeout", "3"
    done = run(sleeper, cache, objects[1], "--kernel", image, *arguments)
    assert f"leave out {image} arm64: the image is for another" in done.stderr
    assert "error: virtual machine (amd64" in done.stderr
    assert "still running after 3 seconds" in done.stderr
    assert not machines(image)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupt_ends_all_machines(
    objects: list[Path], cache: Path, image: Path, sleeper: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """An interrupt of several running guests is one line and exit code 1; no process and no file stays."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    # Three kernels: on two processors one of them still waits for its boot.
    images = [image, *(Path(shutil.copy(image, image.with_name(name))) for name in ("second", "third"))]
    argv = [sys.executable, "-m", "buildtool", "check", objects[1], "--arch", "amd64"]
    argv += ["--kernel", ",".join(map(str, images))]
    env = {"BUILDTOOL_PROBES": str(sleeper), "XDG_CACHE_HOME": str(cache), "TMPDIR": str(scratch)}
    child = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    assert child.stderr
    while len(machines(image.parent)) < min(len(os.sched_getaffinity(0)), len(images)):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(number)
    said = child.communicate()[1]
    assert child.returncode == 1
    assert said.splitlines()[-1] == "buildtool: error: interrupted"
    assert not machines(image.parent)
    assert list(scratch.iterdir()) == []


def machines(image: Path) -> list[bytes]:
    """Return the command lines of virtual machines that boot *image*, or an image in that directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue  # the process has ended
        if b"qemu-system" in line and str(image).encode() in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--kernel", "9.9"], 2, "unknown kernel '9.9'"),
        (["--kernel", "./no-such-image"], 1, "no-such-image: cannot read"),
        (["--kernel", "IMAGE", "--arch", "arm64"], 2, "vmlinuz: a kernel for amd64, not for arm64"),
        (["--kernel", "6.1", "--arch", "vax"], 2, "unknown architecture 'vax'"),
        (["--kernel", "6.1", "--arch", "loong64"], 2, "Debian has no kernel 6.1 for loong64"),
    ],
    ids=["unknown", "no-file", "image", "arch", "not-there"],
)
def test_a_wrong_kernel_is_an_error(
    probes: Path, objects: list[Path], cache: Path, image: Path, arguments: list[str], code: int, message: str
) -> None:
    """A wrong name is exit code 2 with the known names, an unreadable file exit code 1."""
    words = [str(image) if word == "IMAGE" else word for word in arguments]
    done = run(probes, cache, objects[1], *words, code=code)
    assert message in done.stderr
    assert "hint: " in done.stderr or code == 1 or "IMAGE" in arguments


def test_without_qemu_it_says_what_to_install(
    probes: Path, objects: list[Path], cache: Path, image: Path, tmp_path: Path
) -> None:
    """Without QEMU the hint names the package of the architecture."""
    done = run(probes, cache, objects[1], "--kernel", image, "--arch", "amd64", PATH=str(tmp_path))
    assert "qemu-system-x86_64: not found" in done.stderr
    assert "apt-get install --no-install-recommends qemu-system-x86" in done.stderr


@pytest.mark.usefixtures("as_root")
def test_a_machine_without_a_network(probes: Path, objects: list[Path], tmp_path: Path) -> None:
    """A kernel that is neither cached nor reachable is one line with two remedies, and no file stays."""
    done = run(probes, tmp_path, objects[1], "--kernel", "6.12", "--arch", "amd64", prefix=OFFLINE)
    errors = [line for line in done.stderr.splitlines() if line.startswith("buildtool: error: ")]
    assert len(errors) == 1
    assert re.search(r"error: no packages from \S+ \(trixie amd64\)$", errors[0])
    assert f"bring {tmp_path}/buildtool/vm from another machine, or name a kernel's file" in done.stderr
    assert [path.name for path in (tmp_path / "buildtool/vm").iterdir()] == [".kernel-trixie-amd64.lock"]


@pytest.mark.usefixtures("as_root")
def test_a_kernel_that_does_not_boot_costs_only_its_column(
    probes: Path, objects: list[Path], cache: Path, image: Path, tmp_path: Path
) -> None:
    """
    A kernel that does not boot fails the check, and the report has the other kernels.

    If no kernel boots, the check ends with the machine's error. A cached kernel needs no network.
    """
    assert image  # the fixture has put 6.1 into the cache
    junk = tmp_path / "junk"
    junk.write_bytes((bytes(0x202) + b"HdrS").ljust(4096, b"\0"))  # with the mark of a kernel for x86
    arguments = objects[0], "--arch", "amd64", "--timeout", "60"
    asked = "--kernel", f"{junk},6.1", "--json"
    report = json.loads(run(probes, cache, *arguments, *asked, prefix=OFFLINE).stdout)
    assert {r["kernel"] for r in report["runs"]} == {"6.1"}
    silent = [f for f in report["findings"] if f["rule"] == "BT102"]
    assert [f["object"] for f in silent] == [f"{junk} amd64"]
    done = run(probes, cache, *arguments, "--kernel", f"{junk},6.1", "--markdown")
    assert "| amd64 6.1.0 |" in done.stdout
    assert f"error BT102 {junk} amd64: virtual machine (amd64" in done.stderr
    done = run(probes, cache, *arguments, "--kernel", junk)
    assert "buildtool: error: virtual machine (amd64" in done.stderr
