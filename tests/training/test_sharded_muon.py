"""Tests of Muon's work on whole matrices and of who does it; the exchange is test_distributed's."""

import pytest
import torch

from lightlm.training.muon import MatrixSlice, Muon
from lightlm.training.sharded_muon import assign_owners, orthogonalize_all


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_every_matrix_has_one_owner_and_none_works_much_more_than_another(num_ranks):
    sizes = {
        f"layers.{layer}.{name}": size
        for layer in range(6)
        for name, size in (("output", 4), ("gate_up", 22))
    }
    owned = assign_owners(sizes, num_ranks)
    assert sorted(name for names in owned for name in names) == sorted(sizes)
    loads = [sum(sizes[name] for name in names) for names in owned]
    assert max(loads) - min(loads) <= max(sizes.values())
    assert assign_owners(dict(reversed(sizes.items())), num_ranks) == owned


def test_whole_matrices_get_the_update_that_a_process_alone_makes():
    shapes = {"query_key_value": (24, 16), "down": (3, 16, 8)}
    heights = {"query_key_value": [16, 4, 4], "down": [16]}
    slices = []
    wholes = {}

    for name, shape in shapes.items():
        parameter = torch.nn.Parameter(draw(*shape))
        parameter.grad = draw(*shape) * 0.1
        wholes[name] = parameter.grad.clone()
        for index in [None] if len(shape) == 2 else range(shape[0]):
            start = 0
            for height in heights[name]:
                whole = parameter.data if index is None else parameter.data[index]
                slices.append(
                    MatrixSlice(name, whole[start : start + height], parameter, start, index)
                )
                start += height

    before = {piece.name: piece.gradient_of.detach().clone() for piece in slices}
    Muon(slices, torch.float32).step(0.1, 0.0, 0.0)
    orthogonalize_all(wholes, heights, torch.float32)
    for piece in slices:
        wanted = (before[piece.name] - piece.gradient_of.detach()) / 0.1
        torch.testing.assert_close(wholes[piece.name], wanted, atol=1e-5, rtol=1e-5)
