# SPDX-License-Identifier: Apache-2.0
"""Commands of setpriv that run another command as another user, or with fewer capabilities."""

from __future__ import annotations

USER = 65532
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


def root_with(*capabilities: str) -> list[str]:
    """Return a command that runs another one as root with only *capabilities*, such as `bpf`."""
    return ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", f"--bounding-set={_set_of(capabilities)}"]


def user_with(*capabilities: str) -> list[str]:
    """Return a command that runs another one as USER with only *capabilities*, as a container does."""
    names = _set_of(capabilities)
    return [*AS_USER, f"--inh-caps={names}", f"--ambient-caps={names}", f"--bounding-set={names}"]


def _set_of(capabilities: tuple[str, ...]) -> str:
    return ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
