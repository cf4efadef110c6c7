# SPDX-License-Identifier: Apache-2.0
"""
Errors, platforms, files, processes, the cache, strict JSON and checks of single values.

This package imports no other package of buildtool and no library but the standard one. To add an
architecture, add its row to `platforms.py`. All other code reads that table.
"""
