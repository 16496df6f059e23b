"""What the tests of fast layers have in common."""

import pytest
import torch
from torch import nn

with_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch comes without oneDNN",
)


def agree(fast, torchs):
    for one, other in zip(fast, torchs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def network():
    layers = [nn.Conv2d(1, 3, 4, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, 4))
