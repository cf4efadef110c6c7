# SPDX-License-Identifier: Apache-2.0
"""
Read the build files of an existing project, and write a `buildtool.toml` that builds its eBPF programs.

`survey.py` does the work. `tree.py` lists files, `csource.py` finds the sources by their contents, and one
reader for each kind of build file (`makefile.py`, `gogenerate.py`, `cmake.py`, `meson.py`, `rustbuild.py`,
`commandlines.py`) returns recipes: the words of a compiler's command. `settings.py` makes flags and
directories of these words, `headers.py` completes the directories by the `#include` lines, `patterns.py`
names the sources, and `render.py` writes the file. Nothing here runs a program of the project.

This package imports `config` and `core`. To add a kind of build file, write its reader, and add the reader to
`_READERS` in `survey.py`.
"""
