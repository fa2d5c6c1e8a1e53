import pytest
import torch

from lightlm.training.muon import MatrixSlice, Muon, orthogonalize


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_slice(rows, cols, seed=0):
    parameter = torch.nn.Parameter(draw(rows, cols, seed=seed))
    parameter.grad = draw(rows, cols, seed=seed + 100)
    return MatrixSlice("matrix", parameter.data, parameter, 0, None)


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 128, 32), (2, 32, 128), (1, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_singular_values_end_near_one(shape, dtype):
    values = torch.linalg.svdvals(orthogonalize(draw(*shape), dtype).float())
    assert values.max() < 1.3
    assert values.median() > 0.6
    # Five iterations lift a singular value by at most about 3.4445^5: only the very smallest stay
    # low.
    assert (values > 0.6).float().mean() > 0.9


def test_singular_vectors_are_kept():
    matrix = draw(1, 24, 16)
    left, _, right = torch.linalg.svd(matrix[0], full_matrices=False)
    turned = left.T @ orthogonalize(matrix, torch.float32)[0] @ right.T
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-4
    assert turned.diagonal().min() > 0


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_size_of_a_gradient_plays_no_part(scale):
    matrix = draw(1, 16, 16)
    wanted = orthogonalize(matrix, torch.float32)
    if scale == 1e-12:  # below the smallest norm that is divided by
        assert orthogonalize(matrix * scale, torch.float32).norm() < wanted.norm()
    else:
        torch.testing.assert_close(
            orthogonalize(matrix * scale, torch.float32), wanted, atol=1e-5, rtol=1e-4
        )


def test_a_gradient_of_zeros_moves_nothing():
    assert not orthogonalize(torch.zeros(2, 8, 4), torch.float32).any()


def test_matrices_computed_together_get_what_each_gets_alone():
    together = [make_slice(16, 8, seed=1), make_slice(8, 16, seed=2), make_slice(16, 8, seed=3)]
    alone = [make_slice(16, 8, seed=1), make_slice(8, 16, seed=2), make_slice(16, 8, seed=3)]
    rule = Muon(together, torch.float32)
    assert list(rule.momenta) == [(16, 8)]
    rule.step(0.1, 0.9, 0.0)
    for piece in alone:
        Muon([piece], torch.float32).step(0.1, 0.9, 0.0)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.view, other.view, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "cols", "scale"), [(8, 8, 1.0), (32, 8, 2.0), (8, 32, 1.0)])
def test_a_first_update_is_the_orthogonal_gradient_times_rate_and_aspect(rows, cols, scale):
    piece = make_slice(rows, cols)
    before = piece.view.clone()
    Muon([piece], torch.float32).step(0.1, 0.95, 0.0)
    wanted = before - 0.1 * scale * orthogonalize(piece.gradient()[None], torch.float32)[0]
    torch.testing.assert_close(piece.view, wanted, atol=1e-5, rtol=1e-5)


def test_weight_decay_shrinks_the_matrix_before_its_update():
    plain = make_slice(8, 8)
    decayed = make_slice(8, 8)
    before = plain.view.clone()
    Muon([plain], torch.float32).step(0.1, 0.9, 0.0)
    Muon([decayed], torch.float32).step(0.1, 0.9, 0.5)
    torch.testing.assert_close(plain.view - decayed.view, before * 0.05)


def test_momentum_keeps_the_direction_of_earlier_gradients():
    piece = make_slice(8, 8)
    rule = Muon([piece], torch.float32)
    first = piece.gradient().clone()
    rule.step(0.0, 0.9, 0.0)
    torch.testing.assert_close(rule.momenta[8, 8][0], 0.1 * first)
    piece.gradient_of.grad = draw(8, 8, seed=9)
    rule.step(0.0, 0.9, 0.0)
    torch.testing.assert_close(rule.momenta[8, 8][0], 0.09 * first + 0.1 * draw(8, 8, seed=9))


def test_an_update_looks_ahead_as_nesterov_does():
    piece = make_slice(8, 8)
    rule = Muon([piece], torch.float32)
    first = piece.gradient().clone()
    second = draw(8, 8, seed=9)
    rule.step(0.0, 0.9, 0.0)
    piece.gradient_of.grad = second.clone()
    before = piece.view.clone()
    rule.step(0.1, 0.9, 0.0)
    buffer = 0.09 * first + 0.1 * second
    wanted = orthogonalize((0.1 * second + 0.9 * buffer)[None], torch.float32)[0]
    torch.testing.assert_close(before - piece.view, 0.1 * wanted, atol=1e-5, rtol=1e-4)


def test_the_gradient_itself_is_left_as_it_was():
    piece = make_slice(8, 8)
    before = piece.gradient().clone()
    Muon([piece], torch.float32).step(0.1, 0.9, 0.0)
    assert torch.equal(piece.gradient(), before)
