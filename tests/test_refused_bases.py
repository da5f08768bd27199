"""Models that cannot be composed are refused in one line that names the class and what stands in the way."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BartForConditionalGeneration,
    LlamaModel,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling.composition import compose
from calmctl.modeling.layers import layer_output
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.families import SETTINGS, modern
from tests.models import VOCABULARY, example_ids, llama, logits

BERT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
MAMBA = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
HYBRID = {
    "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "attn_layer_indices": [1],
}  # fmt: skip
JAMBA = {
    "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False,
}  # fmt: skip
BOTH_WAYS = {**SETTINGS["Gemma 3"][1], "use_bidirectional_attention": True}
LATER = "attends to later tokens"
STATE = "keeps a recurrent state"
UNFOUND = "found no single ModuleList of 2 decoder layers directly below RobertaModel"

# class, model_type, settings, what the error says, how to build it when not as a causal LM
REFUSED = {
    "BERT": ("BertLMHeadModel", "bert", BERT, rf"{LATER} \(is_decoder=False\)", None),
    "RoBERTa": ("RobertaForCausalLM", "roberta", BERT, rf"{LATER} \(is_decoder=False\)", None),
    "RoBERTa as decoder": ("RobertaForCausalLM", "roberta", {**BERT, "is_decoder": True}, UNFOUND, None),
    "Gemma 3, both ways": ("Gemma3ForCausalLM", "gemma3_text", BOTH_WAYS, LATER, None),
    "T5": ("T5ForConditionalGeneration", "t5", T5, "it is an encoder-decoder", T5ForConditionalGeneration),
    "BART": ("BartForConditionalGeneration", "bart", BART, "it is an encoder-decoder", BartForConditionalGeneration),
    "half of BART": ("BartForCausalLM", "bart", BART, "half of an encoder-decoder.*encoder_attn", None),
    "Mamba": ("MambaForCausalLM", "mamba", MAMBA, STATE, None),
    "Bamba": ("BambaForCausalLM", "bamba", modern(2, width=16, **HYBRID), STATE, None),
    "Jamba": ("JambaForCausalLM", "jamba", modern(2, width=16, **JAMBA), STATE, None),
    "GPT": ("OpenAIGPTLMHeadModel", "openai-gpt", {"n_embd": 16, "n_layer": 2, "n_head": 2},
            "takes no cache", None),
    "no head": ("LlamaModel", "llama", modern(2, width=16), "has no LM head", LlamaModel),
}  # fmt: skip


def build(name: str) -> PreTrainedModel:
    _, model_type, settings, _, model_class = REFUSED[name]
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **special, **settings)
    return model_class(config) if model_class else AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("role", ["anchor", "aug"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_composed_is_named_with_the_reason(name, role):
    class_name, _, _, message, _ = REFUSED[name]
    models = (build(name), llama()) if role == "anchor" else (llama(), build(name))
    with pytest.raises(UserError, match=message) as error:
        compose(*models, every=1)
    assert class_name in str(error.value) and "cannot be composed" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name, row in REFUSED.items() if LATER in row[3]])
def test_what_is_refused_for_looking_ahead_does_look_ahead(name):
    model, ids = build(name).eval(), example_ids()
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 7) % VOCABULARY
    assert not torch.equal(logits(model, ids)[:, 0], logits(model, changed)[:, 0])


def test_several_residual_streams_are_refused():
    with pytest.raises(UserError, match=r"states of shape \(2, 9, 4, 16\)"):
        layer_output(torch.zeros(2, 9, 4, 16))


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("name, message", [("BERT", LATER), ("T5", "T5Config"), ("Mamba", STATE)])
def test_the_command_ends_with_one_line_and_exit_code_2(name, message, dry_run, tmp_path, capsys):
    tokenizer = build_word_tokenizer(["ab", "cd"], ["solve:"])
    for folder, model in (("anchor", llama()), ("aug", build(name))):
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "solve: 1 =", "completion": " 1"}) + "\n")
    command = ["compose", "--anchor", tmp_path / "anchor", "--aug", tmp_path / "aug", "--data", data]
    command += ["--out", tmp_path / "out", "every=1", *(["--dry-run"] if dry_run else [])]
    assert main([str(word) for word in command]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip().splitlines()[-1].startswith("calmctl: error: ") and message in captured.err


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("words, override, message", [
    (["ab", "dc"], "every=1", "have different tokenizers"),
    (["ab", "cd"], "aug_reads=nothing", "aug_reads=nothing: expected one of"),
], ids=["tokenizer", "aug_reads"])  # fmt: skip
def test_a_plan_refuses_what_a_run_would(words, override, message, dry_run, tmp_path, capsys):
    for folder, known in (("anchor", ["ab", "cd"]), ("aug", words)):
        llama().save_pretrained(tmp_path / folder)
        build_word_tokenizer(known, ["solve:"]).save_pretrained(tmp_path / folder)
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "solve: 1 =", "completion": " 1"}) + "\n")
    command = ["compose", "--anchor", tmp_path / "anchor", "--aug", tmp_path / "aug", "--data", data, override]
    command += ["--out", tmp_path / "out", "train.steps=1", *(["--dry-run"] if dry_run else [])]
    assert main([str(word) for word in command]) == 2
    assert message in capsys.readouterr().err
