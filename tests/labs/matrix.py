# SPDX-License-Identifier: Apache-2.0
"""Which kernels the tests boot, and what those kernels are known not to do."""

from __future__ import annotations

import os

# What every run of the tests boots: the oldest and the newest kernel, the architecture of most edge nodes,
# and the one whose byte order is the other.
ALWAYS = (("6.1", "amd64"), ("newest", "amd64"), ("6.12", "arm64"), ("6.12", "s390x"))
# `make test-vm` boots these, too.
_MORE = (("6.12", "amd64"), ("6.12", "riscv64"), ("6.12", "ppc64le"), ("6.12", "arm"))
KERNELS = (*ALWAYS, *_MORE) if os.environ.get("VM_MATRIX") == "all" else ALWAYS

# Objects that a kernel of Debian cannot run, and what the loader says then. Not a fault of the object, and
# not of the loader: the same object runs on the other architectures.
CANNOT: dict[tuple[str, str], dict[str, str]] = {
    # No kprobe at the entry of a function that ftrace may trace, and a kretprobe is one.
    ("6.12", "riscv64"): {"vm_result": "the entry of a function"},
    # No trampolines for BPF before 6.13.
    ("6.12", "ppc64le"): {"vm_fentry": "no trampolines", "vm_lsm": "no trampolines"},
    # Debian builds this kernel without the BPF JIT, and so without trampolines and the BPF LSM.
    ("6.12", "s390x"): {"vm_fentry": "cannot load", "vm_lsm": "cannot load"},
    # A kernel without BTF: only what needs none.
    ("6.12", "arm"): dict.fromkeys(
        ("vm_core", "vm_trace", "vm_fentry", "vm_lsm", "tx_latency"), "kernel BTF is missing"
    ),
}
