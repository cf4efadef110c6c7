# SPDX-License-Identifier: Apache-2.0
"""
Debian's kernels of any version and architecture, started in QEMU.

It imports `runtime` and what stands below. To add an architecture, add its machine to the table in
`machine.py`.
"""
