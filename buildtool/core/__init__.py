# SPDX-License-Identifier: Apache-2.0
"""
Errors, platforms, files, processes, the cache, strict JSON and checks of single values.

It imports nothing else of buildtool, and no library but the standard one. To add an architecture,
add its row to `platforms.py`; every other place reads that table.
"""
