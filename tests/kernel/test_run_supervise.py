# SPDX-License-Identifier: Apache-2.0
"""--reload: the loader stays the workload's parent, forwards signals, reaps orphans, and reloads."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from labs.handsig import Key
from labs.loader import PREFIX, Lab, in_kernel, parse
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

RAW_TP = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
XDP = {"name": f"{PREFIX}_xdp", "section": "xdp", "type": "xdp", "attach": ["none"]}
FOREVER = "while :; do sleep 0.02; done"
PASSED_ON = ["TERM", "INT", "QUIT", "USR1", "USR2", "WINCH"]


def reload(process: subprocess.Popen[str], log: Path, count: int) -> None:
    """Send SIGHUP and wait until the log has *count* reloads."""
    process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: log.read_text().count('"event":"reload"') == count), log.read_text()


def log_of(directory: Path) -> Path:
    """Return the newest log of the lab's runs."""
    return max(directory.glob("stderr*"), key=lambda path: path.stat().st_mtime_ns)


def children(pid: int) -> dict[int, str]:
    """Return the children of a process and their states."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found[int(path.parent.name)] = fields[0]
    return found


def status(pid: int, name: str) -> str:
    """Return a field of a process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)])
def test_exit_code_is_passed_through(lab: Lab, tmp_path: Path, script: str, code: int) -> None:
    """The loader ends with its workload's exit code, after it detached the programs."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, "--reload", "--", "sh", "-c", script)
    assert result.code == code
    assert [line["event"] for line in result.lines][-3:] == ["ready", "exec", "detach"]


@pytest.mark.parametrize("name", PASSED_ON)
def test_signals_are_passed_on(lab: Lab, tmp_path: Path, name: str) -> None:
    """The workload's process group gets the signal, and its exit code is the loader's."""
    lab.put(tmp_path, "raw_tp")
    marker = tmp_path / "ready"
    script = f"exec 2>/dev/null; trap 'exit 7' {name}; touch {marker}; {FOREVER}"
    with lab.started(tmp_path, "--reload", "--", "bash", "-c", script) as (_, stop):
        assert wait_until(marker.exists)
        assert stop(signal.Signals[f"SIG{name}"]).code == 7


def test_signals_reach_the_whole_group(lab: Lab, tmp_path: Path) -> None:
    """A child of the workload's shell gets the signal too, so the shell does not wait for it."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path, "--reload", "--", "sh", "-c", "sleep 1000; exit 9") as (process, stop):
        assert wait_until(lambda: children(process.pid))
        (shell,) = children(process.pid)
        assert wait_until(lambda: children(shell))
        assert stop(signal.SIGTERM).code == 143


def test_keys_of_a_terminal_are_the_workloads(lab: Lab, tmp_path: Path) -> None:
    """The workload reads from the terminal and gets Ctrl-C."""
    lab.put(tmp_path, "raw_tp")
    script = "trap 'exit 5' INT; read line; echo got $line; while :; do sleep 0.02; done"
    argv = lab.argv(tmp_path, "--reload", "--log=human", "--", "bash", "-c", script)
    pid, terminal = pty.fork()
    if not pid:
        os.execv(argv[0], argv)  # noqa: S606 - the child of a pseudoterminal
    os.write(terminal, b"a line\n")
    shown = b""
    while b"got a line" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)


