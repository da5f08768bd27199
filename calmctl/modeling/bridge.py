"""A bridge: the projection and cross-attention of one connection (paper section 3.1).

Shapes: b batch, t anchor positions, s aug positions, h heads, d = d_anchor / h.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calmctl.errors import UserError
from calmctl.modeling.options import BridgeConfig
from calmctl.modeling.residual_streams import Standardize, scale_of

ROTARY_BASE = 10_000.0
# Attention score that `recency` adds for the newest aug token over a distant one in the first head; 0 in the last.
STRONGEST_BIAS = 24.0


class Bridge(nn.Module):
    """Cross-attention from the anchor's states to the projected states of the aug.

    `forward` returns what is ADDED to the anchor layer's output: f_cross(f_proj(H_A), H_B) of the paper.

    Raises:
        UserError: the heads do not divide the anchor's width, or rotary needs an even head width.
    """

    def __init__(self, config: BridgeConfig, aug_size: int, anchor_size: int, anchor_heads: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads or anchor_heads
        self.head_dim, rest = divmod(anchor_size, self.num_heads)
        if rest:
            raise UserError(f"bridge.num_heads={self.num_heads} does not divide the anchor's width {anchor_size}")
        if config.rotary and self.head_dim % 2:
            raise UserError(
                f"bridge.rotary needs an even head width, but {anchor_size} / {self.num_heads} = {self.head_dim}"
            )
        self.rotary, self.share, self.per_dimension = config.rotary, config.share, config.per_dimension
        self.aug_stream = Standardize(aug_size) if config.standardize else None
        self.anchor_stream = Standardize(anchor_size) if config.standardize else None
        self.projection = nn.Linear(aug_size, anchor_size, bias=False)
        self.norm = nn.RMSNorm(anchor_size, elementwise_affine=False) if config.norm else None
        self.query = nn.Linear(anchor_size, anchor_size, bias=False)
        self.key = nn.Linear(anchor_size, anchor_size, bias=False)
        self.value = nn.Linear(anchor_size, anchor_size, bias=False)
        self.query_bias, self.key_bias = (nn.Parameter(self._recency()) if config.recency else None for _ in range(2))
        self.output = nn.Linear(anchor_size, anchor_size, bias=False)
        # Shape (1,), not (): sharding needs a dimension.
        self.gate = nn.Parameter(torch.full((1,), 0.0 if config.zero_init else 1.0)) if config.gate else None
        self.dropout = nn.Dropout(config.dropout)
        if config.zero_init and not config.gate:
            nn.init.zeros_(self.output.weight)

    @torch.no_grad()
    def folded(self) -> Tensor | None:
        """Return [W_K W_P; W_V W_P] (2 d_anchor, d_aug), which replaces three matrices in decoding.

        None if a norm stands between them, or if the weights are offloaded and so unavailable here.
        """
        if self.norm is not None or self.key.weight.is_meta:
            return None
        with torch.autocast(self.key.weight.device.type, enabled=False):
            projection, key, value = (layer.weight.float() for layer in (self.projection, self.key, self.value))
            return (torch.cat([key, value]) @ projection).to(self.key.weight.dtype)

    def keys_values(self, aug_states: Tensor, positions: Tensor, folded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return keys and values (b, h, s, d) of aug states (b, s, d_aug); computed once per aug token.

        Args:
            positions: (b, s) position of each aug token, for rotary bridges.
            folded: result of `folded`: one matrix product instead of three.
        """
        states = self._as_weights(self.aug_stream(aug_states) if self.aug_stream is not None else aug_states)
        if folded is not None:
            keys, values = F.linear(states, folded).chunk(2, dim=-1)
        else:
            projected = self.projection(states)
            if self.norm is not None:
                projected = self.norm(projected)
            keys, values = self.key(projected), self.value(projected)
        if self.key_bias is not None:
            keys = keys + self.key_bias
        return self._rotate(self._split(keys), positions), self._split(values)

    def queries(self, states: Tensor, positions: Tensor) -> Tensor:
        """Return queries (b, h, t, d) of anchor states (b, t, d_anchor)."""
        asking = self.anchor_stream(states) if self.anchor_stream is not None else states
        queries = self.query(self._as_weights(asking))
        if self.query_bias is not None:
            queries = queries + self.query_bias
        return self._rotate(self._split(queries), positions)

    def forward(
        self, states: Tensor, positions: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, eager: bool = False
    ) -> Tensor:
        """Return the update (b, t, d_anchor) for anchor states (b, t, d_anchor).

        Args:
            positions: (b, t) position of each anchor token, for rotary bridges.
            keys, values: (b, h, s, d) from `keys_values`.
            mask: (b, 1, t, s), True = may be attended. A position that may attend to nothing (padding) gets no update.
                None = causal attention with t = s, or a single position (t = 1) that attends to everything.
            eager: attend with plain matrix products instead of the fused kernel.
        """
        queries = self.queries(states, positions)
        if mask is None:
            mixed = _attention(queries, keys, values, None, eager)
        else:
            sees = mask.any(-1, keepdim=True)
            # A softmax over nothing is NaN: let positions that see nothing see everything, then drop the result.
            mixed = torch.where(sees, _attention(queries, keys, values, mask | ~sees, eager), 0.0)
        update = self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))
        if self.gate is not None:
            update = update * self.gate
        if self.anchor_stream is not None:
            update = update * (self.share * scale_of(states))
            if self.per_dimension:
                update = update * self.anchor_stream.deviation
        return update.to(states.dtype)

    def _recency(self) -> Tensor:
        """Return the initial bias (d_anchor,); the score of two such biases is highest at equal positions."""
        strengths = torch.linspace(STRONGEST_BIAS, 0, self.num_heads)
        return (strengths * self.head_dim**-0.5).sqrt().repeat_interleave(self.head_dim)

    def _as_weights(self, states: Tensor) -> Tensor:
        """Cast states to the bridge's dtype; under autocast leave that to autocast."""
        if torch.is_autocast_enabled(states.device.type):
            return states
        return states.to(self.query.weight.dtype)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _rotate(self, states: Tensor, positions: Tensor) -> Tensor:
        """Apply rotary position embedding (RoFormer, arXiv 2104.09864) to (b, h, s, d)."""
        if not self.rotary:
            return states
        half = self.head_dim // 2
        exponents = torch.arange(half, device=states.device, dtype=torch.float32) / half
        angles = positions[:, None, :, None].float() * ROTARY_BASE**-exponents
        cos, sin = angles.cos(), angles.sin()
        first, second = states.float().chunk(2, dim=-1)
        rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return rotated.to(states.dtype)


