# SPDX-License-Identifier: Apache-2.0
"""
Shared fixtures, and the rule that CI skips nothing without a typed reason.

Tiers are directories; labs/selection.py marks their tests with what they need.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from labs.verifiers import CVerifier

from buildtool.compile.headers import HEADERS_VARIABLE
from buildtool.core.errors import PackageUnavailableError

if TYPE_CHECKING:
    from buildtool.core.platforms import Platform
    from buildtool.runtime.link import MadeParts

pytest_plugins = ["labs.selection"]

TOP = Path(__file__).resolve().parent.parent
TIERS = ("unit", "cli", "vectors", "assurance", "fuzz", "docker", "kernel", "vm")
OFFLINE_TIERS = ("unit", "cli", "vectors", "assurance", "fuzz")
NO_ENGINE = "unix:///nonexistent/engine.sock"
IN_CI = os.environ.get("CI") == "true"
# Names headers for a run inside a test, which makes none of its own.
NAMED_HEADERS = os.environ.get("TEST_HEADERS")


class Skip(StrEnum):
    """Why a test may be skipped: its reason begins with one of these and a colon."""

    NEEDS_ROOT = "needs-root"
    NEEDS_TOOL = "needs-tool"
    NEEDS_ENGINE = "needs-engine"
    NEEDS_KERNEL_FEATURE = "needs-kernel-feature"
    NEEDS_PACKAGE = "needs-package"
    NEEDS_PEER = "needs-peer"


# CI has root, every tool and an engine; what its kernel cannot do is tested on another kernel. A mirror may
# lack a package of one architecture for days. Peers are Go and Rust with their registries: the product needs
# neither.
SKIPS_OF_CI = (Skip.NEEDS_KERNEL_FEATURE, Skip.NEEDS_PACKAGE, Skip.NEEDS_PEER)
# Whose packages must be there, on every machine: without them nothing is proved.
PRIMARY_ARCHITECTURES = ("amd64", "arm64")
# What a skip for a package says after its type: Debian's architecture, and the packages.
_PACKAGE_REASON = re.compile(r"needs-package: (?P<architecture>[a-z0-9]+) (?P<packages>[^:]+): .+", re.DOTALL)

_skipped: list[tuple[str, str]] = []
_left_out: dict[tuple[str, str], int] = {}
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
    kind = reason.removeprefix("Skipped: ").partition(":")[0]
    if kind == Skip.NEEDS_PACKAGE:
        found = _PACKAGE_REASON.search(reason)
        return found is not None and found["architecture"] not in PRIMARY_ARCHITECTURES
    return kind in allowed


def _skip_for_packages(error: PackageUnavailableError) -> None:
    """Skip the test that needs packages which no mirror has, unless its architecture is a primary one."""
    if error.architecture in PRIMARY_ARCHITECTURES:
        raise error
    packages = ", ".join(error.packages) or "package lists"
    pytest.skip(f"{Skip.NEEDS_PACKAGE}: {error.architecture} {packages}: {error.message}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Skip a test whose fixtures found packages of a secondary architecture missing."""
    try:
        return (yield)
    except PackageUnavailableError as error:
        return _skip_for_packages(error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip a test that itself found packages of a secondary architecture missing."""
    try:
        return (yield)
    except PackageUnavailableError as error:
        return _skip_for_packages(error)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what ran, and every skip whose reason is not allowed here."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allows_skip(reason):
            _skipped.append((report.nodeid, reason))
        elif found := _PACKAGE_REASON.search(reason):
            key = (found["architecture"], found["packages"])
            _left_out[key] = _left_out.get(key, 0) + 1
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
    if _left_out:
        parts = [
            f"{architecture}: {count} test{'s' * (count > 1)} (no {packages})"
            for (architecture, packages), count in sorted(_left_out.items())
        ]
        terminalreporter.write_line(
            f"LEFT OUT, for Debian packages that the mirror lacks: {'; '.join(parts)}", yellow=True
        )


@pytest.fixture(autouse=True)
def _isolate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's environment out of the tests, and any engine out of the offline tiers."""
    for name in list(os.environ):
        if name.startswith(("BUILDTOOL_", "GITHUB_")) or name == "SOURCE_DATE_EPOCH":
            monkeypatch.delenv(name)
    if _find_tier(request.node.nodeid) in OFFLINE_TIERS:
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    from labs.selection import NEEDS

    # Only a test that starts compilers reads what is in the headers; others must need no network.
    compiles = any(request.node.get_closest_marker(name) for name in NEEDS)
    headers = request.getfixturevalue("carried_headers" if compiles else "any_headers")
    monkeypatch.setenv(HEADERS_VARIABLE, str(headers))


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
def carried_headers() -> Path:
    """Give the directory of the headers that wheels carry, of Debian's packages in the lock."""
    from buildtool.compile.headers import carried_headers

    if NAMED_HEADERS:
        return Path(NAMED_HEADERS)
    # A process of its own: a test that only starts compilers must not connect, but finds what others fetched.
    argv = [sys.executable, TOP / "tools/loaders", "--headers"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return carried_headers()


@pytest.fixture(scope="session")
def any_headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the carried headers if they were made, else stand-ins."""
    from labs.headers import write_headers

    from buildtool.compile.headers import LIST_NAME, carried_headers

    made = carried_headers()
    return made if (made / LIST_NAME).exists() else write_headers(tmp_path_factory.mktemp("headers"))


@pytest.fixture(scope="session")
def made_parts() -> MadeParts:
    """Give what became of the parts that wheels carry for images, made of this checkout's sources."""
    from buildtool.core.platforms import PLATFORMS
    from buildtool.runtime.carried import data_directory
    from buildtool.runtime.link import PartsRequest, make_parts

    request = PartsRequest(
        platforms=tuple(PLATFORMS.values()), data=data_directory(), cache=TOP / ".cache/loaders"
    )
    return make_parts(request)


@pytest.fixture(scope="session")
def carried_parts(made_parts: MadeParts) -> Path:
    """Give the directory of what wheels carry; only a secondary architecture without packages may lack."""
    from buildtool.runtime.carried import data_directory

    for error in made_parts.failed.values():
        if not isinstance(error, PackageUnavailableError) or error.architecture in PRIMARY_ARCHITECTURES:
            raise error
    return data_directory()


@pytest.fixture(scope="session")
def sysroot_of() -> Callable[[Platform], Path]:
    """Give a function that unpacks what links the loader for a platform, and returns where it is."""
    from buildtool.runtime.apt import PackageSource, linking_packages, provide_tree
    from buildtool.runtime.debian import Archive, find_system_mirror
    from buildtool.runtime.packagelock import read_lock

    def provide(platform: Platform) -> Path:
        directory = TOP / ".cache/sysroot" / platform.debian
        source = PackageSource(
            archive=Archive(suite="trixie", mirror=find_system_mirror()),
            architecture=platform.debian,
            state=TOP / ".cache/apt" / f"trixie-{platform.debian}",
            lock=read_lock(),
        )
        provide_tree(source, linking_packages(source), directory)
        return directory

    return provide


@pytest.fixture(scope="session")
def clang() -> Path:
    """Find the newest clang of this machine."""
    from labs.compile import find_clang

    return find_clang()


@pytest.fixture(scope="session")
def c_verifier(clang: Path) -> Iterator[CVerifier]:
    """Give the C verifier, under sanitizers: one process that answers all questions of the session."""
    from labs.verifiers import CVerifier, build_c_verifier

    with CVerifier(build_c_verifier(clang)) as running:
        yield running


@pytest.fixture
def as_root() -> None:
    """Skip unless this process is root."""
    if os.geteuid() != 0:
        pytest.skip(f"{Skip.NEEDS_ROOT}: bpf(2), network namespaces")


@pytest.fixture(scope="session")
def sysroot(sysroot_of: Callable[[Platform], Path]) -> Path:
    """Give Debian packages unpacked for this machine: what links the loader, and libbpf's headers."""
    from buildtool.core.platforms import host_platform

    own = host_platform(os.uname().machine)
    assert own is not None
    return sysroot_of(own)


@pytest.fixture(scope="session")
def probes(clang: Path, sysroot: Path) -> Path:
    """Give the directory with bpf-probe for this machine."""
    from labs.check import build_probes

    from buildtool.core.platforms import host_platform

    own = host_platform(os.uname().machine)
    assert own is not None
    return build_probes(TOP / ".cache/loader", clang, sysroot, own.arch, [own.static_option])


@pytest.fixture(scope="session")
def loader_binary(sysroot: Path, clang: Path) -> Path:
    """
    Build the loader for this machine as the image has it, and ebpf-pins beside it: static, stripped.

    With LOADER_BUILD=sanitized-whole it is that target of loader/Makefile.
    """
    target = os.environ.get("LOADER_BUILD", "")
    output = TOP / ".cache/loader" / target / "verify-and-load"
    argv = ["make", "-C", TOP / "loader", f"SYSROOT={sysroot}", f"CLANG={clang}", f"OUT={output}"]
    argv += [target] if target else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
