import torch

from lightlm.model.feedforward import FeedForward


def test_it_is_silu_of_gate_times_up_projected_down(build):
    layer = FeedForward(build().config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    x = torch.randn(2, 3, 32, generator=draw)
    gate = layer.gate_up[:48]
    up = layer.gate_up[48:]
    wanted = ((x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ up.T)) @ layer.down.T
    torch.testing.assert_close(layer(x), wanted, atol=1e-4, rtol=1e-4)