def forward_flops(aug_size: int, anchor_size: int, aug_tokens: float, is_folded: bool) -> float:
    """Return the forward FLOPs of a bridge's matrices per anchor token, without those of the attention scores.

    Args:
        aug_tokens: number of aug tokens per anchor token.
        is_folded: projection, keys and values are one product (`Bridge.folded`).
    """
    keys_values = 2 * anchor_size * aug_size if is_folded else anchor_size * aug_size + 2 * anchor_size**2
    return 2 * (aug_tokens * keys_values + 2 * anchor_size**2)


def training_flops(aug_size: int, anchor_size: int, aug_tokens: float, is_first: bool) -> float:
    """Return the FLOPs of a bridge's matrices per anchor token in training: forward, weight and input gradients.

    The bridge's inputs need no gradient, except the anchor's states above the first bridge.

    Args:
        is_first: nothing below this bridge is trained.
    """
    projection = 4 * aug_tokens * aug_size * anchor_size
    query = (4 if is_first else 6) * anchor_size**2
    keys_values_output = 6 * (2 * aug_tokens + 1) * anchor_size**2
    return projection + query + keys_values_output


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, eager: bool) -> Tensor:
    """Attend; `eager` uses plain matrix products, on CPU faster than the fused backward pass for short sequences."""
    causal = mask is None and queries.shape[-2] > 1
    if not eager:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
    scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values
