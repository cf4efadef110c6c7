# SPDX-License-Identifier: Apache-2.0
"""
Shared fixtures, and the rule that CI skips no test without a typed reason.

Each directory is a tier. labs/selection.py marks the tests with their requirements.
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
    from labs.verifiers import Verifier

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
# The headers for a run inside a test, which makes none of its own.
NAMED_HEADERS = os.environ.get("TEST_HEADERS")


class Skip(StrEnum):
    """Allowed types of reasons to skip a test: a reason begins with one of them and a colon."""

    NEEDS_ROOT = "needs-root"
    NEEDS_TOOL = "needs-tool"
    NEEDS_ENGINE = "needs-engine"
    NEEDS_KERNEL_FEATURE = "needs-kernel-feature"
    NEEDS_PACKAGE = "needs-package"
    NEEDS_TOOLCHAIN = "needs-toolchain"


# CI has root, every tool and an engine; what its kernel cannot do is tested on another kernel. A mirror may
# lack a package of one architecture for days. Only bindings/ and their tests need Go and Rust.
SKIPS_OF_CI = (Skip.NEEDS_KERNEL_FEATURE, Skip.NEEDS_PACKAGE, Skip.NEEDS_TOOLCHAIN)
# Whose packages must be there, on every machine: without them nothing is proved.
PRIMARY_ARCHITECTURES = ("amd64", "arm64")
# The reason for a missing package: Debian's architecture, the packages, and the cause.
_PACKAGE_REASON = re.compile(r"needs-package: (?P<architecture>[a-z0-9]+) (?P<packages>[^:]+): .+", re.DOTALL)

_skipped: list[tuple[str, str]] = []
_left_out: dict[tuple[str, str], int] = {}
_no_toolchain: dict[str, int] = {}
_ran: set[str] = set()


def pytest_configure() -> None:
    """Restore the default handlers of SIGINT and SIGQUIT, which a shell ignores in background jobs."""
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
    """Skip a test whose packages no mirror has; raise for a primary architecture."""
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
    """Record the tiers that ran, and every skip without an allowed reason."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allows_skip(reason):
            _skipped.append((report.nodeid, reason))
        elif found := _PACKAGE_REASON.search(reason):
            key = (found["architecture"], found["packages"])
            _left_out[key] = _left_out.get(key, 0) + 1
        elif (kind := reason.removeprefix("Skipped: ").split(": ", 1))[0] == Skip.NEEDS_TOOLCHAIN:
            _no_toolchain[kind[1]] = _no_toolchain.get(kind[1], 0) + 1
    elif report.when == "call":
        _ran.add(_find_tier(report.nodeid))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a skipped module without an allowed reason."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not _allows_skip(reason):
            _skipped.append((report.nodeid, reason))


def _idle_tiers(config: pytest.Config) -> list[str]:
    """Return the tiers without any test in a whole run in CI."""
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
    """Print why a run without failed tests fails."""
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

    for name, count in sorted(_no_toolchain.items()):
        terminalreporter.write_line(f"LEFT OUT, without {name}: {count} test{'s' * (count > 1)}", yellow=True)


@pytest.fixture(autouse=True)
def _isolate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove a developer's settings from the environment, and any engine from the offline tiers."""
    for name in list(os.environ):
        if name.startswith(("BUILDTOOL_", "GITHUB_")) or name == "SOURCE_DATE_EPOCH":
            monkeypatch.delenv(name)
    if _find_tier(request.node.nodeid) in OFFLINE_TIERS:
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
    from labs.selection import NEEDS

    # Only tests that start compilers read the headers. Other tests must not need a network.
    compiles = any(request.node.get_closest_marker(name) for name in NEEDS)
    headers = request.getfixturevalue("carried_headers" if compiles else "any_headers")
    monkeypatch.setenv(HEADERS_VARIABLE, str(headers))


def _run_engine_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOP / "tools/engine"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """Start a Docker engine with BuildKit, set DOCKER_HOST to it, and yield its version."""
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
    """Return the PreparedImages of the engine, for amd64 and arm64."""
    assert engine
    from buildtool.image.docker.prepare import prepare_images

    return prepare_images()


