# SPDX-License-Identifier: Apache-2.0
"""
Sign images in registries so that cosign, podman and others verify them, and verify such signatures.

This package imports `image` and the packages below it. To add a form of signature, write a module
that makes and reads it, and name it in `sign.py` and `verify.py`.
"""