def test_privileges_of_loader_and_workload(lab: Lab, tmp_path: Path) -> None:
    """The loader keeps the capabilities for loading, the workload has none, and neither gains any."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    with lab.started(tmp_path, "--reload", "--", "sleep", "1000") as (process, stop):
        assert wait_until(lambda: children(process.pid))
        (workload,) = children(process.pid)
        needed = f"{1 << 38 | 1 << 39:016x}"  # PERFMON and BPF
        assert [status(process.pid, name) for name in ("CapPrm", "CapEff")] == [needed] * 2
        assert [status(process.pid, name) for name in ("CapInh", "CapBnd", "CapAmb")] == ["0" * 16] * 3
        assert status(process.pid, "NoNewPrivs") == "1"
        assert wait_until(lambda: status(workload, "Name") == "sleep")
        assert {status(workload, f"Cap{name}") for name in ("Prm", "Eff", "Inh", "Bnd", "Amb")} == {"0" * 16}
        assert stop().code == 143


def test_orphans_are_reaped_and_none_is_left(lab: Lab, tmp_path: Path) -> None:
    """The loader reaps orphans of the workload, and ends its process group at the end."""
    lab.put(tmp_path, "raw_tp")
    script = "(sleep 0.05 & sleep 0.05 &); (sleep 1000 &); sleep 1000"
    with lab.started(tmp_path, "--reload", "--", "sh", "-c", script) as (process, stop):
        assert wait_until(lambda: len(children(process.pid)) == 2)
        assert wait_until(lambda: "Z" not in children(process.pid).values())
        left = children(process.pid)
        assert stop().code == 143
    assert wait_until(lambda: not [pid for pid in left if Path(f"/proc/{pid}").exists()])


def test_workload_does_not_outlive_a_killed_loader(lab: Lab, tmp_path: Path) -> None:
    """SIGKILL to the loader ends the workload as well: it must not run without its programs."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path, "--reload", "--", "sleep", "1000") as (process, stop):
        assert wait_until(lambda: children(process.pid))
        (workload,) = children(process.pid)
        assert stop(signal.SIGKILL).code == -signal.SIGKILL
    assert wait_until(lambda: not Path(f"/proc/{workload}").exists())


def test_workload_that_cannot_run(lab: Lab, tmp_path: Path) -> None:
    """A file that the kernel cannot execute is exit code 1, and everything is detached."""
    lab.put(tmp_path, "raw_tp")
    script = tmp_path / "script"
    script.write_text("echo no\n")
    script.chmod(0o755)
    result = lab.run(tmp_path, "--reload", "--", str(script))
    assert result.code == 1
    assert "Exec format error" in result.message
    assert [line["event"] for line in result.lines][-2:] == ["detach", "error"]


@pytest.mark.parametrize("workload", [[], ["--", "sleep", "1000"]])
def test_reload_of_what_has_not_changed(lab: Lab, tmp_path: Path, workload: list[str]) -> None:
    """SIGHUP verifies the objects again, and does not load the same bytes again."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path, "--reload", *workload) as (process, stop):
        reload(process, log_of(tmp_path), 1)
        result = stop()
    assert result.code == (143 if workload else 0)
    assert [line["outcome"] for line in result.events("reload")] == ["unchanged"]
    assert len(result.events("verify")) == 2
    assert len(result.events("load")) == 1


READER = """
import ctypes, os, signal, struct, sys
fd = int(os.environ["BUILDTOOL_FD_{name}"])
libc = ctypes.CDLL(None)
key, room = ctypes.c_uint32(0), ctypes.c_uint64(0)
attributes = struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(room), 0)
def say(*_):
    assert libc.syscall({call}, 1, ctypes.create_string_buffer(attributes, 128), 128) == 0
    print(room.value, flush=True)
signal.signal(signal.SIGUSR1, say)
say()
while True:
    signal.pause()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs-kernel-feature: the call's number")
def test_reload_updates_under_the_workload(lab: Lab, tmp_path: Path) -> None:
    """A newer object takes over the map, so the workload's descriptor stays valid."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    path = tmp_path / "loader.prom"
    script = READER.format(name=f"{PREFIX}_map", call=321)
    arguments = ("--reload", "--metrics-file", str(path), "--", "/usr/bin/python3", "-c", script)
    with lab.started(tmp_path, *arguments) as (process, stop):
        log = log_of(tmp_path)
        assert process.stdout is not None
        values = [int(process.stdout.readline())]
        lab.replace(tmp_path, "raw_tp", "raw_tp_2", version=2, programs=[RAW_TP])
        reload(process, log, 1)
        for _ in range(2):
            process.send_signal(signal.SIGUSR1)
            values.append(int(process.stdout.readline()))
        assert wait_until(lambda: in_kernel() == [f"{PREFIX}_map", f"{PREFIX}_raw"]), in_kernel()
        metrics = path.read_text()
        result = stop()
    assert result.code == 143
    assert 0 < values[0] < values[1] < values[2]
    (line,) = result.events("reload")
    assert line["outcome"] == "updated", result.lines
    assert 'buildtool_reloads_total{outcome="updated"} 1' in metrics
    assert "buildtool_programs_loaded 1" in metrics


def test_reloads_leak_nothing(lab: Lab, tmp_path: Path) -> None:
    """Many updates and refusals leave the loader with the descriptors and memory of the first few."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    with lab.started(tmp_path, "--reload", "--", "sleep", "1000") as (process, stop):
        log = log_of(tmp_path)
        held = []
        for number in range(1, 181):
            if number % 3:
                kind = ("raw_tp", "raw_tp_2")[number % 2]
                lab.replace(tmp_path, "raw_tp", kind, version=number, programs=[RAW_TP])
            else:
                (objects / "raw_tp.bpf.o").write_bytes(b"not an object")
            reload(process, log, number)
            descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            held.append((descriptors, int(status(process.pid, "RssAnon").split()[0])))
        result = stop()
    assert [line["outcome"] for line in result.events("reload")] == ["updated", "updated", "kept"] * 60
    assert {descriptors for descriptors, _ in held} == {held[0][0]}
    # The allocator's reserve varies by 160 KB. A leak also raises the smallest value.
    sizes = [size for _, size in held]
    assert min(sizes[-20:]) <= min(sizes[:20]) + 200


