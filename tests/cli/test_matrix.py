# SPDX-License-Identifier: Apache-2.0
"""The table of docs/reference/kernels.md covers every shipped program and a kernel of every architecture."""

from __future__ import annotations

import re

from labs import TOP

from buildtool.core.platforms import PLATFORMS


def test_the_matrix_has_every_program_and_architecture() -> None:
    """Its columns are the programs of bpf/, its rows kernels of all architectures; cells are numbers."""
    page = (TOP / "docs/reference/kernels.md").read_text("utf-8")
    table = page.partition("<!-- matrix -->\n")[2].partition("<!-- /matrix -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    header, _, *kernels = rows
    programs = {
        name
        for path in (TOP / "bpf").glob("*.bpf.c")
        for name in re.findall(
            r'^SEC\("(?!license|\.maps)[^"]+"\)\s+int (\w+)\(', path.read_text("utf-8"), re.MULTILINE
        )
    }
    assert {cell.strip("`") for cell in header[1:]} == programs, "make matrix makes it again"
    assert len(programs) > 5
    assert {row[0].split()[0] for row in kernels} == set(PLATFORMS) - {"loong64"}
    assert {"6.1", "6.12"} <= {".".join(row[0].split()[1].split(".")[:2]) for row in kernels}
    for row in kernels:
        assert len(row) == len(header)
        for name, cell in zip(header[1:], row[1:], strict=True):
            # Typed programs need BTF, and Debian builds some kernels without.
            assert cell.isdecimal() or (cell == "failed" and name.startswith("`tx_")), row
