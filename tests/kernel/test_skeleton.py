# SPDX-License-Identifier: Apache-2.0
"""bpftool's skeleton of a signed object, opened by the code of the how-to page and loaded on this kernel."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from labs import TOP
from labs.compile import find_tool
from labs.loader import PREFIX, Lab
from labs.run import run

from buildtool.core.platforms import this_platform

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PAGE = TOP / "docs/how-to/verify-in-a-c-agent.md"
RAW_TP = {"name": f"{PREFIX}_raw", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}
MAIN = f"""
int main(int argc, char **argv)
{{
	static char trust[4096];
	FILE *file = fopen(argv[1], "r");
	char message[SIGVERIFY_MESSAGE_SIZE];
	struct sigverify_store *store = sigverify__open(trust, fread(trust, 1, sizeof(trust), file), message);
	struct count *skel;
	int zero = 0;
	unsigned long long value = 0;

	libbpf_set_print(NULL);
	skel = argc == 3 ? count__open_verified(store, argv[2]) : NULL;
	sigverify__close(store);
	if (!skel)
		return 3;
	if (count__load(skel) || count__attach(skel))
		return 1;
	fclose(file);
	if (bpf_map__lookup_elem(skel->maps.{PREFIX}_map, &zero, sizeof(zero), &value, sizeof(value), 0))
		return 1;
	printf("%llu\\n", value);
	return 0;
}}
"""


@pytest.fixture(scope="module")
def prefix(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory that libsigverify was installed to."""
    directory = tmp_path_factory.mktemp("prefix")
    run("make", "-C", TOP / "loader", "install", f"CLANG={clang}", f"PREFIX={directory}")
    return directory


def build_agent(data: bytes, clang: Path, prefix: Path, directory: Path) -> Path:
    """Return the agent of the page that embeds object *data*."""
    (directory / "count.bpf.o").write_bytes(data)
    argv = [find_tool("bpftool"), "gen", "skeleton", directory / "count.bpf.o", "name", "count"]
    skeleton = subprocess.run(argv, capture_output=True, check=True).stdout
    (directory / "count.skel.h").write_bytes(skeleton)
    (code,) = re.findall(r"^```c\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (directory / "agent.c").write_text(code + MAIN)
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    ask = [find_tool("pkg-config", "pkgconf"), "--cflags", "--libs", "libsigverify"]
    flags = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout.split()
    run(clang, "-Wall", "-O1", directory / "agent.c", *flags, "-lbpf", "-o", directory / "agent")
    return directory / "agent"


def start(agent: Path, prefix: Path, trust: Path, platform: str) -> tuple[int, str, str]:
    """Run the agent; return its exit code, output and errors."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(prefix / "lib")}
    argv = [agent, trust, platform]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_skeleton_of_a_signed_object(lab: Lab, clang: Path, prefix: Path, tmp_path: Path) -> None:
    """The agent loads what it embeds, counts with it, and refuses it for another platform."""
    agent = build_agent(lab.signed("raw_tp", programs=[RAW_TP]), clang, prefix, tmp_path)
    trust = lab.trust(tmp_path) / "dev.pub"
    code, output, errors = start(agent, prefix, trust, this_platform().oci)
    assert (code, errors) == (0, "")
    assert int(output) > 0
    code, output, errors = start(agent, prefix, trust, "linux/none")
    assert (code, output) == (3, "")
    assert errors.startswith("count: refused: ")


def test_skeleton_that_was_changed(lab: Lab, clang: Path, prefix: Path, tmp_path: Path) -> None:
    """A changed byte of the embedded object, and an unsigned object, are refused: nothing is opened."""
    data = bytearray(lab.signed("raw_tp", programs=[RAW_TP]))
    data[data.index(b"GPL\0")] ^= 1
    trust = lab.trust(tmp_path) / "dev.pub"
    for changed in (bytes(data), lab.object("raw_tp")):
        agent = build_agent(changed, clang, prefix, tmp_path)
        code, output, errors = start(agent, prefix, trust, this_platform().oci)
        assert (code, output) == (3, "")
        assert errors.startswith("count: refused: ")
