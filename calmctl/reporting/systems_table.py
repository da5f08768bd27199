"""The systems of all experiments: their label, group, colour and marker in tables and plots."""

from __future__ import annotations

from dataclasses import dataclass

M_A, M_A2, M_B, CALM, RANDOM, LORA, SKYLINE = "m_A", "m_A2", "m_B", "calm", "random_aug", "lora", "m_B_finetuned"

GROUPS = {
    "models": "Models",
    "m_A": "CALM, by what m_A is",
    "D_C": "CALM, by what D_C holds",
    "share": "CALM, by share of keys in D_C",
    "connections": "CALM, by connections",
    "heads": "CALM, by attention heads",
    "methods": "Other methods, on the same D_C",
    "place": "Adapters, by place",
    "rank": "LoRA, by rank",
    "series_width": "Series adapters, by width",
    "parallel_width": "Parallel adapters, by width",
    "prefix_tokens": "Prefix tuning, by virtual tokens",
    "prompt_tokens": "Prompt tuning, by virtual tokens",
    "p_tuning_tokens": "P-tuning, by virtual tokens",
    "untrained": "Without training",
    "skyline": "Skyline, on all of m_A's data",
}
"""Group of systems -> heading, in the order of the tables."""

# Okabe and Ito's palette, which stays distinct under the common colour-vision deficiencies.
_ORANGE, _BLUE, _GREEN, _SKY, _PURPLE, _RED = "#E69F00", "#0072B2", "#009E73", "#56B4E9", "#CC79A7", "#D55E00"
_GREY, _BROWN, _OLIVE, _LIGHT_GREEN = "#8C8C8C", "#B8860B", "#999933", "#73C9B0"


@dataclass(frozen=True)
class SystemRow:
    """How tables and plots show a system.

    Attributes:
        label: `{}` is filled in by the experiment.
        marker: matplotlib marker in line and scatter plots.
    """

    label: str
    group: str
    colour: str = _LIGHT_GREEN
    marker: str = "o"


SYSTEMS = {
    M_A: SystemRow("m_A alone", "models", _ORANGE, "s"),
    M_A2: SystemRow("second m_A alone", "models", _BROWN, "p"),
    M_B: SystemRow("m_B alone", "models", _BLUE, "D"),
    CALM: SystemRow("CALM", "models", _GREEN, "o"),
    RANDOM: SystemRow("random m_A", "m_A", _GREY, "X"),
    "vanilla_aug": SystemRow("vanilla m_A", "m_A", _OLIVE, ">"),
    "aug_as_encoder": SystemRow("m_A as an encoder", "m_A", _LIGHT_GREEN, "*"),
    "one_tokenizer": SystemRow("m_A reads as m_B does", "m_A", _SKY, "<"),
    "dc_subs": SystemRow("D_C subs", "D_C", _SKY, "v"),
    "dc_math": SystemRow("D_C math", "D_C", _PURPLE, "^"),
    LORA: SystemRow("LoRA", "methods", _RED, "s"),
    "prefix": SystemRow("prefix tuning", "methods", _RED, "D"),
    "prompt": SystemRow("prompt tuning", "methods", _RED, "<"),
    "p_tuning": SystemRow("p-tuning", "methods", _RED, ">"),
    "series": SystemRow("series adapters", "methods", _RED, "v"),
    "parallel": SystemRow("parallel adapters", "methods", _RED, "^"),
    "adapter_h": SystemRow("series adapters, before and after MLP", "place", _RED, "H"),
    "series_before": SystemRow("series adapters, before MLP", "place", _RED, "1"),
    "series_attention": SystemRow("series adapters, after attention", "place", _RED, "2"),
    "series_both": SystemRow("series adapters, after attention and MLP", "place", _RED, "3"),
    "parallel_attention": SystemRow("parallel adapters, attention", "place", _RED, "4"),
    "parallel_both": SystemRow("parallel adapters, attention and MLP", "place", _RED, "8"),
    "lora_attention": SystemRow("LoRA, attention", "place", _RED, "p"),
    "lora_feed_forward": SystemRow("LoRA, MLP", "place", _RED, "h"),
    "full": SystemRow("full fine-tuning on D_C", "methods", _RED, "P"),
    "m_A_examples": SystemRow("m_A with {}", "untrained"),
    "m_B_examples": SystemRow("m_B with {}", "untrained"),
    "handover": SystemRow("m_B, given m_A's answer", "untrained"),
    "mixture": SystemRow("m_B and m_A, mixed byte by byte", "untrained"),
    SKYLINE: SystemRow("m_B trained further on m_A's data", "skyline", _SKY, "h"),
    "further": SystemRow("m_B trained further on m_A's data", "skyline", _SKY, "h"),
}
"""Key of a system -> its row; CALM with another value of a number is in `VARIANTS`."""
VARIANTS = {
    "every": SystemRow("{}", "connections", marker="s"),
    "heads": SystemRow("{}", "heads", marker="^"),
    "share": SystemRow("{} of the keys", "share"),
    "lora_rank": SystemRow("LoRA, {}", "rank", _RED, "s"),
    "series_width": SystemRow("series adapters, {}", "series_width", _RED, "v"),
    "parallel_width": SystemRow("parallel adapters, {}", "parallel_width", _RED, "^"),
    "prefix_tokens": SystemRow("prefix tuning, {}", "prefix_tokens", _RED, "D"),
    "prompt_tokens": SystemRow("prompt tuning, {}", "prompt_tokens", _RED, "<"),
    "p_tuning_tokens": SystemRow("p-tuning, {}", "p_tuning_tokens", _RED, ">"),
}
"""Number that is varied -> the row of its variants, whose keys are `every_2`, `share_0.05` and so on."""
SIZE_VARIANTS = {
    "lora": "lora_rank",
    "series": "series_width",
    "parallel": "parallel_width",
    "prefix": "prefix_tokens",
    "prompt": "prompt_tokens",
    "p_tuning": "p_tuning_tokens",
}
"""Method of adapters -> its size, as a number that is varied."""
METHOD_OF = {VARIANTS[varied].group: method for method, varied in SIZE_VARIANTS.items()}
"""Group of variants by the size of an adapter -> the method that has it."""
SIZE_GROUPS = tuple(METHOD_OF)


def is_known(key: str) -> bool:
    """Return whether there is a system with this key."""
    return key in SYSTEMS or key.rpartition("_")[0] in VARIANTS


def system_row(key: str) -> SystemRow:
    """Return the row of a system.

    Raises:
        KeyError: there is no such system.
    """
    return SYSTEMS[key] if key in SYSTEMS else VARIANTS[key.rpartition("_")[0]]


def shown_value(group: str, value: float) -> str:
    """Return a value of a group of variants as labels show it: `every 2 layers`, `1 head`, `5%`, `rank 8`."""
    if group == "share":
        return f"{100 * value:g}%"
    if group == "heads":
        return f"{value:g} head{'s' if value != 1 else ''}"
    if group == "rank":
        return f"rank {value:g}"
    if group.endswith("_width"):
        return f"width {value:g}"
    if group.endswith("_tokens"):
        return f"{value:g} virtual token{'s' if value != 1 else ''}"
    return "every layer" if value == 1 else f"every {value:g} layers"
