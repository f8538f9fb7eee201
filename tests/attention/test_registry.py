"""What every attention has to do under one signature, and how it is built by name.

A name that is added to the registry is tested here without a new line.
"""

import copy
import inspect

import pytest
import torch
from torch import nn

from ealinformer.attention import (
    ATTENTIONS,
    LinformerAttention,
    MultiHeadAttention,
    attention_options,
    build_attention,
    elu_attention,
    entropy_equal_attention,
    fused_softmax_attention,
    softmax_attention,
)
from ealinformer.attention.names import unknown_name

C, N = 6, 70  # N is more than one chunk of the causal forms
NO_CAUSAL = ("linformer",)

every_attention = pytest.mark.parametrize("name", ATTENTIONS)
every_causal = pytest.mark.parametrize(
    ("name", "causal"), [(n, c) for n in ATTENTIONS for c in (False, True) if not (c and n in NO_CAUSAL)]
)


def build(name, *, num_keys=N, dtype=torch.float64):
    torch.manual_seed(0)
    attention = build_attention(name, head_size=C, num_keys=num_keys)
    return attention.to(dtype) if isinstance(attention, nn.Module) else attention


def qkv(*leading, n=N, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*leading, n, C, generator=g, dtype=torch.float64).to(dtype) for _ in range(3)]


def for_keys(attention, positions):
    """The same attention for these keys alone."""
    if not isinstance(attention, LinformerAttention):
        return attention
    part = LinformerAttention(len(positions), attention.rank).double()
    rows = min(attention.rank, len(positions))
    assert rows == part.rank
    part.key_projection = nn.Parameter(attention.key_projection[:, positions])
    part.value_projection = nn.Parameter(attention.value_projection[:, positions])
    return part


def query_by_query(name, attention, q, k, v, mask, causal):
    """For q, k, v `[N, C]`: each query with the keys that it sees, and no others there at all."""
    rows = []
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if not mask[j] and (j <= i or not causal)]
        if not seen:
            rows.append(torch.zeros_like(v[:1]))
        elif name == "identity":
            rows.append(v[i : i + 1] if i in seen else torch.zeros_like(v[:1]))
        else:
            rows.append(for_keys(attention, seen)(q[i : i + 1], k[seen], v[seen]))
    return torch.cat(rows)


@every_causal
@pytest.mark.parametrize("padding", ["none", "scattered", "first", "last", "all but one"])
def test_masked_and_future_keys_are_as_if_they_were_not_there(name, causal, padding):
    attention = build(name)
    place = torch.arange(N)
    mask = {
        "none": place < 0,
        "scattered": place % 3 == 1,
        "first": place < 5,
        "last": place >= N - 9,
        "all but one": place != 3,
    }[padding]
    q, k, v = (t.requires_grad_() for t in qkv())
    if name == "linformer":
        # As many mixtures as there are keys left, at most, so that the one without them has as many.
        attention = LinformerAttention(N, min(8, int((~mask).sum()))).double()
    # Leaves of their own: a gradient of NaN would not come back through `where`.
    poisoned = [torch.where(mask[:, None], torch.nan, t).detach().requires_grad_() for t in (k, v)]
    out = attention(q, *poisoned, key_padding_mask=mask, causal=causal)
    expected = query_by_query(name, attention, q, k, v, mask, causal)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)

    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    grads, expected_grads = (
        torch.autograd.grad((o * direction).sum(), inputs, allow_unused=True, materialize_grads=True)
        for o, inputs in ((out, [q, *poisoned]), (expected, [q, k, v]))
    )
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)
    assert grads[1][mask].eq(0).all()
    assert grads[2][mask].eq(0).all()


@every_causal
@pytest.mark.parametrize("value", [1e4, float("inf"), float("nan")])
def test_what_padding_holds_changes_not_a_bit(name, causal, value):
    attention = build(name, dtype=torch.float32)
    q, k, v = qkv(2, 3, dtype=torch.float32)
    mask = torch.rand(2, 1, N, generator=torch.Generator().manual_seed(2)) < 0.3
    expected = attention(q, k, v, key_padding_mask=mask, causal=causal)
    k, v = (t.masked_fill(mask.unsqueeze(-1), value) for t in (k, v))
    assert torch.equal(attention(q, k, v, key_padding_mask=mask, causal=causal), expected)


@pytest.mark.parametrize("name", [n for n in ATTENTIONS if n not in NO_CAUSAL])
@pytest.mark.parametrize("first", [1, 30, 64, 69])
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e3])
def test_the_future_has_no_influence(name, first, factor):
    attention = build(name)
    tensors = qkv(2, 3)
    expected = attention(*tensors, causal=True)
    changed = [
        torch.cat([t[..., :first, :], factor * u[..., first:, :]], -2)
        for t, u in zip(tensors, qkv(2, 3, seed=1), strict=True)
    ]
    out = attention(*changed, causal=True)
    torch.testing.assert_close(out[..., :first, :], expected[..., :first, :], rtol=1e-11, atol=1e-12)
    assert (out[..., first:, :] - expected[..., first:, :]).abs().max() > 1e-3


