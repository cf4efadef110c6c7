# SPDX-License-Identifier: Apache-2.0
"""Build, sign, ship and verify eBPF programs in minimal container images."""

# The one place of the version: pyproject.toml reads it from here, and --version and a builder stage without
# package metadata do too (importlib.metadata would double the time of --version).
__version__ = "0.1.0"
