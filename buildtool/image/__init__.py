# SPDX-License-Identifier: Apache-2.0
"""
Build images by BuildKit (`docker`) or the embedded engine (`local`); inspect, rebuild and compare images.

This package imports `check`, `trust` and the packages below them. No other package imports jinja2 or
docker. To add an output, let `docker/build.py` and `local/build.py` accept its type. A test compares
the files of both engines.
"""
