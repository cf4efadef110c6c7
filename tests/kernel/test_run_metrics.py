# SPDX-License-Identifier: Apache-2.0
"""--metrics-file, read by the parser of Prometheus's client library."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.loader import Lab
from labs.run import wait_until
from prometheus_client.parser import text_string_to_metric_families

import buildtool

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

Samples = dict[tuple[str, ...], float]


def read(path: Path) -> Samples:
    """Return all samples by metric name and label values."""
    found: Samples = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.documentation
        assert family.type in ("counter", "gauge")
        for sample in family.samples:
            key = (sample.name.removeprefix("buildtool_"), *sample.labels.values())
            assert key not in found
            found[key] = sample.value
    return found


def test_metrics_during_and_after_a_run(lab: Lab, tmp_path: Path) -> None:
    """The file has the loaded objects and times of a run, and zero loaded objects after its end."""
    lab.put(tmp_path, "raw_tp")
    path = tmp_path / "loader.prom"
    with lab.started(tmp_path, "--metrics-file", str(path)) as (_, stop):
        assert wait_until(lambda: read(path).get(("ready",)) == 1)
        running = read(path)
        (verified,) = (line := stop()).events("verify")
    assert running["info", buildtool.__version__, verified["platform"], verified["policy"]] == 1
    assert running["verifications_total", "accepted", ""] == 1
    names = ("objects_loaded", "programs_loaded", "maps_loaded", "attachments", "ready")
    assert {name: running[name,] for name in names} == dict.fromkeys(names, 1)
    for name in ("verify_seconds_total", "load_seconds_total", "attach_seconds_total"):
        assert 0 < running[name,] < running["start_duration_seconds",] < 60
    assert running["start_time_seconds",] > 1_700_000_000
    assert line.code == 0
    after = read(path)
    assert {name: after[name,] for name in names} == dict.fromkeys(names, 0)
    assert after["verifications_total", "accepted", ""] == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.glob(".loader.prom*")] == []


def test_every_metric_is_documented(lab: Lab, tmp_path: Path) -> None:
    """The reference lists exactly the metrics and labels of the file."""
    lab.put(tmp_path, "raw_tp")
    path = tmp_path / "loader.prom"
    assert lab.run(tmp_path, "--metrics-file", str(path), "--verify-only").code == 0
    written = {
        (sample.name, *sample.labels)
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    listed = re.findall(r"`(buildtool_\w+)(?:{([\w,]+)})?`", page)
    assert {(name, *filter(None, labels.split(","))) for name, labels in listed} == written


def test_a_workload_inherits_the_file(lab: Lab, tmp_path: Path) -> None:
    """Without --reload the file keeps the state at the workload's start."""
    lab.put(tmp_path, "raw_tp")
    path = tmp_path / "loader.prom"
    assert lab.run(tmp_path, "--metrics-file", str(path), "--", "true").code == 0
    assert read(path)["ready",] == 1


def test_refused(lab: Lab, tmp_path: Path) -> None:
    """Refusals are counted by reason, and the file is written although nothing was loaded."""
    objects = lab.put(tmp_path, "raw_tp")
    (objects / "unsigned.bpf.o").write_bytes(lab.object("raw_tp"))
    path = tmp_path / "loader.prom"
    assert lab.run(tmp_path, "--metrics-file", str(path)).code == 3
    found = read(path)
    assert found["verifications_total", "refused", "unsigned"] == 1
    assert found["verifications_total", "accepted", ""] == 1
    assert found["ready",] == found["programs_loaded",] == 0
    reasons = [key for key in found if key[0] == "verifications_total"]
    assert len(reasons) == 14


def test_errors_are_counted(lab: Lab, tmp_path: Path) -> None:
    """A failed start counts one error."""
    lab.put(tmp_path, "refused")
    path = tmp_path / "loader.prom"
    assert lab.run(tmp_path, "--metrics-file", str(path)).code == 1
    assert read(path)["errors_total",] == 1


def test_reloads_are_counted(lab: Lab, tmp_path: Path) -> None:
    """Each reload is counted by its outcome, and a reader never sees a partial file."""
    objects = lab.put(tmp_path, "raw_tp")
    path = tmp_path / "loader.prom"
    with lab.started(tmp_path, "--reload", "--metrics-file", str(path)) as (process, stop):
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: read(path)["reloads_total", "unchanged"] == 1)
        (objects / "raw_tp.bpf.o").write_bytes(b"")
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: read(path)["reloads_total", "kept"] == 1)
        assert read(path)["ready",] == read(path)["programs_loaded",] == 1
        assert stop().code == 0


PLANT = {
    "a FIFO, which would block": 'mkfifo "$T"',
    "another name of a file": 'ln victim "$T"',
    "a link": 'ln -s victim "$T"',
}


@pytest.mark.parametrize("plant", [pytest.param(text, id=name) for name, text in PLANT.items()])
def test_existing_temporary_file_is_not_written(lab: Lab, tmp_path: Path, plant: str) -> None:
    """An existing temporary file is never written: other containers have the same process number."""
    lab.put(tmp_path, "raw_tp")
    victim, path = tmp_path / "victim", tmp_path / "loader.prom"
    victim.write_text("precious")
    script = f'cd "$1"; shift; T=.loader.prom.$$; {plant}; exec "$@"'
    before = ["sh", "-c", script, "sh", str(tmp_path)]
    result = lab.run(tmp_path, "--metrics-file", str(path), "--", "true", before=before)
    assert (result.code, read(path)["ready",], path.is_symlink()) == (0, 1, False)
    assert (victim.read_text(), victim.stat().st_nlink) == ("precious", 1)


@pytest.mark.parametrize("name", ["nowhere/loader.prom", "directory", "loop"])
def test_a_file_that_cannot_be_written(lab: Lab, tmp_path: Path, name: str) -> None:
    """An unwritable file is an error before any verification, and nothing is left behind."""
    lab.put(tmp_path, "raw_tp")
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("directory/")
    before = sorted(tmp_path.iterdir())
    result = lab.run(tmp_path, "--metrics-file", f"{tmp_path}/{name}/")
    assert result.code == 1
    assert result.message.startswith(f"metrics {tmp_path}/{name}")
    assert [line["event"] for line in result.lines] == ["error"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system with room for one file of metrics."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


def fill(directory: Path) -> Path:
    """Fill the rest of the file system; return the file."""
    path = directory / "fill"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


def test_a_full_disk(lab: Lab, tmp_path: Path, small_disk: Path) -> None:
    """A full disk at the start is an error; later it is one line, and the old file stays complete."""
    lab.put(tmp_path, "raw_tp")
    path = small_disk / "loader.prom"
    full = fill(small_disk)
    result = lab.run(tmp_path, "--metrics-file", str(path))
    assert (result.code, "No space left on device" in result.message) == (1, True)
    assert list(small_disk.iterdir()) == [full]
    full.unlink()
    with lab.started(tmp_path, "--reload", "--metrics-file", str(path)) as (process, stop):
        assert wait_until(lambda: path.exists() and read(path).get(("ready",)) == 1)
        fill(small_disk)
        process.send_signal(signal.SIGHUP)
        log = max(tmp_path.glob("stderr*"))
        assert wait_until(lambda: "No space left" in log.read_text())
        assert read(path)["ready",] == 1
        assert sorted(entry.name for entry in small_disk.iterdir()) == ["fill", "loader.prom"]
        (small_disk / "fill").unlink()
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: read(path)["reloads_total", "unchanged"] == 2)
        assert read(path)["errors_total",] == 1
        assert stop().code == 0
