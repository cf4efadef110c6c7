# SPDX-License-Identifier: Apache-2.0
"""
A project to an image, by BuildKit (`docker`) or the embedded engine (`local`); inspect, rebuild, compare.

It imports `check`, `trust` and what stands below; it alone imports jinja2 and docker. To add an
output, teach `docker/buildx.py` and `local/build.py` its type; a test compares what both write.
"""
