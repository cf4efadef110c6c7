# SPDX-License-Identifier: Apache-2.0
"""Hooks that another program holds, targets from a file, and interfaces that appear later."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs import kernel, net
from labs.loader import PREFIX, Lab, in_kernel
from labs.net import veth
from labs.privileges import root_with
from labs.run import run

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

XDP = f"{PREFIX}_xdp"
PROGRAM = f"{PREFIX}_prog"


def other_directory(tmp_path: Path) -> Path:
    """Make a directory for a second loader's objects."""
    made = tmp_path / "other"
    made.mkdir()
    return made


def has_xdp(interface: str) -> bool:
    """Return whether *interface* has an XDP program."""
    shown = subprocess.run(["ip", "link", "show", interface], capture_output=True, text=True, check=True)
    return "prog/xdp" in shown.stdout


@contextmanager
def foreign_xdp(lab: Lab, tmp_path: Path, interface: str) -> Iterator[Path]:
    """Attach an XDP program without a link, as `ip` and older libraries do; yield its pins' directory."""
    path = tmp_path / "foreign.o"
    path.write_bytes(lab.object("foreign"))
    with kernel.loaded(path) as pins:
        argv = ["bpftool", "net", "attach", "xdpgeneric", "pinned", pins.program(f"{PREFIX}_foreign")]
        run(*argv, "dev", interface)
        try:
            yield pins.programs.parent
        finally:
            subprocess.run(["ip", "link", "set", interface, "xdpgeneric", "off"], check=True)


def seen_as_bpffs(directory: Path) -> list[str]:
    """Return a command prefix that runs with *directory* mounted at /sys/fs/bpf."""
    script = f'mount --bind {directory} /sys/fs/bpf && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def test_hook_of_another_process_is_kept(lab: Lab, tmp_path: Path) -> None:
    """A link of another process stays attached; the message names its program and process."""
    lab.put(tmp_path, "xdp")
    lab.put(other_directory(tmp_path), "xdp")
    with veth() as (left, _):
        option = f"--attach={XDP}={left}"
        with lab.started(tmp_path, option) as (process, stop):
            result = lab.run(tmp_path / "other", option)
            assert result.code == 1
            assert f"program {XDP} (id " in result.message
            assert f"of process {process.pid} {lab.loader.name}" in result.message
            assert "--replace detaches it" in result.message
            assert has_xdp(left)
            assert stop().code == 0


def test_hook_of_another_process_is_taken_with_replace(lab: Lab, tmp_path: Path) -> None:
    """--replace attaches our program instead, and our end detaches it."""
    lab.put(tmp_path, "xdp")
    lab.put(other_directory(tmp_path), "xdp")
    with veth() as (left, _):
        option = f"--attach={XDP}={left}"
        with lab.started(tmp_path, option) as (_, stop):
            with lab.started(tmp_path / "other", option, "--replace") as (_, stop_other):
                assert has_xdp(left)
                assert stop_other().code == 0
            assert not has_xdp(left)
            assert stop().code == 0


def test_replace_does_not_take_our_own(lab: Lab, tmp_path: Path) -> None:
    """Two programs of one start with the same priority are an error, even with --replace."""
    lab.put(tmp_path, "netfilter")
    result = lab.run(tmp_path, *[f"--attach={PROGRAM}=ipv6:output:76"] * 2, "--replace")
    assert result.code == 1
    assert f"cannot attach to ipv6:output:76: Device or resource busy: program {PROGRAM} " in result.message
    assert "of this loader holds the hook" in result.message
    assert len(result.events("detach")) == 1


@pytest.mark.parametrize(("kind", "name", "section"), [("xdp", "xdp", "xdp"), ("tcx", "tcx", "tcx/ingress")])
@pytest.mark.parametrize("signed", [True, False], ids=["statement", "option"])
def test_interface_that_is_named_twice(
    lab: Lab,
    tmp_path: Path,
    kind: str,
    name: str,
    section: str,
    signed: bool,  # noqa: FBT001 - a parameter
) -> None:
    """An interface given by name and by pattern is exit code 2 before any load; the line has both targets."""
    with veth() as (left, _):
        targets = [left, f"{left[:-1]}*"]
        program = {"name": f"{PREFIX}_{name}", "section": section, "type": kind, "attach": targets}
        lab.put(tmp_path, kind, **({"programs": [program]} if signed else {}))
        options = [] if signed else [f"--attach={PREFIX}_{name}={target}" for target in targets]
        result = lab.run(tmp_path, *options)
    assert result.code == 2
    said = f"program {PREFIX}_{name}: {left}: attached twice, by {targets[0]} and {targets[1]}; remove one"
    assert said in result.message
    assert result.events("load") == []


