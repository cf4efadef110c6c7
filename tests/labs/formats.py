# SPDX-License-Identifier: Apache-2.0
"""Projects whose objects go into images of other tools' formats, and readers of these images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buildtool.core.platforms import this_platform
from buildtool.oci.read import open_layout, read_blob, read_descriptor
from labs.image import read_image

FORMATS = '\n[publish]\nformats = ["runtime", "bpfman", "gadget"]\n'
# A counter of packets with a map of each kind of name, and a program that bpfman does not know.
COUNTER = """\
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
typedef unsigned int __u32;
typedef unsigned long long __u64;
static void *(*const lookup)(void *map, const void *key) = (void *)1;
struct {
	__uint(type, 6); /* BPF_MAP_TYPE_PERCPU_ARRAY */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");
struct {
	__uint(type, 27); /* BPF_MAP_TYPE_RINGBUF */
	__uint(max_entries, 4096);
} events SEC(".maps");
static volatile __u64 seen;
static const volatile __u32 step = 1;
SEC("xdp") int count(void *context)
{
	__u32 zero = 0;
	__u64 *total = lookup(&totals, &zero);

	seen += step;
	if (total)
		*total += step;
	return 2;
}
SEC("classifier") int pass(void *packet) { return 0; }
SEC("tracepoint/syscalls/sys_enter_getppid") int enter(void *context) { return 0; }
SEC("cgroup_skb/ingress") int allow(void *packet) { return 1; }
char LICENSE[] SEC("license") = "GPL";
"""
LABELS = {
    "io.ebpf.programs": '{"count":"xdp","enter":"tracepoint","pass":"tc"}',
    "io.ebpf.maps": '{"events":"ringbuf","totals":"per_cpu_array"}',
}
# The same counter, but a program has another section for arm64.
DISAGREES = COUNTER.replace(
    'SEC("classifier")', '#ifdef __TARGET_ARCH_arm64\nSEC("xdp")\n#else\nSEC("classifier")\n#endif\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """
    Images of all formats for the peers: two *registries* with the same images, by http and by https.

    *authority* issued the certificate of the second one. *project* is the directory with keys and archives.
    """

    project: Path
    registries: tuple[str, str]
    authority: Path

    def reference(self, kind: str, *, tls: bool = False, name: str = "agent") -> str:
        """Return the image of format *kind*: of the signed *name*, agent, or of bare, without signatures."""
        return f"{self.registries[tls]}/plant/{name}:1-{kind}-counter"

    @property
    def object_digest(self) -> str:
        """The SHA-256 of the object for this machine, from the runtime image's archive."""
        _, tree = read_image(self.project / "out.tar")[this_platform().oci]
        return hashlib.sha256(tree["usr/lib/buildtool/objects/counter.bpf.o"].data).hexdigest()


def add_formats(project: Path, source: str = COUNTER) -> None:
    """Let *project* have one object, counter.bpf.o, and build images of all formats."""
    (project / "bpf/answer.bpf.c").unlink()
    (project / "bpf/counter.bpf.c").write_text(source)
    with (project / "buildtool.toml").open("a") as file:
        file.write(FORMATS)


def read_documents(path: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], bytes, list[bytes]]]]:
    """Return the index of a layout, and of each entry the manifest, the configuration and the layers."""
    with open_layout(path) as source:
        index = json.loads(read_blob(source, source.top()))
        found = []
        for entry in index["manifests"]:
            manifest = json.loads(read_blob(source, read_descriptor(entry)))
            config = read_blob(source, read_descriptor(manifest["config"]))
            layers = [read_blob(source, read_descriptor(layer)) for layer in manifest["layers"]]
            found.append((manifest, config, layers))
        return index, found
