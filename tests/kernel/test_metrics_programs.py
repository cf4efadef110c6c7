# SPDX-License-Identifier: Apache-2.0
"""`buildtool metrics` shows the exact counts of the shipped programs, which the loader pinned."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from labs import frames as f
from labs import kernel, net
from labs.compile import compile_shipped
from labs.loader import Lab
from labs.metrics import Samples, by_label, parse_text, put_signed, read_samples, run_print, serving
from labs.opcua import CASES, UADP, Count, Counts, tcp4, udp4
from labs.peers import check_metrics, prometheus
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root")

ROUNDS = 7
FRAME = f.ethernet(f.ipv4(f.udp(bytes(958), destination=9), 17), f.ETH_IPV4)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the compiled programs."""
    directory = tmp_path_factory.mktemp("objects")
    names = ("opcua_monitor", "cgroup_traffic", "tx_latency")
    return {name: compile_shipped(name, directory).read_bytes() for name in names}


def total(*parts: Counts) -> dict[str, tuple[int, int]]:
    """Return the sum of *parts* by the names that labels have."""
    result: dict[str, tuple[int, int]] = {}
    for part in parts:
        for what, (number, size) in part.items():
            before = result.get(what.name, (0, 0))
            result[what.name] = (before[0] + number, before[1] + size)
    return result


def test_opcua_messages_are_those_on_the_wire(lab: Lab, tmp_path: Path, objects: dict[str, bytes]) -> None:
    """Each kind of message and fault has its exact number and bytes, and the sizes fall into their slots."""
    put_signed(lab, tmp_path, "opcua_monitor.bpf.o", objects["opcua_monitor"])
    with net.veth() as (left, right), kernel.bpf_file_system(tmp_path) as mount:
        root = mount / "pins"
        options = [f"--pin-root={root}", f"--attach=opcua_monitor={left}"]
        assert lab.run(tmp_path, *options, "--", "/bin/true").code == 0
        sizes = [f.message(b"MSG", size=size) for size in (8, 15, 16, 31, 32, 65536, 0xFFFFFFFF)]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((right, 0))
            for frame, _ in [*CASES.values()] * ROUNDS:
                sender.send(frame)
            for message in sizes:
                sender.send(tcp4(message))
            sender.send(udp4(UADP))
        more: Counts = {
            Count.MSG: (len(sizes), 8 + 15 + 16 + 31 + 32 + 65536 + 0xFFFFFFFF),
            Count.UADP: (1, 41),
        }
        expected = total(*[counts for _, counts in CASES.values()] * ROUNDS, more)

        def counted(samples: Samples) -> dict[str, tuple[int, int]]:
            numbers = by_label(samples, "opcua_messages_total", "type")
            volumes = by_label(samples, "opcua_bytes_total", "type")
            return {
                name: (int(numbers[name]), int(volumes[name]))
                for name in numbers
                if numbers[name] or volumes[name]
            }

        assert wait_until(lambda: counted(read_samples("--pin-root", root)) == expected)
        samples = read_samples("--pin-root", root)
        assert by_label(samples, "opcua_messages_total", "type").keys() == {each.name for each in Count}
        assert_sizes(samples, expected)


def assert_sizes(samples: Samples, expected: dict[str, tuple[int, int]]) -> None:
    """Assert that the histogram has each message once, and that the last slot has no bound."""
    counts = by_label(samples, "opcua_message_size_bytes_count", "type")
    sized = [each.name for each in Count if each <= Count.UADP]
    assert counts == {name: expected[name][0] for name in sized if name in expected}
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in samples.items()
        if name == "opcua_message_size_bytes_bucket" and ("type", "MSG") in labels
    }
    assert len(buckets) == 32
    assert (buckets["7.0"], buckets["+Inf"]) == (0, counts["MSG"])
    # 0xFFFFFFFF bytes are in slot 31, the last one.
    assert counts["MSG"] - buckets["2147483647.0"] == 1 + ROUNDS


