# SPDX-License-Identifier: Apache-2.0
"""Words, codes, commands and files in the documentation are those of the code."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP

from buildtool.cli.main import COMMANDS
from buildtool.core import errors
from buildtool.core.errors import Reason

FOLDERS = ("bpf", "docs", "spec", "templates")
PAGES = sorted([*TOP.glob("*.md"), *(page for name in FOLDERS for page in (TOP / name).rglob("*.md"))])
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


def read(name: str) -> str:
    """Return the text of file *name* of the repository."""
    return (TOP / name).read_text("utf-8")


def test_the_command_line_reference_is_the_help() -> None:
    """docs/reference/cli.md is what tools/gen-cli-docs prints."""
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR")}
    done = subprocess.run(
        [sys.executable, TOP / "tools/gen-cli-docs"], capture_output=True, text=True, check=True, env=env
    )
    assert read("docs/reference/cli.md") == done.stdout, "run tools/gen-cli-docs > docs/reference/cli.md"


def test_the_messages_are_those_of_the_code() -> None:
    """docs/reference/messages.md is what tools/gen-messages prints, so that messages are read together."""
    argv = [sys.executable, TOP / "tools/gen-messages"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    wanted = "run tools/gen-messages > docs/reference/messages.md"
    assert read("docs/reference/messages.md") == done.stdout, wanted


def test_messages_are_statements() -> None:
    """No message asks, ends with a full stop, or begins like a sentence; a name may be a capital letter's."""
    rows = re.findall(r"^\| (.+?) \| .* \| [123] \|$", read("docs/reference/messages.md"), re.MULTILINE)
    assert len(rows) > 300
    names = ("BTF", "BUILDTOOL\\_", "CO-RE", "Debian", "Docker", "ELF", "OCI", "SOURCE\\_DATE")
    for row in rows:
        assert not row.endswith(("?", ".", "!")), row
        assert not row[0].isupper() or row.startswith(names), row


# Whose cause says all, or which only a fault of ours can bring up.
WITHOUT_HINT = (
    "must be ",
    "{value} is n",
    "text is longer than ",
    "{value} has control characters",
    "images cannot be prepared on ",
    "{key\\_id} is not a key id",
    "{name}: cannot be written as a heredoc",
    "{name}: not a file name that can stand in a Dockerfile",
    "{word}: not a single word",
    "{path}: not a path inside an image",
    "{path}: too large for a layer",
    "{value} is too large a number for a tar file",
    "{path}: cannot read: {error}",
)


def test_mistakes_of_users_have_a_hint() -> None:
    """What a person wrote wrongly (exit code 2) comes with what to write, or which command to run."""
    page = read("docs/reference/messages.md")
    rows = re.findall(r"^\| (.+?) \| (.*) \| 2 \|$", page, re.MULTILINE)
    assert len(rows) > 100
    assert [message for message, hint in rows if not hint and not message.startswith(WITHOUT_HINT)] == []


def test_the_page_of_messages_knows_constants_and_contexts() -> None:
    """A hint that is a name is looked up, in the module that it comes from; so is a message of `with`."""
    page = read("docs/reference/messages.md")
    assert "| no signing key | buildtool keygen NAME makes a key; " in page
    assert re.search(r"^\| the engine did not load the image: \{cause\} \|", page, re.MULTILINE)
    assert re.search(r"^\| unknown key \{name\}\{guess\} \| .+ \| 2 \|", page, re.MULTILINE)
    names = set(re.findall(r"\{([A-Z_\\]+_HINT|hint=[A-Z]+)\}", page))
    assert not names


