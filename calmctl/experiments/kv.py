"""The paper's key-value experiment (section 4.1, table 1, and table 5 for this task)."""

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

from calmctl.baselines.configs import BaselineConfig
from calmctl.errors import UserError
from calmctl.experiments.deviations import composition_deviations, shape_in_words, unequal_training
from calmctl.experiments.kv_config import KVAblationsConfig, ReproduceKVConfig
from calmctl.experiments.kv_systems import DC_MIX, SHORTENED, KVSystems, calm_values, check_compositions, tokenizers
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.systems import Files
from calmctl.reporting.kv_tables import TABLE_1_FILE, TABLE_5_FILE, table1, table5
from calmctl.runs.record import CONFIG_FILE
from calmctl.schema import from_dict
from calmctl.training.configs import TrainConfig
from data_builders.kv.build import aug_file
from data_builders.kv.keys import aug_tokenizer_folder
from data_builders.values import read_yaml

FILES = Files(anchor="anchor_train.parquet", aug=aug_file(0), composition=DC_MIX)
PAPER_KEYS = 25_000
PAPER_HELD_IN = 0.2


def kv_experiment(config: ReproduceKVConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: the folder was written by an earlier version with another folder layout.
    """
    config = _with_ablations_of(config, out)
    return Experiment(
        name="kv",
        config=config,
        data=config.data,
        files=FILES,
        systems=KVSystems,
        tokenizer=config.data.tokenizer or "",
        deviations=_deviations(config),
        values=calm_values(config),
        token_ids=partial(_token_ids, config),
        check=partial(check_compositions, config),
        exports={TABLE_1_FILE: table1} | ({TABLE_5_FILE: table5} if config.ablate else {}),
    )


def _with_ablations_of(config: ReproduceKVConfig, out: Path) -> ReproduceKVConfig:
    """Return the configuration; without `--ablations`, take over those of the run in `out`, if it has any.

    Raises:
        UserError: the folder was written by an earlier version with another folder layout.
    """
    path = out / CONFIG_FILE
    before = read_yaml(path) if path.exists() else {}
    if not isinstance(before, dict):
        return config
    has_other_layout = (out / "eval" / "calm").exists() and not (out / "eval" / "kv").exists()
    if "controls" in before or has_other_layout:
        raise UserError(
            f"{out} was made by an earlier version of calmctl: `calmctl report {shlex.quote(str(out))}` shows what is "
            "complete; to run the experiment, choose another --out"
        )
    if config.ablate or not before.get("ablate"):
        return config
    ablations = from_dict(KVAblationsConfig, before["ablations"])
    return replace(config, ablate=True, ablations=ablations, baseline=from_dict(BaselineConfig, before["baseline"]))


def _token_ids(config: ReproduceKVConfig, folder: str) -> int:
    """Return the number of token ids of a tokenizer that the data stage will build."""
    anchor, *augs = tokenizers(config)
    folders = {aug_tokenizer_folder(index): aug for index, aug in enumerate(augs)}
    return len(folders.get(Path(folder).name, anchor))


def _deviations(config: ReproduceKVConfig) -> list[str]:
    """Return a sentence for each departure from the paper: of data, models, composition, evaluation."""
    return [*_data(config), *_models(config), *_composition(config), *_evaluation(config)]


def _data(config: ReproduceKVConfig) -> list[str]:
    data, found = config.data, []
    if data.num_keys != PAPER_KEYS:
        found.append(f"{data.num_keys:,} keys instead of {PAPER_KEYS:,}")
    if data.num_values != data.num_keys:
        found.append(f"{data.num_keys:,} keys share {data.num_values:,} values; in the paper values are unique")
    if (data.min_operands, data.max_operands) != (3, 6):
        found.append(f"{data.min_operands} to {data.max_operands} operands instead of 3 to 6")
    if set(data.operators) != set("+-x"):
        found.append(f"operators {' '.join(data.operators)} only; the paper has + - x")
    if data.held_in_fraction != PAPER_HELD_IN:
        found.append(f"{data.held_in_fraction:.0%} of the keys are held in instead of {PAPER_HELD_IN:.0%}")
    if data.number_format == "padded":
        found.append("numbers are written with a fixed number of digits, results with their sign")
    if data.anchor_cut is not None:
        found.append(
            f"keys are random letter strings; m_B's tokenizer cuts them by {data.anchor_cut!r}, "
            f"m_A's by {' and '.join(map(repr, data.aug_cuts))}; in the paper m_A's is m_B's"
        )
    elif data.tokenizer is None:
        found.append("keys are random letter strings with a word-level tokenizer, not words of m_A's vocabulary")
    if data.num_augs > 1:
        found.append(f"the keys are shared out to {data.num_augs} m_As; the paper has one")
    return found


def _models(config: ReproduceKVConfig) -> list[str]:
    trained = "trained further" if config.anchor.base else "trained from scratch on arithmetic"
    return [
        f"m_B is {_model(config.anchor)}, {trained}; the paper takes PaLM2-XS as it is",
        f"m_A is {_model(config.aug)}, trained on KV-SUBS alone; the paper trains PaLM2-XXS further",
    ]


def _model(config: TrainConfig) -> str:
    if not config.model:
        return config.base
    return shape_in_words(config.model)


def _composition(config: ReproduceKVConfig) -> list[str]:
    compose, data, found = config.compose, config.data, composition_deviations(config.compose)
    mix = f"{data.mix_stepwise:.0%} stepwise, {data.mix_direct:.0%} direct, {data.mix_num_math:.0%} NUM-MATH"
    found.append(f"the headline D_C is a mix ({mix}); the paper trains on KV-SUBS")
    if {"dc_subs", "dc_math"} & set(config.compare):
        rest = 1 - data.mix_num_math
        found.append(
            f"D_C subs is {rest - data.subs_context:.0%} KV-SUBS, {data.subs_context:.0%} NUM-MATH after keys drawn "
            f"independently of the numbers and {data.mix_num_math:.0%} NUM-MATH; D_C math is {rest:.0%} KV-MATH asked "
            f"directly and {data.mix_num_math:.0%} NUM-MATH"
        )
    if config.ablate and config.ablations.methods:
        found += unequal_training(config)
    if set(SHORTENED) & set(config.compare) and config.control_steps not in (0, compose.train.steps):
        found.append(f"controls train for {config.control_steps} steps, the headline for {compose.train.steps}")
    return found


def _evaluation(config: ReproduceKVConfig) -> list[str]:
    found = ["the headline KV-MATH is stepwise (substitution written out first); the paper does not say how it asks"]
    if config.eval.limit:
        found.append(f"only the first {config.eval.limit} records of the test set are scored")
    return found
