# SPDX-License-Identifier: Apache-2.0
"""
Sources to objects: compilers, their flags and headers, the record of a compilation, the cache of objects.

It imports `config` and what stands below. To add a compiler, teach `toolchain.py` to find it; to
add a flag for all objects, change the table in `sources.py`.
"""
