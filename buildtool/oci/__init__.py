# SPDX-License-Identifier: Apache-2.0
"""
OCI images as data: layers, layouts, archives, registries.

It imports `core` only. To add an output format, write it in `write.py` and let `read.py` read it
back.
"""
