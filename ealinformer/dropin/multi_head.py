"""A module with the contract of BasicTS's multi-head attention, around any attention of `ealinformer.attention`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from basicts.modules.transformer import KVCache, MultiHeadAttention, RotaryPositionEmbedding
from torch import Tensor, nn

from ealinformer.attention import build_attention
from ealinformer.dropin.mask import read_mask


class _LayerCache(NamedTuple):
    """The host's cache of all layers, and the place of this one."""

    all: KVCache
    layer: int


class DropInAttention(MultiHeadAttention):
    """Stands wherever `basicts.modules.transformer.MultiHeadAttention` stands: same constructor, call and weights.

    A subclass of the host's module. What looks for attention by class, in a model or in a user's code, still finds
    it; sizes, names and initial weights of the projections are the host's by construction, so a state dict of the one
    loads into the other (the attentions with tensors of their own, such as `"linformer"`, add some under
    `attention.`).

    It differs from the host's module where there are no N x N weights to work on:

    - `dropout` falls on the mixed values before the output projection. The expected output is the same.
    - `attention_mask` may be key padding, causal or both; see `ealinformer.dropin.mask.read_mask`.
    - `output_attentions=True` is an error.

    Args:
        hidden_size: width D.
        n_heads: heads of the queries; divides D.
        dropout: rate; see above.
        kv_heads: heads of keys and values, for multi-query and grouped-query attention; divides `n_heads`, which it
            is when None.
        rope: the host's rotary embedding of positions, for self-attention.
        attention: a name known to `ealinformer.attention.build_attention`.
        options: of that attention, such as `entropy="gaussian"`.

    Raises:
        ValueError: the heads do not divide what they should, or `build_attention` refuses name or options.
    """

    attention: Callable[..., Tensor]

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        dropout: float = 0.0,
        kv_heads: int | None = None,
        rope: RotaryPositionEmbedding | None = None,
        *,
        attention: str = "entropy_equal",
        **options: Any,
    ) -> None:
        _check_heads(hidden_size, n_heads, kv_heads or n_heads)
        super().__init__(hidden_size, n_heads, dropout, kv_heads, rope)
        self._use(attention, options)

    @classmethod
    def from_host(
        cls, module: MultiHeadAttention, attention: str = "entropy_equal", **options: Any
    ) -> "DropInAttention":
        """The drop-in for one module of the host, or for an earlier drop-in.

        The projections are shared, not copied: the same parameters on their device, with whatever hooks, adapters or
        frozen weights they carry. `module` itself stays as it is.

        Raises:
            ValueError: see the class.
        """
        _check_heads(module.hidden_size, module.n_heads, module.kv_heads)
        new = cls.__new__(cls)
        # As torch copies a module for its replicas: one dictionary of attributes, and the registers in it once more.
        new.__dict__.update(module.__dict__)
        for register in ("_parameters", "_buffers", "_modules"):
            new.__dict__[register] = module.__dict__[register].copy()
        # An attention of an earlier drop-in, and a compiled call, which would run the forward of `module`.
        new._modules.pop("attention", None)
        for leftover in ("attention", "_compiled_call_impl"):
            new.__dict__.pop(leftover, None)
        new._use(attention, options)
        return new

    def _use(self, attention: str, options: dict[str, Any]) -> None:
        function = build_attention(attention, head_size=self.head_size, **options)
        if isinstance(function, nn.Module):
            weight = next(self.q_proj.parameters())
            function.to(weight.device, weight.dtype if weight.is_floating_point() else None).train(self.training)
        self.attention = function
        self.attention_name = attention
        self.attention_options = options

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_value: KVCache | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        layer_idx: int | None = None,
    ) -> tuple[Tensor, None, KVCache | None]:
        """Self-attention, or cross-attention to `key_value_states`.

        Args:
            hidden_states: `[B, Nq, D]`.
            key_value_states: `[B, N, D]`.
            attention_mask: additive, broadcasts to `[B, heads, Nq, N]`, N counting cached keys.
            position_ids: `[1, Nq]` or `[B, Nq]`, asked for by `rope`.
            past_key_value: the host's cache; keys and values of this call are added to it when `use_cache` is set.
            use_cache: whether to attend to cached keys too.
            output_attentions: only False.
            layer_idx: this layer's place in the cache.

        Returns:
            The output `[B, Nq, D]`, None for the weights, and `past_key_value`.

        Raises:
            ValueError: weights are asked for, `rope` or cache lack what they need, or the mask is none that a linear
                attention can take.
        """
        if output_attentions:
            raise ValueError(f"output_attentions=True asks for weights, which {self.attention_name} never forms")
        cache = None
        if use_cache:
            if past_key_value is None or layer_idx is None:
                raise ValueError("use_cache=True needs past_key_value and layer_idx")
            cache = _LayerCache(past_key_value, layer_idx)
        query = _split_heads(self.q_proj(hidden_states), self.n_heads)
        if key_value_states is not None:
            key, value = self._other_keys_and_values(key_value_states, cache)
        else:
            key, value = self._keys_and_values(hidden_states)
            if self.rope is not None:
                if position_ids is None:
                    raise ValueError("position_ids are needed, for this attention has a rope")
                query, key = self.rope(query, key, position_ids)
            if cache is not None:
                key, value = cache.all.update(key, value, cache.layer)
        mixed = self._mix(query, key, value, attention_mask)
        return self.out_proj(self.dropout(mixed.transpose(1, 2).flatten(-2))), None, past_key_value

    def extra_repr(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.attention_options.items())
        return f"attention={self.attention_name!r}{options}"

    def _keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, kv_heads, N, C]` each, of `[B, N, D]`."""
        return _split_heads(self.k_proj(states), self.kv_heads), _split_heads(self.v_proj(states), self.kv_heads)

    def _other_keys_and_values(self, states: Tensor, cache: "_LayerCache | None") -> tuple[Tensor, Tensor]:
        """Those of cross-attention. The other sequence does not change, so a cache that has them is not asked twice."""
        if cache is None:
            return self._keys_and_values(states)
        if len(cache.all) <= cache.layer:
            cache.all.update(*self._keys_and_values(states), cache.layer)
        key, value = cache.all[cache.layer]
        return key, value

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`[B, heads, Nq, C]` of queries `[B, heads, Nq, C]`, keys and values `[B, kv_heads, N, C]`."""
        if self.num_kv_groups > 1:
            key = key.repeat_interleave(self.num_kv_groups, dim=1)
            value = value.repeat_interleave(self.num_kv_groups, dim=1)
        num_queries, num_keys = query.shape[-2], key.shape[-2]
        causal, key_padding = read_mask(attention_mask, (*query.shape[:-1], num_keys))
        before = num_keys - num_queries if causal else 0
        if before:
            # A chunk that continues a cached sequence. In causal order no query depends on another, so made-up ones
            # may stand in for those of the prefix.
            query = F.pad(query, (0, 0, before, 0))
        return self.attention(query, key, value, key_padding_mask=key_padding, causal=causal)[..., before:, :]


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """`[B, N, heads * C]` -> `[B, heads, N, C]`."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _check_heads(hidden_size: int, n_heads: int, kv_heads: int) -> None:
    if n_heads <= 0 or hidden_size % n_heads:
        raise ValueError(f"n_heads has to divide hidden_size {hidden_size}, got {n_heads}")
    if kv_heads <= 0 or n_heads % kv_heads:
        raise ValueError(f"kv_heads has to divide n_heads {n_heads}, got {kv_heads}")
