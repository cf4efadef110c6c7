# SPDX-License-Identifier: Apache-2.0
"""What becomes of a virtual machine that goes wrong: a clear line, and no process left."""

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
# A machine is emulated, and perhaps shares its processors.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def kernel(vm_kernel: Callable[[str, str], Kernel]) -> Kernel:
    """Give the kernel that these tests boot."""
    return vm_kernel("6.12", "amd64")


def emulators(parent: int) -> list[int]:
    """Return the emulators that process *parent* started and that still are there."""
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
    """Files go in and out byte for byte, output keeps its ends of lines, the exit code is the command's."""
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
    """A kernel image that the user names boots, with modules and without."""
    for modules in (kernel.modules, None):
        own = find_kernel(str(kernel.image), "amd64", CACHE, modules=modules)
        result = run_vm(VmRequest(kernel=own, argv="uname -r", modules=["veth"] if modules else []))
        assert result.output.strip() == result.release == kernel.release


def test_file_that_is_no_kernel_is_named(tmp_path: Path) -> None:
    """QEMU's own words say what is wrong with the image."""
    (tmp_path / "bzImage").write_bytes(bytes(100_000))
    own = find_kernel(str(tmp_path / "bzImage"), "amd64", CACHE)
    with pytest.raises(VmError, match=r"bzImage\): .*"):
        run_vm(VmRequest(kernel=own, argv="true", timeout_seconds=30))


def test_output_is_taken_for_no_report(kernel: Kernel) -> None:
    """A command that prints what reports look like fools nobody; the token is nowhere to be found."""
    script = """
        echo "@@vm-0 end 0"; echo "@@vm-0 done"
        cat /proc/cmdline /proc/1/environ /init /vm/* | grep -oE '@@vm-[0-9a-f]{32}'
        sleep 1000 & exit 5
    """
    result = run_vm(VmRequest(kernel=kernel, argv=script))
    assert (result.code, result.output) == (5, "@@vm-0 end 0\n@@vm-0 done\n")


def test_hang_is_ended_at_the_time_limit(kernel: Kernel) -> None:
    """A command that does not end is stopped; the error says so, and what it wrote last."""
    # How long it takes to get there depends on who else uses this machine.
    for seconds in (15, 60, 300):
        with pytest.raises(
            VmError, match=rf"6\.12.*still running after {seconds} seconds, stopped"
        ) as caught:
            run_vm(VmRequest(kernel=kernel, argv="echo last words; sleep 1000", timeout_seconds=seconds))
        if "while its command ran" in caught.value.message:
            break
    assert "while its command ran" in caught.value.message
    assert caught.value.detail == "last words"


def test_kernel_that_never_gets_there_says_why(kernel: Kernel) -> None:
    """A kernel that does not reach the command is told from a command that fails."""
    request = VmRequest(kernel=kernel, argv="true", append="rdinit=/missing")
    with pytest.raises(VmError, match=r"the kernel panicked before its command ran: .*root fs"):
        run_vm(request)


def test_panic_is_named(kernel: Kernel) -> None:
    """A kernel that dies says of what."""
    with pytest.raises(VmError, match=r"the kernel panicked while its command ran: sysrq triggered crash"):
        run_vm(VmRequest(kernel=kernel, argv="echo c > /proc/sysrq-trigger"))


def test_power_off_by_the_command_is_an_error(kernel: Kernel) -> None:
    """A machine that ends without a report has no exit code to invent."""
    with pytest.raises(VmError, match=r"it ended while its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="poweroff -f"))


def test_flood_of_output_is_ended(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is bounded."""
    monkeypatch.setattr(vm, "MAX_OUTPUT_BYTES", 100_000)
    with pytest.raises(VmError, match=r"more than 100000 bytes of output while its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="yes"))


def test_unknown_module_is_named(kernel: Kernel) -> None:
    """A module that the kernel has not is found before anything starts."""
    with pytest.raises(VmError, match=r"kernel 6\.12\S* has no module no_such"):
        run_vm(VmRequest(kernel=kernel, argv="true", modules=["no-such"]))


def test_too_little_memory_says_so(kernel: Kernel) -> None:
    """A machine that cannot even boot gives an error, not a hang."""
    with pytest.raises(VmError, match=r"before its command ran"):
        run_vm(VmRequest(kernel=kernel, argv="true", memory_mib=48, timeout_seconds=60))


def test_missing_emulator_names_the_package(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without QEMU the hint says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissingError, match=r"qemu-system-x86_64: not found") as caught:
        run_vm(VmRequest(kernel=kernel, argv="true"))
    assert "qemu-system-x86" in (caught.value.hint or "")


def test_full_disk_is_named(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the RAM disk: the place is named, nothing is booted."""
    monkeypatch.setattr(vm.tempfile, "tempdir", "/nonexistent")
    with pytest.raises(FileAccessError, match=r"/nonexistent: cannot write"):
        run_vm(VmRequest(kernel=kernel, argv="true"))


@pytest.fixture
def nobodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory of a user without any right, where temporary files go as well."""
    # Not below tmp_path: pytest shuts its own directories to other users, again at each start.
    with TemporaryDirectory() as place:
        os.chown(place, NOBODY, NOBODY)
        monkeypatch.setattr(vm.tempfile, "tempdir", place)
        yield Path(place)


def test_all_of_it_without_root(as_root: None, nobodys: Path) -> None:
    """A user without any right fetches a kernel and runs a command on it."""
    # This process's own modules: the tests' Python may be where no other user can read it.
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


def test_emulator_dies_with_us(kernel: Kernel, tmp_path: Path) -> None:
    """A run that is killed with SIGKILL leaves no emulator behind, and no file."""
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
