# SPDX-License-Identifier: Apache-2.0
"""
Will an object load: rules without a kernel, and dry runs on kernels.

It imports `runtime`, `signing` and what stands below. To add a rule, give it the next free number
in `model.py`, find it in `static.py`, and explain it in docs/reference/check-rules.md.
"""
