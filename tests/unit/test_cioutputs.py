# SPDX-License-Identifier: Apache-2.0
"""What CI systems read of a build: outputs and summary of GitHub Actions, variables of GitLab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from buildtool.core.errors import FileAccessError
from buildtool.image.cioutputs import format_dotenv, format_outputs, format_summary, write_ci_outputs
from buildtool.image.overview import ObjectOverview, PlatformOverview
from buildtool.image.result import BuiltImage
from buildtool.signing.keys import KeyId

IMAGE = BuiltImage(
    reference="r/x:1",
    digest="sha256:12",
    platforms=("linux/arm64",),
    key_id=KeyId("ab"),
    tags=("r/x:1", "r/x:latest"),
    metadata={"containerimage.digest": "sha256:12"},
)
OBJECT = ObjectOverview(
    name="n.bpf.o", size=3592, programs=("one", "two"), signers=("ab" * 32,), oldest="5.18"
)
PLATFORM = PlatformOverview(platform="linux/arm64", digest="sha256:34", size=1_620_000, objects=(OBJECT,))


def test_outputs_and_summary_are_appended(tmp_path: Path) -> None:
    """The lines of earlier steps stay in both files."""
    environ = {"GITHUB_OUTPUT": str(tmp_path / "o"), "GITHUB_STEP_SUMMARY": str(tmp_path / "s")}
    (tmp_path / "o").write_text("before=1\n")
    write_ci_outputs(IMAGE, [PLATFORM], environ)
    assert (tmp_path / "o").read_text().startswith("before=1\nimage=r/x:1\ntags<<end_")
    assert "| Digest | `sha256:12` |" in (tmp_path / "s").read_text()
    write_ci_outputs(IMAGE, [PLATFORM], {})
    with pytest.raises(FileAccessError):
        write_ci_outputs(IMAGE, [], {"GITHUB_OUTPUT": str(tmp_path / "no/o")})


def read_outputs(text: str) -> dict[str, str]:
    """Read outputs as the runner does: NAME=VALUE, or NAME<<WORD and lines up to WORD."""
    found, lines = {}, iter(text.split("\n")[:-1])
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or "<<" in name:
            name, _, word = line.partition("<<")
            value = "\n".join(iter(lambda: next(lines), word))
        found[name] = value
    return found


def test_outputs_are_read_back() -> None:
    """Several names are several lines of one output; digests and metadata are JSON."""
    found = read_outputs(format_outputs(IMAGE, [PLATFORM]))
    assert found["tags"] == "r/x:1\nr/x:latest"
    assert json.loads(found["digests"]) == {"linux/arm64": "sha256:34"}
    metadata = json.loads(found["metadata"])
    assert metadata["containerimage.digest"] == "sha256:12"
    assert metadata["platforms"][0]["objects"][0]["oldestKernel"] == "5.18"
    assert (found["key-id"], "file" in found) == ("ab", False)


@pytest.mark.parametrize(
    "evil", ["x\nevil=1", "x\r\nevil=1", "x\nend_\nevil=1", "x\u2028evil=1", "x<<y\nevil=1\ny"]
)
def test_no_value_sets_another_output(evil: str) -> None:
    """A value with line breaks stays one value: the word that ends it cannot be guessed."""
    image = replace(IMAGE, reference=evil, digest=evil, tags=(evil,), metadata={evil: evil})
    outputs = format_outputs(image, [replace(PLATFORM, platform=evil)])
    assert read_outputs(outputs).keys() <= {"image", "tags", "digest", "digests", "key-id", "metadata"}
    words = {line.rpartition("<<")[2] for line in outputs.split("\n") if "<<end_" in line}
    assert len(words) == outputs.count("<<end_")
    names = [line.partition("=")[0] for line in format_dotenv(image, [PLATFORM]).decode().split("\n")[:-1]]
    assert names == [
        "BUILDTOOL_IMAGE",
        "BUILDTOOL_DIGEST",
        "BUILDTOOL_KEY_ID",
        "BUILDTOOL_DIGEST_LINUX_ARM64",
    ]


def test_summary_has_sizes_programs_kernels_and_signatures() -> None:
    """The size of a platform, and a row for each object."""
    text = format_summary(replace(IMAGE, signed=True), [PLATFORM])
    assert "| Signed | image and objects |" in text
    assert "| `linux/arm64` | 1.62 MB | `sha256:34` |" in text
    assert f"| `n.bpf.o` | `one`, `two` | 5.18 or newer | 3592 | `{'ab' * 8}` |" in text


def read_cells(text: str) -> Iterator[str]:
    """Yield the text of each cell of the tables in Markdown *text*, in which all else but code fails."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type != "inline":
            continue
        found = ""
        for child in token.children or []:
            assert child.type in ("text", "text_special", "code_inline", "html_inline"), child.type
            assert child.type != "html_inline" or child.content in ("<code>", "</code>"), child.content
            found += "" if child.type == "html_inline" else child.content
        yield found


