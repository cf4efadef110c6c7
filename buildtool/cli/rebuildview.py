# SPDX-License-Identifier: Apache-2.0
"""What `buildtool rebuild` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from buildtool.image.compare import FileVerdict
from buildtool.image.rebuild import ObjectVerdict, SectionDifference

_WORDS = {True: "equal", False: "not equal", None: "not compared"}


def object_lines(verdicts: Iterable[ObjectVerdict]) -> Iterator[str]:
    """Yield the lines on objects."""
    for verdict in verdicts:
        yield f"{verdict.platform}  {verdict.name}  {_WORDS[verdict.equal]}"
        yield from (f"    {text}" for text in (*verdict.problems, *verdict.notes))
        yield from (f"    {item.section}: {_compare(item)}" for item in verdict.sections)


def file_lines(verdicts: Iterable[FileVerdict]) -> Iterator[str]:
    """Yield the lines on other files and the configuration."""
    for verdict in verdicts:
        yield f"{verdict.platform}  {verdict.path}  {_WORDS[verdict.equal]}"
        yield from (f"    {text}" for text in verdict.problems)


def _compare(item: SectionDifference) -> str:
    if item.first_difference is None:
        return "only in the image" if item.rebuilt_size is None else "not in the image"
    sizes = f"{item.image_size} bytes in the image, {item.rebuilt_size} rebuilt"
    return f"{sizes}, different from byte {item.first_difference} on"