def test_tracepoint_that_is_named_twice(lab: Lab, tmp_path: Path) -> None:
    """A second target with the same tracepoint is an error: the kernel attaches a program there once."""
    lab.put(tmp_path, "tracepoint_bare")
    result = lab.run(tmp_path, *[f"--attach={PROGRAM}=syscalls/sys_enter_getpgid"] * 2)
    assert (result.code, "attached twice" in result.message) == (2, True), result.lines


def test_two_programs_for_one_interface(lab: Lab, tmp_path: Path) -> None:
    """Two XDP programs of one start cannot share an interface; the message names both."""
    lab.put(tmp_path, "xdp", "foreign")
    with veth() as (left, _):
        names = (XDP, f"{PREFIX}_foreign")
        result = lab.run(tmp_path, *[f"--attach={name}={left}" for name in names])
    assert result.code == 2
    assert all(f"program {name}" in result.message for name in names), result.message
    assert f": {left}: " in result.message
    assert result.events("load") == []


def test_program_without_a_link(lab: Lab, tmp_path: Path) -> None:
    """A program that `ip` attached stays, and the message names its pin; --replace detaches it."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, _), foreign_xdp(lab, tmp_path, left) as pins:
        option = f"--attach={XDP}={left}:generic"
        result = lab.run(tmp_path, option, before=seen_as_bpffs(pins))
        assert result.code == 1
        assert f"program {PREFIX}_foreign (id " in result.message
        assert f"pinned as /sys/fs/bpf/programs/{PREFIX}_foreign" in result.message
        assert has_xdp(left)
        with lab.started(tmp_path, option, "--replace") as (_, stop):
            assert stop().code == 0
        assert not has_xdp(left)


def test_flow_dissector_of_another_process(lab: Lab, tmp_path: Path) -> None:
    """The flow dissector of a network namespace stays; --replace detaches it."""
    lab.put(tmp_path, "dissector")
    lab.put(other_directory(tmp_path), "dissector")
    with net.namespace() as namespace:
        option = f"--attach={PROGRAM}=/run/netns/{namespace.name}"
        with lab.started(tmp_path, option) as (process, stop):
            result = lab.run(tmp_path / "other", option)
            assert result.code == 1
            assert f"of process {process.pid}" in result.message
            with lab.started(tmp_path / "other", option, "--replace") as (_, stop_other):
                assert stop_other().code == 0
            assert stop().code == 0


def test_priority_of_another_process(lab: Lab, tmp_path: Path) -> None:
    """A netfilter priority in use is an error; --replace takes it, and another priority is free."""
    lab.put(tmp_path, "netfilter")
    lab.put(other_directory(tmp_path), "netfilter")
    with lab.started(tmp_path, f"--attach={PROGRAM}=ipv6:output:77") as (process, stop):
        result = lab.run(tmp_path / "other", f"--attach={PROGRAM}=ipv6:output:77")
        assert result.code == 1
        assert f"of process {process.pid}" in result.message
        for options in (["ipv6:output:78"], ["ipv6:output:77", "--replace"]):
            with lab.started(tmp_path / "other", f"--attach={PROGRAM}={options[0]}", *options[1:]) as (
                _,
                stop_other,
            ):
                assert stop_other().code == 0
        assert stop().code == 0


def test_cgroup_that_takes_no_second_program(lab: Lab, tmp_path: Path) -> None:
    """A program that holds a cgroup exclusively stays and is named; --replace detaches it."""
    lab.put(tmp_path, "sock_create")
    foreign = tmp_path / "foreign.o"
    foreign.write_bytes(lab.object("sock_create"))
    with kernel.cgroup2() as group, kernel.loaded(foreign) as pins:
        pin = pins.program(PROGRAM)
        run("bpftool", "cgroup", "attach", group, "cgroup_inet_sock_create", "pinned", pin)
        option = f"--attach={PROGRAM}={group}"
        result = lab.run(tmp_path, option)
        assert result.code == 1
        assert f"program {PROGRAM} (id " in result.message
        with lab.started(tmp_path, option, "--replace") as (_, stop):
            assert stop().code == 0
        assert PROGRAM not in run("bpftool", "cgroup", "show", group)


def test_hook_holder_is_hidden_without_sys_admin(lab: Lab, tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN the message has only the program's id: the kernel hides name and process."""
    lab.put(tmp_path, "xdp")
    lab.put(other_directory(tmp_path), "xdp")
    with veth() as (left, _):
        option = f"--attach={XDP}={left}"
        with lab.started(tmp_path, option) as (_, stop):
            before = root_with("bpf", "net_admin")
            result = lab.run(tmp_path / "other", option, "--replace", before=before)
            assert result.code == 1
            assert "(id " in result.message
            assert "--replace cannot detach it" in result.message
            assert stop().code == 0


