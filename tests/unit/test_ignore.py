# SPDX-License-Identifier: Apache-2.0
"""The rules of .dockerignore: the answers that BuildKit gives."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from buildtool.core.errors import ConfigError, FileAccessError
from buildtool.image import ignore
from buildtool.image.ignore import read_ignore_file


def excludes(root: Path, text: str | bytes, path: str) -> bool:
    """Tell whether a .dockerignore of *text* excludes *path*."""
    (root / ".dockerignore").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_ignore_file(root).excludes(PurePosixPath(path))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("**/private", "bpf/private/token"),
        ("**/private", "bpf/a/private/token"),
        ("**/private", "bpf/a/b/private/deep/er/token"),
        ("**/private/", "bpf/a/private/token"),
        ("bpf/*/private", "bpf/a/private/token"),
        ("bpf/**/private", "bpf/private/token"),
        ("bpf/**/p?ivate/x", "bpf/a/b/private/x/token"),
        ("bpf", "bpf/a/b/c"),
        ("/bpf/a", "bpf/a/b"),
        ("bpf/a /", "bpf/a/b"),
        ("./bpf/a/", "bpf/a/b"),
        ("bpf/../bpf/a", "bpf/a/b"),
        ("  bpf/a \r\n", "bpf/a/b"),
        ("bpf/**", "bpf/a/b"),
        ("**", "bpf"),
        ("*", "bpf/a"),
        ("**/*.pem", "bpf/deep/key.pem"),
        ("**.pem", "bpf/deep/key.pem"),
        ("**/deep*", "bpf/deeper/key.pem"),
        ("bpf/[a-c]x", "bpf/bx/y"),
        ("bpf/[^a-c]x", "bpf/dx"),
        ("bpf/[!a]x", "bpf/!x"),
        (r"bpf/[\]\-]x", "bpf/]x"),
        (r"bpf/\[x", "bpf/[x"),
        (r"bpf/\*", "bpf/*"),
        ("bpf/x.(y)", "bpf/x.(y)"),
        (" #bpf", "#bpf"),
        ("!bpf/a\nbpf/a", "bpf/a"),
        ("bpf\n!bpf/a\nbpf/a/b", "bpf/a/b/c"),
        ("!!bpf\n*", "bpf"),
        # A mark of the encoding belongs to no pattern, and neither does the end of a line of Windows.
        (b"\xef\xbb\xbfbpf/private\n", "bpf/private/token"),
        (b"\xef\xbb\xbfbpf/private\r\nother\r\n", "bpf/private/token"),
        ("bpf/\u00e9", "bpf/\u00e9/x"),
    ],
)
def test_excluded(tmp_path: Path, text: str | bytes, path: str) -> None:
    """A pattern excludes what it matches, and everything below that."""
    assert excludes(tmp_path, text, path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "bpf/x"),
        ("# bpf\n#bpf", "bpf"),
        ("private", "bpf/private/token"),
        ("*.pem", "bpf/key.pem"),
        ("bpf/*", "bpf"),
        ("bpf/**", "bpf"),
        ("bpf/?", "bpf/ab"),
        ("b?f", "b/f"),
        (".", "bpf"),
        ("**/token", "bpf/my-token"),
        ("bpf/[!a]x", "bpf/bx"),
        (r"bpf/\*", "bpf/a"),
        ("bpf/x.y", "bpf/x-y"),
        ("bpf\n!bpf/a", "bpf/a"),
        ("bpf\n!bpf/a", "bpf/a/b/c"),
        ("bpf\n! /bpf/a/", "bpf/a"),
        ("**/private\n!**/private/public.h", "bpf/a/private/public.h"),
        ("bpf/**/token.*\n!bpf/a", "bpf/a/private/token.txt"),
        ("bpf/a/b\n!bpf", "bpf/a/b/c"),
    ],
)
def test_not_excluded(tmp_path: Path, text: str, path: str) -> None:
    """Comments, other paths, and exceptions of a file or of a directory above it."""
    assert not excludes(tmp_path, text, path)


def test_no_file_excludes_nothing(tmp_path: Path) -> None:
    """A project needs no .dockerignore, but one that cannot be read is an error."""
    assert not read_ignore_file(tmp_path).excludes(PurePosixPath("bpf"))
    (tmp_path / ".dockerignore").symlink_to("none")
    with pytest.raises(FileAccessError, match="cannot read"):
        read_ignore_file(tmp_path)


@pytest.mark.parametrize(
    "pattern",
    [
        "[z-a]",
        "[",
        "a[b",
        "[]",
        "[]a]",
        "[-a]",
        "[a-]",
        "[^]",
        "[[:alpha:]]",
        "[a\\]",
        "a\\",
        r"\d",
        r"[\d]",
        "!",
        "!/",
        "/",
        "./!a",
        "[a?]",
        "a|b",
        "a^b",
    ],
)
def test_line_that_is_no_pattern_is_named(tmp_path: Path, pattern: str) -> None:
    """A line that BuildKit refuses or reads in an unexpected way is an error with its number."""
    with pytest.raises(ConfigError, match=r"/\.dockerignore:3: not a pattern: ") as caught:
        excludes(tmp_path, f"# names\nbpf\n{pattern}\nlib\n", "x")
    assert caught.value.hint


def test_text_of_another_encoding_or_without_an_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that is read wrong, or cut off, would let files into the archive."""
    with pytest.raises(ConfigError, match="not UTF-8"):
        excludes(tmp_path, b"na\xe9f\n", "x")
    with pytest.raises(ConfigError, match="not UTF-8"):
        excludes(tmp_path, "bpf\n".encode("utf-16"), "x")
    monkeypatch.setattr(ignore, "_MAX_BYTES", 4)
    with pytest.raises(ConfigError, match="larger than 4 bytes"):
        excludes(tmp_path, "bpf/x", "x")
