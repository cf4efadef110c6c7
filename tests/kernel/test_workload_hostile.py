# SPDX-License-Identifier: Apache-2.0
"""
By default a workload can change no pins, no shared program and not its loader.

hostile_workload.py attacks as the loader's own user, without capabilities. SECURITY.md lists the attacks.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, Result, is_clean
from labs.pins import RAW, Releases
from labs.privileges import USER, root_with, user_with
from labs.run import wait_until

pytestmark = [
    pytest.mark.usefixtures("as_root", "nothing_left"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs-kernel-feature: numbers of the calls"),
]

HOSTILE = ("/usr/bin/python3", str(Path(__file__).with_name("hostile_workload.py")))
AS_ROOT, AS_USER = root_with("bpf", "perfmon"), user_with("bpf", "perfmon")
# The answers of Landlock, of a file system, and of a denied system call.
DENIED = {"EACCES", "EPERM", "EXDEV"}
NO_LANDLOCK = ["strace", "-f", "-o", "/dev/null", "-e", "inject=landlock_create_ruleset:error=ENOSYS"]


class Scene:
    """A BPF file system, a second mount of it, and the loader's objects where every user can read them."""

    def __init__(self, lab: Lab, directory: Path, mount: Path, again: Path, option: str) -> None:
        self.releases = Releases(lab, directory, mount / "pins", RAW)
        self._option, self.root, self._again = option, self.releases.root, again
        self.releases.put(1)

    def options(self) -> tuple[str, ...]:
        """Return the option with the directory of pins."""
        return (f"--{self._option}={self.root}",)

    def prepare(self, before: list[str]) -> None:
        """Make the directory for the user of *before*, and pins in it."""
        self.root.mkdir(mode=0o700)
        os.chown(self.root, *((USER, USER) if before is AS_USER else (0, 0)))
        done = self.releases.lab.run(
            self.releases.directory, *self.options(), "--", "/bin/true", before=before
        )
        assert done.code == 0, done.lines

    def entry(self) -> str:
        """Return the name of the object's directory."""
        return next(path.name for path in self.root.iterdir())

    def pins(self) -> list[str]:
        """Return the paths of all pins, relative to the directory."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def attack(self, *options: str, before: list[str]) -> tuple[Result, dict[str, str]]:
        """Start the hostile workload; return its result and its report."""
        tops = [str(self.root), f"/proc/self/root{self.root}", str(self._again / "pins")]
        environ = [f"ENTRY={self.entry()}", f"PINS={':'.join(self.pins())}"]
        environ += ["SUPERVISED=1"] if "--reload" in options else []
        argv = ["env", *environ, *before]
        result = self.releases.lab.run(
            self.releases.directory, *self.options(), *options, "--", *HOSTILE, *tops, before=argv
        )
        assert result.code == 0, (result.lines, result.stdout)
        return result, dict(json.loads(result.stdout))

    def detach(self) -> None:
        """Remove the pins."""
        argv = ["setpriv", f"--reuid={self.root.stat().st_uid}", "--clear-groups"]
        argv += [str(self.releases.lab.pins), "detach", *self.options()]
        subprocess.run(argv, check=True, capture_output=True)


@contextmanager
def scene(lab: Lab, directory: Path, option: str) -> Iterator[Scene]:
    """Yield a scene whose parent directories other users can enter."""
    with bpf_file_system() as mount, bpf_file_system() as place:
        again = place.parent / f"{place.name}-again"
        again.mkdir()
        mount.chmod(0o755)
        subprocess.run(["mount", "--bind", mount, again], check=True)
        made = Scene(lab, directory, mount, again, option)
        try:
            yield made
            made.detach()
        finally:
            subprocess.run(["umount", again], check=True)
            again.rmdir()


def check_denied(found: dict[str, str], *but: str) -> None:
    """Check that every attempt was denied, except those whose name begins with one of *but*."""
    assert found.get("plain fork", "0") == "0"
    own = (
        "plain fork",
        "descriptor",
        "entries of",
        "maps",
        "identity",
        "look up",
        "update",
        "make in",
        "up from",
    )
    came_through = {
        name: answer
        for name, answer in found.items()
        if answer not in DENIED and not name.startswith((*own, *but))
    }
    assert came_through == {}


OF_THE_LOADER = ("forget", "own ", "pidfd", "trace", "memory", "when memory")


def check_loader_lives(found: dict[str, str]) -> None:
    """Check the attacks on the loader, and that the workload's own settings still work."""
    assert found["own limit"] == found["own flags"] == found["forget to die with the loader"] == ""
    assert {found["pidfd"], found["pidfd of proc"]} <= {"EPERM", "ENOSYS"}
    assert {found["trace"], found["memory"]} <= {"EPERM", "EACCES"}
    # Root owns these files and may write to them.
    assert found["when memory ends"] in ({"", "EACCES"} if found["identity"].startswith("0:") else {"EACCES"})