@pytest.mark.parametrize("kind", ["sk_msg", "map_iterator"])
def test_programs_of_maps_are_not_shared(lab: Lab, tmp_path: Path, kind: str) -> None:
    """With --share each start loads its own program, if the program is attached to a map of its object."""
    objects = lab.put(tmp_path, kind)
    if kind == "map_iterator":
        kernel.need_program_type(objects / f"{kind}.bpf.o")
    lab.put(other_directory(tmp_path), kind)
    with kernel.bpf_file_system() as mount:
        options = [f"--share={mount}/share"]
        if kind == "map_iterator":
            options.append(f"--attach={PROGRAM}={PREFIX}_map")
        with (
            lab.started(tmp_path, *options) as (_, stop),
            lab.started(tmp_path / "other", *options) as (_, stop_other),
        ):
            assert in_kernel().count(PROGRAM) == 2
            assert stop_other().code == 0
            assert stop().code == 0


def write_file(tmp_path: Path, text: str | bytes) -> str:
    """Write a file of targets; return the option with its path."""
    path = tmp_path / "targets"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return f"--attach-file={path}"


def test_targets_from_a_file(lab: Lab, tmp_path: Path) -> None:
    """Lines of a file replace the statement's targets; comments and empty lines are ignored."""
    program = {"name": XDP, "section": "xdp", "type": "xdp", "attach": ["lo"]}
    lab.put(tmp_path, "xdp", programs=[program])
    with veth() as (left, right):
        option = write_file(tmp_path, f"# ours\n\n  {XDP}={left}\t\nxdp.bpf.o:{XDP}={right}:generic")
        with lab.started(tmp_path, option) as (_, stop):
            targets = [line["target"] for line in stop().events("attach")]
    assert targets == [left, f"{right}:generic"]


