# SPDX-License-Identifier: Apache-2.0
"""
Debian's kernels of different versions and architectures, booted in QEMU.

This package imports `runtime` and the packages below it. To add an architecture, add its machine to
MACHINES in `core/platforms.py`.
"""
