"""`generate` of composed models: their cache, prompt lengths and special token ids."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache

from calmctl.errors import UserError
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.calling import CACHE

CACHE_IMPLEMENTATIONS = ("dynamic", "static")
DECODERS_OWN = ("tokenizer", "assistant_tokenizer")
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class ComposedGenerationMixin(GenerationMixin):
    """Generation with a cache that serves anchor, augs and bridges."""

    config: Any
    new_cache: Callable[..., ComposedCache]

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Generate as any model does, and tell augs that read prompts only where the prompt ends.

        Raises:
            UserError: `inputs_embeds`, an unsupported cache implementation, or special token ids that are not numbers.
        """
        if kwargs.get("inputs_embeds") is not None:
            raise UserError("a composed model generates from input_ids only: anchor and augs each embed the tokens")
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        if self.config.aug_reads == "prompt" and ids is not None:
            self._require_cache_for_guidance(kwargs)
            kwargs.setdefault("prompt_lengths", torch.full(ids.shape[:1], ids.shape[1], device=ids.device))
        for settings in (self.generation_config, kwargs.get("generation_config")):
            if settings is not None:
                read_token_ids(settings)
        depth = self.config.num_hidden_layers
        try:
            return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]
        finally:
            # `assistant_early_exit` lowers it for its drafts and does not restore it when interrupted.
            self.config.num_hidden_layers = depth

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Drop arguments that only decoding strategies need (a tokenizer, for stop strings)."""
        kwargs = {name: value for name, value in kwargs.items() if name not in DECODERS_OWN}
        return super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]

    def _require_cache_for_guidance(self, arguments: dict[str, Any]) -> None:
        """Refuse guidance without a cache: augs that read prompts only would also read the completion."""
        settings = arguments.get("generation_config") or self.generation_config
        scale = arguments.get("guidance_scale", getattr(settings, "guidance_scale", None))
        if scale not in (None, 1.0) and not arguments.get("use_cache", settings.use_cache is not False):
            raise UserError("guidance_scale needs a cache where augs read prompts only; leave out use_cache=False")

    def init_continuous_batching(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: a paged cache holds keys and values of one model only."""
        raise UserError("a composed model has no continuous batching; call generate with a padded batch")

    def _get_candidate_generator(self, **kwargs: Any) -> Any:  # type: ignore[override]
        """Drop `prompt_lengths`, which a plain assistant does not take and a composed one finds itself."""
        model_kwargs = {name: value for name, value in kwargs.pop("model_kwargs").items() if name != "prompt_lengths"}
        return super()._get_candidate_generator(model_kwargs=model_kwargs, **kwargs)  # type: ignore[misc]

    def _prepare_cache_for_generation(  # type: ignore[override]
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Create a composed cache; transformers' own would serve the anchor only."""
        is_static = generation_config.cache_implementation == "static"
        new_cache = partial(self.new_cache, max_cache_length if is_static else None)
        put_own_cache(new_cache, generation_config, model_kwargs, CACHE_IMPLEMENTATIONS)


def put_own_cache(
    new_cache: Callable[[], Cache], settings: GenerationConfig, model_kwargs: dict[str, Any], known: Sequence[str]
) -> None:
    """Put a cache of the model's own into the arguments of its forward pass, unless they hold one or none is wanted.

    Raises:
        UserError: the settings ask for another kind of cache than those in `known`.
    """
    if (implementation := settings.cache_implementation or "dynamic") not in known:
        raise UserError(f"cache_implementation={implementation!r}: this model has {' and '.join(known)}")
    if settings.use_cache is not False and model_kwargs.get(CACHE) is None:
        cache: Any = new_cache()
        if settings.is_assistant:
            # Rejected tokens of a draft will be cropped.
            cache.activate_past_recording()
        model_kwargs[CACHE] = cache


def read_token_ids(settings: GenerationConfig) -> None:
    """Turn special token ids that are text, as in some files, into numbers, in place.

    Raises:
        UserError: the text is no number.
    """
    for name in TOKEN_IDS:
        given = getattr(settings, name, None)
        ids: list[Any] = given if isinstance(given, list) else [given]
        if not any(isinstance(token, str) for token in ids):
            continue
        if wrong := next((token for token in ids if isinstance(token, str) and not token.isdecimal()), None):
            raise UserError(f"{name}={wrong!r} of the generation settings has to be the token's id, a number")
        numbers = [int(token) for token in ids]
        setattr(settings, name, numbers if isinstance(given, list) else numbers[0])
