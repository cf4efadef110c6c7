# SPDX-License-Identifier: Apache-2.0
"""Build, sign, ship and verify eBPF programs in minimal container images."""
