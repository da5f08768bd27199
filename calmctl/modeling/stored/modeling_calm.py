"""Loads a model composed or adapted with calmctl (pip install calmctl); copied beside the config.json that names it.

With `trust_remote_code=True` transformers finds the classes here, without the user importing calmctl.
"""

from calmctl import AdaptedConfig, AdaptedModelForCausalLM, ComposedConfig, ComposedModelForCausalLM

__all__ = ["AdaptedConfig", "AdaptedModelForCausalLM", "ComposedConfig", "ComposedModelForCausalLM"]
