# SPDX-License-Identifier: Apache-2.0
"""
The git commit that an image was made from: recorded at a build, and checked out again for a comparison.

Provenance names the commit and where the configuration lies in it. It counts only with the signature of a
trusted key.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from buildtool.config.file import CONFIG_NAME, MAX_CONFIG_BYTES, Config
from buildtool.core.cache import Cache
from buildtool.core.digests import Digest
from buildtool.core.errors import (
    BuildtoolError,
    FileAccessError,
    ObjectFormatError,
    Reason,
    RefusedError,
    ToolFailedError,
    ToolMissingError,
    UsageError,
)
from buildtool.core.files import read_bounded
from buildtool.core.process import Runner
from buildtool.core.validate import check_relative_path
from buildtool.publish.named import Source, read_source
from buildtool.publish.provenance import BuildFacts
from buildtool.publish.verify import check_signature, open_target, trusted_provenance
from buildtool.trust.store import TrustStore

# Files without which an object cannot be made: a commit that lacks one says nothing.
_TRACKED = ("*.c", "*.h", "*.toml")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def find_facts(config: Config, engine: str, runner: Runner) -> BuildFacts:
    """Return what the provenance says of a build beside the image: *engine*, commit and configuration."""
    path = config.root / CONFIG_NAME
    data = read_bounded(path, MAX_CONFIG_BYTES) if config.has_file and path.is_file() else None
    digest = Digest(hashlib.sha256(data).hexdigest()) if data is not None else None
    return BuildFacts(engine=engine, source=_find_source(config.root, runner), config=digest)


def _find_source(root: Path, runner: Runner) -> Source | None:
    """Return the commit of the project at *root*, or None outside git or with uncommitted sources."""
    git = ["git", "-C", str(root)]
    try:
        changed = runner.run([*git, "status", "--porcelain", "--untracked-files=no", "--", "."]).stdout
        new = runner.run([*git, "ls-files", "--others", "--exclude-standard", "--", *_TRACKED]).stdout
        if changed.strip() or new.strip():
            return None
        commit = runner.run([*git, "rev-parse", "HEAD"]).stdout.decode("ascii", "replace").strip()
        prefix = runner.run([*git, "rev-parse", "--show-prefix"]).stdout.decode(errors="replace").strip()
    except (ToolMissingError, ToolFailedError):
        return None
    return Source(commit=commit, directory=prefix.rstrip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """
    What trusted provenance says of the making of *image*, which is named by its digest.

    *config* is the digest of the configuration, if it is known.
    """

    image: str
    source: Source
    config: Digest | None


def find_revision(target: str, trust: TrustStore, cache: Cache, *, now: int) -> Revision:
    """
    Return where the image *target*, in a registry, was made from. Its own signature is verified first.

    Raises: RefusedError, UsageError, RegistryError, ObjectFormatError.
    """
    with open_target(target, cache) as (source, client):
        if client is None:
            raise UsageError(
                f"{target}: provenance is in a registry, beside the image",
                hint="name REGISTRY/NAME:TAG, or leave --provenance out",
            )
        digest = source.top().digest
        parsed = client.reference
        image = f"{parsed.host}/{parsed.repository}@sha256:{digest}"
        check_signature(client, digest, trust, now)
        statements = list(trusted_provenance(client, digest, trust, now))
    if not statements:
        raise RefusedError(
            Reason.UNSIGNED,
            f"{target}: no trusted key says how it was made",
            hint="buildtool build --push attaches provenance",
        )
    for statement in statements:
        found, config = read_source(statement)
        if found is not None:
            return Revision(image=image, source=found, config=config)
    raise ObjectFormatError(
        f"{target}: its provenance names no commit",
        hint="build from a git checkout without uncommitted sources",
    )


@contextmanager
def check_out(revision: Revision, repository: str, runner: Runner) -> Iterator[Path]:
    """
    Yield the configuration file in a new checkout of *revision*. *repository* is what git clones.

    Submodules are not checked out. No hook runs.

    Raises: ToolMissingError, ToolFailedError, ObjectFormatError, FileAccessError.
    """
    commit = revision.source.commit
    if not _COMMIT.fullmatch(commit):
        raise ObjectFormatError(f"provenance: not a commit: {commit[:80]!r}")
    try:
        directory = check_relative_path(revision.source.directory) if revision.source.directory else "."
    except BuildtoolError as error:
        raise ObjectFormatError(f"provenance: directory of the project: {error.message}") from error
    with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
        # --shared also finds a commit that no branch of a local repository has any more.
        git = ["git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
        try:
            if Path(repository).is_dir():
                # A repository without a work tree has no top.
                top = runner.run(["git", "-C", repository, "rev-parse", "--show-toplevel"], check=False)
                repository = top.stdout.decode(errors="surrogateescape").rstrip("\n") or repository
            runner.run([*git, "clone", "--quiet", "--no-checkout", "--shared", "--", repository, work])
            runner.run([*git, "-C", work, "checkout", "--quiet", "--detach", commit])
        except ToolFailedError as error:
            error.message = f"{repository}: no checkout of commit {commit[:12]}: {error.message}"
            error.hint = "--repository names a directory or an address that git can clone, with that commit"
            raise
        path = Path(work, directory, CONFIG_NAME)
        if not path.resolve().is_relative_to(Path(work).resolve()):
            raise ObjectFormatError(f"provenance: {directory}: a link out of the repository")
        _check_config(path, revision)
        yield path


def _check_config(path: Path, revision: Revision) -> None:
    """Check that *path* is the configuration that was built. Raises: ObjectFormatError, FileAccessError."""
    try:
        data = read_bounded(path, MAX_CONFIG_BYTES)
    except FileAccessError:
        if revision.config is None:
            return
        raise
    if revision.config is not None and hashlib.sha256(data).hexdigest() != revision.config:
        raise ObjectFormatError(
            f"{CONFIG_NAME} of commit {revision.source.commit[:12]} is not the one that was built",
            hint="whoever signed this provenance can say why",
        )
