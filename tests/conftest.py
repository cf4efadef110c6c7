# SPDX-License-Identifier: Apache-2.0
"""
Shared fixtures, and the rule that CI skips nothing without a typed reason.

Tiers are directories: unit, cli and vectors need neither root nor an engine;
docker needs a real engine, kernel a real kernel and root, vm needs QEMU.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from labs.compile import find_clang
from labs.verifiers import CVerifier, build_c_verifier

TOP = Path(__file__).resolve().parent.parent
TIERS = ("unit", "cli", "vectors", "assurance", "fuzz", "docker", "kernel", "vm")
OFFLINE_TIERS = ("unit", "cli", "vectors", "assurance", "fuzz")
NO_ENGINE = "unix:///nonexistent/engine.sock"
IN_CI = os.environ.get("CI") == "true"


class Skip(StrEnum):
    """Why a test may be skipped: its reason begins with one of these and a colon."""

    NEEDS_ROOT = "needs-root"
    NEEDS_TOOL = "needs-tool"
    NEEDS_ENGINE = "needs-engine"
    NEEDS_KERNEL_FEATURE = "needs-kernel-feature"


# CI has root, every tool and an engine; what its kernel cannot do is tested on another kernel.
SKIPS_OF_CI = (Skip.NEEDS_KERNEL_FEATURE,)

_skipped: list[tuple[str, str]] = []
_ran: set[str] = set()


def pytest_configure() -> None:
    """Give interrupts their meaning back: a shell starts jobs in the background deaf to them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def _find_tier(nodeid: str) -> str:
    parts = Path(nodeid.partition("::")[0]).parts
    return next((part for part in parts if part in TIERS), "")


def _allows_skip(reason: str) -> bool:
    allowed = SKIPS_OF_CI if IN_CI else tuple(Skip)
    return reason.removeprefix("Skipped: ").partition(":")[0] in allowed


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what ran, and every skip whose reason is not allowed here."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allows_skip(reason):
            _skipped.append((report.nodeid, reason))
    elif report.when == "call":
        _ran.add(_find_tier(report.nodeid))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Count a module that skips itself, too."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allows_skip(reason):
            _skipped.append((report.nodeid, reason))


def _idle_tiers(config: pytest.Config) -> list[str]:
    """Name the tiers of which a whole run in CI ran no test at all."""
    option = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not (
        option.keyword or option.markexpr
    )
    if not (IN_CI and whole) or option.collectonly:
        return []
    return [tier for tier in TIERS if tier not in _ran]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run for a skip without an allowed reason, and in CI for a tier without tests."""
    if exitstatus == pytest.ExitCode.OK and (_skipped or _idle_tiers(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why a run without failing tests fails."""
    for nodeid, reason in _skipped:
        terminalreporter.write_line(f"SKIP NOT ALLOWED {nodeid}: {reason}", red=True)
    for tier in _idle_tiers(config):
        terminalreporter.write_line(f"NO TESTS RAN in tests/{tier}", red=True)


@pytest.fixture(autouse=True)
def _isolate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's environment out of the tests, and any engine out of the offline tiers."""
    for name in list(os.environ):
        if name.startswith(("BUILDTOOL_", "GITHUB_")) or name == "SOURCE_DATE_EPOCH":
            monkeypatch.delenv(name)
    if _find_tier(request.node.nodeid) in OFFLINE_TIERS:
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)


def _run_engine_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOP / "tools/engine"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """Give a running Docker engine with BuildKit, named by DOCKER_HOST in os.environ; its version."""
    was_running = _run_engine_tool("status").returncode == 0
    script = f'settings=$("{TOP}/tools/engine" use) && eval "$settings" && env -0'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        pytest.skip(f"{Skip.NEEDS_ENGINE}: {reason[-1] if reason else 'none'}")
    with pytest.MonkeyPatch.context() as patch:
        for item in done.stdout.split("\0"):
            name, _, value = item.partition("=")
            if name in ("PATH", "DOCKER_HOST", "DOCKER_CONFIG"):
                patch.setenv(name, value)
        argv = ["docker", "version", "--format", "{{.Server.Version}}"]
        yield subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    if not was_running:
        _run_engine_tool("stop")


@pytest.fixture(scope="session")
def prepared_images(engine: str) -> object:
    """Give the PreparedImages of the engine, for amd64 and arm64."""
    assert engine
    from buildtool.image.docker.prepare import prepare_images

    return prepare_images()


@pytest.fixture(scope="session")
def carried_parts() -> Path:
    """Give the directory of what wheels carry for images, of this checkout's sources."""
    done = subprocess.run(
        [sys.executable, TOP / "tools/loaders"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return TOP / "buildtool/data"


@pytest.fixture(scope="session")
def clang() -> Path:
    """Find the newest clang of this machine."""
    return find_clang()


@pytest.fixture(scope="session")
def c_verifier(clang: Path) -> Iterator[CVerifier]:
    """Give the C verifier, under sanitizers: one process that answers all questions of the session."""
    with CVerifier(build_c_verifier(clang)) as running:
        yield running


@pytest.fixture
def as_root() -> None:
    """Skip unless this process is root."""
    if os.geteuid() != 0:
        pytest.skip(f"{Skip.NEEDS_ROOT}: bpf(2), network namespaces")


@pytest.fixture(scope="session")
def sysroot() -> Path:
    """Give Debian packages unpacked for this machine: what links the loader, and libbpf's headers."""
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    directory = TOP / ".cache/sysroot" / arch.stdout.strip()
    argv = [TOP / "tools/sysroot", arch.stdout.strip(), directory]
    subprocess.run(argv, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def loader_binary(sysroot: Path, clang: Path) -> Path:
    """
    Build the loader for this machine as the image has it: static, stripped.

    With LOADER_BUILD=sanitized-whole it is that target of loader/Makefile.
    """
    target = os.environ.get("LOADER_BUILD", "")
    output = TOP / ".cache/loader" / (target or "verify-and-load")
    argv = ["make", "-C", TOP / "loader", f"SYSROOT={sysroot}", f"CLANG={clang}", f"OUT={output}"]
    argv += [target] if target else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
