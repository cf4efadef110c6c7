# SPDX-License-Identifier: Apache-2.0
"""
Make bytecode images of bpfman: one object in a layer, and labels that list its programs and maps.

bpfman reads the first file of the first layer. Without the labels, it takes the image for one of an older
form. Every architecture has labels of its own, but users see those of one: all must be the same.

Sources: bpfman, docs/developer-guide/shipping-bytecode.md, platform/ebpf/{convert,imagebuild}.go (main) and
oci_utils/image_manager.rs (0.6.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from buildtool.core.platforms import Platform
from buildtool.objects.describe import ObjectContents
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import MEDIA_CONFIG, IndexPart, encode_document, gzip_layer

PROGRAMS = "io.ebpf.programs"
MAPS = "io.ebpf.maps"
OLD_LABEL = "io.ebpf.bpf_function_name"  # of images that have neither
# bpfman's program types by the beginning of the ELF section's name; the first that matches counts.
_TYPES = (
    *("kretprobe", "kprobe", "uretprobe", "uprobe", "tracepoint", "fentry", "fexit", "lsm", "xdp", "tcx"),
    *("tc", "classifier"),
)
_OTHER_NAMES = {"classifier": "tc"}
_MAP_TYPES = {
    "percpu_hash": "per_cpu_hash",
    "percpu_array": "per_cpu_array",
    "lru_percpu_hash": "lru_per_cpu_hash",
    "percpu_cgroup_storage": "per_cpu_cgroup_storage",
    "insn_array": "insnarray",
}


def bytecode_labels(contents: ObjectContents) -> dict[str, str]:
    """
    Return the two labels of an object with *contents*, or none if bpfman knows none of its programs.

    Programs of other types are left out, as bpfman does.
    """
    kinds = {program.name: _program_type(program.section) for program in contents.programs}
    programs = {name: kind for name, kind in kinds.items() if kind}
    if not programs:
        return {}
    maps = {each.name: _MAP_TYPES.get(each.type, each.type) for each in contents.maps}
    return {PROGRAMS: _encode(programs), MAPS: _encode(maps)}


def bytecode_part(
    platform: Platform, name: str, data: bytes, *, labels: Mapping[str, str], created: str
) -> IndexPart:
    """Return the image for *platform* of object *data*, a file called *name*, with all its *labels*."""
    # No directory before the file: bpfman 0.6.0 takes the first member for the object.
    layer = gzip_layer(pack_tar([TarEntry(path=name, data=data)]))
    config = {
        "architecture": platform.arch,
        "os": "linux",
        "config": {"Labels": dict(sorted(labels.items()))},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}"]},
        **({"created": created} if created else {}),
    }
    return IndexPart(platform=platform, config=encode_document(MEDIA_CONFIG, config), layers=(layer,))


def is_bytecode(labels: Mapping[str, object]) -> bool:
    """Return whether *labels* are those of a bytecode image."""
    return PROGRAMS in labels or OLD_LABEL in labels


def _program_type(section: str) -> str:
    name = section.removeprefix("?")
    found = next((kind for kind in _TYPES if name.startswith(kind)), "")
    return _OTHER_NAMES.get(found, found)


def _encode(value: Mapping[str, str]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
