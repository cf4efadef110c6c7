# SPDX-License-Identifier: Apache-2.0
"""The table [loader] of buildtool.toml as options of the loader."""

from __future__ import annotations

from buildtool.config.file import LoaderConfig
from buildtool.core.errors import ConfigError


def loader_options(loader: LoaderConfig, *, has_workload: bool) -> list[str]:
    """
    Return the options that *loader* stands for; what is not set leaves the loader its default.

    Raises: ConfigError, for what only a workload can have.
    """
    if not has_workload and (loader.seccomp or not loader.map_fds):
        key = "seccomp" if loader.seccomp else "map-fds"
        raise ConfigError(
            f"loader.{key} is for a workload, and there is none", hint="image.workload names it"
        )
    values = {
        "--state": loader.state,
        "--pin-root": loader.pin_root,
        "--share": loader.share,
        "--attach-file": loader.attach_file,
        "--wait-interface": loader.wait_interface,
        "--health-command": loader.health_command,
        "--health-wait": loader.health_wait,
        "--metrics-file": loader.metrics_file,
    }
    switches = {
        "--replace": loader.replace,
        "--reload": loader.reload,
        "--no-map-fds": not loader.map_fds,
        "--seccomp": loader.seccomp,
    }
    argv = [word for name, value in values.items() if value not in ("", None) for word in (name, str(value))]
    return argv + [name for name, is_on in switches.items() if is_on]
