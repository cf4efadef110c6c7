# SPDX-License-Identifier: Apache-2.0
"""
Check whether objects load: rules that need no kernel, and dry runs on kernels.

This package imports `runtime`, `signing` and the packages below them. To add a rule, give it the
next free number in `model.py`, check it in `static.py`, and describe it in
docs/reference/check-rules.md.
"""
