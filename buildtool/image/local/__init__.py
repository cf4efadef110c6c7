# SPDX-License-Identifier: Apache-2.0
"""
Images by the embedded engine, which needs neither Docker nor root.

It imports the rest of `image` and what stands below. To add a file to images, add it in
`assemble.py`; the Dockerfile must place the same one.
"""
