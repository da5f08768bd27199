"""Loads a model composed or adapted with calmctl (pip install calmctl); written beside its config.json, which names it.

It is what `trust_remote_code=True` runs: transformers finds the classes here without the user importing calmctl.
"""

from calmctl import AdaptedConfig, AdaptedModelForCausalLM, ComposedConfig, ComposedModelForCausalLM

__all__ = ["AdaptedConfig", "AdaptedModelForCausalLM", "ComposedConfig", "ComposedModelForCausalLM"]