@pytest.mark.parametrize("option", ["pin-root", "share"])
@pytest.mark.parametrize("reload", [False, True], ids=["exec", "reload"])
@pytest.mark.parametrize("before", [AS_ROOT, AS_USER], ids=["root", "user"])
def test_pins_are_out_of_reach(
    lab: Lab, tmp_path: Path, before: list[str], option: str, *, reload: bool
) -> None:
    """The workload can list, read, open, make, rename or remove nothing under any path of the pins."""
    with scene(lab, tmp_path, option) as at:
        at.prepare(before)
        pins = at.pins()
        assert pins
        result, found = at.attack(*(["--reload"] if reload else []), before=before)
        check_denied(found, *(OF_THE_LOADER if reload else ()))
        # The last user of a shared entry removes it.
        assert at.pins() == ([] if reload and option == "share" else pins)
        assert found["maps"] == f"BUILDTOOL_FD_{PREFIX}_map"
        assert found[f"look up {found['maps']}"] == found[f"update {found['maps']}"] == ""
        check_descriptors(found, option, reload=reload)
        if reload:
            check_loader_lives(found)
        assert len(result.events("reuse")) == 1
        if option == "pin-root":
            assert at.releases.command("status", before=before).code == 0
    assert is_clean()


def check_descriptors(found: dict[str, str], option: str, *, reload: bool) -> None:
    """
    Check that the workload has no open descriptor but its map.

    Without --reload the workload runs in the loader's own process. It then also has the link, if no pin holds
    it, and the lock of the shared entry, which is an empty directory.
    """
    kinds = sorted(kind for name, kind in found.items() if name.startswith("descriptor"))
    if reload or option == "pin-root":
        assert kinds == ["anon_inode:bpf-map"]
        return
    lock, link, own = kinds
    assert lock.endswith("/users"), kinds
    assert link.startswith("anon_inode:bpf"), kinds
    assert own.startswith("anon_inode:bpf"), kinds
    (number,) = (name.split()[1] for name, kind in found.items() if kind == lock)
    assert found[f"entries of {number}"] == ""
    assert {found[f"make in {number}"], found[f"up from {number}"]} <= DENIED


@pytest.mark.parametrize("before", [[], NO_LANDLOCK], ids=["landlock", "seccomp-alone"])
def test_loader_cannot_be_ended(lab: Lab, tmp_path: Path, before: list[str]) -> None:
    """No signal and no limit reaches the loader; before Linux 6.12 seccomp alone stops them."""
    lab.put(tmp_path, "raw_tp")
    argv = ["env", "SUPERVISED=1", "ENTRY=x", "PINS=x", *before]
    result = lab.run(tmp_path, "--reload", "--", *HOSTILE, before=argv)
    assert result.code == 0, (result.lines, result.stdout)
    found = json.loads(result.stdout)
    check_denied(found, *OF_THE_LOADER)
    check_loader_lives(found)
    assert len(result.events("detach")) == 1


