# SPDX-License-Identifier: Apache-2.0
"""
Check the values of buildx's --cache-from and --cache-to.

Source: BuildKit, "Cache storage backends"; buildx, --cache-from and --cache-to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from buildtool.core.errors import UsageError
from buildtool.core.process import hide_passwords
from buildtool.core.validate import check_image

_TYPES = ("registry", "local", "gha", "inline", "s3", "azblob")
_NEEDED = {"registry": ("ref",), "local": ("src", "dest")}
_HINT = "for example type=registry,ref=registry.example/plant/cache:agent"
_GITHUB_TOKEN, _GITHUB_PLACES = "ACTIONS_RUNTIME_TOKEN", ("ACTIONS_RESULTS_URL", "ACTIONS_CACHE_URL")


def check_cache(text: str) -> str:
    """
    Return *text* if it names a cache as for buildx: fields with a type, or the reference of an image.

    Raises: UsageError.
    """
    shown = repr(hide_passwords(text))
    if not text.isprintable() or not text:
        raise UsageError(f"{shown}: not a cache", hint=_HINT)
    if "=" not in text:
        return check_image(text)
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind = fields.get("type", "")
    if kind not in _TYPES:
        raise UsageError(f"{shown}: type is missing or unknown", hint="choose from " + ", ".join(_TYPES))
    needed = _NEEDED.get(kind, ())
    if needed and not any(fields.get(name) for name in needed):
        raise UsageError(f"{shown}: {' or '.join(needed)} is missing", hint=_HINT)
    return text


def explain_caches(caches: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield why buildx would leave out one of *caches* without a word."""
    if any("type=gha" in text.split(",") for text in caches):
        missing = [] if environ.get(_GITHUB_TOKEN) else [_GITHUB_TOKEN]
        missing += [] if any(map(environ.get, _GITHUB_PLACES)) else [" or ".join(_GITHUB_PLACES)]
        if missing:
            yield f"cache type=gha: {missing[0]} is not set, so buildx leaves this cache out"
