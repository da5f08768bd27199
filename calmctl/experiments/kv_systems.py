"""The systems of the key-value experiment: the models of table 1, the controls and the ablations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from calmctl.baselines.building import sizes_for
from calmctl.baselines.options import FULL
from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.kv_config import ReproduceKVConfig
from calmctl.experiments.stage import stage_in
from calmctl.experiments.systems import Build, System, Systems, Trained
from calmctl.modeling.bases.public_shapes import Shape
from calmctl.modeling.bases.sources import base_config, load_tokenizer
from calmctl.modeling.layers import num_heads, num_layers
from calmctl.reporting.systems_table import VARIANTS, shown_value
from calmctl.training.configs import TrainConfig
from calmctl.training.plan import model_of, plan_composition
from calmctl.training.whole_models import model_config, model_config_of_size
from data_builders.kv.build import aug_file
from data_builders.kv.keys import aug_tokenizer_folder
from data_builders.kv.text import WORDS
from data_builders.kv.tokenizers import CUTS, build_byte_tokenizer, build_word_tokenizer

DC_MIX = "dc_mix.parquet"
# Composition -> its m_A and its D_C.
COMPOSITIONS = {
    "calm": ("aug", DC_MIX),
    "one_tokenizer": ("aug_one_tokenizer", DC_MIX),
    "random_aug": ("aug_random", DC_MIX),
    "dc_subs": ("aug", "dc_subs.parquet"),
    "dc_math": ("aug", "dc_math.parquet"),
}
SHORTENED = ("random_aug", "dc_subs", "dc_math")
VANILLA = "vanilla"


class KVSystems(Systems):
    """Builds the systems of the key-value experiment."""

    config: ReproduceKVConfig

    def all(self) -> list[System]:
        """Return every system: each m_A, m_B, CALM, its controls, then its ablations."""
        return [*super().all(), *(self._ablations() if self.config.ablate else ())]

    def _tokenizer_of(self, train: TrainConfig) -> str:
        return self.tokenizer  # even for an existing base: the data are built for this tokenizer

    def _compared(self, key: str) -> System:
        return self.per_seed(key, self._composition)

    def _composition(self, key: str, name: str, seed: int) -> Trained:
        source, file = COMPOSITIONS[key]
        train, steps = self.config.compose.train, self.config.control_steps
        if key in SHORTENED and steps:
            train = replace(train, steps=steps)
        return self.composed(name, seed, self._trained_augs(source), file, train=train)

    def _asked(self, model: Trained, name: str, scored: EvalConfig) -> tuple[EvalConfig, tuple[str, ...]]:
        return replace(scored, dataset=model.dataset or str(self.data)), model.needs

    def _trained_augs(self, source: str = "aug") -> list[Trained]:
        """Return the m_As named `source`; if there are several, each is trained on a part of the keys."""
        found, data = [], self.config.data
        for index in range(data.num_augs):
            own = data.anchor_cut is not None and source != "aug_one_tokenizer"
            file = self.files.anchor if source == VANILLA else aug_file(index)
            settings = replace(
                self.config.aug,
                dataset=str(self.data / file),
                tokenizer=str(self.data / aug_tokenizer_folder(index)) if own else self.tokenizer,
            )
            if source == "aug_random":
                settings = replace(settings, train=replace(settings.train, steps=0))
            name = source if index == 0 else f"{source}{index + 1}"
            stage = stage_in(self.out, name, ("train", "aug"), settings, ("data",))
            found.append(Trained(self.config.seed, name, str(stage.folder), (stage,)))
        return found

    def _ablations(self) -> Iterator[System]:
        """Yield the ablations: CALM with one change each, then other methods."""
        chosen, compose, calm = self.config.ablations, self.config.compose, calm_values(self.config)
        if chosen.vanilla_aug:
            yield self.per_seed("vanilla_aug", self._with_vanilla_aug)
        if chosen.encoder_aug and compose.aug_reads != "prompt":
            yield self.per_seed("aug_as_encoder", self._changed(aug_reads="prompt"))
        for every in chosen.every:
            if every != calm["connections"]:
                yield self._variant("every", every, self._changed(every=every, num=None, connections=None))
        for heads in chosen.heads:
            if heads != calm["heads"]:
                yield self._variant("heads", heads, self._changed(bridge=replace(compose.bridge, num_heads=heads)))
        for share in chosen.shares:
            if share != calm["share"]:
                yield self._variant("share", share, partial(self._with_share_of_keys, share))
        for method in chosen.methods:
            yield self.per_seed(method, self._baseline)
        if chosen.further_training:
            yield self.per_seed("further", self._further)

    def _changed(self, **changes: Any) -> Build:
        """Return a function that builds CALM with changed settings."""
        return lambda key, name, seed: self.composed(name, seed, self.augs, **changes)

    def _variant(self, key: str, value: float, build: Build) -> System:
        """Return CALM with another value of the number that `key` names."""
        row = VARIANTS[key]
        return self.per_seed(f"{key}_{value:g}", build, row.label.format(shown_value(row.group, value)), value)

    def _with_vanilla_aug(self, key: str, name: str, seed: int) -> Trained:
        """Return the composition with an m_A that does not know the keys: trained on the anchor's data."""
        return self.composed(name, seed, self._trained_augs(VANILLA))

    def _with_share_of_keys(self, share: float, key: str, name: str, seed: int) -> Trained:
        """Return the composition trained on a D_C over another share of the keys; keys and values are the same.

        It has its own test set, since other keys are held out.
        """
        folder = f"data_share_{share:g}"
        with _naming(f"ablations.shares={share:g}"):
            settings = replace(self.config.data, held_in_fraction=share)
        data = stage_in(self.out, folder, ("data", "kv"), settings, result="manifest.json")
        trained = self.composed(name, seed, self.augs, str(data.folder / DC_MIX), (folder,))
        return replace(trained, stages=(data, *trained.stages), dataset=str(data.folder))

    def _further(self, key: str, name: str, seed: int) -> Trained:
        """Return m_B fully fine-tuned on m_A's data, with the baseline's training settings."""
        return self._baseline(FULL, name, seed, aug_file(0))


