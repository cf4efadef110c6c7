# SPDX-License-Identifier: Apache-2.0
"""
OCI images as data: layers, layouts, archives, registries.

This package imports `core` only. To add an output format, write it in `write.py` and read it back
in `read.py`.
"""
