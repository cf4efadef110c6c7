# SPDX-License-Identifier: Apache-2.0
"""A pinned link whose target has another text at the next start: the kernel's place counts, not the text."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from labs.kernel import bpf_file_system, cgroup2, list_bpf
from labs.loader import PREFIX, Lab, Result
from labs.net import flood, namespace, veth
from labs.pins import CGROUP, TCX, XDP, Releases
from labs.run import run, wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
OTHER = f"lt{os.getpid() % 100000}other"
THIRD = f"lt{os.getpid() % 100000}third"


def same(name: str) -> str:
    """Return the name itself."""
    return name


def with_mode(name: str) -> str:
    """Return the name with the mode that a veth has without one."""
    return f"{name}:driver"


def with_altname(name: str) -> str:
    """Give the interface an alternative name, and return it."""
    run("ip", "link", "property", "add", "dev", name, "altname", OTHER)
    return OTHER


def rename(name: str, new: str = OTHER) -> str:
    """Rename the interface and return the new name; the old one becomes an alternative name of nothing."""
    run("ip", "link", "set", "dev", name, "down")
    run("ip", "link", "set", "dev", name, "name", new)
    run("ip", "link", "set", "dev", new, "up")
    return new


@contextmanager
def renamed(name: str, change: Callable[[str], str]) -> Iterator[str]:
    """Change the interface; give it its name back at the end."""
    changed = change(name)
    try:
        yield changed
    finally:
        if change is rename:
            rename(changed, name)


def start(releases: Releases, *targets: str, options: tuple[str, ...] = ()) -> Result:
    """Start with pins at the targets."""
    return releases.lab.run(releases.directory, *releases.options(*targets), *options, *TRUE)


def links_of(releases: Releases) -> dict[str, dict[str, Any]]:
    """Return the pinned links of the object by name."""
    return {path.name: releases.link(path.name) for path in (releases.home / "links").iterdir()}


def status(releases: Releases) -> int:
    """Return the exit code of `status`."""
    return releases.command("status").code


CHANGES = [with_mode, with_altname, rename]


@pytest.mark.parametrize("release", [1, 2], ids=["same", "next"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("program", "name"), [(XDP, "xdp"), (TCX, "tcx")], ids=["xdp", "tcx"])
def test_own_link_is_found_by_its_interface(
    lab: Lab, tmp_path: Path, program: str, name: str, change: Callable[[str], str], release: int
) -> None:
    """The link of the last start stays, gets the new program in one step, and has the new name alone."""
    if (name, change) == ("tcx", with_mode):
        change = same
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", program)
        releases.put(1)
        assert start(releases, f"{name}={left}").code == 0
        [(_, before)] = links_of(releases).items()
        releases.put(release, release=release)
        with renamed(left, change) as target:
            with flood(right) as sent:
                result = start(releases, f"{name}={target}")
            assert result.code == 0, result.lines
            [line] = [*result.events("keep"), *result.events("update")]
            assert (line["event"], line["target"]) == ("keep" if release == 1 else "update", target)
            assert (result.events("attach"), result.events("detach")) == ([], [])
            [(pinned, after)] = links_of(releases).items()
            assert (pinned, after["id"]) == (f"{PREFIX}_{name}@{target}", before["id"])
            assert wait_until(lambda: releases.counts()[0] == sent[0])
            assert status(releases) == 0
            # The next start finds the link by its new name.
            assert start(releases, f"{name}={target}").events("keep")
            assert releases.command("detach").code == 0


def test_rollback_to_another_text(lab: Lab, tmp_path: Path) -> None:
    """A rollback to a release that was attached by another name takes the same link back."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        assert start(releases, f"xdp={left}").code == 0
        [(_, before)] = links_of(releases).items()
        releases.put(2, release=2)
        assert start(releases, f"xdp={with_altname(left)}").code == 0
        with flood(right) as sent:
            assert releases.command("rollback").code == 0
        [(name, after)] = links_of(releases).items()
        assert (name, after["id"]) == (f"{PREFIX}_xdp@{left}", before["id"])
        assert wait_until(lambda: releases.counts()[0] == sent[0])
        assert sum(releases.counts()[1:]) == sent[0]
        assert status(releases) == 0


def test_interfaces_that_exchanged_their_names(lab: Lab, tmp_path: Path) -> None:
    """Each link stays at its interface, and gets the name that its interface has now."""
    with veth() as (left, right), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        targets = (f"xdp={left}", f"xdp={right}")
        assert start(releases, *targets).code == 0
        before = {name: link["id"] for name, link in links_of(releases).items()}
        for old, new in ((left, THIRD), (right, left), (THIRD, right)):
            rename(old, new)
        releases.put(2, release=2)
        result = start(releases, *targets)
        assert result.code == 0, result.lines
        assert (len(result.events("update")), result.events("attach")) == (2, [])
        names = [f"{PREFIX}_xdp@{name}" for name in (left, right)]
        after = {name: link["id"] for name, link in links_of(releases).items()}
        assert after == {names[0]: before[names[1]], names[1]: before[names[0]]}
        assert status(releases) == 0


