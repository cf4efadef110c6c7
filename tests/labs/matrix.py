# SPDX-License-Identifier: Apache-2.0
"""The kernels that the tests boot, and their known limits."""

from __future__ import annotations

import os

# Each run of the tests boots these: the oldest and the newest kernel, the architecture of most edge nodes,
# and a big-endian one.
ALWAYS = (("6.1", "amd64"), ("newest", "amd64"), ("6.12", "arm64"), ("6.12", "s390x"))
# `make test-vm` also boots these.
_MORE = (("6.12", "amd64"), ("6.12", "riscv64"), ("6.12", "ppc64le"), ("6.12", "arm"))
KERNELS = (*ALWAYS, *_MORE) if os.environ.get("VM_MATRIX") == "all" else ALWAYS

# Objects that a kernel of Debian cannot run, with a part of the loader's error. Neither the object nor the
# loader is at fault, because the same object runs on the other architectures.
CANNOT: dict[tuple[str, str], dict[str, str]] = {
    # This kernel allows no kprobe, and so no kretprobe, at the entry of a function that ftrace can trace.
    ("6.12", "riscv64"): {"vm_result": "the entry of a function"},
    # ppc64le has trampolines for BPF since Linux 6.13.
    ("6.12", "ppc64le"): {"vm_fentry": "no trampolines", "vm_lsm": "no trampolines"},
    # Debian builds this kernel without the BPF JIT, and so without trampolines and the BPF LSM.
    ("6.12", "s390x"): {"vm_fentry": "cannot load", "vm_lsm": "cannot load"},
    # Debian builds this kernel without BTF.
    ("6.12", "arm"): dict.fromkeys(
        ("vm_core", "vm_trace", "vm_fentry", "vm_lsm", "tx_latency"), "kernel BTF is missing"
    ),
}
