import pytest
import torch

from lightlm.model.attention import KVCache, attend_by_matmul, attend_cached, rotary_table, rotate


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("change", [{}, {"num_kv_heads": 2}, {"num_kv_heads": 1}])
def test_every_kernel_computes_the_same_attention(build, change):
    tokens = torch.arange(40).view(2, 20)
    torch.testing.assert_close(build("matmul", **change)(tokens), build("sdpa", **change)(tokens))


def test_a_position_attends_to_itself_and_earlier_ones_only():
    query = draw(1, 2, 6, 8)
    key = draw(1, 2, 6, 8) * 2
    value = draw(1, 2, 6, 8) * 3
    first = attend_by_matmul(query, key, value)[:, :, :4]
    value[:, :, 4:] = 100.0
    key[:, :, 4:] = -100.0
    torch.testing.assert_close(attend_by_matmul(query, key, value)[:, :, :4], first)


def test_turned_queries_and_keys_meet_by_their_distance_alone(build):
    config = build().config
    query = draw(1, 1, 1, config.head_dim)
    key = draw(1, 1, 1, config.head_dim) + 1

    def meet(at: int, other: int) -> float:
        turned = rotate(query, *rotary_table(config, torch.tensor([at])))
        return float((turned * rotate(key, *rotary_table(config, torch.tensor([other])))).sum())

    assert meet(9, 4) == pytest.approx(meet(25, 20), abs=1e-4)
    assert abs(meet(9, 4) - meet(9, 5)) > 1e-3


def test_turning_keeps_the_length_of_a_head(build):
    heads = draw(2, 3, 5, 8)
    turned = rotate(heads, *rotary_table(build().config, torch.arange(5)))
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


@pytest.mark.parametrize("change", [{}, {"num_kv_heads": 2}])
@pytest.mark.parametrize("pieces", [[10], [1] * 10, [4, 1, 5], [9, 1]])
def test_cached_logits_are_the_uncached_ones_however_the_text_is_cut(build, change, pieces):
    model = build(**change)
    tokens = torch.arange(20).view(2, 10)
    cache = KVCache.allocate(model.config, 2, 10, dtype=torch.float32)
    with torch.no_grad():
        cut = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cut, model(tokens), atol=1e-5, rtol=1e-5)


def test_a_text_padded_on_the_left_gets_the_logits_that_it_gets_alone(build):
    model = build(num_kv_heads=2)
    text = torch.tensor([[5, 6, 7, 8]])
    rows = torch.cat([torch.tensor([[0, 0, 0]]), text], dim=1)
    cache = KVCache.allocate(model.config, 2, 9, dtype=torch.float32, padding=torch.tensor([3, 0]))
    with torch.no_grad():
        first = model(torch.cat([rows, rows + 20]), cache=cache)
        second = model(torch.tensor([[9], [10]]), cache=cache)
        alone = model(torch.cat([text, torch.tensor([[9]])], dim=1))
    assert torch.isfinite(first).all()
    torch.testing.assert_close(first[0, 3:], alone[0, :4], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second[0], alone[0, 4:], atol=1e-5, rtol=1e-5)


def test_what_stands_in_a_cache_beyond_its_length_is_not_read(build):
    config = build().config
    cache = KVCache.allocate(config, 1, 8, dtype=torch.float32)
    cache.length = 3
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(float("nan"))
        tensor[:, :, :3] = 1.0
    keys, values = cache.extend(0, torch.ones(1, 4, 1, 8), torch.ones(1, 4, 1, 8))
    assert torch.isfinite(attend_cached(torch.ones(1, 4, 1, 8), keys, values, cache)).all()
