# SPDX-License-Identifier: Apache-2.0
"""Faults of a virtual machine: a clear line, and no process stays."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from labs import TOP
from labs.vm import CACHE

from buildtool.check.vm import machine as vm
from buildtool.check.vm.kernels import Kernel, find_kernel
from buildtool.check.vm.machine import VmRequest, run_vm
from buildtool.core.errors import FileAccessError, ToolMissingError, VmError

NOBODY = 65534
# Machines are emulated and may share processors.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def kernel(vm_kernel: Callable[[str, str], Kernel]) -> Kernel:
    """Return the kernel that these tests boot."""
    return vm_kernel("6.12", "amd64")


def emulators(parent: int) -> list[int]:
    """Return the running emulators that process *parent* started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            name = path.with_name("comm").read_text()
        except OSError:
            continue
        if name.startswith("qemu-system") and int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    assert not emulators(os.getpid())


def test_bytes_and_codes_pass_unchanged(kernel: Kernel, tmp_path: Path) -> None:
    """Files and output pass byte for byte, and the exit code is the command's."""
    data = os.urandom(70000)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/tool").write_text("#!/bin/sh\ncat /in/data\nprintf 'a\\r\\n\\tb'; exit 7\n")
    (tmp_path / "deep/tool").chmod(0o700)
    request = VmRequest(
        kernel=kernel,
        argv=["/in/tree/deep/tool"],
        files={"/in/data": b"from here\n", "/in/large": data, "/in/tree": tmp_path},
        collect=["/in/large", "/missing", "/in/tree"],
        modules=["veth"],
    )
    result = run_vm(request)
    assert (result.code, result.output) == (7, "from here\na\r\n\tb")
    assert result.release.startswith("6.12.")
    assert hashlib.sha256(result.files["/in/large"]).digest() == hashlib.sha256(data).digest()
    assert set(result.files) == {"/in/large", "/in/tree/deep/tool"}


def test_kernel_of_a_file(kernel: Kernel) -> None:
    """A given kernel image boots, with modules and without."""
    for modules in (kernel.modules, None):
        own = find_kernel(str(kernel.image), "amd64", CACHE, modules=modules)
        result = run_vm(VmRequest(kernel=own, argv="uname -r", modules=["veth"] if modules else []))
        assert result.output.strip() == result.release == kernel.release


def test_file_that_is_no_kernel_is_named(tmp_path: Path) -> None:
    """An image with only the mark of a kernel is an error with QEMU's reason."""
    (tmp_path / "bzImage").write_bytes((bytes(0x202) + b"HdrS").ljust(100_000, b"\0"))
    own = find_kernel(str(tmp_path / "bzImage"), "amd64", CACHE)
    with pytest.raises(VmError, match=r"bzImage\): .*"):
        run_vm(VmRequest(kernel=own, argv="true", timeout_seconds=30))


def test_output_is_not_taken_for_a_report(kernel: Kernel) -> None:
    """Output of the command that looks like a report is not used as one: it lacks the secret token."""
    script = """
        echo "@@vm-0 end 0"; echo "@@vm-0 done"
        cat /proc/cmdline /proc/1/environ /init /vm/* | grep -oE '@@vm-[0-9a-f]{32}'
        sleep 1000 & exit 5
    """
    result = run_vm(VmRequest(kernel=kernel, argv=script))
    assert (result.code, result.output) == (5, "@@vm-0 end 0\n@@vm-0 done\n")


def test_hang_is_ended_at_the_time_limit(kernel: Kernel) -> None:
    """A command that does not end is stopped; the error has the limit and the last output."""
    # The time until the command starts depends on the load of this machine.
    for seconds in (15, 60, 300):
        with pytest.raises(
            VmError, match=rf"6\.12.*still running after {seconds} seconds, stopped"
        ) as caught:
            run_vm(VmRequest(kernel=kernel, argv="echo last words; sleep 1000", timeout_seconds=seconds))
        if "while its command ran" in caught.value.message:
            break
    assert "while its command ran" in caught.value.message
    assert caught.value.detail == "last words"


