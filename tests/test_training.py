"""Training: what is learned, which batches are drawn, and that an interrupted run ends as a straight one does."""

import copy
import itertools
import json
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import TrainingArguments

from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.loss import IGNORED
from calmctl.runs.run import Run, read_run
from calmctl.training import arguments, trainer
from calmctl.training.batches import Batches
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.curriculum import Curriculum
from calmctl.training.examples import Examples, load_examples
from calmctl.training.jobs import run_composition, run_training
from calmctl.training.optimizer import MuonWithAdamW, build_optimizer
from calmctl.training.settings import CurriculumSettings, TrainSettings
from data_builders.kv.word_tokenizer import build_word_tokenizer
from tests.models import llama

KEYS = ["ab", "cde", "fghi"]
MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
SETTINGS = TrainSettings(
    steps=8, batch_size=4, optimizer="muon", lr=0.01, warmup_steps=2, save_every=3, log_every=1, bucket_width=1
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(KEYS, ["substitute:", "solve:"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A tokenizer, and additions of two and three operands."""
    folder = tmp_path_factory.mktemp("training")
    tokenizer.save_pretrained(folder / "tokenizer")
    generator = np.random.default_rng(0)
    rows = []
    for count in (2, 3):
        for _ in range(30):
            numbers = generator.integers(1, 30, count)
            kind = "context" if generator.random() < 0.3 else "plain"
            rows.append(
                {
                    "prompt": f"solve: {' + '.join(map(str, numbers))} =",
                    "completion": f" {numbers.sum()}",
                    "meta": {"num_operands": count, "kind": kind},
                }
            )
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def examples(folder, tokenizer):
    return load_examples(folder / "train.jsonl", tokenizer, SETTINGS)


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_only_completions_are_learned(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", {"prompt": "solve: 1 + 2 =", "completion": " 3"})
    examples = load_examples(path, tokenizer, SETTINGS)
    batch = Batches(examples, SETTINGS, 0, 0).collate(np.array([0]))
    learned = batch["labels"][0] != IGNORED
    assert tokenizer.decode(batch["input_ids"][0][learned]).split() == ["3", tokenizer.eos_token]
    assert torch.equal(batch["labels"][0][learned], batch["input_ids"][0][learned])


def test_text_is_learned_whole_and_eos_is_optional(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", {"text": "1 + 2 = 3"})
    with_eos, without = (load_examples(path, tokenizer, replace(SETTINGS, append_eos=eos)) for eos in (True, False))
    assert with_eos.completion_starts[0] == 0
    assert list(with_eos.example(0)) == [*without.example(0), tokenizer.eos_token_id]


@pytest.mark.parametrize("yes, no", [(True, False), (1, 0)])
def test_only_a_row_that_says_so_goes_on_after_its_end(yes, no, tmp_path, tokenizer):
    said = [{"open_ended": yes}, {"open_ended": no}, {"other": 2}, {}, None]
    path = write(tmp_path / "a.jsonl", *({"text": "1 + 2 = 3", "meta": meta} for meta in said))
    examples = load_examples(path, tokenizer, SETTINGS)
    ends = [examples.example(row)[-1] == tokenizer.eos_token_id for row in range(len(said))]
    assert ends == [False, True, True, True, True]


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", "x", "must be .jsonl or .parquet"),
    ("missing.jsonl", None, "no such training file"),
    ("a.jsonl", '{"question": "x"}\n', "needs columns"),
    ("a.jsonl", '{"text": "a"}\n\nnot json\n', "a.jsonl:3: is no JSON"),
    ("a.jsonl", '{"text": "a"}\n{"text": 1}\n', "a.jsonl:2: `text` is not text"),
    ("a.jsonl", '{"text": "a"}\n[]\n', "a.jsonl:2: no JSON object"),
    ("a.jsonl", '{"text": 1}\n', "a.jsonl:1: `text` is not text"),
    ("a.jsonl", '{"text": null}\n', "needs columns"),
    ("a.jsonl", '{"text": "a"}\n{"text": null}\n', "row 2 has no `text`"),
    ("a.jsonl", "", "cannot be read|no rows"),
    ("a.jsonl", '{"text": "1"}\n{"text": ""}\n', "row 2 has nothing to learn.*1 such rows of 2.*on_empty_completion"),
    ("a.jsonl", '{"prompt": "1", "completion": ""}\n', "row 1 has nothing to learn"),
])  # fmt: skip
def test_bad_training_files_are_one_clear_error(tmp_path, tokenizer, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_examples(tmp_path / name, tokenizer, SETTINGS)


def test_texts_like_dates_long_lines_and_other_types_of_text_are_read(tmp_path, tokenizer):
    dates = write(tmp_path / "dates.jsonl", {"prompt": "2024-01-01", "completion": "2024-01-02"})
    assert load_examples(dates, tokenizer, SETTINGS).counts["examples"] == 1
    long = write(tmp_path / "long.jsonl", {"text": "1 2", "note": "x" * 3_000_000}, {"text": "2 3", "note": ""})
    assert load_examples(long, tokenizer, SETTINGS).counts["examples"] == 2
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        table = pa.table({"prompt": pa.array(["1 + 2 ="], kind), "completion": pa.array([" 3"], kind)})
        pq.write_table(table, tmp_path / "a.parquet")
        assert load_examples(tmp_path / "a.parquet", tokenizer, SETTINGS).counts["examples"] == 1


def test_a_batch_is_a_function_of_seed_and_step_alone(examples):
    first, second = (Batches(examples, SETTINGS, 5, 0) for _ in range(2))
    list(first)
    second.start_step = 4
    expected, found = list(first)[4:], list(second)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(expected, found, strict=True))
    other = Batches(examples, SETTINGS, 6, 0)
    assert any(not np.array_equal(first.rows(step), other.rows(step)) for step in range(8))


def test_batches_share_a_length_and_cover_all_lengths(examples):
    batches = Batches(examples, SETTINGS, 0, 0)
    lengths = [set(examples.lengths[batches.rows(step)]) for step in range(200)]
    assert all(len(found) == 1 for found in lengths)
    assert set.union(*lengths) == set(examples.lengths)


def test_a_token_budget_bounds_every_batch(examples):
    batches = Batches(examples, replace(SETTINGS, batch_tokens=50), 0, 0)
    for batch in batches:
        assert 50 - batch["input_ids"].shape[1] < batch["input_ids"].numel() <= 50


@pytest.mark.parametrize(
    "settings", [{"batch_size": 7}, {"batch_tokens": 50}, {"batch_tokens": 50, "accumulation": 4}], ids=str
)
def test_an_epoch_takes_every_example_once(examples, settings):
    settings = replace(SETTINGS, sampling="epochs", steps=400, **settings)
    batches, drawn, epochs = Batches(examples, settings, 5, 0), [], 0
    for step in range(settings.steps):
        rows = batches.rows(step)
        assert len(rows) >= settings.accumulation
        drawn += rows.tolist()
        if len(drawn) == len(examples):
            assert sorted(drawn) == list(range(len(examples)))
            drawn, epochs = [], epochs + 1
        assert len(drawn) < len(examples)
    assert epochs >= 2
    steps = [300, 3, 299]
    other = Batches(examples, settings, 5, 0)
    assert all(np.array_equal(other.rows(step), batches.rows(step)) for step in steps)
    assert not np.array_equal(Batches(examples, settings, 6, 0).rows(3), batches.rows(3))
    assert batches.passes == pytest.approx(epochs + len(drawn) / len(examples), rel=0.05)
    if not settings.batch_tokens:
        assert {len(batches.rows(step)) for step in range(100)} <= {6, 7}
    few = examples.subset(np.arange(3))
    with pytest.raises(UserError, match="train.accumulation=4: the data has 3 examples"):
        Batches(few, replace(settings, batch_size=8, accumulation=4), 0, 0)
    if settings.batch_tokens:
        longest = [examples.lengths[batches.rows(step)].max() * len(batches.rows(step)) for step in range(200)]
        assert np.mean(np.array(longest) <= 50 + 8 * settings.accumulation) > 0.9


def test_micro_batches_partition_a_step(examples):
    settings = replace(SETTINGS, batch_size=8)
    whole = Batches(examples, settings, 0, 0)
    accumulated = Batches(examples, replace(settings, accumulation=4), 0, 0)
    assert len(accumulated) == len(list(accumulated)) == 32
    parts = [batch["input_ids"] for batch in list(accumulated)[:4]]
    assert torch.equal(torch.cat(parts), next(iter(whole))["input_ids"])


def curriculum(examples, **settings) -> Curriculum:
    return Curriculum(
        CurriculumSettings("num_operands", 2, 3, held_back_kind="context", held_back_until=3, **settings), examples
    )


def test_the_curriculum_goes_up_when_the_newest_examples_are_answered(examples):
    course = curriculum(examples, threshold=0.5)
    batches = Batches(examples, SETTINGS, 0, 0, course)
    seen = {value for step in range(50) for value in course.values[batches.rows(step)]}
    kinds = {kind for step in range(50) for kind in examples.meta["kind"][batches.rows(step)]}
    assert seen == {2} and kinds == {"plain"}
    for _ in range(4):
        batches.observe(1.0)
    assert course.level == 2
    for _ in range(4):
        batches.observe(1.0)
    assert course.level == 3
    seen = {value for step in range(50) for value in course.values[batches.rows(step)]}
    kinds = {kind for step in range(50) for kind in examples.meta["kind"][batches.rows(step)]}
    assert seen == {2, 3} and kinds == {"plain", "context"}


def test_the_last_level_is_drawn_by_its_weights(examples):
    course = curriculum(examples, final_weights=(0, 1))
    course.level = 3
    batches = Batches(examples, SETTINGS, 0, 0, course)
    assert {value for step in range(50) for value in course.values[batches.rows(step)]} == {3}


def test_curriculum_errors_name_the_field(examples):
    with pytest.raises(UserError, match="'depth' is not in the examples' meta"):
        Curriculum(CurriculumSettings("depth"), examples)
    with pytest.raises(UserError, match=r"no examples with num_operands = \[4, 5, 6\]"):
        Curriculum(CurriculumSettings("num_operands"), examples)
    # Levels below the last need examples that are not held back: to be drawn, and to be left.
    rare = replace(examples, meta=examples.meta | {"kind": np.array(["rare"] * len(examples))})
    for until, missing in ((3, "2"), (2, "2"), (4, "2, 3")):
        held_back = CurriculumSettings("num_operands", stop=3, held_back_kind="rare", held_back_until=until)
        with pytest.raises(UserError, match=rf"num_operands = \[{missing}\] but those of the held-back kind 'rare'"):
            Curriculum(held_back, rare)


def test_muon_takes_matrices_and_adamw_the_rest():
    model = llama()
    optimizer = build_optimizer(model, SETTINGS)
    assert isinstance(optimizer, MuonWithAdamW)
    muon, adamw = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all("proj" in names[i] for i in muon)
    assert {names[i] for i in adamw} >= {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}
    assert muon | adamw == names.keys()


def test_an_optimizer_state_continues_where_it_was():
    ids = torch.arange(2, 14).view(2, 6)

    def steps(model, optimizer, count):
        for _ in range(count):
            model(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    straight, resumed = llama(), llama()
    one = build_optimizer(straight, SETTINGS)
    steps(straight, one, 4)
    two = build_optimizer(resumed, SETTINGS)
    steps(resumed, two, 2)
    three = build_optimizer(resumed, SETTINGS)
    three.load_state_dict(two.state_dict())
    steps(resumed, three, 2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def train_config(folder: Path, **settings) -> TrainConfig:
    course = CurriculumSettings("num_operands", 2, 3, threshold=0.001, held_back_kind="context", held_back_until=3)
    train = replace(SETTINGS, curriculum=course, **settings)
    return TrainConfig(str(folder / "tokenizer"), model=MODEL, dataset=str(folder / "train.jsonl"), seed=3, train=train)


@pytest.fixture
def bases(folder, tmp_path) -> tuple[str, str]:
    """Two runs that saved untrained models."""
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_training(replace(train_config(folder, steps=0), seed=seed), tmp_path / name)
    return str(tmp_path / "anchor"), str(tmp_path / "aug")


def run_job(kind: str, folder: Path, bases: tuple[str, str], out: Path) -> Run:
    if kind == "train":
        return run_training(train_config(folder), out)
    config = ComposeConfig(bases[0], (bases[1],), every=1, dataset=str(folder / "train.jsonl"), seed=3, train=SETTINGS)
    return run_composition(config, out)


def rows_without_times(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in run.read_jsonl()]


@pytest.mark.parametrize("kind", ["train", "compose"])
@pytest.mark.parametrize("stop_after", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_bit_identical_to_a_straight_one(
    folder, bases, tmp_path, monkeypatch, kind, stop_after
):
    straight = run_job(kind, folder, bases, tmp_path / "straight")
    append = Run.append_jsonl

    def interrupt(run: Run, row: dict, **options: bool) -> None:
        append(run, row, **options)
        if row["step"] == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt)
        run_job(kind, folder, bases, tmp_path / "resumed")
    assert json.loads((tmp_path / "resumed" / "run.json").read_text())["status"] == "interrupted"
    resumed = run_job(kind, folder, bases, tmp_path / "resumed")
    assert rows_without_times(resumed) == rows_without_times(straight)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "resumed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])


def test_a_complete_run_is_not_repeated_and_another_configuration_is_refused(folder, bases, tmp_path):
    first = run_job("train", folder, bases, tmp_path / "out")
    again = run_job("train", folder, bases, tmp_path / "out")
    assert again.is_complete and again.facts["finished"] == first.facts["finished"]
    with pytest.raises(UserError, match="train.lr"):
        run_training(replace(train_config(folder), train=replace(SETTINGS, lr=0.5)), tmp_path / "out")
    assert run_training(train_config(folder, sharding="fsdp"), tmp_path / "out").is_complete


def test_composition_leaves_its_bases_untouched_on_disk_and_in_memory(folder, bases, tmp_path):
    files = [Path(base) / "model" / "model.safetensors" for base in bases]
    before = [file.read_bytes() for file in files]
    run = run_job("compose", folder, bases, tmp_path / "out")
    assert [file.read_bytes() for file in files] == before
    bridges = load_file(tmp_path / "out" / "model" / "model.safetensors")
    trained = [tensor for name, tensor in bridges.items() if "_stream" not in name]
    assert sum(tensor.numel() for tensor in trained) == run.facts["trainable_parameters"]
    assert any(tensor.abs().sum() > 0 for name, tensor in bridges.items() if "output" in name)


def test_a_model_can_be_trained_further(folder, bases, tmp_path):
    config = replace(train_config(folder), model={}, base=bases[0], tokenizer="")
    run = run_training(config, tmp_path / "further")
    start = load_file(Path(bases[0]) / "model" / "model.safetensors")
    end = load_file(tmp_path / "further" / "model" / "model.safetensors")
    assert run.is_complete and any(not torch.equal(start[name], end[name]) for name in start)
    assert json.loads((tmp_path / "further" / "model" / "config.json").read_text())["use_cache"] is True


def test_models_with_different_tokenizers_are_refused(folder, bases, tmp_path):
    build_word_tokenizer(["other"], ["substitute:", "solve:"]).save_pretrained(tmp_path / "tokens")
    config = replace(train_config(folder, steps=0), tokenizer=str(tmp_path / "tokens"))
    run_training(config, tmp_path / "other")
    with pytest.raises(UserError, match="different tokenizers"):
        run_job("compose", folder, (bases[0], str(tmp_path / "other")), tmp_path / "out")


@pytest.mark.parametrize("config, message", [
    (TrainConfig(), "give --base"),
    (TrainConfig(model=MODEL), "dataset is not set"),
    (TrainConfig("nowhere", dataset="x.jsonl", model=MODEL), "cannot load a tokenizer"),
    (TrainConfig(dataset="x.jsonl", base="nowhere"), "cannot load"),
])  # fmt: skip
def test_bad_training_settings_are_one_clear_error(tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        run_training(config, tmp_path / "out")


def test_a_diverged_run_fails_instead_of_saving_garbage(folder, tmp_path):
    config = replace(train_config(folder, lr=1e30, adamw_lr=1e30, grad_clip=0.0), seed=1)
    with pytest.raises(CalmctlError, match=r"step \d+: the loss is .* after rows \d.*lower train.lr"):
        run_training(config, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_divergence_names_the_step_and_the_rows_and_leaves_the_last_good_checkpoint(
    folder, examples, tmp_path, monkeypatch
):
    """The loss is not finite at step 5; rows of the log come at 3 (with the checkpoint) and 4, and at 6 it shows."""
    settings = replace(SETTINGS, log_every=4, batch_size=2)
    completion_loss = trainer.completion_loss
    calls = itertools.count()  # before the first step a pass counts FLOPs
    monkeypatch.setattr(trainer, "completion_loss", lambda *a: completion_loss(*a) * (nan if next(calls) == 5 else 1))
    rows = np.unique(examples.rows[Batches(examples, settings, 3, 0).rows(4)])
    with pytest.raises(CalmctlError, match=f"step 5: the loss is nan after rows {', '.join(map(str, rows))} of the"):
        run_training(replace(train_config(folder), train=settings), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert read_run(tmp_path / "out").status == "failed"


def test_a_base_that_changes_fails_the_run(folder, bases, tmp_path, monkeypatch):
    forward = ComposedModelForCausalLM.forward

    def spoil(model: ComposedModelForCausalLM, *arguments, **options):
        with torch.no_grad():
            next(model.anchor.parameters())[0, 0] += 1e-3
        return forward(model, *arguments, **options)

    monkeypatch.setattr(ComposedModelForCausalLM, "forward", spoil)
    with pytest.raises(CalmctlError, match="the anchor changed during the training, although it is frozen"):
        run_job("compose", folder, bases, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_bases_have_no_dropout_and_bridges_have_while_they_are_trained(folder, bases, tmp_path, monkeypatch):
    seen = []
    forward = ComposedModelForCausalLM.forward

    def look(model: ComposedModelForCausalLM, *arguments, **options):
        parts = (model.anchor, model.augs, model.bridges)
        seen.append([{module.training for module in part.modules()} for part in parts])
        return forward(model, *arguments, **options)

    monkeypatch.setattr(ComposedModelForCausalLM, "forward", look)
    run_job("compose", folder, bases, tmp_path / "out")
    trained = seen[-1 - SETTINGS.steps :]  # after the self-check
    assert len(trained) == 1 + SETTINGS.steps and all(modes == [{False}, {False}, {True}] for modes in trained)


def test_long_and_empty_examples_are_refused_left_out_or_cut_and_counted(tmp_path, tokenizer, caplog):
    def load(**settings: str) -> Examples:
        return load_examples(path, tokenizer, replace(SETTINGS, **settings), context=6)

    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "solve: 1 =", "completion": " 1", "meta": {"level": 1}},
        {"prompt": "solve: 1 =", "completion": "", "meta": {"level": 2}},
        {"prompt": "solve: 1 =", "completion": " 1 + 1 + 1 + 1", "meta": {"level": 3}},
        {"prompt": "solve: 1 + 1 + 1 + 1 + 1 + 1 =", "completion": " 6", "meta": {"level": 4}},
    )
    with pytest.raises(UserError, match="row 2 has nothing to learn"):
        load()
    with pytest.raises(UserError, match=r"2 of 4 examples are longer .* of 6 tokens .*the longest, row 4, has \d+\)"):
        load(on_empty_completion="drop")
    dropped = load(on_empty_completion="drop", on_long_example="drop")
    assert (list(dropped.rows), list(dropped.meta["level"])) == ([1], [1])
    assert dropped.counts == {"rows": 4, "examples": 1, "dropped_empty": 1, "dropped_long": 2, "truncated": 0}
    cut = load(on_empty_completion="drop", on_long_example="truncate")
    assert (list(cut.rows), list(cut.meta["level"]), cut.lengths.max()) == ([1, 3], [1, 3], 6)
    assert cut.counts == {"rows": 4, "examples": 2, "dropped_empty": 1, "dropped_long": 1, "truncated": 1}
    assert "of 4 rows, 1 are left out as empty, 1 as longer than the context, and 1 are cut" in caplog.messages[-1]


def test_a_first_token_alone_is_nothing_to_learn(tmp_path, tokenizer):
    """Nothing stands before it to predict it from, and one that opens every text says nothing."""
    path = write(tmp_path / "a.jsonl", {"text": "1 + 1", "prompt": "1"}, {"text": "1", "prompt": "1"})
    with pytest.raises(UserError, match="row 2 has nothing to learn"):
        load_examples(path, tokenizer, replace(SETTINGS, append_eos=False))
    opening = copy.deepcopy(tokenizer)
    pair = (opening.eos_token, opening.eos_token_id)
    opening.backend_tokenizer.post_processor = TemplateProcessing(single=f"{pair[0]} $A", special_tokens=[pair])
    path = write(tmp_path / "b.jsonl", {"text": "1"}, {"text": ""})
    with pytest.raises(UserError, match=r"row 2 has nothing to learn.*\(1 such rows of 2\)"):
        load_examples(path, opening, SETTINGS)


def test_counts_of_the_data_are_in_the_run(folder, tmp_path):
    config = replace(train_config(folder), model=MODEL | {"max_position_embeddings": 8})
    with pytest.raises(UserError, match="longer than the model's context of 8 tokens .*the longest, row"):
        run_training(config, tmp_path / "out")
    dropped = replace(config, train=replace(SETTINGS, on_long_example="drop", steps=1))
    counts = run_training(dropped, tmp_path / "out").facts["examples"]
    assert counts["rows"] == 60 and 0 < counts["dropped_long"] == 60 - counts["examples"]


def test_one_process_trains_on_one_gpu_where_it_sees_several(tmp_path, monkeypatch):
    # Else the Trainer makes a matrix of the loss, for DataParallel, which is not used.
    class OnTwoGPUs(TrainingArguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 2

    monkeypatch.setattr(arguments, "TrainingArguments", OnTwoGPUs)
    assert arguments.training_arguments(SETTINGS, tmp_path, seed=0, is_validated=False).n_gpu == 1


def test_unknown_architectures_are_one_clear_error(folder, tmp_path):
    with pytest.raises(UserError, match="model_type='lama'"):
        run_training(replace(train_config(folder), model={"model_type": "lama"}), tmp_path / "out")
    for unfit in ({"num_attention_heads": 4, "num_key_value_heads": 3}, {"hidden_size": 15}):
        with pytest.raises(UserError, match="model"):
            run_training(replace(train_config(folder), model=MODEL | unfit), tmp_path / "unfit")


@pytest.mark.parametrize("settings", [
    {"precision": "int8"}, {"sharding": "zero"},
    {"optimizer": "sgd"}, {"steps": -1}, {"batch_size": 6, "accumulation": 4}, {"save_every": 0}, {"batch_tokens": -1},
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainSettings(**settings)
