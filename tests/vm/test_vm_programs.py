# SPDX-License-Identifier: Apache-2.0
"""Signed objects load, attach and count on real kernels of each architecture, and bad ones are refused."""

from __future__ import annotations

import errno
import json
from collections import Counter

import pytest
from labs import matrix
from labs.opcua import CASES
from labs.vm import FORKS, INDEX, WRITES, Guest, vector_groups

from buildtool.core.errors import Reason

# Machines are emulated and may share processors.
pytestmark = pytest.mark.timeout(900)

OBJECTS = ("vm_regs", "vm_result", "vm_core", "vm_trace", "vm_fentry", "vm_lsm")
EXPECTED = {
    "vm_regs": {0: WRITES},
    "vm_result": {0: WRITES},
    "vm_core": {0: WRITES, 1: WRITES},
    "vm_trace": {0: FORKS, 1: FORKS, 2: FORKS},
    "vm_fentry": {0: WRITES, 1: WRITES},
    "vm_lsm": {0: WRITES},
}
# Five datagrams of 100 bytes over loopback, with their headers. No ICMP: QEMU 7.2 computes its checksum
# wrongly on s390x.
DATAGRAMS, DATAGRAM_BYTES = 5, 128


# Each virtual machine runs all of its tests before the next one boots.
on_each = pytest.mark.parametrize(
    "guest", matrix.KERNELS, ids=["-".join(item) for item in matrix.KERNELS], indirect=True, scope="session"
)


def cannot(guest: Guest, case: str) -> str | None:
    """Return the loader's expected words for *case* where this kernel lacks the feature."""
    return matrix.CANNOT.get((guest.kernel, guest.platform.arch), {}).get(case)


@pytest.mark.parametrize("case", OBJECTS)
@on_each
def test_object_counts_exactly(guest: Guest, case: str) -> None:
    """A signed object is verified, loaded and attached, counts exactly, and nothing stays."""
    assert guest.files[f"{case}.left"] == ""
    said = cannot(guest, case)
    if said is not None:
        assert guest.code(case) == 1
        assert said in guest.lines(case)[-1]["message"]
        return
    assert guest.code(case) == 0, guest.files[f"{case}.log"]
    assert guest.files[f"{case}.errors"] == ""
    counts = guest.counts(case, case.removeprefix("vm_") + "_counts")
    assert {key: words[0] for key, words in counts.items()} == EXPECTED[case]


@on_each
def test_constants_are_set_in_this_byte_order(guest: Guest) -> None:
    """Constants of each width have the given values; one that is too large for its type is refused."""
    assert guest.code("settings") == 0, guest.files["settings.log"]
    seen = guest.counts("settings", "settings_seen")
    values = (1, 2**64 - 128, 0xFFFE, 2**64 - 2147483647, 2**64 - 2, ord("y"))
    assert seen == {place: (value,) for place, value in enumerate(values)}
    shown = {line["target"]: line["value"] for line in guest.lines("settings") if line["event"] == "set"}
    assert (shown["u16"], shown["u64"], shown["settings_seen"]) == ("65534", str(2**64 - 2), "16")
    assert guest.code("beyond") == 3
    assert (
        "denied-by-statement: variable u16: 65536 is above the maximum 65535"
        in (guest.lines("beyond")[-1]["message"])
    )
    assert guest.files["settings.left"] == guest.files["beyond.left"] == ""


@on_each
def test_shipped_tx_latency_sees_every_packet(guest: Guest) -> None:
    """tx_latency counts as many sent packets as queued ones."""
    if said := cannot(guest, "tx_latency"):
        assert said in guest.lines("tx_latency")[-1]["message"]
        return
    assert guest.code("tx_latency") == 0, guest.files["tx_latency.log"]
    totals = guest.counts("tx_latency", "tx_totals")
    assert totals[0][0] >= DATAGRAMS
    assert totals[1] == totals[0]


@on_each
def test_shipped_programs_count_real_packets(guest: Guest) -> None:
    """Shipped programs run together and count each OPC UA frame and a cgroup's packets exactly."""
    assert guest.code("packets") == 0, guest.files["packets.log"]
    assert guest.files["packets.errors"] == ""
    expected: dict[int, tuple[int, int]] = {}
    for _, counts in CASES.values():
        for kind, (number, size) in counts.items():
            before = expected.get(int(kind), (0, 0))
            expected[int(kind)] = (before[0] + number, before[1] + size)
    assert guest.counts("opcua", "opcua_counts") == expected
    (traffic,) = guest.map("packets", "cgroup_traffic")
    assert traffic.words == 2 * (DATAGRAMS, DATAGRAMS * DATAGRAM_BYTES)
    assert guest.files["packets.left"] == ""


@pytest.mark.parametrize("options", ["", "noseccomp", "reload"])
@on_each
def test_workload_reads_its_maps_and_no_more(guest: Guest, options: str) -> None:
    """The workload reads its maps, and the filter denies the rest on this architecture too."""
    case = f"workload{options}"
    assert guest.code(case) == 42, guest.files[f"{case}.log"]
    said = json.loads(guest.files[f"{case}.said"])
    assert said["maps"] > 0
    assert said["lookup"] == said["info"] == 0
    assert said["create"] == errno.EPERM
    assert said["noCommand"] == (errno.EINVAL if options == "noseccomp" else errno.EPERM)


@pytest.mark.parametrize("reason", list(Reason))
@on_each
def test_each_refusal_refuses(guest: Guest, reason: Reason) -> None:
    """An object with one fault is refused for that reason, and nothing is loaded."""
    case = f"refused-{reason}"
    assert guest.code(case) == 3, guest.files[f"{case}.log"]
    assert [line["reason"] for line in guest.lines(case) if line["event"] == "verify"] == [reason]
    assert guest.files[f"{case}.left"] == ""


@on_each
def test_every_vector_has_its_answer(guest: Guest) -> None:
    """The verifier gives the expected answers with this byte order and word size."""
    lines = map(json.loads, guest.files["vectors"].splitlines())
    answers = {int(line["object"]): line for line in lines if line["event"] == "verify"}
    assert len(answers) == len(INDEX["vectors"]) > 150
    wrong = [
        (vector["name"], answers[number])
        for number, vector in enumerate(INDEX["vectors"])
        if answers[number].get("reason", answers[number]["decision"]) != vector["expect"]
    ]
    assert not wrong
    codes = dict(line.split() for line in guest.files["vectors.codes"].splitlines())
    for group, numbers in vector_groups().items():
        all_accepted = all(INDEX["vectors"][number]["expect"] == "accepted" for number in numbers)
        assert codes[group] == ("0" if all_accepted else "3")
    assert Counter(vector["expect"] for vector in INDEX["vectors"]).keys() == {"accepted", *Reason}


@on_each
def test_kernel_is_the_one_asked_for(guest: Guest) -> None:
    """The booted kernel has the requested release, and held no program before."""
    assert guest.kernel == "newest" or guest.release.startswith(guest.kernel + ".")
    assert guest.files["before"] == ""