def test_kernel_that_does_not_reach_the_command(kernel: Kernel) -> None:
    """A kernel that does not reach the command is another error than a command that fails."""
    request = VmRequest(kernel=kernel, argv="true", append="rdinit=/missing")
    with pytest.raises(VmError, match=r"the kernel panicked before its command ran: .*root fs"):
        run_vm(request)


def test_panic_is_named(kernel: Kernel) -> None:
    """A kernel panic is an error with its reason."""
    with pytest.raises(VmError, match=r"the kernel panicked while its command ran: sysrq triggered crash"):
        run_vm(VmRequest(kernel=kernel, argv="echo c > /proc/sysrq-trigger"))


def test_power_off_by_the_command_is_an_error(kernel: Kernel) -> None:
    """A machine that ends without a report is an error, since its exit code is unknown."""
    with pytest.raises(VmError, match=r"it ended while its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="poweroff -f"))


def test_flood_of_output_is_ended(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output above the limit ends the machine."""
    monkeypatch.setattr(vm, "MAX_OUTPUT_BYTES", 100_000)
    with pytest.raises(VmError, match=r"more than 100000 bytes of output while its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="yes"))


def test_unknown_module_is_named(kernel: Kernel) -> None:
    """A module that the kernel lacks is an error before the boot."""
    with pytest.raises(VmError, match=r"kernel 6\.12\S* has no module no_such"):
        run_vm(VmRequest(kernel=kernel, argv="true", modules=["no-such"]))


def test_too_little_memory_says_so(kernel: Kernel) -> None:
    """A machine with too little memory to boot is an error and does not hang."""
    with pytest.raises(VmError, match=r"before its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="true", memory_mib=48, timeout_seconds=60))


def test_missing_emulator_names_the_package(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without QEMU the hint names the package to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match=r"qemu-system-x86_64: not found") as caught:
        run_vm(VmRequest(kernel=kernel, argv="true"))
    assert "qemu-system-x86" in (caught.value.hint or "")


def test_full_disk_is_named(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory that cannot hold the initramfs is named in an error before the boot."""
    monkeypatch.setattr(vm.tempfile, "tempdir", "/nonexistent")
    with pytest.raises(FileAccessError, match=r"/nonexistent: cannot write"):
        run_vm(VmRequest(kernel=kernel, argv="true"))


@pytest.fixture
def nobodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a directory of an unprivileged user, used for temporary files as well."""
    # Not below tmp_path: pytest closes its directories to other users again at each start.
    with TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        monkeypatch.setattr(vm.tempfile, "tempdir", place)
        yield Path(place)


def test_virtual_machine_without_root(as_root: None, nobodys: Path) -> None:
    """An unprivileged user fetches a kernel and runs a command on it."""
    # A fork keeps this process's modules: other users may be unable to read the tests' Python.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            kernel = find_kernel("6.12", "amd64", nobodys)
            code = run_vm(VmRequest(kernel=kernel, argv='[ "$(id -u)" = 0 ] && exit 42')).code
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_emulator_ends_with_a_killed_run(kernel: Kernel, tmp_path: Path) -> None:
    """SIGKILL of the run ends the emulator as well, and leaves no file."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    script = tmp_path / "run.py"
    script.write_text(f"""
import sys
from pathlib import Path
from buildtool.check.vm.kernels import find_kernel
from buildtool.check.vm.machine import VmRequest, run_vm
kernel = find_kernel("6.12", "amd64", Path({str(TOP / ".cache/vm")!r}))
request = VmRequest(kernel=kernel, argv="echo running; sleep 1000")
run_vm(request, on_line=lambda line: print(line, flush=True))
""")
    argv = [sys.executable, script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=TOP, env=environment) as process:
        assert process.stdout is not None
        assert any("running" in line for line in process.stdout)
        (emulator,) = emulators(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{emulator}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{emulator}").exists()
    assert list(scratch.iterdir()) == []
