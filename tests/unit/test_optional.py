# SPDX-License-Identifier: Apache-2.0
"""Which programs a start loads, by the settings of an image."""

from __future__ import annotations

import pytest

from buildtool.objects.optional import EVERYTHING, Selection


@pytest.mark.parametrize(
    ("selection", "loaded"),
    [
        (Selection(), False),
        (EVERYTHING, True),
        (Selection(load=("watch",)), True),
        (Selection(load=("a.bpf.o:watch",)), True),
        (Selection(load=("b.bpf.o:watch",)), False),
        (Selection(load=("watch_more",)), False),
        (Selection(attach=("watch=eth0",)), True),
        (Selection(attach=("a.bpf.o:watch=none",)), True),
        (Selection(attach=("other=watch",)), False),
    ],
)
def test_an_optional_program_needs_a_setting(selection: Selection, loaded: bool) -> None:  # noqa: FBT001
    """An optional program is loaded only if a setting names it; another one always is."""
    assert selection.loads("watch", "?kprobe/x", "a.bpf.o") is loaded
    assert selection.loads("watch", "?kprobe/x", "amd64/a.bpf.o") is loaded
    assert selection.loads("watch", "kprobe/x", "a.bpf.o")


def test_an_unknown_object_counts() -> None:
    """A source does not know its object's name yet, so every object is meant."""
    assert Selection(load=("a.bpf.o:watch",)).loads("watch", "?xdp")