def test_cgroup_by_another_path(lab: Lab, tmp_path: Path) -> None:
    """A cgroup's id counts, not the path that leads to it."""
    with cgroup2() as group, bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", CGROUP)
        releases.put(1)
        assert start(releases, f"cg={group}").code == 0
        [(_, before)] = links_of(releases).items()
        releases.put(2, release=2)
        result = start(releases, f"cg={group}/.")
        assert [line["event"] for line in result.lines][2:4] == ["update", "ready"], result.lines
        [(_, after)] = links_of(releases).items()
        assert after["id"] == before["id"]


def test_update_that_fails_keeps_the_old_name(lab: Lab, tmp_path: Path) -> None:
    """A failed health check leaves the link as it was: old program, old name, one pin."""
    with veth() as (left, _), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        assert start(releases, f"xdp={left}").code == 0
        before = links_of(releases)
        releases.put(2, release=2)
        result = start(releases, f"xdp={left}:driver", options=("--health-command=/bin/false",))
        assert result.code == 1
        assert len(result.events("rollback")) == 1
        assert links_of(releases) == before
        assert status(releases) == 0


def test_another_mode_is_another_link(lab: Lab, tmp_path: Path) -> None:
    """The kernel does not change a link's mode: the start fails and says how; --replace changes it."""
    with veth() as (left, _), bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        assert start(releases, f"xdp={left}").code == 0
        before = links_of(releases)
        result = start(releases, f"xdp={left}:generic")
        assert (result.code, "--replace detaches it" in result.message) == (1, True), result.lines
        assert links_of(releases) == before
        result = start(releases, f"xdp={left}:generic", options=("--replace",))
        assert result.code == 0, result.lines
        [(name, after)] = links_of(releases).items()
        assert (name, after["id"] in before) == (f"{PREFIX}_xdp@{left}:generic", False)
        assert "xdpgeneric" in run("ip", "link", "show", left)
        # Without a mode, the one that the link has is kept.
        assert start(releases, f"xdp={left}").events("keep")
        assert [link["id"] for link in links_of(releases).values()] == [after["id"]]
        assert len([link for link in list_bpf("link") if link["id"] == after["id"]]) == 1


def test_generic_mode_of_a_device_without_another(lab: Lab, tmp_path: Path) -> None:
    """A device without XDP in its driver has the generic mode already: naming it changes nothing."""
    with namespace() as inside, bpf_file_system(tmp_path) as mount:
        releases = Releases(lab, tmp_path, mount / "pins", XDP)
        releases.put(1)
        before = ["ip", "netns", "exec", inside.name]
        for target, event in (("lo", "attach"), ("lo:generic", "keep"), ("lo", "keep")):
            result = lab.run(tmp_path, *releases.options(f"xdp={target}"), *TRUE, before=before)
            assert (result.code, len(result.events(event))) == (0, 1), result.lines
            assert list(links_of(releases)) == [f"{PREFIX}_xdp@{target}"]


# UTF-8 as people name interfaces, and bytes that a terminal would obey.
FOREIGN_NAMES = {"utf-8": "ltÀü€".encode(), "raw": b"lt\xff\x1b[3"}


@pytest.mark.parametrize("log", ["json", "human"])
@pytest.mark.parametrize("kind", FOREIGN_NAMES)
def test_name_of_an_interface_outside_ascii(lab: Lab, tmp_path: Path, kind: str, log: str) -> None:
    """Its bytes reach no line, no table and no metric; the record of pins takes only text."""
    name = FOREIGN_NAMES[kind]
    lab.put(tmp_path, "xdp")
    target = f"--attach={PREFIX}_xdp=".encode() + name
    metrics = tmp_path / "loader.prom"
    options = [f"--log={log}", f"--metrics-file={metrics}"]
    subprocess.run([b"ip", b"link", b"add", name, b"type", b"veth"], check=True)
    try:
        with bpf_file_system(tmp_path) as mount:
            root = f"--pin-root={mount}/pins"
            # The second start with pins finds the link of the first by its name.
            for more in ([], [root], [root]):
                argv = [*lab.argv(tmp_path, *options, *more), target, *TRUE]
                done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
                is_refused = kind == "raw" and bool(more)
                assert done.returncode == (2 if is_refused else 0), done.stderr
                assert (b"--pin-root requires a target in UTF-8; rename" in done.stderr) == is_refused
                assert is_printable(done.stderr), done.stderr
                metrics.read_text("utf-8")
                assert b"\x1b" not in metrics.read_bytes()
            for arguments in (["list"], ["list", "--json"], ["detach"]):
                argv = [lab.pins, *arguments, root]
                done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
                # The refused start made no directory.
                assert done.returncode == (1 if kind == "raw" else 0), done.stderr
                assert is_printable(done.stderr), done.stderr
                assert "--json" in arguments or is_printable(done.stdout), done.stdout
                if arguments == ["detach"] and kind == "utf-8":
                    assert b'"target":"lt' + b"\\ufffd" * 7 + b'"' in done.stderr
                if "--json" in arguments and kind == "utf-8":
                    # The name of the pin is that of the record, whatever its bytes are.
                    ((link,),) = (item["links"].values() for item in json.loads(done.stdout))
                    assert (link["target"], link["attached"]) == (name.decode(), True)
    finally:
        subprocess.run([b"ip", b"link", b"del", name], check=True)


def is_printable(data: bytes) -> bool:
    """Return whether *data* are lines of printable ASCII."""
    return all(byte == 10 or 32 <= byte < 127 for byte in data)