STEAL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, int(sys.argv[1]), 0)
assert pidfd >= 0
print([number for number in range(64) if libc.syscall(438, pidfd, number, 0) >= 0])
"""


@pytest.mark.parametrize("user", [0, USER])
def test_descriptors_of_a_loader_without_workload_stay_its_own(lab: Lab, tmp_path: Path, user: int) -> None:
    """A process of the loader's user without capabilities gets no descriptor by pidfd_getfd(2)."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path, before=AS_USER if user else AS_ROOT) as (process, stop):
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
        argv = [*drop, "--bounding-set=-all", sys.executable, "-c", STEAL, str(process.pid)]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
        assert stop().code == 0


def test_workload_user_root_is_refused(lab: Lab, tmp_path: Path) -> None:
    """--workload-user=0 is refused for every loader: root owns the directories above the pins."""
    lab.put(tmp_path, "raw_tp")
    options = ("--pin-root=/sys/fs/bpf/x", "--workload-user=0", "--", "true")
    result = lab.run(tmp_path, *options, before=AS_USER)
    assert (result.code, "root owns the directories above" in result.message) == (2, True)


LEAVES_ITS_GROUP = """#!/usr/bin/python3
import os, time
os.closerange(0, 3)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
os.setpgid(child, child)
os.setpgid(0, child)
time.sleep(60)
"""


def test_a_health_command_that_leaves_its_group_is_ended(lab: Lab, tmp_path: Path) -> None:
    """A health command that leaves its process group is ended at the time limit, and the start returns."""
    command = tmp_path / "health.py"
    command.write_text(LEAVES_ITS_GROUP)
    command.chmod(0o755)
    with bpf_file_system() as mount:
        releases = Releases(lab, tmp_path, mount / "pins", RAW)
        releases.put(1)
        result = lab.run(
            tmp_path, *releases.options(), f"--health-command={command}", "--health-wait=1", "--", "/bin/true"
        )
        assert (result.code, "still running after 1 s" in result.message) == (1, True)
    subprocess.run(["pkill", "-f", str(command)], check=False)


