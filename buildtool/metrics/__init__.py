# SPDX-License-Identifier: Apache-2.0
"""
Metrics that objects declare by BTF declaration tags (spec/metrics.md), and fast reading of their maps.

This package imports `core` and `objects` only; `exposition.py` alone imports prometheus_client. To add a kind
of metric, add it to `grammar.py`, resolve its fields in `declared.py`, and make its samples in `samples.py`.
`reading.py` reads all objects, for the exposition and for `rates.py`; `decode.py` and `inventory.py` serve
`buildtool maps`.
"""
