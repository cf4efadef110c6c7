# SPDX-License-Identifier: Apache-2.0
"""
Compile sources to objects: compilers, their flags and headers, the compile record, the cache of objects.

This package imports `config` and the packages below it. To add a compiler, let `toolchain.py` find
it. To add a flag for all objects, extend `forced_flags` in `toolchain.py`.
"""
