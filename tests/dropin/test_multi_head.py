"""The drop-in module against BasicTS's own: with softmax the same numbers, with linear attention an explicit sum."""

import copy
import pickle

import pytest
import torch
from basicts.modules.transformer import (
    AutoRegressiveDecoder,
    DecoderOnlyLayer,
    KVCache,
    MultiHeadAttention,
    RotaryPositionEmbedding,
    prepare_causal_attention_mask,
)
from torch import Tensor, nn

from ealinformer.attention import reference_attention
from ealinformer.dropin import DropInAttention, replace_attention

B, L, D, HEADS = 3, 7, 16, 4
HEAD_SIZE = D // HEADS


def states(length: int = L, seed: int = 0) -> Tensor:
    return torch.randn(B, length, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def host_module(seed: int = 1, **arguments) -> MultiHeadAttention:
    torch.manual_seed(seed)
    return MultiHeadAttention(D, HEADS, **arguments).double()


def rope() -> RotaryPositionEmbedding:
    return RotaryPositionEmbedding(HEAD_SIZE, max_position_embeddings=16, dtype=torch.float64)


def causal_mask(length: int, past: int = 0, padding: Tensor | None = None) -> Tensor:
    return prepare_causal_attention_mask((B, length), states(length), padding, past)


def padding_mask() -> Tensor:
    """`[B, 1, 1, L]`: no, two and four keys at the end are padding."""
    lengths = torch.tensor([L, L - 2, L - 4])
    return torch.where(torch.arange(L) < lengths[:, None], 0.0, -torch.inf)[:, None, None, :].double()


def with_gradients(module: MultiHeadAttention, hidden: Tensor, **arguments) -> list[Tensor]:
    """The output, and the gradients of an uneven sum of it for the input and all weights."""
    hidden = hidden.clone().requires_grad_()
    module.zero_grad()
    output, weights, _ = module(hidden, **arguments)
    assert weights is None
    (output * torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return [output.detach(), hidden.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("attention", ["softmax", "sdpa"])
@pytest.mark.parametrize("kv_heads", [None, 1, 2])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="self"),
        pytest.param({"key_value_states": states(5, seed=3)}, id="cross"),
        pytest.param({"attention_mask": padding_mask()}, id="padding"),
        pytest.param({"attention_mask": padding_mask().expand(B, 1, L, L)}, id="padding, row by row"),
        pytest.param({"attention_mask": causal_mask(L)}, id="causal"),
        pytest.param({"attention_mask": causal_mask(L, padding=padding_mask()[:, 0, 0] == 0)}, id="causal and padding"),
    ],
)
def test_with_softmax_it_is_the_hosts_module(attention, kv_heads, arguments):
    host = host_module(kv_heads=kv_heads)
    ours = DropInAttention.from_host(copy.deepcopy(host), attention)
    expected = with_gradients(host, states(), **arguments)
    torch.testing.assert_close(with_gradients(ours, states(), **arguments), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention_mask", [None, causal_mask(L)])
def test_rotates_queries_and_keys_as_the_host_does(attention_mask):
    host = host_module(rope=rope())
    arguments = {"position_ids": torch.arange(2, L + 2)[None], "attention_mask": attention_mask}
    ours = DropInAttention.from_host(copy.deepcopy(host), "softmax")
    expected = with_gradients(host, states(), **arguments)
    assert not torch.allclose(expected[0], host_module()(states(), attention_mask=attention_mask)[0])
    torch.testing.assert_close(with_gradients(ours, states(), **arguments), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("chunks", [(1,) * L, (3, 1, 1, 2), (4, 3), (L,)])
def test_decoding_with_a_cache_is_the_hosts_decoding(kv_heads, chunks):
    host = host_module(kv_heads=kv_heads, rope=rope())
    ours = DropInAttention.from_host(host, "softmax")
    torch.testing.assert_close(decode(ours, chunks), decode(host, chunks), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
@pytest.mark.parametrize("chunks", [(1,) * L, (3, 1, 1, 2), (4, 3)])
def test_decoding_in_chunks_is_causal_attention_over_the_whole(entropy, chunks):
    ours = DropInAttention.from_host(host_module(kv_heads=2, rope=rope()), entropy=entropy)
    positions = torch.arange(L)[None]
    whole = ours(states(), attention_mask=causal_mask(L), position_ids=positions)[0]
    torch.testing.assert_close(decode(ours, chunks), whole, rtol=1e-10, atol=1e-12)


def decode(module: MultiHeadAttention, chunks: tuple[int, ...]) -> Tensor:
    """The outputs for a sequence that comes in chunks, each with the mask that BasicTS makes for it."""
    cache, outputs = KVCache(), []
    for chunk in states().split(chunks, dim=1):
        past, length = cache.get_seq_length(), chunk.shape[1]
        output, _, returned = module(
            chunk,
            attention_mask=causal_mask(length, past),
            position_ids=torch.arange(past, past + length)[None],
            past_key_value=cache,
            use_cache=True,
            layer_idx=0,
        )
        assert returned is cache
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("attention", ["softmax", "entropy_equal"])
def test_the_hosts_decoder_decodes_with_it(attention):
    layers = [DecoderOnlyLayer(host_module(seed), nn.Linear(D, D), (nn.LayerNorm, D)) for seed in (1, 2)]
    decoder = AutoRegressiveDecoder(nn.ModuleList(layers)).double()
    expected = decoder(states(), causal_mask(L))[0]
    replace_attention(decoder, attention)
    whole = decoder(states(), causal_mask(L))[0]
    assert torch.allclose(whole, expected) == (attention == "softmax")
    cache, outputs = None, []
    for step in states().split(1, dim=1):
        output, _, cache = decoder(step, use_cache=True, kv_cache=cache)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=1e-9, atol=1e-11)


def test_cross_attention_reads_the_cache_after_the_first_call():
    host, other = host_module(), states(5, seed=3)
    ours = DropInAttention.from_host(host, "softmax")
    for module in (host, ours):
        cache = KVCache()
        first = module(states(), other, past_key_value=cache, use_cache=True, layer_idx=0)[0]
        again = module(states(), torch.full_like(other, torch.nan), past_key_value=cache, use_cache=True, layer_idx=0)[
            0
        ]
        torch.testing.assert_close(again, first)
        torch.testing.assert_close(first, host(states(), other)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
@pytest.mark.parametrize("mask", ["none", "padding", "causal", "causal and padding"])
def test_entropy_equal_is_the_explicit_sum_over_the_keys_each_query_sees(entropy, mask):
    module = host_module()
    seen = torch.ones(B, L, L, dtype=torch.bool)
    if "padding" in mask:
        seen &= padding_mask()[:, 0] == 0
    if "causal" in mask:
        seen = seen.tril()
    attention_mask = None if mask == "none" else torch.where(seen, 0.0, -torch.inf)[:, None]
    q, k, v = (
        proj(states()).view(B, L, HEADS, HEAD_SIZE).transpose(1, 2)
        for proj in (module.q_proj, module.k_proj, module.v_proj)
    )
    mixed = torch.empty(B, HEADS, L, HEAD_SIZE, dtype=torch.float64)
    for b in range(B):
        for i in range(L):
            keys = seen[b, i]
            mixed[b, :, i : i + 1] = reference_attention(
                q[b, :, i : i + 1], k[b][:, keys], v[b][:, keys], entropy=entropy
            )
    expected = module.out_proj(mixed.transpose(1, 2).reshape(B, L, D))
    output = DropInAttention.from_host(module, entropy=entropy)(states(), attention_mask=attention_mask)[0]
    torch.testing.assert_close(output, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("attention", ["entropy_equal", "inline", "elu", "performer", "softmax"])
def test_every_attention_with_a_causal_form_sees_nothing_of_the_future(attention):
    module = DropInAttention.from_host(host_module(), attention)
    changed = states()
    changed[:, 4:] += 10
    before, after = (module(x, attention_mask=causal_mask(L))[0] for x in (states(), changed))
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=1e-9, atol=1e-11)
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def test_the_constructor_starts_from_the_hosts_weights():
    torch.manual_seed(5)
    host = MultiHeadAttention(D, HEADS, 0.25, 2, rope())
    torch.manual_seed(5)
    ours = DropInAttention(D, HEADS, 0.25, 2, rope(), attention="entropy_equal", entropy="gaussian")
    assert isinstance(ours, MultiHeadAttention)
    torch.testing.assert_close(ours.state_dict(), host.state_dict(), rtol=0, atol=0)
    assert (ours.kv_heads, ours.num_kv_groups, ours.head_size, ours.dropout.p) == (2, 2, HEAD_SIZE, 0.25)
    assert "attention='entropy_equal', entropy='gaussian'" in repr(ours)


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_state_dicts_load_both_ways(kv_heads):
    host, ours = host_module(kv_heads=kv_heads), DropInAttention(D, HEADS, kv_heads=kv_heads).double()
    ours.load_state_dict(host.state_dict())
    back = host_module(seed=9, kv_heads=kv_heads)
    back.load_state_dict(ours.state_dict())
    torch.testing.assert_close(back.state_dict(), host.state_dict(), rtol=0, atol=0)


def test_from_host_shares_everything_but_the_attention():
    host = host_module().eval()
    host.k_proj.requires_grad_(False)
    seen = []
    host.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    host.q_proj.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    before = host(states())[0]
    seen.clear()
    ours = DropInAttention.from_host(host)
    assert [id(parameter) for parameter in ours.parameters()] == [id(parameter) for parameter in host.parameters()]
    assert not ours.training
    ours(states())
    assert seen == [nn.Linear, DropInAttention]
    # What it was made from goes on as before.
    torch.testing.assert_close(host(states())[0], before, rtol=0, atol=0)
    assert "attention" not in dict(host.named_children())


def test_a_second_drop_in_leaves_nothing_of_the_first():
    first = DropInAttention.from_host(host_module(), "linformer", num_keys=L, rank=2)
    assert len(list(first.parameters())) == 10
    second = DropInAttention.from_host(first, "softmax")
    assert len(list(second.parameters())) == 8
    torch.testing.assert_close(second(states())[0], host_module()(states())[0], rtol=1e-10, atol=1e-12)
    assert len(list(first.parameters())) == 10


def test_an_attention_with_weights_follows_the_module_it_joins():
    ours = DropInAttention.from_host(host_module().eval(), "linformer", num_keys=L, rank=2)
    assert ours.attention.key_projection.dtype == torch.float64
    assert not ours.attention.training
    assert ours(states())[0].shape == (B, L, D)


def test_dropout_falls_on_the_mixed_values_and_keeps_their_expectation():
    torch.manual_seed(0)
    module = DropInAttention.from_host(host_module(dropout=0.5))
    dropped = torch.stack([module(states())[0] for _ in range(4000)])
    expected = module.eval()(states())[0]
    assert dropped.std(dim=0).min() > 0
    error = (dropped.mean(dim=0) - expected).abs() / (dropped.std(dim=0) / 4000**0.5)
    assert error.max() < 5


def test_can_be_copied_and_pickled():
    module = DropInAttention.from_host(host_module(), "performer", seed=3)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(states())[0], module(states())[0], rtol=0, atol=0)


def test_runs_under_autocast():
    module = DropInAttention(D, HEADS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(states().float(), attention_mask=causal_mask(L).bfloat16())[0]
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(
        output.float(), module(states().float(), attention_mask=causal_mask(L).float())[0], rtol=0.05, atol=0.05
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_attentions": True}, "output_attentions=True asks for weights, which entropy_equal never forms"),
        ({"use_cache": True}, "use_cache=True needs past_key_value and layer_idx"),
        ({"use_cache": True, "past_key_value": KVCache()}, "use_cache=True needs past_key_value and layer_idx"),
    ],
)
def test_says_what_a_call_lacks(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropInAttention.from_host(host_module())(states(), **arguments)


def test_a_rope_needs_positions():
    with pytest.raises(ValueError, match="position_ids are needed"):
        DropInAttention.from_host(host_module(rope=rope()))(states())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 10, "n_heads": 4}, "n_heads has to divide hidden_size 10, got 4"),
        ({"hidden_size": 16, "n_heads": 4, "kv_heads": 3}, "kv_heads has to divide n_heads 4, got 3"),
        ({"hidden_size": 16, "n_heads": 4, "attention": "sofmax"}, r"got 'sofmax' \(did you mean 'softmax'\?\)"),
        ({"hidden_size": 16, "n_heads": 4, "entrpy": "taylor"}, r"got 'entrpy' \(did you mean 'entropy'\?\)"),
    ],
)
def test_refuses_what_cannot_be_built(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropInAttention(**arguments)
