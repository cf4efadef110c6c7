# SPDX-License-Identifier: Apache-2.0
"""The makers of the vectors, independent of the product's writers, and an index of the vectors."""
