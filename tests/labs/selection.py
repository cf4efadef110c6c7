# SPDX-License-Identifier: Apache-2.0
"""
Mark tests with their requirements, group them for parallel runs, and guard against undeclared connections.

The marks come from the directory of a test, from its fixtures, and from marks in its file. pyproject.toml
lists the marks. `make quick` runs the tests without the first five of them.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from buildtool.core.platforms import host_platform
from labs import TOP
from labs.run import alone

MARKS_OF_TIERS = {
    "adopt": ("tools",),
    "assurance": ("tools",),
    "docker": ("docker", "tools", "network"),
    "fuzz": ("tools",),
    "kernel": ("root", "tools", "network"),
    "peers": ("root", "tools", "network", "weekly"),
    "vm": ("vm", "tools", "network"),
}
# A fixture that unpacks Debian packages downloads them on a new machine.
MARKS_OF_FIXTURES = {
    "agent": ("tools",),
    "as_root": ("root",),
    "c_verifier": ("tools",),
    "carried_headers": ("tools", "network"),
    "carried_parts": ("tools", "network"),
    "clang": ("tools",),
    "engine": ("docker", "network"),
    "loader_binary": ("tools", "network"),
    "prepared_images": ("docker", "network"),
    "probes": ("tools", "network"),
    "newest_libbpf": ("tools", "network"),
    "sysroot": ("tools", "network"),
    "token": ("tools",),
    "verifier_program": ("tools",),
}
NEEDS = ("root", "network", "vm", "docker", "tools")
# Long tests come first, so that short ones fill the remaining time of the other processors.
ORDER = ("vm", "docker", "peers", "kernel", "assurance", "fuzz", "adopt", "cli", "vectors", "unit")
_may_connect = [True]


def find_tier(item: pytest.Item) -> str:
    """Return the directory of tests/ that the test is in."""
    return next((part for part in item.path.parts if part in ORDER), "")


def mark(item: pytest.Item) -> None:
    """Add the marks of *item*'s requirements."""
    names = set(MARKS_OF_TIERS.get(find_tier(item), ()))
    for fixture in getattr(item, "fixturenames", ()):
        names.update(MARKS_OF_FIXTURES.get(fixture, ()))
    for name in sorted(names):
        item.add_marker(name)


def find_group(item: pytest.Item) -> str:
    """
    Return the group of *item*. The tests of a group run in sequence in one process.

    A file is a group, because its tests share fixtures. The tests of one virtual machine are a group, so that
    it boots once. All tests with the engine are a group, because they list and remove images.
    """
    call = getattr(item, "callspec", None)
    if call is not None and "guest" in call.params:
        return "vm " + " ".join(call.params["guest"])
    if item.get_closest_marker("docker"):
        return "docker"
    return str(item.path.relative_to(TOP)) if item.path.is_relative_to(TOP) else item.path.name


# First, because xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all tests, and order their groups for a run in parallel."""
    for item in items:
        mark(item)
        if is_foreign(item):
            item.add_marker("architectures")
        if config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(find_group(item)))
    if is_worker():
        items.sort(key=lambda item: ORDER.index(find_tier(item) or "unit"))


def is_foreign(item: pytest.Item) -> bool:
    """Return whether *item* tests a build of the loader for another architecture than this machine's."""
    call = getattr(item, "callspec", None)
    if call is None or find_tier(item) != "kernel" or not item.path.name.startswith("test_loader"):
        return False
    own = host_platform(os.uname().machine)
    found = call.params.get("arch") or call.params.get("platform")
    return found is not None and own is not None and found != own.arch


def is_worker() -> bool:
    """Return whether this process is one of several that share a run."""
    return "PYTEST_XDIST_WORKER" in os.environ


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    """Let one process at a time set up a session's fixture. The next process finds the files."""
    if fixturedef.scope != "session" or not is_worker():
        return (yield)
    with alone():
        return (yield)


# -- no connection that is not declared


def is_local(host: Any) -> bool:
    """Return whether *host*, a name or an address, is this machine."""
    if host is None or host in ("", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def guard(function: Callable[..., Any], find_host: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* with a check that fails tests that connect to other machines without a mark."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        host = find_host(*arguments, **named)
        if not (_may_connect[0] or is_local(host)):
            pytest.fail(f"connection to {host!r}: the test has no mark that allows a network")
        return function(*arguments, **named)

    return guarded


def find_host(_: socket.socket, address: Any, *__: Any) -> Any:
    """Return the host of a socket's *address*, or None for the path of a Unix socket."""
    return address[0] if isinstance(address, tuple) and len(address) > 1 else None


def pytest_configure() -> None:
    """Guard Python's functions for connections. `unshare --net` in CI guards other programs."""
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, guard(getattr(socket.socket, name), find_host))
    socket.getaddrinfo = guard(socket.getaddrinfo, lambda host, *_, **__: host)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Allow connections to other machines for tests with one of the marks only."""
    _may_connect[0] = any(item.get_closest_marker(name) for name in NEEDS if name != "tools")
    try:
        return (yield)
    finally:
        _may_connect[0] = True
