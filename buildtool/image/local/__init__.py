# SPDX-License-Identifier: Apache-2.0
"""
Images by the embedded engine, which requires neither Docker nor root.

This package imports the rest of `image` and the packages below it. To add a file to images, add it
in `assemble.py` and in templates/Dockerfile.j2.
"""
