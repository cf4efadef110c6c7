# SPDX-License-Identifier: Apache-2.0
"""
Images by a Docker engine: buildx, the engine's store, prepared base images.

This package imports the rest of `image` and the packages below it. To add a build option, pass it
on in `build.py`.
"""