def calm_values(config: ReproduceKVConfig) -> dict[str, float | None]:
    """Return the headline's value of each number that is varied, by group; None = the headline has no such value."""
    compose = config.compose
    is_regular = compose.connections is None and compose.num is None
    return {
        "share": config.data.held_in_fraction,
        "heads": compose.bridge.num_heads or _anchor_heads(config.anchor),
        "connections": compose.every if is_regular else None,
    }


def _anchor_heads(train: TrainConfig) -> int:
    """Return the number of attention heads of m_B."""
    if train.base:
        return num_heads(base_config(train.base, trust_remote_code=train.trust_remote_code))
    return num_heads(model_config_of_size(train.model, 1))  # the vocabulary size does not matter


def check_compositions(config: ReproduceKVConfig) -> None:
    """Raise UserError for a composition or an ablation that cannot be built: now, not after hours of training."""
    chosen, compose = config.ablations, config.compose
    base, shapes = base_configs(config)
    anchor, augs = model_of(Shape(base)), [model_of(Shape(shape)) for shape in shapes]
    wanted = plan_composition(compose, anchor, augs).trainable
    if not config.ablate:
        return
    for every in chosen.every:
        if every > (layers := num_layers(shapes[0])):
            raise UserError(f"ablations.every={every}: m_A has {layers} layers only")
        with _naming(f"ablations.every={every}"):
            plan_composition(replace(compose, every=every, num=None, connections=None), anchor, augs)
    for heads in chosen.heads:
        with _naming(f"ablations.heads={heads}"):
            plan_composition(replace(compose, bridge=replace(compose.bridge, num_heads=heads)), anchor, augs)
    for method in chosen.methods:
        if method != FULL:
            with _naming(f"ablations.methods={method}"):
                sizes_for(anchor.plain, method, wanted, None, config.baseline.options)


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Prefix a UserError of the block with the setting that caused it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting}: {error}") from error


def base_configs(config: ReproduceKVConfig) -> tuple[PreTrainedConfig, list[PreTrainedConfig]]:
    """Return the model configurations of m_B and of each m_A, without needing trained models."""
    tokenizer, *aug_tokenizers = tokenizers(config)
    return (
        _model_config(config.anchor, tokenizer),
        [_model_config(config.aug, each) for each in aug_tokenizers or [tokenizer]],
    )


def _model_config(train: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    if train.base:
        return base_config(train.base, trust_remote_code=train.trust_remote_code)
    return model_config(train.model, tokenizer)


def tokenizers(config: ReproduceKVConfig) -> list[PreTrainedTokenizerBase]:
    """Return the one shared tokenizer, or m_B's and each m_A's; of the same sizes as those of the data to be built."""
    data = config.data
    if data.tokenizer is not None:
        return [load_tokenizer(data.tokenizer)]
    names = [f"key{number}" for number in range(data.num_keys)]
    if data.anchor_cut is None:
        return [build_word_tokenizer(names, WORDS)]
    shares = [names, *(names[aug :: data.num_augs] for aug in range(data.num_augs))]
    cuts = (data.anchor_cut, *data.aug_cuts)
    return [build_byte_tokenizer(CUTS[cut], keys, WORDS) for cut, keys in zip(cuts, shares, strict=True)]
