# SPDX-License-Identifier: Apache-2.0
"""The commands of the specification's worked example print its output."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SPEC = HERE.parent.parent / "spec" / "sig-section.md"


@pytest.mark.tools
def test_worked_example(tmp_path: Path) -> None:
    """The commands give the printed output, with openssl and coreutils alone."""
    if shutil.which("openssl") is None:
        pytest.skip("needs-tool: openssl")
    index = json.loads((HERE / "vectors.json").read_text())
    (plain,) = [vector for vector in index["vectors"] if vector["name"] == "plain"]
    (tmp_path / "x.bpf.o").write_bytes(b64decode(plain["file"]))
    (tmp_path / "alice.pub").write_text(index["trust"]["alice"]["alice.pub"])
    text = SPEC.read_text()
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (output,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == output
