# SPDX-License-Identifier: Apache-2.0
"""A machine with a clock at 1970: an object with a date is refused, others start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from labs import loader
from labs.handsig import policy
from labs.loader import PREFIX

from buildtool.check.vm.kernels import Kernel
from buildtool.check.vm.machine import VmRequest, run_vm

LIMIT = "2030-01-01T00:00:00Z"
# The first use of a kernel downloads it. Machines are emulated and may share processors.
pytestmark = pytest.mark.timeout(900)
# The script prints the loader's lines and then the exit code of each start. The clock cannot be set below the
# uptime: busybox's date then prints an error, and still ends with 0.
SCRIPT = """\
date -u -s @70000 >/dev/null
[ "$(date +%s)" -lt 80000 ] || exit 99
for case in free limited limited-ok expired-ok; do
    store=/lab/trust
    [ "$case" = "${case%-ok}" ] || store=/lab/unset-ok.json
    /lab/loader --objects /lab/${case%-ok}.bpf.o --trust $store --attach RAW=none -- true
    echo "@ $case $?"
done
"""


@pytest.fixture(scope="module")
def output(
    vm_kernel: Callable[[str, str], Kernel],
    clang: Path,
    sysroot: Path,
    loader_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """Boot once with the clock at 1970, start the loader with each object, and return the output."""
    lab = loader.Lab(
        clang=clang, sysroot=sysroot, loader=loader_binary, directory=tmp_path_factory.mktemp("lab")
    )
    rules = policy(lab.key, clock="unset-ok", earliest="2026-06-01T00:00:00Z")
    files: dict[str, Path | bytes] = {
        "/lab/loader": loader_binary,
        "/lab/trust/dev.pub": lab.key.pem,
        "/lab/unset-ok.json": rules.encode(),
        "/lab/free.bpf.o": lab.signed("raw_tp"),
        "/lab/limited.bpf.o": lab.signed("raw_tp", notAfter=LIMIT),
        "/lab/expired.bpf.o": lab.signed("raw_tp", notAfter="2026-05-31T00:00:00Z"),
    }
    script = SCRIPT.replace("RAW", f"{PREFIX}_raw")
    result = run_vm(VmRequest(kernel=vm_kernel("6.12", "amd64"), argv=script, files=files))
    assert result.code == 0, result.output
    return result.output


def case_of(output: str, name: str) -> tuple[int, str]:
    """Return the exit code and the lines of a case."""
    before, mark, rest = output.partition(f"@ {name} ")
    assert mark, output
    return int(rest.split()[0]), before.rpartition("@ ")[2]


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("free", 0, '"event":"ready"'),
        ("limited", 3, '"reason":"not-yet-valid"'),
        ("limited-ok", 0, '"event":"ready"'),
        ("expired-ok", 3, '"reason":"expired"'),
    ],
)
def test_the_clock_is_not_set(output: str, name: str, code: int, word: str) -> None:
    """Only an object with a date is refused; a policy with `earliest` uses that time instead."""
    found, said = case_of(output, name)
    assert found == code, said
    assert word in said
    assert '"time":"1970-01-01T' in said