def test_every_reason_is_documented_once_in_the_reference() -> None:
    """The table of reasons has the words of the code, the specification and the loader, and no other."""
    table = read("docs/reference/reasons.md").partition("## Decision lines")[0]
    words = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    assert sorted(words) == sorted(Reason)
    assert {f'"{word}"' for word in words} <= set(re.findall(r'"[a-z-]+"', read("loader/verify/verdict.c")))
    listed = read("spec/sig-section.md").partition("## 8.")[2].partition("## 9.")[0]
    assert sorted(set(re.findall(r"`([a-z-]+)`", listed))) == sorted(words)


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes has the four of the code."""
    codes = re.findall(r"^\| (\d) \|", read("docs/reference/exit-codes.md"), re.MULTILINE)
    wanted = [errors.EXIT_DONE, errors.EXIT_FAILED, errors.EXIT_USAGE, errors.EXIT_REFUSED]
    assert [int(code) for code in codes] == wanted


def test_every_decision_line_member_is_documented() -> None:
    """The table of members is what loader/base/log.c writes."""
    source = read("loader/base/log.c")
    begun = re.findall(r'(?:add_\w+|begin_member)\(b, "(\w+)"', source)
    written = {*begun, *re.findall(r'\\"(\w+)\\":', source)}
    lines = read("docs/reference/reasons.md").partition("## Decision lines")[2]
    documented = {
        name
        for row in re.findall(r"^\| (`.+?`) \|", lines, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == written


def test_every_event_of_decision_lines_is_specified() -> None:
    """The specification's table, its schema and the loader's sources know the same events and members."""
    schema = json.loads(read("spec/decision-lines.schema.json"))
    events = [variant["properties"]["event"]["const"] for variant in schema["oneOf"]]
    text = read("spec/decision-lines.md")
    members, _, rest = text.partition("| event | when")
    assert re.findall(r"^\| `(\w+)` \|", rest, re.MULTILINE) == events
    assert re.findall(r"^\| `(\w+)` \|", members, re.MULTILINE) == list(schema["properties"])
    sources = "".join(path.read_text() for path in (TOP / "loader").glob("*/*.c"))
    written = set(re.findall(r'\.event = (?:\w+ \? )?"(\w+)"', sources)) | set(
        re.findall(r'say\(a, "(\w+)"', sources)
    )
    assert written - {"kernel"} <= set(events)  # that one is for people: --log human
    assert all(f'"{event}"' in sources for event in events)


def test_messages_of_the_loader_are_its_own() -> None:
    """Messages quoted on the page for failed starts are in the sources of the loader or the C library."""
    rows = re.findall(r"^\| (`.+?`) \| [123]", read("docs/how-to/when-it-does-not-start.md"), re.MULTILINE)
    assert rows
    sources = "".join(path.read_text() for path in (TOP / "loader").glob("*/*.[ch]"))
    sources = re.sub(r'"\s*\n\s*"', "", sources).replace("%s", "").replace("%zu", "256")
    words = {os.strerror(number) for number in errno.errorcode}
    for quoted in (text for row in rows for text in re.findall(r"`(.+?)`", row)):
        said = quoted.rpartition(": ")[2]
        assert said in words or quoted in sources or f'"{said}"' in sources, quoted


def test_the_readme_names_every_command() -> None:
    """The README's table leaves no command out."""
    table = read("README.md").partition("## What you can do")[2].partition("## ")[0]
    for name in COMMANDS:
        assert re.search(rf"`(buildtool )?{name}\b", table), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository, and an anchor that its headings give."""
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in anchors, f"{page.name}: {target}{anchor}"


def test_security_names_tests_that_exist() -> None:
    """Each test named in SECURITY.md exists."""
    named = set(re.findall(r"`(test_\w+)`", read("SECURITY.md")))
    assert named
    defined = set()
    for path in (TOP / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    assert named <= defined, named - defined


def test_the_index_names_every_page() -> None:
    """docs/README.md links each page of docs/."""
    index = read("docs/README.md")
    for page in (TOP / "docs").glob("*/*.md"):
        assert f"]({page.relative_to(TOP / 'docs')})" in index, page.name


def test_the_name_to_install_is_ours() -> None:
    """`buildtool` on the package index belongs to another project: no text tells people to install that."""
    names = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    wrong = re.compile(r"(?:pip|pipx|uv)\b[^\n&;]*[ \t]['\"]?buildtool(?![-\w/.])|(?<![-\w])buildtool\[")
    for name in names.split():
        if (
            (TOP / name).is_file()
            and not name.endswith((".pem", ".json"))
            and name != "tests/cli/test_docs.py"
        ):
            text = (TOP / name).read_text("utf-8", errors="replace")
            found = [match[0] for match in wrong.finditer(text) if "import" not in match[0]]
            assert not found, (name, found)
