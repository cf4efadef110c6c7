# SPDX-License-Identifier: Apache-2.0
"""Declared metrics in `compile`, `check` and `inspect`, and mistakes in the arguments of `metrics`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from labs import TOP

from buildtool.cli.main import run

Capture = pytest.CaptureFixture[str]
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>
#include "counts.h"

/* NAME is shown to Prometheus. */

#define UNUSED 1

__u64 drops METRIC_COUNTER(NAME, "", "Packets that were dropped");

SEC("xdp") int count(struct xdp_md *c)
{
	__u32 key = 0;
	struct count *found = bpf_map_lookup_elem(&counts, &key);

	if (found)
		found->packets++;
	drops++;
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
HEADER = """\
enum side { SIDE_LEFT, SIDE_RIGHT, SIDE_COUNT };
struct count {
	__u64 packets METRIC_COUNTER(
		packets_total,
		"label=side=key:enum(side) OPTIONS",
		"Packets");
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	METRIC_ENTRIES(enum side, SIDE_COUNT);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");
"""


def write(directory: Path, name: str = "drops_total", options: str = "") -> None:
    """Write a project with metrics in a source and in a header."""
    (directory / "bpf").mkdir(exist_ok=True)
    (directory / "bpf/x.bpf.c").write_text(SOURCE.replace("NAME", name))
    (directory / "bpf/counts.h").write_text(HEADER.replace("OPTIONS", options))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a project as the working directory."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.tools
def test_declared_metrics_travel_in_the_object(project: Path, capsys: Capture) -> None:
    """The carried header is found, `check` finds no fault, and `inspect` lists the metrics."""
    assert run(["compile", "--arch", "amd64,s390x"]) == 0
    for arch in ("amd64", "s390x"):
        assert run(["check", f"build/{arch}/x.bpf.o"]) == 0
    capsys.readouterr()
    assert run(["inspect", "build/amd64/x.bpf.o"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("metric")]
    assert lines == [
        "metric      packets_total{side}  counter  map counts",
        "metric      drops_total  counter  variable drops",
    ]
    assert run(["inspect", "--json", "build/s390x/x.bpf.o"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metricsProblem"] is None
    assert report["metrics"][0] == {
        "name": "packets_total",
        "kind": "counter",
        "help": "Packets",
        "unit": "",
        "labels": ["side"],
        "map": "counts",
        "variable": None,
    }


@pytest.mark.tools
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drops", "", "bpf/x.bpf.c:10: metric drops: the name of a metric of kind counter ends in _total"),
        (
            "drops_total",
            "colour=red",
            "bpf/counts.h:4: metric packets_total: unknown option colour",
        ),
        (
            "drops_total",
            "value=volume",
            "bpf/counts.h:4: metric packets_total: packets.volume: no member volume in map counts",
        ),
    ],
)
def test_compile_names_the_line_of_a_wrong_declaration(
    project: Path, capsys: Capture, name: str, options: str, message: str
) -> None:
    """The error has file and line of the declaration, in a source or a header, and no object appears."""
    write(project, name, options)
    assert run(["compile", "--arch", "amd64"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"buildtool: error: {message}"
    assert hint.startswith("buildtool: hint: ")
    assert not list(project.glob("build/**/*.o"))


@pytest.mark.tools
def test_check_and_inspect_name_a_wrong_metric(project: Path, capsys: Capture) -> None:
    """An object of another compiler: `check` refuses it, and `inspect` says that its metrics are wrong."""
    assert run(["compile", "--arch", "amd64"]) == 0
    path = project / "build/amd64/x.bpf.o"
    other = project / "other.bpf.o"
    other.write_bytes(
        path.read_bytes().replace(b"metric: drops_total counter", b"metric: drops_total gauge  ")
    )
    capsys.readouterr()
    assert run(["check", str(other)]) == 1
    problem = "metric drops_total: the name of a metric of kind gauge does not end in _total"
    assert f"error BT070 other.bpf.o: {problem}" in capsys.readouterr().out
    assert run(["inspect", str(other)]) == 0
    assert f"metrics     none that can be read: {problem}" in capsys.readouterr().out
    assert run(["inspect", "--json", str(other)]) == 0
    assert json.loads(capsys.readouterr().out)["metricsProblem"] == problem


@pytest.mark.tools
def test_the_example_of_the_page_compiles(project: Path, capsys: Capture) -> None:
    """The program of docs/how-to/metrics.md has the metrics that its text names."""
    page = (TOP / "docs/how-to/metrics.md").read_text("utf-8")
    (example,) = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    program = """
SEC("xdp") int flow(struct xdp_md *c)
{
	struct flow key = {};
	lost += bpf_map_lookup_elem(&flows, &key) ? 0 : 1;
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
    (project / "bpf/x.bpf.c").write_text(example + program)
    assert run(["compile", "--arch", "amd64", "--flag=-Wall", "--flag=-Werror"]) == 0
    assert run(["inspect", "build/amd64/x.bpf.o"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("metric")]
    assert lines == [
        "metric      flow_packets_total{interface,protocol}  counter  map flows",
        "metric      flow_bytes_total{interface,protocol}  counter  map flows",
        "metric      flow_lost_total  counter  variable lost",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["print"], 2, "no directory of pins is named or configured"),
        (["serve"], 2, "no directory of pins is named or configured"),
        (["print", "--pin-root", "nowhere"], 1, "nowhere: not a directory"),
        (["print", "--share", "file"], 1, "file: not a directory"),
        (["serve", "--share", "x", "--listen", ":9435"], 2, "':9435': not an address and a port"),
        (["serve", "--share", "x", "--listen", "192.0.2.1:1"], 2, "192.0.2.1:1: cannot listen: "),
        (["print", "--pin-root", "x", "--max-series", "0"], 2, "--max-series: 0 is not an integer from 1"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """Each is one line, with a hint."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert run(["metrics", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[0]


def test_places_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Without an option, the loader's places are read."""
    monkeypatch.chdir(tmp_path)
    Path("buildtool.toml").write_text(
        '[project]\nname = "x"\nversion = 1\n[loader]\n'
        f'pin-root = "{tmp_path}/pins"\nshare = "{tmp_path}/share"\n'
    )
    for name in ("pins", "share"):
        Path(name).mkdir()
    assert run(["metrics", "print"]) == 0
    assert "buildtool_metrics_objects 0.0" in capsys.readouterr().out
    assert run(["metrics", "print", "--openmetrics"]) == 0
    assert capsys.readouterr().out.endswith("# EOF\n")
    Path("pins").rmdir()
    assert run(["metrics", "print"]) == 1
    assert f"{tmp_path}/pins: not a directory" in capsys.readouterr().err


LINKED = """\
[project]
name = "x"
version = 1
[[compile.object]]
name = "both.bpf.o"
sources = ["bpf/x.bpf.c", "bpf/y.bpf.c"]
"""
PART = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>
#include "shared.h"
__u64 NAME METRIC_COUNTER(METRIC, "", "Of one part");
int other(int number) { return number; }
SEC("xdp") int count_NAME(struct xdp_md *c) { NAME++; return 2 + (bpf_map_lookup_elem(&shared, c) != 0); }
"""
SHARED = """\
struct shared { __u64 seen METRIC_COUNTER(seen_total, "label=key", "Seen"); };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct shared);
} shared SEC(".maps") __weak METRIC_GAUGE(shared_state, "value=seen label=key", "State");
"""


@pytest.mark.tools
@pytest.mark.network
def test_metrics_of_linked_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, probes: Path, carried_headers: Path
) -> None:
    """Both sources declare the map that they share, and variables of their own: each metric is there once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_PROBES", str(probes))
    monkeypatch.setenv("BUILDTOOL_HEADERS", str(carried_headers))
    Path("buildtool.toml").write_text(LINKED)
    Path("bpf").mkdir()
    Path("bpf/shared.h").write_text(SHARED)
    for name, more in (("x", 'char LICENSE[] SEC("license") = "GPL";'), ("y", "")):
        part = PART.replace("NAME", name).replace("METRIC, ", f"part_{name}_total, ")
        part = part.replace("int other(", f"int other_{name}(")
        Path(f"bpf/{name}.bpf.c").write_text(part + more)
    assert run(["compile", "--arch", "amd64"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert run(["inspect", "--json", "build/amd64/both.bpf.o"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["metricsProblem"] is None
    assert sorted((each["name"], each["map"] or each["variable"]) for each in report["metrics"]) == [
        ("part_x_total", "x"),
        ("part_y_total", "y"),
        ("seen_total", "shared"),
        ("shared_state", "shared"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["maps", "list"], 2, "no directory of pins is named or configured"),
        (["maps", "dump", "flows"], 2, "no directory of pins is named or configured"),
        (["maps", "watch", "flows", "--pin-root", "nowhere"], 1, "nowhere: not a directory"),
        (["maps", "dump", "./nothing"], 1, "./nothing: no such map"),
        (["maps", "watch", "./nothing"], 1, "./nothing: no such map"),
        (["maps", "dump", "./file"], 1, "./file: cannot open as a map: "),
        (["maps", "dump", "x", "--limit", "0"], 2, "--limit: 0 is not "),
        (["top"], 2, "no directory of pins is named or configured"),
        (["top", "--share", "nowhere", "--json"], 1, "nowhere: not a directory"),
        (["top", "--share", "x", "--interval", "0"], 2, "--interval: 0.0 is not "),
    ],
)
def test_mistakes_of_maps_and_top(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """Each is one line, with a hint, and nothing is printed."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert message in error
    assert hint.startswith("buildtool: hint: ")
