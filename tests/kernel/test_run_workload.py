# SPDX-License-Identifier: Apache-2.0
"""What a workload receives from the loader, and what the loader keeps from it."""

from __future__ import annotations

import io
import json
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from labs.kernel import bpf_file_system
from labs.loader import PREFIX, Lab, Result
from labs.privileges import AS_USER, user_with

from buildtool.objects.capabilities import CAPABILITY_NUMBERS

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

TRUE = ("--", "/bin/true")
PROBE = ("--", "/usr/bin/python3", str(Path(__file__).with_name("probe_workload.py")))
MAP = f"{PREFIX}_map"
GIVEN = "+bpf,+perfmon"
CONTAINER_USER = user_with("bpf", "perfmon")
RAW_TP = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
NONE = {"Inh": 0, "Prm": 0, "Eff": 0, "Amb": 0}


def probe(result: Result) -> dict[str, Any]:
    """Return the workload's report."""
    assert result.code == 0, (result.lines, result.stdout)
    return dict(json.loads(result.stdout))


def check_reads_its_map(found: dict[str, Any]) -> None:
    """Check that the workload reads and writes its map, and can neither make a map nor load a program."""
    assert list(found["lookups"]) == [MAP]
    error, value = found["lookups"][MAP]
    assert (error, value > 0) == ("", True)
    assert found["updates"] == {MAP: ""}
    assert found["descriptions"] == {MAP: ""}
    assert found["tries"]["mapCreate"] == found["tries"]["progLoad"] == "EPERM"
    assert NONE.items() <= found["capabilities"].items()
    assert found["noNewPrivs"] == "1"
    assert found["blocked"] == 0


