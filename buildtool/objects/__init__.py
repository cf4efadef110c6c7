# SPDX-License-Identifier: Apache-2.0
"""
Readers of eBPF objects: ELF, BTF, code, section types, helpers, capabilities.

This package imports `core` only. To add a program type, add its sections to `types.py` and its
capabilities to `capabilities.py`.
"""
