# SPDX-License-Identifier: Apache-2.0
"""
Find objects that are older than their sources, by the compile record beside them.

An object without an entry in the record is never stale. If its sources are not there, it is stale only in
the project of the configuration: a signing machine or a node has objects only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.compile.record import CompiledObject, SourceInfo, is_recorded, read_compile_record
from buildtool.compile.sources import MAX_SOURCE_BYTES, hash_files, recorded_flags, recorded_sources
from buildtool.config.file import Config
from buildtool.config.project import Piece, Unit, has_project, plan_units
from buildtool.core.digests import Digest
from buildtool.core.errors import BuildtoolError, ObjectFormatError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import Platform, oci_platform
from buildtool.objects.elf import has_signature_section, parse_object
from buildtool.signing.statement import read_statement


class StaleObjectError(BuildtoolError):
    """An object is older than its sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleFinder:
    """
    Finds stale objects in any directories. Each record and each source is read once.

    *config* is the configuration to compare with, for objects of its own project. With *needs_sources*, an
    object of that project is also stale if a source or an included file of it is gone. A signing machine may
    lack generated files.
    """

    config: Config | None = None
    needs_sources: bool = True
    _records: dict[Path, Mapping[str, CompiledObject]] = field(default_factory=dict, init=False)
    _digests: dict[Path, str] = field(default_factory=dict, init=False)
    _units: dict[str, Mapping[str, Unit]] = field(default_factory=dict, init=False)

    def explain(self, path: Path, data: bytes) -> str:
        """
        Return why object *path*, whose contents are *data*, is older than its sources, or empty text.

        Raises: FileAccessError, if the record is damaged or a source cannot be read.
        """
        entry = self._find_entry(path)
        if entry is None:
            return ""
        if is_recorded(entry, data):
            return self._explain(entry, entry.source)
        return self.explain_source(path, _signed_source(data))

    def explain_source(self, path: Path, source: SourceInfo | None) -> str:
        """
        Return why object *path*, made from *source* by its statement, is older than its sources, or "".

        Raises: FileAccessError.
        """
        entry = self._find_entry(path)
        if entry is None or source is None or source.path != entry.source.path:
            return ""
        return self._explain(entry, source)

    def check(self, path: Path, data: bytes) -> None:
        """
        Check that object *path*, whose contents are *data*, is not older than its sources.

        Raises: StaleObjectError; FileAccessError.
        """
        if why := self.explain(path, data):
            raise StaleObjectError(f"{path}: older than its source: {why}", hint=self.find_remedy(path))

    def find_remedy(self, path: Path) -> str:
        """Return what to do about stale object *path*, with the command for its architecture."""
        entry = self._find_entry(path)
        platform = oci_platform(entry.platform) if entry else None
        arch = f" --arch {platform.arch}" if platform else ""
        return f"buildtool compile{arch} makes it again, then sign it; remove an object whose source is gone"

    def _find_entry(self, path: Path) -> CompiledObject | None:
        """Return the entry of the record for *path*, if it names the directory of its sources."""
        directory = path.parent
        if directory not in self._records:
            self._records[directory] = read_compile_record(directory)
        entry = self._records[directory].get(path.name)
        return entry if entry and entry.root else None

    def _explain(self, entry: CompiledObject, source: SourceInfo) -> str:
        assert entry.root is not None
        config = self.config
        is_own = config is not None and entry.root.resolve() == config.root.resolve() and has_project(config)
        names = (source.path, *entry.inputs)
        missing = next((name for name in names if not _is_there(entry.root / name)), None)
        if missing is not None:
            what = missing if missing == source.path else f"{missing}, which {source.path} included,"
            return f"{what} no longer exists" if is_own and self.needs_sources else ""
        if self._hash(entry) != source.sha256:
            sources = recorded_sources(entry.platform, entry.toolchain.flags, source.path)
            if len(sources) > 1:
                return f"one of {', '.join(sources)} or a file that they include has changed"
            also = " or a file that it includes" if len(entry.inputs) > 1 else ""
            return f"{source.path}{also} has changed"
        return self._explain_settings(entry, config) if is_own and config else ""

    def _hash(self, entry: CompiledObject) -> Digest:
        assert entry.root is not None
        # The names of headers outside the project start at its directory, too, or are absolute.
        names = {entry.source.path, *entry.inputs}
        return hash_files({name: entry.root / name for name in names}, read_digest=self._digest)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = hashlib.sha256(read_bounded(path, MAX_SOURCE_BYTES)).hexdigest()
        return self._digests[path]

    def _explain_settings(self, entry: CompiledObject, config: Config) -> str:
        """Return which key of *config* has changed since *entry* was compiled, unless options overrode it."""
        platform, settings = oci_platform(entry.platform), config.compile
        if not entry.is_configured or platform is None:
            return ""
        piece = Piece(source=entry.source.path, include=settings.include, flags=settings.flags)
        default = Unit(path=entry.name, pieces=(piece,), declared=settings.declared)
        unit = self._find_units(platform, config).get(entry.name, default)
        if recorded_flags(platform, unit) != entry.toolchain.flags:
            return "compile.include, compile.flags or compile.object has changed"
        if unit.declared != entry.declared:
            return "compile.program has changed"
        if settings.system_headers == bool(entry.headers):
            return "compile.system-headers has changed"
        return ""

    def _find_units(self, platform: Platform, config: Config) -> Mapping[str, Unit]:
        """Return the units of *config* for *platform* by name, or none if two have one name."""
        if platform.arch not in self._units:
            try:
                units = plan_units(config, platform)
            except UsageError:
                units = ()
            self._units[platform.arch] = {unit.name: unit for unit in units}
        return self._units[platform.arch]


def _is_there(path: Path) -> bool:
    """Return whether *path* exists. One that this user cannot reach, or that no file can have, does not."""
    try:
        return path.exists()
    except OSError:
        return False


def _signed_source(data: bytes) -> SourceInfo | None:
    """Return the source in the statement of object *data*, or None without one."""
    try:
        obj = parse_object(data)
        return read_statement(obj).source if has_signature_section(obj) else None
    except ObjectFormatError:
        return None