def test_command_line_comes_before_the_file(lab: Lab, tmp_path: Path) -> None:
    """A program that --attach names gets no target from the file."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, right):
        option = write_file(tmp_path, f"{XDP}={left}\n")
        with lab.started(tmp_path, option, f"--attach={XDP}={right}") as (_, stop):
            assert [line["target"] for line in stop().events("attach")] == [right]


@pytest.mark.parametrize(
    ("image", "file", "command", "targets"),
    [
        (["{x}={l}"], "", [], ["{l}"]),
        (["{x}={l}"], "", ["{x}={r}"], ["{r}"]),
        (["{x}={l}", "{x}=lo:generic"], "", ["{x}={r}"], ["{r}"]),
        (["{x}={l}"], "", ["xdp.bpf.o:{x}={r}"], ["{r}"]),
        (["xdp.bpf.o:{x}={l}"], "", ["{x}={r}"], ["{r}"]),
        (["{x}={l}"], "", ["{x}+={r}"], ["{l}", "{r}"]),
        (["{x}={l}"], "", ["{x}=none"], []),
        (["{x}={l}"], "{x}={r}", [], ["{r}"]),
        (["{x}={l}"], "{x}+={r}", [], ["{l}", "{r}"]),
        (["{x}=lo:generic"], "{x}={l}", ["{x}+={r}"], ["{l}", "{r}"]),
        (["{x}=lo:generic"], "{x}=lo:generic", ["{x}={l}", "{x}={r}"], ["{l}", "{r}"]),
        (["no={l}"], "", ["no=none", "{x}={r}"], None),
        (["other.bpf.o:{x}={l}"], "", ["xdp.bpf.o:{x}={r}"], None),
    ],
)
def test_later_sources_replace_the_targets_of_earlier_ones(
    lab: Lab, tmp_path: Path, image: list[str], file: str, command: list[str], targets: list[str] | None
) -> None:
    """In the order image, file, command line, a target replaces earlier ones of its program; += adds."""
    lab.put(tmp_path, "xdp")
    with veth() as (left, right):

        def fill(texts: list[str]) -> list[str]:
            return [text.format(x=XDP, l=left, r=right) for text in texts]

        options = [f"--image-attach={text}" for text in fill(image)]
        options += [f"--attach={text}" for text in fill(command)]
        options += [write_file(tmp_path, fill([file])[0])] if file else []
        if targets is None:  # the remaining target names a program that no object has
            assert "no object has this program" in lab.run(tmp_path, *options).message
            return
        with lab.started(tmp_path, *options) as (_, stop):
            attached = [line["target"] for line in stop().events("attach")]
            assert sorted(attached) == sorted(fill(targets))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x=y\nnonsense\n", ["line 2", "not PROGRAM=TARGET"]),
        ("x=y # no comment\n", ["line 1", "not PROGRAM=TARGET"]),
        ("x=y\r\n", ["line 1", "not PROGRAM=TARGET"]),
        ("=y\n", ["line 1", "not PROGRAM=TARGET"]),
        ("x=ü\n", ["line 1", "not PROGRAM=TARGET"]),
        (b"x=y\0\n", ["not a text"]),
        (b"#" * 65537, ["larger than 64 KiB"]),
        ("p=lo\n" * 129, ["line 129", "more than 128"]),
        ("p=lo\n", ["p", "no object has this program"]),
    ],
)
def test_bad_files(lab: Lab, tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    """A malformed file is exit code 2 with the line's number, and nothing is loaded."""
    lab.put(tmp_path, "xdp")
    result = lab.run(tmp_path, write_file(tmp_path, text))
    assert result.code == 2
    assert all(word in result.message for word in words), result.message
    assert result.events("load") == []


@pytest.mark.parametrize("name", ["none", ".", "fifo"])
def test_target_file_that_is_no_file(lab: Lab, tmp_path: Path, name: str) -> None:
    """A missing file, a directory or a FIFO is exit code 2, without waiting."""
    lab.put(tmp_path, "xdp")
    subprocess.run(["mkfifo", tmp_path / "fifo"], check=True)
    result = lab.run(tmp_path, f"--attach-file={tmp_path / name}")
    assert result.code == 2
    assert "--attach-file" in result.message


@contextmanager
def late_pair() -> Iterator[tuple[str, str]]:
    """Make a veth pair a moment after the body has begun."""
    left, right = f"{PREFIX}la", f"{PREFIX}lb"
    argv = ["ip", "link", "add", left, "type", "veth", "peer", "name", right]
    timer = Timer(0.4, lambda: subprocess.run(argv, check=True))
    timer.start()
    try:
        yield left, right
    finally:
        timer.join()
        subprocess.run(["ip", "link", "del", left], check=True)


@pytest.mark.parametrize("form", ["{left}", "{p}l?:generic"])
def test_interface_that_comes_later(lab: Lab, tmp_path: Path, form: str) -> None:
    """With --wait-interface the loader waits until a name or a pattern matches an interface."""
    lab.put(tmp_path, "xdp")
    with late_pair() as (left, _):
        target = form.format(left=left, p=PREFIX)
        with lab.started(tmp_path, f"--attach={XDP}={target}", "--wait-interface=30") as (_, stop):
            result = stop()
    assert result.code == 0
    assert result.events("attach")[0]["target"].startswith(left)


def test_interface_that_never_comes(lab: Lab, tmp_path: Path) -> None:
    """An interface that is still missing after the given time is an error, and nothing was loaded."""
    lab.put(tmp_path, "xdp")
    began = time.monotonic()
    result = lab.run(tmp_path, f"--attach={XDP}={PREFIX}none", "--wait-interface=1")
    assert result.code == 1
    assert "none appeared in time; raise --wait-interface" in result.message
    assert time.monotonic() - began >= 1
    assert result.events("load") == []


def test_stop_while_waiting(lab: Lab, tmp_path: Path) -> None:
    """SIGTERM ends the wait with exit code 0, and nothing is loaded."""
    lab.put(tmp_path, "xdp")
    argv = lab.argv(tmp_path, f"--attach={XDP}={PREFIX}none", "--wait-interface=60")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert '"verify"' in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    assert not rest
