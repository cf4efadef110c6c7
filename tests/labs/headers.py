# SPDX-License-Identifier: Apache-2.0
"""Headers for programs: the carried ones, or stand-ins for tests that compile nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from buildtool.compile.headers import LIST_NAME, make_list
from buildtool.core.platforms import PLATFORMS
from labs import TOP

STAND_INS = {
    "common/linux/bpf.h": "#include <linux/types.h>\n",
    "common/linux/types.h": "#include <asm/types.h>\n",
    "common/linux/unused.h": "\n",
    "common/bpf/bpf_helpers.h": '#include "bpf_helper_defs.h"\n',
    "common/bpf/bpf_helper_defs.h": "\n",
    **{f"{arch}/asm/types.h": f"/* {arch} */\n" for arch in PLATFORMS},
}
# The machine's headers disappear behind empty directories, for this process alone.
HIDE = (
    "for d in /usr/include /usr/local/include /usr/lib/linux; do [ ! -d $d ] || mount -t tmpfs none $d; done"
)


def write_headers(directory: Path, files: Mapping[str, str] = STAND_INS) -> Path:
    """Write *files* and their list into *directory*, which is returned."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    (directory / LIST_NAME).write_bytes(make_list({"linux-libc-dev": "1"}, "0" * 64, digests))
    return directory


def run_hidden(
    arguments: Sequence[str | Path], directory: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run buildtool with *arguments* in *directory*, on a machine without a header."""
    argv = ["unshare", "--mount", "sh", "-c", f'{HIDE}; exec "$0" "$@"', sys.executable, "-m", "buildtool"]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(TOP), **environment}
    return subprocess.run(
        [*argv, *map(str, arguments)],
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
