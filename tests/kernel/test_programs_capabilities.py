# SPDX-License-Identifier: Apache-2.0
"""Each program loads and attaches with exactly the capabilities that docs/reference/programs.md names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from labs import kernel, net
from labs.compile import compile_shipped

NEEDED = {
    "opcua_monitor": {"bpf", "net_admin"},
    "cgroup_traffic": {"bpf", "net_admin"},
    "tx_latency": {"bpf", "perfmon"},
}
FEWER = [(name, missing) for name, needed in NEEDED.items() for missing in sorted(needed)]
ATTACH = (
    "import sys; from pathlib import Path; from labs import kernel; kernel.attach_tracing(Path(sys.argv[1]))"
)

Try = Callable[..., bool]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the compiled programs."""
    directory = tmp_path_factory.mktemp("objects")
    for name in NEEDED:
        compile_shipped(name, directory)
    return directory


@contextmanager
def confined(capabilities: set[str]) -> Iterator[Try]:
    """Yield a function that says whether a command succeeds as root with only *capabilities*."""
    bounds = ",".join(["-all", *(f"+{name}" for name in sorted(capabilities))])
    with net.namespace() as inside:
        prefix = ["ip", "netns", "exec", inside.name, "setpriv", "--bounding-set", bounds]

        def attempt(*argv: str | Path) -> bool:
            command = [*prefix, *map(str, argv)]
            directory = Path(__file__).parents[1]
            return subprocess.run(command, capture_output=True, check=False, cwd=directory).returncode == 0

        yield attempt


def load_and_attach(name: str, path: Path, capabilities: set[str]) -> bool:
    """Return whether program *name* can be loaded and attached with *capabilities*."""
    with confined(capabilities) as attempt, kernel.bpf_file_system() as mount:
        pins = mount / "programs"
        if not attempt("bpftool", "prog", "loadall", path, pins):
            return False
        return {"opcua_monitor": _xdp, "cgroup_traffic": _cgroup, "tx_latency": _tracing}[name](attempt, pins)


def _xdp(attempt: Try, pins: Path) -> bool:
    # The end of the test removes the namespace, and the attachment with it.
    return attempt("bpftool", "net", "attach", "xdpgeneric", "pinned", pins / "opcua_monitor", "dev", "lo")


def _cgroup(attempt: Try, pins: Path) -> bool:
    with kernel.cgroup2() as cgroup:
        return all(
            attempt(
                "bpftool", "cgroup", "attach", cgroup, f"cgroup_inet_{way}", "pinned", pins / f"cgroup_{way}"
            )
            for way in ("ingress", "egress")
        )


def _tracing(attempt: Try, pins: Path) -> bool:
    return all(
        attempt(sys.executable, "-c", ATTACH, pins / name) for name in ("tx_queue", "tx_start", "tx_drop")
    )


@pytest.mark.parametrize("name", NEEDED)
def test_the_documented_capabilities_are_enough(objects: Path, name: str) -> None:
    """The documented capabilities are enough."""
    assert load_and_attach(name, objects / f"{name}.bpf.o", NEEDED[name])


@pytest.mark.parametrize(("name", "missing"), FEWER)
def test_each_capability_is_necessary(objects: Path, name: str, missing: str) -> None:
    """With any one of them missing, the kernel refuses."""
    assert not load_and_attach(name, objects / f"{name}.bpf.o", NEEDED[name] - {missing})