def test_reload_keeps_the_old_set_when_the_new_one_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A refused or missing object, or a bad trust store, keeps the running set; the line has the reason."""
    objects = lab.put(tmp_path, "raw_tp")
    good = (objects / "raw_tp.bpf.o").read_bytes()
    with lab.started(tmp_path, "--reload") as (process, stop):
        log = log_of(tmp_path)
        (objects / "raw_tp.bpf.o").write_bytes(good[:-1])
        reload(process, log, 1)
        (objects / "raw_tp.bpf.o").unlink()
        reload(process, log, 2)
        (objects / "raw_tp.bpf.o").write_bytes(good)
        (tmp_path / "trust/dev.pub").write_bytes(Key().pem)
        reload(process, log, 3)
        (tmp_path / "trust/dev.pub").write_text("garbage")
        reload(process, log, 4)
        assert f"{PREFIX}_raw" in in_kernel()
        result = stop()
    assert result.code == 0
    assert {line["outcome"] for line in result.events("reload")} == {"kept"}
    messages = [line["message"] for line in result.events("reload")]
    assert [text for text in messages if "1 of 1 objects refused" in text] == [messages[0], messages[2]]
    assert "no object in it" in messages[1]
    assert "dev.pub" in messages[3]
    assert len(result.events("detach")) == 1


def test_reload_of_what_the_kernel_refuses(lab: Lab, tmp_path: Path) -> None:
    """A new program that does not load keeps the old one attached, and a later reload can succeed."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    with lab.started(tmp_path, "--reload") as (process, stop):
        log = log_of(tmp_path)
        lab.replace(tmp_path, "raw_tp", "refused", version=2, programs=[RAW_TP])
        reload(process, log, 1)
        assert f"{PREFIX}_raw" in in_kernel()
        lab.replace(tmp_path, "raw_tp", "raw_tp_2", version=3, programs=[RAW_TP])
        reload(process, log, 2)
        result = stop()
    assert result.code == 0
    assert [line["outcome"] for line in result.events("reload")] == ["kept", "updated"], result.lines
    assert "cannot load" in result.events("reload")[0]["message"]


def test_reload_that_needs_a_capability_that_was_given_up(lab: Lab, tmp_path: Path) -> None:
    """A reload that needs a dropped capability is not tried, and the line names the capability."""
    objects = lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    with lab.started(tmp_path, "--reload") as (process, stop):
        lab.put(tmp_path, "xdp", programs=[XDP])
        (objects / "raw_tp.bpf.o").unlink()
        reload(process, log_of(tmp_path), 1)
        (line,) = stop().events("reload")
    assert line["outcome"] == "kept"
    assert line["message"] == (
        "the new objects need CAP_NET_ADMIN, which the loader dropped at its start; restart the container"
    )


