# SPDX-License-Identifier: Apache-2.0
"""
Source code that embeds signed objects in an agent, and opens them only after their verification.

This package imports `signing` and the packages below it. To add a language, write a module with a
function that returns the text of a file, and name it in `write.py`.
"""
