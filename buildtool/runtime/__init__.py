# SPDX-License-Identifier: Apache-2.0
"""
Contents of images beside objects (loader, tini, base layer), headers of programs, and their Debian packages.

It imports `compile` and what stands below. To add a program to images, link it in `link.py` and
list it in `carried.py`.
"""