@pytest.mark.parametrize("options", [[], ["--reload"], ["--no-seccomp"], ["--reload", "--no-seccomp"]])
def test_workload_without_capabilities_reads_its_maps(lab: Lab, tmp_path: Path, options: list[str]) -> None:
    """User 65532 without capabilities reads its maps through inherited descriptors."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    found = probe(lab.run(tmp_path, *options, *PROBE, before=CONTAINER_USER))
    check_reads_its_map(found)
    assert found["uid"] == 65532
    if "--reload" in options:
        # The loader has capabilities and the same user: the workload cannot reach its memory and descriptors.
        assert found["parent"] == ["EACCES"] * 2
        assert found["open"] == found["maps"]
    assert found["seccomp"] == ("0" if "--no-seccomp" in options else "2")


@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_loader_with_file_capabilities(lab: Lab, tmp_path: Path, options: list[str]) -> None:
    """File capabilities of the loader are enough for a user without any, and the workload gets none."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    loader = tmp_path / "verify-and-load"
    shutil.copy(lab.loader, loader)
    subprocess.run(["setcap", "cap_bpf,cap_perfmon=p", loader], check=True)
    bounds = f"--bounding-set=-all,{GIVEN}"
    argv = [*AS_USER, bounds, str(loader), *lab.argv(tmp_path, *options, *PROBE)[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    check_reads_its_map(json.loads(done.stdout))


def without_interpreter(path: Path) -> None:
    """Write a program whose dynamic linker does not exist, as in a base image without libraries."""
    data = Path("/bin/true").read_bytes()
    segments = ELFFile(io.BytesIO(data)).iter_segments("PT_INTERP")
    (linker,) = (segment.get_interp_name().encode() for segment in segments)
    path.write_bytes(data.replace(linker, b"/nowhere/ld.so".ljust(len(linker), b"\0")))
    path.chmod(0o755)


def script(first_line: str) -> Callable[[Path], None]:
    """Return a function that writes an executable script."""

    def write(path: Path) -> None:
        path.write_text(f"{first_line}\nexit 0\n")
        path.chmod(0o755)

    return write


UNUSABLE = {
    "missing": (lambda path: None, "no such program; mount its file, or let images.base name an image"),
    "directory": (Path.mkdir, "is a directory; docker run -v makes one if the host has no such file"),
    "mode": (lambda path: path.write_text("#!/bin/sh\n"), "not executable; check chmod +x"),
    "dynamic linker": (without_interpreter, "its interpreter /nowhere/ld.so does not exist; "),
    "script": (script("#! /nowhere/sh -e"), "its interpreter /nowhere/sh does not exist; "),
}


@pytest.mark.parametrize("options", [[], ["--reload"], ["--hand-over"]], ids=["", "reload", "hand-over"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_workload_is_found_before_the_load(
    lab: Lab, tmp_path: Path, kind: str, options: list[str]
) -> None:
    """The message says which file is missing, and nothing is attached."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    write, words = UNUSABLE[kind]
    write(tmp_path / "agent")
    result = lab.run(tmp_path, *options, "--", str(tmp_path / "agent"))
    assert (result.code, result.stdout) == (1, "")
    assert result.message.startswith(f"workload {tmp_path / 'agent'}: {words}")
    assert [line["event"] for line in result.lines] == ["error"]


@pytest.mark.parametrize("first_line", ["#!/bin/sh", "#!\t/bin/sh -e"])
def test_script_as_a_workload(lab: Lab, tmp_path: Path, first_line: str) -> None:
    """A script runs if its interpreter exists."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    script(first_line)(tmp_path / "agent")
    result = lab.run(tmp_path, "--", str(tmp_path / "agent"))
    assert (result.code, result.lines[-1]["event"]) == (0, "exec")


def test_text_without_an_interpreter(lab: Lab, tmp_path: Path) -> None:
    """No shell runs a file that the kernel does not; the message says how a script begins."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    script("exit 0")(tmp_path / "agent")
    result = lab.run(tmp_path, "--", str(tmp_path / "agent"))
    assert result.code == 1
    assert "Exec format error; build it for linux/" in result.message


@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_text_without_an_interpreter_beside_pins(lab: Lab, tmp_path: Path, options: list[str]) -> None:
    """Pins outlive a workload that did not start; the message names the command that removes them."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    script("exit 0")(tmp_path / "agent")
    with bpf_file_system(tmp_path) as mount:
        root = f"--pin-root={mount}/pins"
        result = lab.run(tmp_path, root, *options, "--", str(tmp_path / "agent"))
        assert (result.code, result.events("detach")) == (1, [])
        expected = f"; the pinned programs stay attached: ebpf-pins detach --pin-root {mount}/pins"
        assert result.message.endswith(expected)
        status = subprocess.run([lab.pins, "status", root], capture_output=True, text=True, check=False)
        assert (status.returncode, status.stderr) == (0, "")
        assert lab.run(tmp_path, root, *options, *TRUE).code == 0
        detach = subprocess.run([lab.pins, "detach", root], capture_output=True, text=True, check=True)
        assert '"event":"detach"' in detach.stderr


@pytest.mark.parametrize("user", [[], AS_USER], ids=["root", "user"])
@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_unneeded_capability(lab: Lab, tmp_path: Path, options: list[str], user: list[str]) -> None:
    """An unneeded capability that cannot leave the bounding set is an error before any load."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    given = f"-all,{GIVEN},+net_raw,+sys_admin"
    before = [
        "setpriv",
        *user[1:],
        f"--inh-caps={given}",
        f"--ambient-caps={given}",
        f"--bounding-set={given}",
    ]
    result = lab.run(tmp_path, *options, *PROBE, before=before)
    assert (result.code, result.stdout) == (1, "")
    assert "no program needs: NET_RAW SYS_ADMIN; " in result.message
    assert "--cap-drop ALL" in result.message
    assert [line["event"] for line in result.lines] == ["verify", "error"]
    allowed = ["--capabilities=CAP_SYS_ADMIN,NET_RAW", *options]
    found = probe(lab.run(tmp_path, *allowed, *PROBE, before=before))
    check_reads_its_map(found)
    assert found["capabilities"]["Bnd"] == 1 << 39 | 1 << 38 | 1 << 21 | 1 << 13


def test_root_gets_nothing_back_from_a_full_bounding_set(lab: Lab, tmp_path: Path) -> None:
    """A workload of root has no capability, even if the bounding set stays full."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    allowed = f"--capabilities={','.join(CAPABILITY_NUMBERS)}"
    found = probe(lab.run(tmp_path, allowed, *PROBE, before=["setpriv", "--bounding-set=-setpcap"]))
    check_reads_its_map(found)
    assert found["uid"] == 0
    assert found["capabilities"]["Bnd"] != 0


def test_bounding_set_is_emptied(lab: Lab, tmp_path: Path) -> None:
    """With CAP_SETPCAP, as for root outside of containers, every capability set is empty."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    found = probe(lab.run(tmp_path, *PROBE))
    check_reads_its_map(found)
    assert found["capabilities"] == NONE | {"Bnd": 0}


# Runs a command under a filter that answers one system call with success without running it. Arguments: the
# call's number, its first argument (-1: any), the command.
PRETEND = """
import ctypes, os, struct, sys
call, first = int(sys.argv[1]), int(sys.argv[2])
load, if_equal, done = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (if_equal, 0, 1 if first < 0 else 3, call)]
code += [] if first < 0 else [(load, 0, 0, 16), (if_equal, 0, 1, first)]
code += [(done, 0, 0, 0x00050000), (done, 0, 0, 0x7FFF0000)]  # errno 0, allow
lines = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
program = struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(lines))
assert ctypes.CDLL(None).prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""
CAPSET, PRCTL, NO_NEW_PRIVS, BOUNDS_DROP = 126, 157, 38, 24


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs-kernel-feature: numbers of the calls")
@pytest.mark.parametrize(
    ("call", "first"),
    [(CAPSET, -1), (PRCTL, NO_NEW_PRIVS), (PRCTL, BOUNDS_DROP)],
    ids=["set", "new", "bounds"],
)
@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_loader_checks_that_privileges_are_gone(
    lab: Lab, tmp_path: Path, options: list[str], call: int, first: int
) -> None:
    """The loader checks that its privileges are gone: if the kernel only claims it, no workload starts."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    before = ["/usr/bin/python3", "-c", PRETEND, str(call), str(first)]
    result = lab.run(tmp_path, *options, *PROBE, before=before)
    assert (result.code, result.stdout) == (1, "")
    assert "capabilities" in result.message


def test_setuid_program_gets_nothing_back(lab: Lab, tmp_path: Path) -> None:
    """no_new_privs: a program with file capabilities has none when the workload starts it."""
    lab.put(tmp_path, "raw_tp")
    cat = tmp_path / "cat"
    shutil.copy("/usr/bin/cat", cat)
    subprocess.run(["setcap", "cap_bpf,cap_sys_admin=ep", cat], check=True)
    given = "cap_bpf,cap_sys_admin"
    before = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+sys_admin"]
    workload = ("--", "sh", "-c", f"{cat} /proc/self/status")
    result = lab.run(tmp_path, f"--capabilities={given.upper()}", *workload, before=before)
    assert "CapBnd:\t0000008000200000" in result.stdout, result.lines
    assert "CapEff:\t0000000000000000" in result.stdout


def test_seccomp_denies_other_commands(lab: Lab, tmp_path: Path) -> None:
    """The filter denies other commands of bpf(2) before the kernel looks at them."""
    lab.put(tmp_path, "raw_tp")
    assert probe(lab.run(tmp_path, "--no-seccomp", *PROBE))["tries"]["noCommand"] == "EINVAL"
    found = probe(lab.run(tmp_path, *PROBE))
    check_reads_its_map(found)
    assert found["tries"]["noCommand"] == "EPERM"


OTHER_ARCHITECTURE = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("b814000000cd80c3"))  # getpid of i386: int 0x80
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""
X32 = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(0x40000000 | 321, 0, None, 0) < 0
print(ctypes.get_errno())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs-kernel-feature: a second architecture")
def test_seccomp_covers_other_system_call_tables(lab: Lab, tmp_path: Path) -> None:
    """A system call of i386 kills the process, one of x32 does not exist: neither avoids the filter."""
    lab.put(tmp_path, "raw_tp")
    python = ["--", "/usr/bin/python3", "-c"]
    assert lab.run(tmp_path, *python, OTHER_ARCHITECTURE).code == -signal.SIGSYS
    assert lab.run(tmp_path, *python, X32).stdout.strip() == "38"


def environment(lab: Lab, tmp_path: Path, *options: str) -> dict[str, str]:
    """Return the workload's environment, of a loader started with a small one."""
    before = ["env", "-i", "PATH=/usr/bin:/bin", "BUILDTOOL_FD_old=7", "OTHER=x"]
    result = lab.run(tmp_path, *options, "--", "env", before=before)
    assert result.code == 0, result.lines
    return dict(line.split("=", 1) for line in result.stdout.splitlines())


def test_environment_is_otherwise_unchanged(lab: Lab, tmp_path: Path) -> None:
    """The loader adds the map's descriptor and removes stale names of descriptors, nothing else."""
    lab.put(tmp_path, "raw_tp")
    found = environment(lab, tmp_path)
    assert found.pop(f"BUILDTOOL_FD_{MAP}").isdigit()
    assert found == {"PATH": "/usr/bin:/bin", "OTHER": "x"}


@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_no_map_descriptors_on_request(lab: Lab, tmp_path: Path, options: list[str]) -> None:
    """--no-map-fds passes none, in the environment or otherwise."""
    lab.put(tmp_path, "raw_tp")
    found = environment(lab, tmp_path, *options, "--no-map-fds")
    assert not [name for name in found if name.startswith("BUILDTOOL_FD")]
    script = "ls -l /proc/self/fd"
    assert "bpf-map" not in lab.run(tmp_path, *options, "--no-map-fds", "--", "sh", "-c", script).stdout


def test_descriptors_of_a_supervised_workload(lab: Lab, tmp_path: Path) -> None:
    """With --reload the links stay in the loader, and the workload gets maps only."""
    lab.put(tmp_path, "raw_tp")
    result = lab.run(tmp_path, "--reload", "--", "sh", "-c", "ls -l /proc/self/fd")
    kinds = [line.split("anon_inode:")[1] for line in result.stdout.splitlines() if "anon_inode" in line]
    assert kinds == ["bpf-map"]


def test_maps_of_one_name_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    """The variable has the object's name if several objects have a map of the same name."""
    lab.put(tmp_path, "raw_tp", "xdp")
    found = environment(lab, tmp_path, f"--attach={PREFIX}_xdp=none")
    names = sorted(name for name in found if name.startswith("BUILDTOOL_FD_"))
    assert names == [f"BUILDTOOL_FD_raw_tp_{MAP}", f"BUILDTOOL_FD_xdp_{MAP}"]


def test_ready_says_what_was_needed_and_what_was_not(lab: Lab, tmp_path: Path) -> None:
    """The line `ready` names the capabilities that the statements need, and the unneeded ones."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    (ready,) = lab.run(tmp_path, "--", "true", before=CONTAINER_USER).events("ready")
    assert ready["capabilities"] == ["PERFMON", "BPF"]
    assert "unneeded" not in ready
    before = ["setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_raw,+setpcap"]
    (ready,) = lab.run(tmp_path, "--", "true", before=before).events("ready")
    assert ready["unneeded"] == ["SETPCAP", "NET_RAW"]
    (ready,) = lab.run(tmp_path, "--capabilities=NET_RAW", "--", "true", before=before).events("ready")
    assert ready["unneeded"] == ["SETPCAP"]


def test_read_only_root(lab: Lab, tmp_path: Path) -> None:
    """A read-only root file system with a trust store mounted read-only is enough."""
    lab.put(tmp_path, "raw_tp")
    Path("/etc/buildtool").mkdir(exist_ok=True)
    script = (
        "mount -t tmpfs none /etc/buildtool && mkdir /etc/buildtool/trust.host"
        f" && mount --bind '{tmp_path}/trust' /etc/buildtool/trust.host"
        " && mount -o remount,ro,bind /etc/buildtool/trust.host && mount -o remount,ro,bind /"
        ' && exec "$@"'
    )
    argv = [lab.loader, "--objects", tmp_path / "objects", "--", "sh", "-c", "! touch /etc/written"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Read-only file system" in done.stderr


def image_words(*words: str) -> list[str]:
    """Return the options with which an image's entrypoint names its workload."""
    return [option for word in words for option in ("--image-workload", word)]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (image_words("/bin/echo", "one", "two"), "one two\n"),
        (["--image-workload=/bin/echo", "--image-workload=one"], "one\n"),
        # Words that look like a command, an option, its value or the end of options.
        (image_words("/bin/echo", "list", "--attach", "--", "--log=human"), "list --attach -- --log=human\n"),
        # What docker run adds: options of the loader.
        ([*image_words("/bin/echo", "one"), "--no-map-fds"], "one\n"),
        ([*image_words("/bin/echo", "one"), "run", "--no-seccomp"], "one\n"),
        (["--no-seccomp", *image_words("/bin/echo", "one")], "one\n"),
        # Another workload replaces that of the image.
        ([*image_words("/bin/echo", "one"), "--", "/bin/echo", "other"], "other\n"),
        ([*image_words("/bin/echo", "one", "two"), "--reload", "--", "/bin/echo"], "\n"),
    ],
)
def test_workload_of_the_image(lab: Lab, tmp_path: Path, options: list[str], shown: str) -> None:
    """The image's workload starts with its own words, whatever options follow. One after -- replaces it."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    result = lab.run(tmp_path, *options)
    assert (result.code, result.stdout) == (0, shown), result.lines


def test_workload_of_the_image_is_not_verified(lab: Lab, tmp_path: Path) -> None:
    """--verify-only and commands ignore the image's workload and the options that require it."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    words = [*image_words("/bin/echo", "one"), "--no-seccomp", "--workload-user=1"]
    result = lab.run(tmp_path, *words, "--verify-only")
    assert (result.code, result.stdout, len(result.lines)) == (0, "", 1), result.lines
    result = lab.run(tmp_path, *words, "status", "--pin-root=/none")
    assert (result.code, result.stdout) == (1, ""), result.lines
    assert result.message.startswith("/none: ")


def test_log_form_of_a_command_line_with_a_workload(lab: Lab, tmp_path: Path) -> None:
    """A word of the workload does not choose the form of the loader's lines."""
    lab.put(tmp_path, "raw_tp", programs=[RAW_TP])
    argv = lab.argv(tmp_path, *image_words("/bin/echo", "--log=human"), "--no-such")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[0]) == (2, "{")
    done = subprocess.run([*argv, "--log=human"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[0]) == (2, "v")
