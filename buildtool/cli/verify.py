# SPDX-License-Identifier: Apache-2.0
"""`buildtool verify`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from buildtool.cli.options import checked, complete_arch, complete_files, json_option
from buildtool.cli.output import clean_line, print_json, say
from buildtool.core.cache import open_cache
from buildtool.core.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REFUSED,
    BuildtoolError,
    FileAccessError,
    RefusedError,
    UsageError,
)
from buildtool.core.platforms import Platform, find_platform
from buildtool.image.inspect import holds_image
from buildtool.signing.keys import shorten_key_id
from buildtool.trust.store import TrustStore, load_trust
from buildtool.trust.verify import Accepted, Verdict, VerifiedObject, verify_and_remember

if TYPE_CHECKING:
    from buildtool.publish.verify import ImageVerdict

_PATH = click.Path(path_type=Path)


@click.command("verify")
@click.argument("targets", nargs=-1, required=True, metavar="OBJECT|IMAGE...", shell_complete=complete_files)
@click.option("--trust", multiple=True, required=True, type=_PATH, help="Public key, directory or policy.")
@click.option(
    "--platform",
    "--arch",
    callback=checked(find_platform),
    shell_complete=complete_arch,
    help="Refuse objects of any other platform.",
)
@click.option("--state", type=_PATH, help="Directory that remembers versions; refuse lower ones.")
@click.option("--bundle", type=_PATH, help="File with the signature of the image, which an archive lacks.")
@click.option("--objects-only", is_flag=True, help="Do not ask for a signature of the image itself.")
@json_option
def command(
    *,
    targets: tuple[str, ...],
    trust: tuple[Path, ...],
    platform: Platform | None,
    state: Path | None,
    bundle: Path | None,
    objects_only: bool,
    as_json: bool,
) -> int:
    """
    Verify each OBJECT and each IMAGE; exit code 3 when any is refused.

    An IMAGE is a reference (REGISTRY/NAME:TAG or @sha256:...), an OCI layout or an archive. Its own
    signature is verified, then every object in it.
    """
    store = load_trust(trust)
    now = int(time.time())
    images = [target for target in targets if _is_image(target)]
    _check_options(images, objects=len(images) < len(targets), state=state, platform=platform, bundle=bundle)
    verdicts = _verify_images(images, store, bundle, objects_only=objects_only, now=now)
    oci = platform.oci if platform else None
    objects = [Path(target) for target in targets if target not in images]
    files = verify_and_remember(objects, store, state, platform=oci, now=now)
    if as_json:
        lines = [line for image in verdicts for line in _image_lines(image)] + list(map(_to_json, files))
        print_json([line | {"policy": store.digest} for line in lines])
    else:
        _show(verdicts, files)
    errors = [verdict.error for verdict in files] + [
        error for image in verdicts for error in (image.error, *(item.error for item in image.objects))
    ]
    _hint([error for error in errors if error], as_json=as_json)
    _warn_stale(files)
    if any(isinstance(error, RefusedError) for error in errors):
        return EXIT_REFUSED
    return EXIT_FAILED if any(errors) else EXIT_DONE


def _is_image(target: str) -> bool:
    """Return whether *target* is an image. A directory that is no layout counts as an unreadable object."""
    path = Path(target)
    return not (path.is_dir() and not (path / "oci-layout").exists()) and holds_image(target)


def _check_options(
    images: Sequence[str],
    *,
    objects: bool,
    state: Path | None,
    platform: Platform | None,
    bundle: Path | None,
) -> None:
    """
    Check that each given option says something about the targets.

    Raises: UsageError.
    """
    if bundle and len(images) != 1:
        raise UsageError(
            "--bundle is the signature of one image",
            hint="name one IMAGE, and other images in runs of their own",
        )
    if images and not objects and (state or platform):
        option = "--state" if state else "--platform"
        raise UsageError(
            f"{option} is for objects: an image has the platforms that its index names",
            hint=f"leave {option} out",
        )


def _verify_images(
    images: Sequence[str], store: TrustStore, bundle: Path | None, *, objects_only: bool, now: int
) -> list[ImageVerdict]:
    if not images:
        return []
    # Imported here, because the HTTP library takes as long to import as the rest.
    from buildtool.publish.verify import verify_image

    cache = open_cache(os.environ)
    return [
        verify_image(image, store, cache, bundle=bundle, signed=not objects_only, now=now) for image in images
    ]


def _show(images: Iterable[ImageVerdict], files: Iterable[Verdict]) -> None:
    lines = []
    for image in images:
        lines.append(f"{image.name}: {_image_line(image)}")
        for item in image.objects:
            place = f"{image.name}: {item.platform} {item.name}"
            lines.append(f"{place}: {_line(place, item.accepted, item.error)}")
    lines += [f"{each.path}: {_line(str(each.path), each.accepted, each.error)}" for each in files]
    click.echo("\n".join(map(clean_line, lines)))


def _hint(errors: Iterable[BuildtoolError], *, as_json: bool) -> None:
    for hint in dict.fromkeys(error.hint for error in errors if error.hint and not as_json):
        say(f"hint: {clean_line(hint)}")


def _warn_stale(verdicts: Iterable[Verdict]) -> None:
    """Name accepted objects that are older than their sources. Their signatures are valid all the same."""
    # Imported here, because an image has no sources beside it, and needs no compiler's modules.
    from buildtool.signing.stale import StaleFinder

    finder = StaleFinder()
    for verdict in verdicts:
        try:
            why = verdict.accepted and finder.explain_source(verdict.path, verdict.accepted.source)
        except FileAccessError:
            continue  # the record of another tool, or a source of another user
        if why:
            say(
                clean_line(
                    f"{verdict.path}: older than its source: {why}; {finder.find_remedy(verdict.path)}"
                )
            )


def _image_line(image: ImageVerdict) -> str:
    if image.error:
        return _line(image.name, None, image.error)
    if not image.key_ids:
        return f"sha256:{image.digest}  its own signature was not asked for"
    more = "  with provenance" if image.has_provenance else ""
    return f"accepted  key {' '.join(map(shorten_key_id, image.key_ids))}  sha256:{image.digest}{more}"


def _line(place: str, accepted: Accepted | VerifiedObject | None, error: BuildtoolError | None) -> str:
    if accepted:
        keys = " ".join(map(shorten_key_id, accepted.key_ids))
        version = accepted.version if isinstance(accepted, Accepted) else accepted.statement.version
        return f"accepted  key {keys}  version {version}"
    if isinstance(error, RefusedError):
        return f"refused: {error.reason}: {error.message}"
    return f"error: {str(error).removeprefix(f'{place}: ')}"


def _image_lines(image: ImageVerdict) -> Iterator[dict[str, Any]]:
    about = {"image": image.name, "digest": f"sha256:{image.digest}", "event": "verify"}
    if image.error:
        yield about | _refusal(image.error)
    elif image.key_ids:
        proved = {"provenance": image.has_provenance}
        yield about | {"decision": "accepted", "keyIds": list(image.key_ids)} | proved
    for item in image.objects:
        line = {"image": image.name, "platform": item.platform, "object": item.name, "event": "verify"}
        yield line | _decision(item.accepted, item.error)


def _to_json(verdict: Verdict) -> dict[str, Any]:
    line = {"object": str(verdict.path), "event": "verify"}
    return line | _decision(verdict.accepted, verdict.error)


def _decision(accepted: Accepted | VerifiedObject | None, error: BuildtoolError | None) -> dict[str, Any]:
    if accepted:
        return {"decision": "accepted", "digest": accepted.digest, "keyIds": list(accepted.key_ids)}
    return _refusal(error)


def _refusal(error: BuildtoolError | None) -> dict[str, Any]:
    if isinstance(error, RefusedError):
        return {"decision": "refused", "reason": error.reason, "message": error.message}
    return {"event": "error", "message": str(error)}
