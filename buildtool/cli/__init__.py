# SPDX-License-Identifier: Apache-2.0
"""
The command line: parse, call one function of the library, print.

This package imports all others, and no other package imports click and rich. To add a command,
write a file with `command` and its view, and list it in `main.py`.
"""
