# SPDX-License-Identifier: Apache-2.0
"""
How an image is run: what a container of it needs, and the files that say so to engines and clusters.

plan.py computes the needs from the image's label, entrypoint and objects. Each other file writes them in one
form. May import `image` and the layers below. A new form is a new file here, and a kind in cli/deploy.py.
"""
