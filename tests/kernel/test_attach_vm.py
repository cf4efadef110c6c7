# SPDX-License-Identifier: Apache-2.0
"""
Program types that not every machine can attach, on Debian's kernels 6.1, 6.12 and the newest.

One boot per kernel runs all cases. A test is one case on one kernel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labs.attach  # noqa: F401 - adds its objects
import pytest
from labs import TOP
from labs.loader import PREFIX, Lab

from buildtool.check.vm.kernels import find_kernel
from buildtool.check.vm.machine import VmRequest, run_vm
from buildtool.core.platforms import MACHINES

pytestmark = pytest.mark.vm

HERE = Path(__file__).resolve().parent
PROGRAM = f"{PREFIX}_prog"
GUEST = "/vmtest/attach_guest"
CALLS = 20  # as in attach_guest.c
PACKETS = 2  # of each call: a datagram to a closed port, and the ICMP answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One run of the loader in the guest, and its expected result.

    The object is of *kind*; the loader gets *options* after the step *prepare*. Expected are the exit *code*,
    *words* of an error, the number of *programs* that see a packet, and the number of other programs *left*.
    Objects of the kinds *beside* are loaded by the same run.
    """

    kind: str
    options: str = ""
    prepare: str = "-"
    code: int = 0
    words: tuple[str, ...] = ()
    programs: int | None = None
    left: int = 0
    beside: tuple[str, ...] = ()


def attach(target: str, program: str = PROGRAM) -> str:
    """Return the option that attaches the object's program."""
    return f"--attach={program}={target}"


