"""A network that trains in milliseconds, for tests of what stands round it."""

from __future__ import annotations

from typing import Any

# Overrides of the default model. 8 channels: with 4, torch 2.15 corrupts the heap in channels-last backward passes on
# some AMD processors.
TINY: dict[str, Any] = {
    "pretrained": None,
    "auxiliary_head": None,
    "backbone": {
        "_delete_": True, "type": "ResNet", "depth": 18, "base_channels": 8, "stem_channels": 8,
        "num_stages": 2, "strides": [1, 2], "dilations": [1, 1], "out_indices": [0, 1], "norm_cfg": {"type": "BN"},
    },
    "decode_head": {
        "in_channels": 16, "in_index": 1, "channels": 8, "dilations": [1, 2], "c1_in_channels": 8, "c1_channels": 4,
    },
}  # fmt: skip
