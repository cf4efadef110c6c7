# SPDX-License-Identifier: Apache-2.0
"""
The git commit that an image was made from: recorded at a build, and checked out again for a comparison.

Provenance names the commit and where the configuration lies in it. It counts only with the signature of a
trusted key.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
from buildtool.core.process import Completed, Runner
from buildtool.core.validate import check_relative_path
from buildtool.publish.named import Source, read_source
from buildtool.publish.provenance import BuildFacts
from buildtool.publish.verify import check_signature, open_target, trusted_provenance
from buildtool.trust.store import TrustStore

# Files without which an object cannot be made: a commit that lacks one says nothing.
_TRACKED = ("*.c", "*.h", "*.toml")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Variables that name another repository or work tree than the directory, as git sets them for its hooks.
_ELSEWHERE = frozenset(
    f"GIT_{name}"
    for name in (
        *(
            "DIR",
            "WORK_TREE",
            "INDEX_FILE",
            "COMMON_DIR",
            "PREFIX",
            "NAMESPACE",
            "SHALLOW_FILE",
            "GRAFT_FILE",
        ),
        *("OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES", "REPLACE_REF_BASE", "ATTR_SOURCE"),
        *("TEMPLATE_DIR", "DEFAULT_HASH", "IMPLICIT_WORK_TREE", "INTERNAL_SUPER_PREFIX"),
    )
)
# No hook, no filter and no other file of attributes, so that a checkout has the bytes of the commit and
# runs nothing. The person's settings count only for how a repository is reached.
_PLAIN = ("git", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")
_ALONE = ("-c", "core.attributesFile=/dev/null", "-c", "submodule.recurse=false")
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
_NO_QUESTIONS = {"GIT_TERMINAL_PROMPT": "0"}
_SHA256_DIGITS = 64
_OF_SETTINGS = frozenset(("GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG"))


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
        run = partial(runner.run, without=_ELSEWHERE)
        changed = run([*git, "status", "--porcelain", "--untracked-files=no", "--", "."]).stdout
        new = run([*git, "ls-files", "--others", "--exclude-standard", "--", *_TRACKED]).stdout
        if changed.strip() or new.strip():
            return None
        commit = run([*git, "rev-parse", "HEAD"]).stdout.decode("ascii", "replace").strip()
        prefix = run([*git, "rev-parse", "--show-prefix"]).stdout.decode(errors="replace").strip()
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
    Yield the configuration file in a new checkout of *revision*. *repository* is what git fetches from.

    Submodules are not checked out. Neither hooks nor filters run. Git computes the name of each object that
    it fetches, so *repository* cannot give other files for the commit.

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
        run = partial(runner.run, without=_ELSEWHERE)
        alone = partial(runner.run, without=_ELSEWHERE | _OF_SETTINGS, env=_NO_SETTINGS)
        try:
            _fetch(repository, commit, work, run)
            alone([*_PLAIN, *_ALONE, "-C", work, "checkout", "--quiet", "--detach", commit])
            head = alone(["git", "-C", work, "rev-parse", "HEAD"]).stdout.decode("ascii", "replace").strip()
        except ToolFailedError as error:
            error.message = f"{repository}: no checkout of commit {commit[:12]}: {error.message}"
            error.hint = "--repository names a directory or an address that git can clone, with that commit"
            raise
        # A tag may be called like a commit of the other kind of digest, and a tag has a digest, too.
        if head != commit:
            raise ObjectFormatError(
                f"{repository}: {commit[:12]} is not a commit there, but names {head[:12]}"
            )
        path = Path(work, directory, CONFIG_NAME)
        if not path.resolve().is_relative_to(Path(work).resolve()):
            raise ObjectFormatError(f"provenance: {directory}: a link out of the repository")
        _check_config(path, revision)
        yield path


def _fetch(repository: str, commit: str, work: str, run: Callable[..., Completed]) -> None:
    """
    Make a repository in *work* with *commit* of *repository*.

    Raises: ToolMissingError, ToolFailedError.
    """
    is_here = Path(repository).is_dir()
    if is_here:
        # A repository without a work tree has no top.
        top = run(["git", "-C", repository, "rev-parse", "--show-toplevel"], check=False)
        repository = top.stdout.decode(errors="surrogateescape").rstrip("\n") or str(
            Path(repository).absolute()
        )
    kind = ["--object-format=sha256"] if len(commit) == _SHA256_DIGITS else []
    run([*_PLAIN, "init", "--quiet", "--template=", *kind, work])
    # Protocol 2 gives any commit by its name, also one that no branch has any more.
    fetch = [*_PLAIN, "-c", "protocol.version=2", "-C", work, "fetch", "--quiet", "--depth=1", "--no-tags"]
    try:
        run([*fetch, "--no-recurse-submodules", "--", repository, commit], env=_NO_QUESTIONS)
    except ToolFailedError:
        if is_here:
            raise
        # A bundle, or a server that gives branches only.
        shutil.rmtree(work)
        clone = [*_PLAIN, "clone", "--quiet", "--no-checkout", "--template=", "--", repository, work]
        run(clone, env=_NO_QUESTIONS)


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
