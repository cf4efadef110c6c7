# SPDX-License-Identifier: Apache-2.0
"""A signing process that crashes writes its key to no core file or pipe, and no process can read it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.cores import CRASH, piped_cores
from labs.privileges import root_with
from labs.run import wait_until
from labs.sig import copy_test_key

pytestmark = pytest.mark.usefixtures("as_root")

HEAD = """
import os, resource, sys
from pathlib import Path
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
cores, key = sys.argv[1:3]
"""
CONTEXT = """
from buildtool.signing.signers.resolve import find_signer
from buildtool.signing.signers.signer import SignerContext
context = SignerContext(environ=os.environ)
"""
# Code that brings a secret into the process, each with a name. The secret stays in memory until the end.
HOLDERS = {
    "file": CONTEXT + "signer = find_signer(Path(key), context); crash(cores)",
    "env": CONTEXT + "signer = find_signer('env:LAB_KEY', context); crash(cores)",
    "text": "from buildtool.signing.keys import load_signing_key_pem as load\n"
    "signer = load(Path(key).read_bytes(), 'x', None); crash(cores)",
    "read": "from buildtool.signing.keys import read_key_file\ndata = read_key_file(Path(key)); crash(cores)",
    "new": "from buildtool.signing.keys import generate_key\nsigner = generate_key(); crash(cores)",
    "passphrase": "from buildtool.cli.signeroptions import read_passphrase\n"
    "secret = read_passphrase(Path(key)); crash(cores)",
    # A command that does not sign, but has the key in its environment.
    "command": "from buildtool.cli.main import run\nrun(['trust', 'list', '--policy', key]); crash(cores)",
    # The workers are forks, so each one holds the key.
    "worker": CONTEXT + "from buildtool.core import parallel\n"
    "parallel.os.sched_getaffinity = lambda _: {0, 1}\n"
    "signer = find_signer(Path(key), context)\n"
    "try:\n    parallel.map_parallel(lambda _: (signer, crash(cores)), range(200))\n"
    "except Exception as error:\n    print(error)",
    # An external signer: its parent cannot change its memory, but it inherits the limit.
    "program": CONTEXT + "command = f'exec:{sys.executable} {key}.py {cores}'\n"
    "try:\n    find_signer(command, context)\nexcept Exception as error:\n    print(error)",
}
PROGRAM = "import sys\ncores = sys.argv[1]\ndata = open(__file__.removesuffix('.py')).read()\n"


@pytest.fixture
def cores() -> Iterator[Path]:
    """Yield the directory that receives core dumps; skip if the kernel pipes no core dump here."""
    with piped_cores() as directory:
        process = subprocess.run(
            [sys.executable, "-c", HEAD + CRASH + "crash(cores)", directory, ""], check=False
        )
        assert process.returncode < 0
        if not wait_until(lambda: list(directory.glob("core.*")), 10):
            pytest.skip("needs-kernel-feature: a core_pattern that is a pipe has no effect here")
        for path in directory.iterdir():
            if path.name != "catch":
                path.unlink()
        yield directory


def start(body: str, cores: Path, key: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a process that gets a secret by *body* and crashes."""
    argv = [sys.executable, "-c", HEAD + CRASH + body, str(cores), str(key)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | env)


def found(cores: Path) -> list[bytes]:
    """Return all core dumps, after the dump of one more process has arrived: it is the last one."""
    last = subprocess.Popen([sys.executable, "-c", HEAD + CRASH + "crash(cores)", cores, ""])
    assert last.wait() < 0
    own = cores / f"core.{last.pid}"
    assert wait_until(own.exists)
    assert not list(cores.glob("part.*"))
    return [path.read_bytes() for path in cores.glob("core.*") if path != own]


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_pipe_gets_a_key(cores: Path, tmp_path: Path, holder: str) -> None:
    """A crash sends nothing to a core_pattern with a pipe, whichever way the key came into the process."""
    key = copy_test_key(tmp_path)
    Path(f"{key}.py").write_text(PROGRAM + CRASH + "crash(cores)\n")
    secrets = {"LAB_KEY": key.read_text()} if holder == "env" else {}
    secrets |= {"BUILDTOOL_SIGNING_KEY": key.read_text()} if holder == "command" else {}
    done = start(HOLDERS[holder], cores, key, **secrets)
    assert list(cores.glob("want.*")), done.stdout + done.stderr
    assert found(cores) == []


def test_a_process_without_protection_gives_its_key_away(cores: Path, tmp_path: Path) -> None:
    """A limit of 0 alone does not stop the pipe: its core dump has the key. The test above can fail."""
    key = copy_test_key(tmp_path)
    body = "resource.setrlimit(resource.RLIMIT_CORE, (0, hard)); data = Path(key).read_bytes(); crash(cores)"
    start(body, cores, key)
    (core,) = found(cores)
    assert key.read_bytes().splitlines()[1] in core


BARE = root_with()
READ = """
import sys
pid = int(sys.argv[1])
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in maps:
        first, _, last = line.split()[0].partition("-")
        if "[heap]" in line:
            memory.seek(int(first, 16))
            print(len(memory.read(4096)))
"""


@pytest.mark.parametrize(("protects", "code"), [(True, 1), (False, 0)])
def test_no_process_of_the_same_user_reads_a_key(tmp_path: Path, *, protects: bool, code: int) -> None:
    """A process of the same user without capabilities cannot read the memory of a signing process."""
    key = copy_test_key(tmp_path)
    call = "find_signer(Path(key), context)" if protects else "Path(key).read_bytes()"
    body = HEAD + CONTEXT + f"signer = {call}; print('ready', flush=True); sys.stdin.read()"
    argv = [*BARE, sys.executable, "-c", body, "", str(key)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        reader = [*BARE, sys.executable, "-c", READ, str(holder.pid)]
        done = subprocess.run(reader, capture_output=True, text=True, check=False)
        holder.communicate("")
    assert done.returncode == code, done.stderr
    assert ("Permission denied" in done.stderr) == protects
