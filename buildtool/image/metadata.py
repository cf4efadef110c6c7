# SPDX-License-Identifier: Apache-2.0
"""What every image of a project says of itself, whichever engine makes it: labels and entrypoint."""

from __future__ import annotations

from collections.abc import Iterable

from buildtool.config.file import Config
from buildtool.core import validate
from buildtool.core.errors import ConfigError
from buildtool.image.loaderoptions import loader_options
from buildtool.signing.keys import KeyId

OBJECTS_DIRECTORY = "/usr/lib/buildtool/objects"
TRUST_DIRECTORY = "/etc/buildtool/trust"
LOADER_PATH = "/usr/bin/verify-and-load"
TINI_PATH = "/sbin/tini"
LABEL_PREFIX = "buildtool."


def image_labels(
    config: Config, key_id: KeyId, base: str, capabilities: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """
    Return the labels of an image on *base* whose objects key *key_id* signs and take *capabilities*, sorted.

    Raises: ConfigError, UsageError.
    """
    project = config.project
    name, _, digest = base.partition("@")
    labels = {
        "org.opencontainers.image.title": project.name,
        "org.opencontainers.image.version": project.release,
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": digest,
        LABEL_PREFIX + "key-id": key_id,
        LABEL_PREFIX + "object-version": str(project.version),
        LABEL_PREFIX + "objects": OBJECTS_DIRECTORY,
        LABEL_PREFIX + "capabilities": ",".join(sorted(capabilities)),
    }
    for key in config.image.labels:
        if key.startswith(LABEL_PREFIX):
            raise ConfigError(f"image.labels: {key}: labels of {LABEL_PREFIX}* are set by the build")
    labels |= dict(config.image.labels)
    return sorted((validate.check_label_key(key), value) for key, value in labels.items() if value)


def image_entrypoint(config: Config) -> list[str]:
    """
    Return the argument list that a container of the image starts with.

    Raises: UsageError, ConfigError.
    """
    # -g: tini passes signals to the whole group, so that a workload's children end too.
    argv = [TINI_PATH, "-g", "--", LOADER_PATH]
    for attach in config.image.attach:
        argv += ["--attach", validate.check_attach(attach)]
    if config.image.capabilities:
        argv += ["--capabilities", ",".join(sorted(set(config.image.capabilities)))]
    argv += loader_options(config.loader, has_workload=bool(config.image.workload))
    workload = [validate.check_word(word) for word in config.image.workload]
    return [*argv, "--", *workload] if workload else argv