def test_sighup_without_reload(lab: Lab, tmp_path: Path) -> None:
    """SIGHUP without --reload writes one line and changes nothing."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path) as (process, stop):
        reload(process, log_of(tmp_path), 1)
        assert f"{PREFIX}_raw" in in_kernel()
        result = stop()
    assert result.code == 0
    (line,) = result.events("reload")
    assert line["outcome"] == "kept"
    assert "without --reload" in line["message"]


def test_sighup_before_the_workload(lab: Lab, tmp_path: Path) -> None:
    """SIGHUP during the load writes one line and does not end the workload."""
    lab.put(tmp_path, "xdp")
    name = f"{PREFIX}late"
    options = [f"--attach={PREFIX}_xdp={name}", "--wait-interface=60", "--", "/bin/sh", "-c", "exit 5"]
    argv = lab.argv(tmp_path, *options)
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_until(lambda: int(status(process.pid, "SigBlk"), 16) >> (signal.SIGHUP - 1) & 1)
            process.send_signal(signal.SIGHUP)
            subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True)
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
            subprocess.run(["ip", "link", "del", name], check=True)
    lines = parse(stderr)
    assert [line["event"] for line in lines][-3:] == ["ready", "reload", "exec"]
    assert process.returncode == 5


def test_many_sighups_do_not_fill_the_log(lab: Lab, tmp_path: Path) -> None:
    """Repeated lines are limited, their number is reported, and the end is logged in full."""
    lab.put(tmp_path, "raw_tp")
    with lab.started(tmp_path) as (process, stop):
        log = log_of(tmp_path)
        deadline = time.monotonic() + 60
        while log.read_text().count("\n") < 4005 and time.monotonic() < deadline:
            for _ in range(200):
                process.send_signal(signal.SIGHUP)
        for _ in range(2000):
            process.send_signal(signal.SIGHUP)
        result = stop()
    assert sum(line["count"] for line in result.events("suppressed")) > 0
    assert result.lines[-1]["event"] == "detach"
    assert len(result.lines) < 4500


def fill_pipe(descriptor: int) -> None:
    """Fill the pipe through an open file description of its own, so that the loader's stays blocking."""
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while os.write(other, b" " * 4096):
            pass
    os.close(other)


@pytest.mark.parametrize("workload", [[], ["--", "sleep", "1000"]])
def test_stalled_reader_blocks_nothing(lab: Lab, tmp_path: Path, workload: list[str]) -> None:
    """A pipe that nobody reads blocks neither reload nor end, and the dropped lines are counted."""
    objects = lab.put(tmp_path, "raw_tp")
    metrics = tmp_path / "loader.prom"
    reader, writer = os.pipe()
    argv = lab.argv(tmp_path, "--reload", f"--metrics-file={metrics}", *workload)
    with subprocess.Popen(argv, stderr=writer, stdout=subprocess.DEVNULL) as process:
        try:
            said = b""
            while (b'"exec"' if workload else b'"ready"') not in said:
                said += os.read(reader, 65536)
            fill_pipe(writer)
            (objects / "raw_tp.bpf.o").write_bytes(b"")
            for count in (1, 2):
                process.send_signal(signal.SIGHUP)
                kept = f'buildtool_reloads_total{{outcome="kept"}} {count}'
                assert wait_until(lambda text=kept: text in metrics.read_text())
            said = os.read(reader, 1 << 20)
            process.send_signal(signal.SIGHUP)
            while b'"reload"' not in said:
                said += os.read(reader, 65536)
            fill_pipe(writer)
            process.terminate()
            assert process.wait(timeout=10) == (143 if workload else 0)
        finally:
            process.kill()
    os.close(writer)
    lines = [json.loads(line) for line in said.decode().strip().splitlines()]
    # Two reloads wrote `verify` and `reload` each.
    assert [line.get("count", line["event"]) for line in lines] == [4, "verify", "reload"]
    os.close(reader)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_stay_closed(lab: Lab, tmp_path: Path, closed: str) -> None:
    """No file of the loader gets the number of a closed standard stream, so the workload sees none."""
    lab.put(tmp_path, "raw_tp")
    found = tmp_path / "found"
    argv = lab.argv(tmp_path, "--reload", "--", "sh", "-c", f"readlink /proc/$$/fd/[012] >{found}")
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *argv], check=False, capture_output=True)
    assert done.returncode == 0
    assert len(found.read_text().splitlines()) == 3
    assert "anon_inode" not in found.read_text()


def test_loader_that_may_open_no_socket(lab: Lab, tmp_path: Path) -> None:
    """Without news about interfaces the loader says so once, and everything else goes on."""
    lab.put(tmp_path, "raw_tp")
    before = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=socket:error=EPERM"]
    result = lab.run(tmp_path, "--reload", "--", "/bin/true", before=before)
    assert result.code == 0, result.lines
    assert result.message.startswith("cannot watch interfaces: Operation not permitted; ")
    assert [line["event"] for line in result.lines if line["event"] in ("attach", "exec", "detach")] == [
        "attach",
        "exec",
        "detach",
    ]
