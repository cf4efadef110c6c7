# SPDX-License-Identifier: Apache-2.0
"""
`buildtool.toml`, the files of a project, and new projects.

This package imports `objects`, `oci` and `core`. To add a key, declare it in `file.py` with a
parser of `values.py`, and describe it in docs/reference/configuration.md.
"""
