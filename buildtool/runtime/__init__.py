# SPDX-License-Identifier: Apache-2.0
"""
Contents of images beside objects (loader, tini, base layer), headers of programs, and their Debian packages.

This package imports `compile` and the packages below it. To add a program to images, link it in
`link.py` and list it in `carried.py`.
"""