@every_causal
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_query_that_sees_no_key_gives_0_and_finite_gradients(name, causal, dtype):
    attention = build(name, dtype=dtype)
    tensors = [t.requires_grad_() for t in qkv(3, dtype=dtype)]
    mask = torch.stack([torch.arange(N) < blind for blind in (N, 4, 0)])
    out = attention(*tensors, key_padding_mask=mask, causal=causal)
    assert out.isfinite().all()
    assert out[0].eq(0).all()
    if causal:
        assert out[1, :4].eq(0).all()
    assert out[1, 4:].abs().sum(-1).gt(0).all()
    assert out[2].abs().sum(-1).gt(0).all()
    grads = torch.autograd.grad(out.float().square().sum(), tensors, allow_unused=True, materialize_grads=True)
    assert all(g.isfinite().all() and g[0].eq(0).all() for g in grads)


@every_causal
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_stays_finite_and_near(name, causal, dtype, tolerance):
    attention = build(name, num_keys=500, dtype=dtype)
    q, k, v = (t.requires_grad_() for t in qkv(2, n=500, dtype=dtype))
    out = attention(q, k, v, causal=causal)
    assert out.dtype == dtype
    grads = torch.autograd.grad(out.float().square().mean(), [q, k, v], allow_unused=True, materialize_grads=True)
    assert all(g.isfinite().all() for g in grads)
    # Of the inputs, and parameters, as rounded.
    wide = copy.deepcopy(attention).double() if isinstance(attention, nn.Module) else attention
    expected = wide(q.double(), k.double(), v.double(), causal=causal)
    assert (out.double() - expected).abs().mean() < tolerance * expected.abs().mean()


@every_causal
def test_float32_is_float64_to_rounding(name, causal):
    attention = build(name, dtype=torch.float32)
    q, k, v = qkv(2, dtype=torch.float32)
    out = attention(q, k, v, causal=causal)
    assert out.dtype == torch.float32
    wide = copy.deepcopy(attention).double() if isinstance(attention, nn.Module) else attention
    expected = wide(q.double(), k.double(), v.double(), causal=causal)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


@every_causal
def test_leading_dimensions_broadcast_those_of_the_mask_too(name, causal):
    attention = build(name)
    (q, _, _), (_, k, _), (_, _, v) = qkv(2, 3), qkv(3), qkv(1, seed=3)
    mask = torch.rand(2, 1, N, generator=torch.Generator().manual_seed(2)) < 0.3
    out = attention(q, k, v, key_padding_mask=mask, causal=causal)
    assert out.shape == (2, 3, N, C)
    for b in range(2):
        for h in range(3):
            one = attention(q[b, h], k[h], v[0], key_padding_mask=mask[b, 0], causal=causal)
            torch.testing.assert_close(out[b, h], one, rtol=1e-11, atol=1e-12)


@every_attention
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(N, C + 1)}, rf"k \({N}, {C + 1}\)"),
        ({"v": torch.zeros(N + 1, C)}, rf"v \({N + 1}, {C}\)"),
        ({"v": torch.zeros(N, C).double()}, "torch.float64"),
        ({"key_padding_mask": torch.zeros(N)}, "has to be bool"),
        ({"key_padding_mask": torch.zeros(N + 1, dtype=torch.bool)}, rf"got \({N + 1},\)"),
        ({"scale": float("nan")}, "scale has to be a finite number or None, got nan"),
        ({"causal": True, "q": torch.zeros(4, C)}, "causal"),
    ],
)
def test_arguments_that_cannot_be_are_refused(name, change, message):
    tensors = {key: torch.zeros(N, C) for key in "qkv"}
    given = {**tensors, **change}
    with pytest.raises(ValueError, match=message):
        build(name, dtype=torch.float32)(given.pop("q"), given.pop("k"), given.pop("v"), **given)


@every_attention
def test_the_signature_is_the_common_one(name):
    attention = build(name)
    parameters = inspect.signature(attention.forward if isinstance(attention, nn.Module) else attention).parameters
    assert list(parameters)[:3] == ["q", "k", "v"]
    for option, default in (("key_padding_mask", None), ("causal", False), ("scale", None)):
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default is default


@every_attention
def test_a_layer_adds_only_the_state_of_its_attention_and_loads_it_again(name):
    layer = MultiHeadAttention(2 * C, 2, build_attention(name, head_size=C, num_keys=N))
    plain = {f"{proj}_proj.{part}" for proj in ("q", "k", "v", "out") for part in ("weight", "bias")}
    own = {"linformer": {"key_projection", "value_projection"}, "performer": {"projection"}}.get(name, set())
    assert layer.state_dict().keys() == plain | {f"attention.{key}" for key in own}

    again = MultiHeadAttention(2 * C, 2, build_attention(name, head_size=C, num_keys=N))
    x = torch.randn(2, N, 2 * C, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(layer(x), again(x))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), again(x))


