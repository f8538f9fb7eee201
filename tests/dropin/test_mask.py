"""Additive masks, read by value."""

import gc

import pytest
import torch
from basicts.modules.transformer import prepare_causal_attention_mask

from ealinformer.dropin import mask as mask_module
from ealinformer.dropin.mask import read_mask

B, HEADS, L = 2, 3, 5
SCORES = (B, HEADS, L, L)
LATER = torch.ones(L, L, dtype=torch.bool).triu(1)
PADDING = torch.tensor([[False, False, False, True, True], [True, False, False, False, False]])


def additive(blocked: torch.Tensor, value: float = -torch.inf, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(blocked.shape, dtype=dtype).masked_fill(blocked, value)


def test_without_a_mask_every_query_sees_every_key():
    assert read_mask(None, SCORES) == (False, None)


def test_a_mask_of_zeros_blocks_nothing():
    assert read_mask(torch.zeros(B, 1, L, L), SCORES) == (False, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_reads_the_hosts_causal_mask_in_every_precision(dtype):
    mask = prepare_causal_attention_mask((B, L), torch.zeros(B, L, 4, dtype=dtype))
    assert read_mask(mask, SCORES) == (True, None)


@pytest.mark.parametrize("value", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4])
@pytest.mark.parametrize("causal", [False, True])
def test_reads_padding_alone_and_in_causal_order(value, causal):
    blocked = PADDING[:, None, None, :] | (LATER if causal else torch.zeros(L, L, dtype=torch.bool))
    visible = read_mask(additive(blocked, value), SCORES)
    assert visible.causal == causal
    assert torch.equal(visible.key_padding, PADDING[:, None])


@pytest.mark.parametrize(
    ("blocked", "padding"),
    [
        (PADDING[:, None, None, :], PADDING[:, None]),
        (PADDING[0], PADDING[0]),
        (PADDING[0].expand(L, L), PADDING[0]),
        (PADDING[:, None, None, :].repeat(1, HEADS, 1, 1), PADDING[:, None].repeat(1, HEADS, 1)),
    ],
    ids=["one row", "one dimension", "two dimensions", "a mask per head"],
)
def test_takes_every_shape_that_can_be_added_to_the_scores(blocked, padding):
    visible = read_mask(additive(blocked), SCORES)
    assert not visible.causal
    assert torch.equal(visible.key_padding, padding)


def test_queries_that_continue_a_cached_sequence_stand_at_its_end():
    blocked = torch.ones(2, L, dtype=torch.bool).triu(1 + L - 2)
    assert read_mask(additive(blocked), (B, HEADS, 2, L)) == (True, None)


def test_a_single_query_sees_all_that_is_not_padding():
    visible = read_mask(additive(PADDING[:, None, None, :]), (B, HEADS, 1, L))
    assert not visible.causal
    assert torch.equal(visible.key_padding, PADDING[:, None])


def band() -> torch.Tensor:
    position = torch.arange(L)
    return (position[:, None] - position).abs() > 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (additive(band()), r"attention_mask \[5, 5\] blocks 12 of 25 pairs in an order that is neither key padding"),
        (additive(LATER.T.contiguous()), "neither key padding"),
        (additive(torch.eye(L, dtype=torch.bool)), "neither key padding"),
        (torch.where(LATER, -torch.inf, 0.25), "holds numbers such as 0.25, a bias on the scores"),
        (torch.full((L, L), -10.0), "holds numbers such as -10, a bias on the scores"),
        (torch.full((L, L), torch.nan), "holds numbers such as nan"),
        (~LATER, "has to be a float tensor of 0 and -inf or the like, got torch.bool"),
        (torch.zeros(4, 1, L, L), r"= \[2, 3, 5, 5\], got \[4, 1, 5, 5\]"),
        (torch.zeros(L, L + 1), r"= \[2, 3, 5, 5\], got \[5, 6\]"),
        (torch.zeros(7, B, HEADS, L, L), r"= \[2, 3, 5, 5\], got \[7, 2, 3, 5, 5\]"),
        (torch.zeros(L, L, requires_grad=True), "asks for a gradient, so it is a learned bias"),
    ],
)
def test_refuses_any_other_mask_and_says_what_it_found(mask, message):
    with pytest.raises(ValueError, match=message):
        read_mask(mask, SCORES)


def test_refuses_causal_order_with_fewer_keys_than_queries():
    blocked = torch.ones(L, 3, dtype=torch.bool).triu(1 + 3 - L)
    with pytest.raises(ValueError, match="neither key padding"):
        read_mask(additive(blocked), (B, HEADS, L, 3))


@pytest.fixture
def count_readings(monkeypatch):
    readings = []
    recognise = mask_module._recognise
    monkeypatch.setattr(mask_module, "_recognise", lambda *args: readings.append(1) or recognise(*args))
    return readings


def test_the_layers_of_a_model_read_their_mask_once(count_readings):
    mask = additive(LATER)
    for _ in range(3):
        assert read_mask(mask, SCORES).causal
    assert len(count_readings) == 1
    assert not read_mask(torch.zeros(L, L), SCORES).causal
    assert len(count_readings) == 2


def test_a_mask_changed_in_place_is_read_again(count_readings):
    mask = additive(LATER)
    assert read_mask(mask, SCORES).causal
    mask.zero_()
    assert not read_mask(mask, SCORES).causal


def test_a_mask_of_inference_mode_is_read_every_time(count_readings):
    with torch.inference_mode():
        mask = additive(LATER)
        assert read_mask(mask, SCORES).causal
        mask.zero_()
        assert not read_mask(mask, SCORES).causal


def test_a_mask_is_not_kept_alive():
    mask = additive(PADDING[:, None, None, :].expand(B, 1, L, L))
    read_mask(mask, SCORES)
    last = mask_module._last_read
    assert last.visible.key_padding.untyped_storage().nbytes() == B * L
    del mask
    gc.collect()
    assert last.mask() is None