def test_landlock_alone_stops_signals(lab: Lab, tmp_path: Path) -> None:
    """With --no-seccomp Landlock still stops signals to the loader, since Linux 6.12."""
    lab.put(tmp_path, "raw_tp")
    script = "kill -KILL $PPID || kill -0 $PPID; echo $?; sleep 9 & kill $!; wait $!; echo $?"
    script = f"exec 2>/dev/null; {script}"
    result = lab.run(tmp_path, "--reload", "--no-seccomp", "--", "sh", "-c", script)
    assert (result.code, result.stdout.split()) == (0, ["1", "143"]), result.lines


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(os.environ["MARK"], "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
while not os.path.exists(os.environ["MARK"]) or not open(os.environ["MARK"]).read():
    time.sleep(0.01)
"""


def test_nothing_of_the_workload_outlives_its_programs(lab: Lab, tmp_path: Path) -> None:
    """A daemon of the workload in another session ends when the workload ends."""
    lab.put(tmp_path, "raw_tp")
    mark = tmp_path / "mark"
    argv = ("--reload", "--", sys.executable, "-c", DAEMON)
    assert lab.run(tmp_path, *argv, before=["env", f"MARK={mark}"]).code == 0
    assert wait_until(lambda: not Path(f"/proc/{mark.read_text()}").exists(), 5)


def test_inherited_descriptors_end_with_the_loader(lab: Lab, tmp_path: Path) -> None:
    """The workload does not inherit a directory that the loader inherited."""
    lab.put(tmp_path, "raw_tp")
    with bpf_file_system() as mount:
        descriptor = os.open(mount, os.O_RDONLY)
        argv = lab.argv(tmp_path, "--", "ls", "-l", "/proc/self/fd")
        done = subprocess.run(argv, pass_fds=[descriptor], capture_output=True, text=True, check=True)
        os.close(descriptor)
        assert str(mount) not in done.stdout


def test_sockets_that_systemd_passes_are_kept(lab: Lab, tmp_path: Path) -> None:
    """The workload inherits the sockets of LISTEN_FDS if it runs in the loader's own process."""
    lab.put(tmp_path, "raw_tp")
    script = (
        'LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec 3</dev/null 4</dev/zero; exec "$@"'
    )
    argv = ["sh", "-c", script, "sh", *lab.argv(tmp_path, "--", "ls", "-l", "/proc/self/fd")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "/dev/null" in done.stdout
    assert "/dev/zero" not in done.stdout


@pytest.mark.parametrize("reload", [[], ["--reload"]], ids=["exec", "reload"])
def test_workload_of_another_user(lab: Lab, tmp_path: Path, reload: list[str]) -> None:
    """--workload-user: mode and user id protect the pins, with and without Landlock."""
    with scene(lab, tmp_path, "pin-root") as at:
        at.prepare(AS_ROOT)
        before = root_with("bpf", "perfmon", "setuid", "setgid", *(["kill"] if reload else []))
        for wrapper in ([], NO_LANDLOCK):
            _, found = at.attack("--workload-user=1000:2000", *reload, before=[*wrapper, *before])
            assert found["identity"] == "1000:2000 []"
            check_denied(found, "unshare", "clone", *OF_THE_LOADER)
            if reload:
                check_loader_lives(found)


def test_workload_user_needs_capabilities(lab: Lab, tmp_path: Path) -> None:
    """--workload-user needs CAP_SETUID and CAP_SETGID, and another user than the loader's."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, "--workload-user=1000", "--", "true", before=AS_ROOT)
    assert (result.code, result.events("load")) == (1, [])
    assert result.message == "--workload-user requires CAP_SETGID CAP_SETUID"
    result = lab.run(tmp_path, "--workload-user=0", "--", "true")
    assert (result.code, "the loader's own user" in result.message) == (2, True)


@pytest.mark.parametrize("option", ["pin-root", "share"])
def test_no_start_where_pins_cannot_be_hidden(lab: Lab, tmp_path: Path, option: str) -> None:
    """Without Landlock or seccomp nothing is loaded, unless --workload-user names another user."""
    with scene(lab, tmp_path, option) as at:
        at.prepare(AS_ROOT)
        options, true = at.options(), ("--", "/bin/true")
        result = lab.run(tmp_path, *options, *true, before=NO_LANDLOCK)
        assert (result.code, result.events("reuse")) == (1, [])
        assert result.message.startswith("cannot-hide-pins: "), result.message
        result = lab.run(tmp_path, *options, "--no-seccomp", *true)
        assert (result.code, "requires --workload-user" in result.message) == (2, True)
        result = lab.run(tmp_path, *options, "--health-command=/bin/true", before=NO_LANDLOCK)
        assert (result.code, result.events("reuse")) == (1, [])
        for more in ([], ["--no-seccomp"]):
            done = lab.run(tmp_path, *options, "--workload-user=1000", *more, *true, before=NO_LANDLOCK)
            assert done.code == 0, done.lines


READ_ONLY = RAW.replace(
    'SEC("raw',
    "struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, __u64); __uint(map_flags, BPF_F_RDONLY); } @_ro SEC(".maps"); SEC("raw',
).replace("count(RELEASE);", "__u32 k = 0; bpf_map_lookup_elem(&@_ro, &k); count(RELEASE);")


def test_map_that_becomes_read_only(lab: Lab, tmp_path: Path) -> None:
    """An update to BPF_F_RDONLY starts with a new map, and the next update keeps this map read-only."""
    with scene(lab, tmp_path, "pin-root") as at:
        at.releases = Releases(lab, tmp_path, at.root, READ_ONLY.replace("BPF_F_RDONLY", "0"))
        at.releases.put(1)
        at.prepare(AS_ROOT)
        at.releases = Releases(lab, tmp_path, at.root, READ_ONLY)
        for version in (2, 3):
            at.releases.put(version, release=version - 1)
            result, found = at.attack(before=AS_ROOT)
            changed = [line["target"] for line in result.events("map")]
            assert changed == ([f"{PREFIX}_ro"] if version == 2 else [])
            assert found[f"update BUILDTOOL_FD_{PREFIX}_ro"] == "EPERM"


# No program uses this table, because this kernel keeps a used table after the test.
TABLE = RAW.replace(
    'SEC("raw',
    "struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, __u32);"
    ' __type(value, __u32); } @_calls SEC(".maps"); SEC("raw',
)


@pytest.mark.parametrize("option", ["pin-root", "share"])
def test_map_that_user_space_may_only_read(lab: Lab, tmp_path: Path, option: str) -> None:
    """BPF_F_RDONLY applies to the descriptor of the first start and to descriptors from a pin."""
    with scene(lab, tmp_path, option) as at:
        at.releases = Releases(lab, tmp_path, at.root, READ_ONLY)
        at.releases.put(1)
        at.prepare(AS_ROOT)
        for _ in range(2):
            _, found = at.attack(before=AS_ROOT)
            assert found[f"look up BUILDTOOL_FD_{PREFIX}_ro"] == ""
            assert found[f"update BUILDTOOL_FD_{PREFIX}_ro"] == "EPERM"
            assert found[f"update BUILDTOOL_FD_{PREFIX}_map"] == ""


def test_tables_of_tail_calls_are_not_passed(lab: Lab, tmp_path: Path) -> None:
    """The workload gets no table of tail calls: emptying it would remove programs."""
    releases = Releases(lab, tmp_path, tmp_path, TABLE)
    releases.put(1)
    script = "env | grep -c BUILDTOOL_FD; ls -l /proc/self/fd | grep -c bpf-map"
    result = lab.run(tmp_path, "--", "sh", "-c", script)
    assert result.stdout.split() == ["1", "1"], result.stdout


def test_other_directories_stay_accessible(lab: Lab, tmp_path: Path) -> None:
    """Beside the pins a workload reads and writes as before, in all directories that existed at its start."""
    with scene(lab, tmp_path, "pin-root") as at:
        at.prepare(AS_ROOT)
        beside = at.root.parent.parent / f"{PREFIX}beside"
        beside.mkdir()
        (beside / "file").write_text("x")
        script = (
            f"cat {beside}/file && echo y >{beside}/new && mv {beside}/new {tmp_path}/moved && ls {tmp_path}"
            f" && ls /proc/self /dev >/dev/null && ! ls / 2>/dev/null && rm -r {beside}/file"
        )
        result = lab.run(tmp_path, *at.options(), "--", "sh", "-ec", script, before=AS_ROOT)
        assert (result.code, "moved" in result.stdout) == (0, True), (result.stdout, result.lines)
        beside.rmdir()


def test_hidden_directory_by_another_name(lab: Lab, tmp_path: Path) -> None:
    """
    A second mount of a directory above the pins, or of one below, does not show the pins.

    Landlock allows no directory above the pins, under any name. The loader finds mounts of directories below
    in the list of mounts.
    """
    with scene(lab, tmp_path, "pin-root") as at:
        at.prepare(AS_ROOT)
        above, below = tmp_path / "above", tmp_path / "below"
        for directory in (above, below):
            directory.mkdir()
        # A mount namespace of its own: pytest would empty a mount of /tmp together with the test's directory.
        mount = f"mount --bind {at.root / at.entry()} {below}; mount --rbind {at.root.parent.parent} {above}"
        before = ["unshare", "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh"]
        copy = above / at.root.relative_to(at.root.parent.parent)
        tries = (f"ls {copy}", f"ls {at.root}", f"rmdir {copy}/{at.entry()}/links", f"ls {below}")
        script = "; ".join(["exec 2>/dev/null", *(f"! {attempt}" for attempt in tries)])
        words = ("--", "sh", "-ec", f"{script}; ! rm {below}/links/*")
        result = lab.run(tmp_path, *at.options(), *words, before=before)
        assert (result.code, result.stdout) == (0, ""), result.lines
