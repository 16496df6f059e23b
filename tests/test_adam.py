"""Adam is torch's, whatever the weights are like."""

import pytest
import torch

from cappaper import cw_l2, fit, mlp
from cappaper.adam import Adam


def two(*shapes, order=None):
    """Weights and copies of them, both in the order of memory that ``order`` says."""
    weights = [torch.randn(shape) for shape in shapes]
    if order is not None:
        weights = [weight.permute(order) for weight in weights]
    return [[w.clone().requires_grad_() for w in weights] for _ in range(2)]


def test_it_is_torchs_and_so_is_its_state():
    weights, copies = two((3, 4), (4,), (2,), ())
    ours, torchs = Adam(weights), torch.optim.Adam(copies, fused=True)
    for step in range(6):
        if step == 3:
            ours = Adam(weights)
            ours.load_state_dict(torchs.state_dict())
        ours.forget()
        torchs.zero_grad()
        for own, other in zip(weights, copies, strict=True):
            if own.shape != (2,) or step > 1:  # one without a gradient to begin with
                own.grad = torch.randn(own.shape)
                other.grad = own.grad.clone()
        rate = torchs.param_groups[0]["lr"] = 0.1 / (step + 1)
        ours.step(rate)
        torchs.step()
    for own, other in zip(weights, copies, strict=True):
        assert torch.equal(own, other)


def test_weights_and_gradients_may_lie_in_memory_as_they_like():
    weights, copies = two((2, 3, 4, 5), order=(0, 3, 1, 2))
    weights[0].grad = torch.randn(weights[0].shape)
    copies[0].grad = weights[0].grad
    assert weights[0].stride() != weights[0].grad.stride()
    Adam(weights).step(0.1)
    torch.optim.Adam(copies, lr=0.1, foreach=False).step()
    torch.testing.assert_close(*weights, *copies)


def test_it_counts_steps_in_any_precision():
    weights, copies = two((3,))
    ours, torchs = Adam(weights), torch.optim.Adam(copies, lr=0.1, fused=True)
    torch.set_default_dtype(torch.float16)
    try:
        for _ in range(3):
            for weight in (*weights, *copies):
                weight.grad = torch.ones(3, dtype=torch.float32)
            ours.step(0.1)
            torchs.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(*weights, *copies)


def test_gradients_that_it_cannot_take_get_a_sentence(digits):
    (x, y), _ = digits
    with pytest.raises(ValueError, match=r"real numbers, got one of torch\.complex64"):
        weight = torch.ones(2, dtype=torch.complex64, requires_grad=True)
        weight.grad = torch.ones_like(weight)
        Adam([weight]).step(0.1)
    rows = torch.nn.Embedding(17, 10, sparse=True)

    class Rows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = rows

        def forward(self, x):
            return self.rows((16 * x).long().flatten(1)).mean(1)

    with pytest.raises(ValueError, match=r"dense gradients .* in layout torch\.sparse_coo"):
        fit(Rows(), x, y, epochs=1)


def test_images_in_another_order_of_memory_are_attacked_alike():
    x = torch.rand(16, 8, 8, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    net = mlp(192, [16])
    y = net(x).argmax(-1)
    given = {"steps": 30, "search_steps": 3}
    found = cw_l2(net, x, y, **given)
    torch.testing.assert_close(found, cw_l2(net, x.contiguous(), y, **given))
    assert (found != x).any()
