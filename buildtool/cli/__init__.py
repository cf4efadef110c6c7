# SPDX-License-Identifier: Apache-2.0
"""
The command line: parse, call one function of the library, print.

It imports everything below, and it alone imports click and rich. To add a command, write a file
with `command` and its view, and list it in `main.py`.
"""
