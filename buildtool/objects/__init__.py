# SPDX-License-Identifier: Apache-2.0
"""
Readers of eBPF objects: ELF, BTF, code, section types, helpers, capabilities.

It imports `core` only. To add a program type, add its section to `types.py` and its capabilities to
`capabilities.py`.
"""