@pytest.mark.parametrize(
    "evil",
    [
        "a|b`c<img src=x>",
        "[here](https://example.invalid)",
        "![x](https://example.invalid/x.png)",
        "**bold** _it_ ~~s~~",
        "&lt;b&gt; &amp;",
        "a\\",
        "a\\|b\\`c",
        "``",
        "<!--",
        "</code><h1>",
        "www.example.invalid, @someone, #1",
        " two ",
    ],
)
def test_names_in_a_summary_are_text(evil: str) -> None:
    """Names of objects, programs, platforms and images are neither Markdown nor HTML."""
    nasty = replace(OBJECT, name=evil, programs=(evil,), signers=(evil,))
    platform = replace(PLATFORM, platform=evil, digest=evil, objects=(nasty, OBJECT))
    text = format_summary(replace(IMAGE, tags=(evil,), digest=evil), [platform])
    cells = [cell.strip() for cell in read_cells(text)]
    wanted = evil.strip()
    at = cells.index("Digest")
    assert cells[at - 1 : at + 2] == [wanted, "Digest", wanted]
    assert cells[cells.index("1.62 MB") - 1 :][:3] == [wanted, "1.62 MB", wanted]
    at = cells.index("Signed by")
    assert cells[at + 1 : at + 6] == [wanted, wanted, "5.18 or newer", "3592", evil[:16].strip()]
    assert cells[at + 6] == "n.bpf.o"
    assert text.count("`") % 2 == 0


def test_a_line_break_in_a_name_ends_no_row() -> None:
    """Neither of the kinds that readers of Markdown know."""
    nasty = replace(OBJECT, name="a\n\n# b\r\n| c |\u2028d")
    text = format_summary(IMAGE, [replace(PLATFORM, objects=(nasty,))])
    assert "a# b| c |d" in list(read_cells(text))


@pytest.mark.parametrize("platform", ["linux/a=1\nX=evil", "linux/a=1", "linux/a\r\nX", "linux/\u00e9.b c"])
def test_no_platform_sets_another_variable(platform: str) -> None:
    """The name of a variable has letters, digits and underscores only."""
    lines = format_dotenv(IMAGE, [replace(PLATFORM, platform=platform)]).decode().split("\n")
    (line,) = (line for line in lines if line.endswith("=sha256:34"))
    assert re.fullmatch("BUILDTOOL_DIGEST_LINUX_[A-Z0-9_]+=sha256:34", line)
    assert [line.partition("=")[0] for line in lines[:3]] == [
        "BUILDTOOL_IMAGE",
        "BUILDTOOL_DIGEST",
        "BUILDTOOL_KEY_ID",
    ]
    assert (len(lines), lines[-1]) == (5, "")


def test_a_summary_stays_small() -> None:
    """GitHub drops a summary of more than 1 MiB."""
    objects = tuple(replace(OBJECT, name=f"{number}.bpf.o") for number in range(10_000))
    text = format_summary(IMAGE, [replace(PLATFORM, objects=objects)])
    assert len(text.encode()) < 100_000
    assert "9800 more objects" in text
