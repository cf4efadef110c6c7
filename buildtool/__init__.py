# SPDX-License-Identifier: Apache-2.0
"""Build, sign, ship and verify eBPF programs in minimal container images."""

# pyproject.toml, --version and the builder stage, which has no package metadata, read the version from here.
# importlib.metadata would double the time of --version.
__version__ = "0.1.0"
