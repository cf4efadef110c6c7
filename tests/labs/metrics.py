# SPDX-License-Identifier: Apache-2.0
"""Objects with declared metrics in the loader's pins, and what `buildtool metrics` says about them."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from buildtool.objects.describe import describe_object
from buildtool.objects.elf import parse_object
from labs.compile import compile_object
from labs.handsig import sign
from labs.loader import Lab

HEADER = Path(__file__).parents[2] / "buildtool/metrics"

# Samples by name and by labels without that of the object: the labels are sorted pairs.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse_text(text: str) -> Samples:
    """Return the samples of *text* in Prometheus' format. No sample may appear twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram"), family
        for sample in family.samples:
            labels = tuple(sorted(pair for pair in sample.labels.items() if pair[0] != "object"))
            key = (sample.name, labels)
            assert key not in found
            found[key] = sample.value
    return found


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """Return the samples *name* by the value of *label*."""
    return {dict(labels)[label]: value for (each, labels), value in samples.items() if each == name}


def run_print(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `buildtool metrics print`."""
    argv = [sys.executable, "-m", "buildtool", "metrics", "print", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def read_samples(*arguments: str | Path) -> Samples:
    """Return the samples that `buildtool metrics print` prints without a complaint."""
    done = run_print(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return parse_text(done.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running `buildtool metrics serve` at *port*."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str = "/metrics", **headers: str) -> str:
        """Return the body of *path*."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http alone
            return str(answer.read().decode())


@contextmanager
def serving(*arguments: str | Path) -> Iterator[Served]:
    """Run `buildtool metrics serve` on a free port during the block. It must end cleanly."""
    argv = [sys.executable, "-m", "buildtool", "metrics", "serve", "--listen=127.0.0.1:0"]
    process = subprocess.Popen([*argv, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", line)
        assert found, line + process.stderr.read()
        yield Served(process=process, port=int(found[1]))
        assert process.poll() is None
    finally:
        process.terminate()
        with process.stderr:
            process.stderr.read()
        assert process.wait(timeout=20) == 0


def build_object(lab_directory: Path, clang: Path, sysroot: Path, source: str, name: str) -> bytes:
    """Return the unsigned object of *source*, which includes the header of metrics."""
    text = source.replace("<buildtool/metrics.bpf.h>", f'"{HEADER / "metrics.bpf.h"}"')
    return compile_object(lab_directory, clang, sysroot, text, name).read_bytes()


def put_signed(lab: Lab, directory: Path, name: str, data: bytes, **changes: Any) -> None:
    """Write object *data*, signed under *name*, and the trust store into *directory* for the loader."""
    objects = directory / "objects"
    objects.mkdir(exist_ok=True)
    lab.trust(directory)
    programs = [
        {"name": program.name, "section": program.section, "type": program.type}
        for program in describe_object(parse_object(data)).programs
    ]
    signed = sign(data, [lab.key], name=name, programs=programs, **changes)
    (objects / name).write_bytes(signed)