def test_traffic_is_that_of_the_named_cgroup(lab: Lab, tmp_path: Path, objects: dict[str, bytes]) -> None:
    """The label is the path of the cgroup whose sockets sent and received; a removed one keeps its number."""
    put_signed(lab, tmp_path, "cgroup_traffic.bpf.o", objects["cgroup_traffic"])
    with kernel.cgroup2() as top, kernel.bpf_file_system(tmp_path) as mount:
        root = mount / "pins"
        attach = [f"--attach={program}={top}" for program in ("cgroup_ingress", "cgroup_egress")]
        assert lab.run(tmp_path, f"--pin-root={root}", *attach, "--", "/bin/true").code == 0
        child = top / "child"
        child.mkdir()
        with (
            kernel.inside_cgroup(child),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.bind(("127.0.0.1", 0))
            for size in (0, 100, 1400):
                sender.sendto(bytes(size), receiver.getsockname())
                assert len(receiver.recv(2048)) == size
        number = child.stat().st_ino
        samples = read_samples("--pin-root", root)
        path = f"/{top.name}/child"
        for direction in ("ingress", "egress"):
            labels = (("cgroup", path), ("direction", direction))
            assert samples["cgroup_packets_total", labels] == 3
            assert samples["cgroup_bytes_total", labels] == 1500 + 3 * 28
        assert samples["cgroup_missed_packets_total", ()] == samples["cgroup_missed_bytes_total", ()] == 0
        child.rmdir()
        after = by_label(read_samples("--pin-root", root), "cgroup_packets_total", "cgroup")
        assert after == {str(number): 3}


def test_waits_are_those_of_the_interface(lab: Lab, tmp_path: Path, objects: dict[str, bytes]) -> None:
    """Each sent packet is in the histogram once, in seconds, below the name of its network namespace."""
    put_signed(lab, tmp_path, "tx_latency.bpf.o", objects["tx_latency"])
    with net.veth_pair() as (left, _), net.veth() as (here, _), kernel.bpf_file_system(tmp_path) as mount:
        root = mount / "pins"
        with lab.started(tmp_path, f"--pin-root={root}") as (_, stop):
            left.send(*[FRAME] * 25)
            net.send(here, 5)
            wanted = (("interface", left.name), ("netns", left.namespace.name))
            name = "tx_wait_seconds_count"
            assert wait_until(lambda: read_samples("--pin-root", root).get((name, wanted)) == 25)
            samples = read_samples("--pin-root", root)
            # This machine's own namespace may have no name, but its interfaces have.
            assert by_label(samples, name, "interface")[here] == 5
            buckets = {
                dict(labels)["le"]: value
                for (each, labels), value in samples.items()
                if each == "tx_wait_seconds_bucket" and set(wanted) <= set(labels)
            }
            assert len(buckets) == 40
            assert buckets["+Inf"] == buckets["1.073741823"] == 25
            assert [*buckets.values()] == sorted(buckets.values())
            assert by_label(samples, "tx_packets_total", "event")["SENT"] >= 30
            assert stop().code == 0


def test_served_metrics_are_those_of_this_moment(lab: Lab, tmp_path: Path, objects: dict[str, bytes]) -> None:
    """The server starts before the loader, finds the object, and reads its maps anew for each request."""
    put_signed(lab, tmp_path, "opcua_monitor.bpf.o", objects["opcua_monitor"])
    with net.veth() as (left, right), kernel.bpf_file_system(tmp_path) as mount:
        root = mount / "pins"
        with serving("--pin-root", root) as served:
            assert parse_text(served.get())["buildtool_metrics_objects", ()] == 0
            options = [f"--pin-root={root}", f"--attach=opcua_monitor={left}"]
            assert lab.run(tmp_path, *options, "--", "/bin/true").code == 0
            assert served.get("/healthz") == "ok\n"
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((right, 0))
                for number in range(1, 4):
                    sender.send(udp4(UADP))

                    def seen(wanted: int = number) -> bool:
                        found = by_label(parse_text(served.get()), "opcua_messages_total", "type")
                        return found["UADP"] == wanted

                    assert wait_until(seen)
            text = served.get(Accept="application/openmetrics-text;version=1.0.0")
            assert text.endswith("# EOF\n")
            assert "# UNIT opcua_bytes bytes\n" in text


def test_prometheus_scrapes_what_promtool_accepts(
    lab: Lab, tmp_path: Path, objects: dict[str, bytes]
) -> None:
    """Debian's promtool finds no fault, and queries of Prometheus answer with the exact counts."""
    for name in ("opcua_monitor", "tx_latency"):
        put_signed(lab, tmp_path, f"{name}.bpf.o", objects[name])
    with net.veth() as (left, right), kernel.bpf_file_system(tmp_path) as mount:
        root = mount / "pins"
        with (
            lab.started(tmp_path, f"--pin-root={root}", f"--attach=opcua_monitor={left}"),
            serving("--pin-root", root) as served,
        ):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((right, 0))
                for _ in range(9):
                    sender.send(udp4(UADP))
            text = served.get()
            assert "opcua_message_size_bytes_bucket" in text
            assert "tx_wait_seconds_bucket" in text
            checked = check_metrics(text)
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
            with prometheus(tmp_path, f"127.0.0.1:{served.port}") as server:
                wanted = 'opcua_messages_total{type="UADP"}'
                assert wait_until(lambda: ask(server, wanted) == ["9"])
                assert ask(server, "sum(opcua_message_size_bytes_count)") == ["9"]
                median = "histogram_quantile(0.5, sum by (le) (opcua_message_size_bytes_bucket))"
                assert ask(server, median) == ["47"]  # in the slot of 32 to 63, as 41 is
                assert ask(server, "up") == ["1"]


def ask(server: str, query: str) -> list[str]:
    """Return the values that Prometheus at *server* answers to *query*."""
    address = f"http://{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return [result["value"][1] for result in json.load(answer)["data"]["result"]]


def test_several_places_have_a_label(lab: Lab, tmp_path: Path, objects: dict[str, bytes]) -> None:
    """Objects of two directories are told apart, and a directory that does not exist is an error."""
    put_signed(lab, tmp_path, "opcua_monitor.bpf.o", objects["opcua_monitor"])
    with net.veth() as (left, right), kernel.bpf_file_system(tmp_path) as mount:
        roots = [mount / "one", mount / "two"]
        for root, interface in zip(roots, (left, right), strict=True):
            options = [f"--pin-root={root}", f"--attach=opcua_monitor={interface}"]
            assert lab.run(tmp_path, *options, "--", "/bin/true").code == 0
        net.send(right, 1)
        found = read_samples(*(word for root in roots for word in ("--pin-root", root)))
        places = {dict(labels).get("place") for (name, labels) in found if name == "opcua_messages_total"}
        assert places == {str(root) for root in roots}
        done = run_print("--pin-root", mount / "three")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{mount}/three: not a directory" in done.stderr