TWO_WAYS = {
    "fentry of two": Case(kind="two_ways", options=f"--load={PREFIX}_fentry"),
    "kprobe of two": Case(kind="two_ways", options=f"--load={PREFIX}_kprobe"),
    "kprobe instead of the image's fentry": Case(
        kind="two_ways",
        options=f"--image-load={PREFIX}_fentry --no-load={PREFIX}_fentry --load={PREFIX}_kprobe",
    ),
}
# The kernel lets one program attach once to each of these, and two containers share the program.
SHARED = {
    f"{kind} beside another loader that shares it": Case(
        kind=kind, options="--share /sys/fs/bpf/share", prepare="beside", left=1
    )
    for kind in ("raw_tp", "fentry", "tracepoint")
}
# The target of a program of freplace is a program of another object.
DISPATCHER = f"replaceable.bpf.o:{PREFIX}_disp"
REPLACING = {
    "freplace": Case(kind="freplace", options=attach(DISPATCHER), beside=("replaceable",)),
    "freplace and a workload": Case(
        kind="freplace", options=f"{attach(DISPATCHER)} -- sleep 60", beside=("replaceable",), code=143
    ),
}
SESSIONS = {
    "fsession": Case(kind="fsession"),
    "fsession by target": Case(kind="fsession_bare", options=attach("security_file_open")),
    "uprobe.session": Case(kind="uprobe_session"),
    "uprobe.session by target": Case(kind="uprobe_session_bare", options=attach(f"{GUEST}:victim_work")),
    "uprobe.session by pattern": Case(kind="uprobe_session_bare", options=attach(f"{GUEST}:victim_w*")),
}
NO_SESSIONS = {
    "fsession": Case(kind="fsession", code=1, words=("cannot load",)),
    "uprobe.session": Case(kind="uprobe_session", code=1, words=("uprobe.session (Linux 6.13)",)),
}
OLD = {
    "tc made anew": Case(
        kind="tc_anew", options=f"--reload {attach('lab0:ingress', f'{PREFIX}_tc')}", prepare="anew"
    ),
    **TWO_WAYS,
    "tc": Case(kind="tc", options=attach("lo:ingress", f"{PREFIX}_tc")),
    "tcx": Case(kind="tcx", options=attach("lo", f"{PREFIX}_tcx")),
    "tc egress": Case(kind="tc", options=attach("lo:egress", f"{PREFIX}_tc")),
    "tc twice": Case(
        kind="tc", options=f"{attach('lo:egress', f'{PREFIX}_tc')} {attach('lo:egress', f'{PREFIX}_tc')}"
    ),
    "tc after a kill": Case(
        kind="tc", options=attach("lo:ingress", f"{PREFIX}_tc"), prepare="killed", programs=1
    ),
    "tc after a kill, egress": Case(
        kind="tc", options=attach("lo:egress", f"{PREFIX}_tc"), prepare="killed_twice", programs=1
    ),
    "tc beside another loader": Case(
        kind="tc", options=attach("lo:ingress", f"{PREFIX}_tc"), prepare="beside", programs=2, left=1
    ),
    "tc and a workload": Case(
        kind="tc",
        options=f"{attach('lo:ingress', f'{PREFIX}_tc')} -- sleep 1",
        code=2,
        words=("no tcx", "--reload"),
    ),
    "tc, a workload and a parent": Case(
        kind="tc", options=f"{attach('lo:ingress', f'{PREFIX}_tc')} --reload -- sleep 60", code=143
    ),
    "tc and pins": Case(
        kind="tc",
        options=f"{attach('lo:ingress', f'{PREFIX}_tc')} --pin-root /sys/fs/bpf/pins",
        code=1,
        words=("cannot pin its link", "omit --pin-root"),
    ),
    "refused by the kernel": Case(
        kind="scalar",
        code=1,
        words=(f"program {PROGRAM}: R1 invalid mem access", ", at: return *(__u64 *)(long)c[0];"),
    ),
    "sk_msg": Case(kind="sk_msg"),
    "kprobe": Case(kind="kprobe"),
    "fentry": Case(kind="fentry"),
    "usdt": Case(kind="usdt", code=1, words=("links for several places (Linux 6.6)",)),
    **SHARED,
    **REPLACING,
}
NEW = {
    **TWO_WAYS,
    "fentry": Case(kind="fentry"),
    "fentry by target": Case(kind="fentry_bare", options=attach("security_file_open")),
    "fexit": Case(kind="fexit"),
    "lsm": Case(kind="lsm"),
    "kprobe": Case(kind="kprobe"),
    "kprobe by target": Case(kind="kprobe_bare", options=attach("security_file_open")),
    "kprobe with offset": Case(kind="kprobe_bare", options=attach("security_file_open+0")),
    "kretprobe by target": Case(kind="kretprobe_bare", options=attach("security_file_open")),
    "kprobe.multi": Case(kind="kprobe_multi"),
    "ksyscall": Case(kind="ksyscall"),
    "uprobe": Case(kind="uprobe"),
    "uprobe by target": Case(kind="uprobe_bare", options=attach(f"{GUEST}:victim_work")),
    "uretprobe by target": Case(kind="uretprobe_bare", options=attach(f"{GUEST}:victim_work")),
    "uprobe.multi by pattern": Case(kind="uprobe_multi", options=attach(f"{GUEST}:victim_w*")),
    "usdt": Case(kind="usdt"),
    "usdt by target": Case(kind="usdt_bare", options=attach(f"{GUEST}:guest:work")),
    "usdt and a workload": Case(kind="usdt", options="-- sleep 60", code=143),
    "no such usdt": Case(
        kind="usdt_bare",
        options=attach(f"{GUEST}:guest:none"),
        code=1,
        words=("no such file, or it has no such probe",),
    ),
    "usdt without its maps": Case(kind="usdt_without_maps", code=1, words=("usdt.bpf.h",)),
    "fmod_ret": Case(kind="fmod_ret"),
    "kprobe.session by pattern": Case(kind="kprobe_session_bare", options=attach("security_file_op*n")),
    **REPLACING,
    "lsm_cgroup": Case(kind="lsm_cgroup", options=attach("/cgroup")),
    "netkit": Case(kind="netkit", options=attach("kit0")),
    "tracepoint": Case(kind="tracepoint"),
    "map_iterator": Case(kind="map_iterator", options=attach(f"{PREFIX}_map")),
    "netfilter": Case(kind="netfilter", options=attach("ipv4:input:0")),
    "tc": Case(kind="tc", options=attach("lo:ingress", f"{PREFIX}_tc")),
    **{
        f"{kind} and a workload": Case(kind=kind, options="-- sleep 60", code=143)
        for kind in ("kprobe", "uprobe", "tracepoint", "fentry", "kprobe_multi")
    },
    "no such function": Case(
        kind="kprobe_bare",
        options=attach("no_such_function"),
        code=1,
        words=("cannot attach to no_such_function: no such symbol in this kernel, or one",),
    ),
    "no such symbol": Case(
        kind="uprobe_bare",
        options=attach(f"{GUEST}:none"),
        code=1,
        words=("no such file, or it has no such",),
    ),
    "no such file": Case(
        kind="uprobe_bare", options=attach("/none:main"), code=1, words=("no such file, or it has no such",)
    ),
    "two targets": Case(
        kind="fentry_bare",
        options=f"{attach('security_file_open')} {attach('security_file_permission')}",
        code=2,
        words=("has one target",),
    ),
    "no BTF": Case(kind="fentry", prepare="btf", code=1, words=("BTF",)),
    "no BTF by target": Case(
        kind="fentry_bare",
        options=attach("security_file_open"),
        prepare="btf",
        code=1,
        words=("this kernel has no BTF",),
    ),
    "no BTF needed": Case(kind="kprobe", prepare="btf"),
    **SHARED,
    "lsm beside another loader that shares it": Case(
        kind="lsm", options="--share /sys/fs/bpf/share", prepare="beside", left=1
    ),
    # The last one, because its pins stay.
    "usdt and pins": Case(kind="usdt", options="--pin-root /sys/fs/bpf/usdt -- true", left=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """The result of a case: exit *code*, times *counted*, programs *left*, and *lines*."""

    code: int
    counted: int
    left: int
    lines: list[dict[str, Any]]

    @property
    def message(self) -> str:
        """Return the message of the error line."""
        return str(next(line["message"] for line in self.lines if line["event"] == "error"))


Boot = Callable[[str, dict[str, Case]], dict[str, Ran]]


@pytest.fixture(scope="module")
def boot(clang: Path, sysroot: Path, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """Return a function that runs cases on one of Debian's kernels."""
    if shutil.which(MACHINES["amd64"].qemu[0]) is None:
        pytest.skip(f"needs-tool: {MACHINES['amd64'].qemu[0]}")
    scratch = tmp_path_factory.mktemp("guest")
    guest = scratch / "attach_guest"
    argv = [clang, f"--sysroot={sysroot}", "-static", "-O1", "-fuse-ld=lld"]
    subprocess.run([*argv, HERE / "attach_guest.c", "-o", guest], check=True)

    def run(kernel: str, cases: dict[str, Case]) -> dict[str, Ran]:
        files: dict[str, Path | bytes] = {
            GUEST: guest,
            "/vmtest/verify-and-load": lab.loader,
            "/vmtest/script": HERE / "attach_script.sh",
            "/vmtest/trust/dev.pub": lab.key.pem,
        }
        lines = []
        for number, case in enumerate(cases.values()):
            for kind in (case.kind, *case.beside):
                files[f"/vmtest/objects/{case.kind}/{kind}.bpf.o"] = lab.signed(kind)
            lines.append(f"{number} {case.kind} {case.prepare} {case.options}\n")
        files["/vmtest/cases"] = "".join(lines).encode()
        request = VmRequest(
            kernel=find_kernel(kernel, "amd64", TOP / ".cache/vm"),
            argv="sh /vmtest/script",
            files=files,
            modules=("sch_ingress", "cls_bpf", "dummy"),
            collect=["/out"],
        )
        result = run_vm(request)
        assert result.code == 0, result.output
        return {name: _read(result.files, number) for number, name in enumerate(cases)}

    return run


def _read(files: Any, number: int) -> Ran:
    code, counted, left = map(int, files[f"/out/{number}.sum"].split())
    lines = [json.loads(line) for line in files[f"/out/{number}.log"].splitlines()]
    return Ran(code=code, counted=counted, left=left, lines=lines)


@pytest.fixture(scope="module")
def on_old(boot: Boot) -> dict[str, Ran]:
    """Run the cases of Linux 6.1, which lacks tcx and sockmap links."""
    return boot("6.1", OLD)


@pytest.fixture(scope="module")
def on_new(boot: Boot) -> dict[str, Ran]:
    """Run the cases of Linux 6.12."""
    return boot("6.12", NO_SESSIONS | NEW)


@pytest.fixture(scope="module")
def on_newest(boot: Boot) -> dict[str, Ran]:
    """Run the cases of Linux 6.12 on Debian's newest kernel."""
    return boot("newest", SESSIONS | NEW)


def check(case: Case, ran: Ran) -> None:
    """Check the result of a case, and that it left no program behind."""
    assert (ran.code, ran.left) == (case.code, case.left), ran.lines
    if case.words:
        assert all(word in ran.message for word in case.words), ran.message
        assert not any(line["event"] == "ready" for line in ran.lines)
    elif case.kind in ("sk_msg", "map_iterator", "tc_anew"):  # no event runs these
        assert [line["event"] for line in ran.lines][-1] == "detach"
    else:
        assert ran.counted >= CALLS, ran
    if case.programs:
        assert ran.counted == case.programs * CALLS * PACKETS, ran


def events(ran: Ran) -> list[str]:
    """Return the events about attachments."""
    return [line["event"] for line in ran.lines if line["event"] in ("attach", "lost", "error", "detach")]


def test_filter_of_an_interface_that_is_made_anew(on_old: dict[str, Ran]) -> None:
    """Without tcx, the loader sees that its filter is gone, and makes another one."""
    assert events(on_old["tc made anew"]) == ["attach", "lost", "attach", "detach"], on_old["tc made anew"]


@pytest.mark.parametrize("name", TWO_WAYS)
@pytest.mark.parametrize("kernel", ["on_old", "on_new", "on_newest"])
def test_one_of_two_ways(request: pytest.FixtureRequest, kernel: str, name: str) -> None:
    """The program that the options choose is attached where its section says, and the other one is not."""
    ran = request.getfixturevalue(kernel)[name]
    chosen = f"{PREFIX}_{name.partition(' ')[0]}"
    assert [line["program"] for line in ran.lines if line["event"] == "attach"] == [chosen]


@pytest.mark.parametrize("name", OLD)
def test_linux_6_1(on_old: dict[str, Ran], name: str) -> None:
    """On a kernel without tcx the case attaches, counts and leaves nothing, or is refused with the reason."""
    check(OLD[name], on_old[name])


@pytest.mark.parametrize("name", NO_SESSIONS | NEW)
def test_linux_6_12(on_new: dict[str, Ran], name: str) -> None:
    """On a kernel with probes and LSM the case attaches, counts and leaves nothing, or names the reason."""
    check((NO_SESSIONS | NEW)[name], on_new[name])


@pytest.mark.parametrize("name", SESSIONS | NEW)
def test_newest_linux(on_newest: dict[str, Ran], name: str) -> None:
    """The newest kernel gives the same result as 6.12, and has the sessions of Linux 6.13 and 7.0."""
    check((SESSIONS | NEW)[name], on_newest[name])