@every_attention
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_it_is_built_where_the_default_device_is(name, device):
    with torch.device(device):
        attention = build_attention(name, head_size=C, num_keys=N)
        q, k, v = torch.zeros(3, 2, N, C).unbind(0)
    assert attention(q, k, v).device.type == device


class TestNames:
    def test_each_name_stands_for_its_attention(self):
        q, k, v = qkv(2)
        by_name = {name: build(name)(q, k, v) for name in ATTENTIONS}
        for name, expected in {
            "softmax": softmax_attention(q, k, v),
            "sdpa": fused_softmax_attention(q, k, v),
            "entropy_equal": entropy_equal_attention(q, k, v),
            "inline": v.mean(-2, keepdim=True) + q @ (k - k.mean(-2, keepdim=True)).mT @ v / N / C**0.5,
            "elu": elu_attention(q, k, v),
            "identity": v,
        }.items():
            torch.testing.assert_close(by_name[name], expected, rtol=1e-10, atol=1e-10)
        different = [by_name[name] for name in ATTENTIONS if name != "sdpa"]
        for i, one in enumerate(different):
            assert all((one - other).abs().max() > 1e-3 for other in different[:i])

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("softmax", ()),
            ("entropy_equal", ("entropy", "eps", "branch")),
            ("inline", ()),
            ("performer", ("num_features", "seed")),
            ("linformer", ("rank",)),
        ],
    )
    def test_options_are_listed(self, name, options):
        assert attention_options(name) == options

    def test_options_reach_the_attention(self):
        q, k, v = qkv(2)
        flat = build_attention("entropy_equal", head_size=C, eps=1e9)(q, k, v)
        torch.testing.assert_close(flat, v.mean(-2, keepdim=True).expand_as(v), rtol=0, atol=1e-7)
        gaussian = build_attention("entropy_equal", head_size=C, entropy="gaussian", branch="quadratic")(q, k, v)
        torch.testing.assert_close(gaussian, entropy_equal_attention(q, k, v, entropy="gaussian"))
        assert build_attention("performer", head_size=C, num_features=3).projection.shape == (3, C)
        assert build_attention("linformer", head_size=C, num_keys=N, rank=3).key_projection.shape == (3, N)
        one, other = (build_attention("performer", head_size=C, seed=s).projection for s in (1, 2))
        assert not torch.equal(one, other)

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("softmx", {}, r"^attention is one of softmax, .*got 'softmx' \(did you mean 'softmax'\?\)$"),
            ("flash", {}, "^attention is one of softmax, .*got 'flash'$"),
            (None, {}, "got None$"),
            (["elu"], {}, r"got \['elu'\]$"),
            (
                "entropy_equal",
                {"entrpy": "taylor"},
                r"'entropy_equal' is one of entropy, eps, branch, got 'entrpy' \(did",
            ),
            ("softmax", {"entropy": "taylor"}, "^the attention 'softmax' takes no options, got 'entropy'$"),
            ("inline", {"eps": 0.1}, "^the attention 'inline' takes no options, got 'eps'$"),
            ("entropy_equal", {"entropy": "gausian"}, r"^entropy is one of .*\(did you mean 'gaussian'\?\)$"),
            ("entropy_equal", {"branch": "cubic"}, "^branch is one of .*'cubic'"),
            ("entropy_equal", {"eps": -1e-3}, "^eps has to be .*-0.001"),
            ("entropy_equal", {"eps": float("nan")}, "^eps has to be .*nan"),
            ("entropy_equal", {"eps": "small"}, "^eps has to be .*'small'"),
            ("performer", {"num_features": "x"}, "^num_features has to be a positive whole number, got 'x'$"),
            ("performer", {"num_features": 0}, "^num_features has to be a positive whole number, got 0$"),
            ("performer", {"seed": -1}, "^seed has to be a whole number of at least 0, got -1$"),
            ("performer", {"seed": 1.5}, "^seed has to be a whole number of at least 0, got 1.5$"),
            ("elu", {"head_size": 0}, "^head_size has to be a positive whole number, got 0$"),
            ("elu", {"num_keys": 2.5}, "^num_keys has to be a positive whole number, got 2.5$"),
        ],
    )
    def test_what_is_not_known_or_cannot_be_is_named(self, name, options, message):
        with pytest.raises(ValueError, match=message):
            build_attention(name, **{"head_size": C, **options})

    def test_the_error_of_an_unknown_name_suggests_none_that_is_far(self):
        assert str(unknown_name("colour", "blu", ["red", "blue"])) == (
            "colour is one of red, blue, got 'blu' (did you mean 'blue'?)"
        )
        assert str(unknown_name("colour", "x", iter(["red", "blue"]))) == "colour is one of red, blue, got 'x'"
        assert str(unknown_name("colour", 7, ["red"])) == "colour is one of red, got 7"
