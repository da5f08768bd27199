"""What tables call the methods that a composition is compared with."""

METHOD_LABELS = {
    "lora": "LoRA",
    "prefix": "prefix tuning",
    "series": "series adapters",
    "parallel": "parallel adapters",
    "full": "full fine-tuning on D_C",
}