@pytest.fixture(scope="session")
def carried_headers() -> Path:
    """Return the directory of the headers that wheels carry, from the locked Debian packages."""
    from buildtool.compile.headers import carried_headers

    if NAMED_HEADERS:
        return Path(NAMED_HEADERS)
    # A separate process may connect: a test that only starts compilers must not, but can use its result.
    argv = [sys.executable, TOP / "tools/loaders", "--headers"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return carried_headers()


@pytest.fixture(scope="session")
def any_headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the carried headers, or stand-ins if they were not made."""
    from labs.headers import write_headers

    from buildtool.compile.headers import LIST_NAME, carried_headers

    made = carried_headers()
    return made if (made / LIST_NAME).exists() else write_headers(tmp_path_factory.mktemp("headers"))


@pytest.fixture(scope="session")
def made_parts() -> MadeParts:
    """Make the parts of wheels from this checkout's sources, and return the result."""
    from buildtool.core.platforms import PLATFORMS
    from buildtool.runtime.carried import data_directory
    from buildtool.runtime.link import PartsRequest, make_parts

    request = PartsRequest(
        platforms=tuple(PLATFORMS.values()), data=data_directory(), cache=TOP / ".cache/loaders"
    )
    return make_parts(request)


@pytest.fixture(scope="session")
def carried_parts(made_parts: MadeParts) -> Path:
    """Return the directory of the parts; only a secondary architecture may lack its parts."""
    from buildtool.runtime.carried import data_directory

    for error in made_parts.failed.values():
        if not isinstance(error, PackageUnavailableError) or error.architecture in PRIMARY_ARCHITECTURES:
            raise error
    return data_directory()


@pytest.fixture(scope="session")
def sysroot_of() -> Callable[[Platform], Path]:
    """Return a function that unpacks the packages that link the loader of a platform."""
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
    """Return the newest clang of this machine."""
    from labs.compile import find_clang

    return find_clang()


@pytest.fixture(scope="session")
def c_verifier(clang: Path) -> Iterator[Verifier]:
    """Give the C verifier, under sanitizers: one process that answers all questions of the session."""
    from labs.verifiers import Verifier, build_c_verifier

    with Verifier(build_c_verifier(clang)) as running:
        yield running


@pytest.fixture(scope="session", params=["c", "go", pytest.param("rust", marks=pytest.mark.network)])
def verifier_program(request: pytest.FixtureRequest, clang: Path) -> Path:
    """Give a program that answers questions, for each verifier in another language than Python."""
    from labs.bindings import build_verifier

    return build_verifier(request.param, clang)


@pytest.fixture(scope="session")
def verifier(verifier_program: Path) -> Iterator[Verifier]:
    """Give each verifier in another language than Python, running."""
    from labs.verifiers import Verifier

    with Verifier(verifier_program) as running:
        yield running


@pytest.fixture
def as_root() -> None:
    """Skip unless this process is root."""
    if os.geteuid() != 0:
        pytest.skip(f"{Skip.NEEDS_ROOT}: bpf(2), network namespaces")


@pytest.fixture(scope="session")
def sysroot(sysroot_of: Callable[[Platform], Path]) -> Path:
    """Return the directory of this machine's packages to link the loader, with libbpf's headers."""
    from buildtool.core.platforms import host_platform

    own = host_platform(os.uname().machine)
    assert own is not None
    return sysroot_of(own)


@pytest.fixture(scope="session")
def probes(clang: Path, sysroot: Path) -> Path:
    """Return the directory with bpf-probe for this machine."""
    from labs.check import build_probes

    from buildtool.core.platforms import host_platform

    own = host_platform(os.uname().machine)
    assert own is not None
    return build_probes(TOP / ".cache/loader", clang, sysroot, own.arch, [own.static_option])


@pytest.fixture(scope="session")
def loader_binary(sysroot: Path, clang: Path) -> Path:
    """
    Build the loader for this machine as for images, static and stripped, with ebpf-pins beside it.

    LOADER_BUILD=sanitized-whole selects that target of loader/Makefile.
    """
    target = os.environ.get("LOADER_BUILD", "")
    output = TOP / ".cache/loader" / target / "verify-and-load"
    argv = ["make", "-C", TOP / "loader", f"SYSROOT={sysroot}", f"CLANG={clang}", f"OUT={output}"]
    argv += [target] if target else []
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
