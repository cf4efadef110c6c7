# SPDX-License-Identifier: Apache-2.0
"""
Images by a Docker engine: buildx, the engine's store, prepared base images.

It imports the rest of `image` and what stands below. To add a build option, pass it on in
`build.py`.
"""
