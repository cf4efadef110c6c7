# SPDX-License-Identifier: Apache-2.0
"""Requests for Dockerfiles, and the instructions in them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from buildtool.config.file import Config, ProjectConfig
from buildtool.core.platforms import PLATFORMS
from buildtool.image.dockerfile import RenderRequest, render_dockerfile
from buildtool.signing.keys import KeyId

KEY_ID = KeyId("ab" * 32)
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def request(**changes: Any) -> RenderRequest:
    """Return a request. *changes* named TABLE__KEY set configuration values, others fields of the request."""
    config = Config(root=Path(), project=ProjectConfig(name="demo", version=3, release="1.2"))
    own = {}
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if key:
            config = replace(config, **{table: replace(getattr(config, table), **{key: value})})
        else:
            own[name] = value
    values: dict[str, Any] = {
        "platforms": (PLATFORMS["arm64"],),
        "sources": ("bpf/x.bpf.c",),
        "key_id": KEY_ID,
        "trust": {"dev.pub": PEM},
    }
    return RenderRequest(config=config, **{**values, **own})


def render(**changes: Any) -> str:
    """Return the text of the Dockerfile for a request with *changes*."""
    return render_dockerfile(request(**changes)).text


def instructions(text: str) -> list[str]:
    """Return the instructions of *text*, each in one line, without heredocs and comments."""
    lines, result = iter(re.sub(r"\\\n *", "", text).split("\n")), []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        result.append(line)
        for word in line.split():
            if word.startswith("<<"):
                end = word[2:].strip("'")
                while next(lines) != end:
                    pass
    return result
