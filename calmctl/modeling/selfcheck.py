"""The self-check: test the invariants of a composed model on the real pair of bases before training.

It takes a few tokens and a dozen short forward passes. Bridges that start at zero would hide every fault, so for the
check they get random outputs, about as large as the states that they are added to; afterwards everything is restored.

Bridges that large can make a sound pair of 16-bit models so sensitive that rounding looks like a fault. So a check that
fails in 16 bits is repeated in float32, where rounding vanishes and a fault remains.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.sources import is_own_code, without_weights
from calmctl.modeling.calling import CACHE
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.loss import IGNORED
from calmctl.modeling.opened_bridges import close, open_up, restored
from calmctl.modeling.probe import deviation, has_halves, in_float32, probe_ids, tolerance, unchanged_chance
from calmctl.modeling.stored.weights import load_parameters

ROWS, LENGTH, LEFT, RIGHT = 2, 10, 3, 2
# Lengths of prefixes whose later tokens are replaced; chunk lengths for the cache, a prompt first.
SEEN, CHUNKS = (4, LENGTH - 1), (4, 1, 3, 2)


def check_composition(model: ComposedModelForCausalLM, folder: str | Path | None = None) -> dict[str, float]:
    """Check a composed model on itself; return the measured deviations (see `probe.deviation`) and seconds.

    `rounding` is a deviation of 16-bit models that was gone in float32, in which all others were then measured.
    Weights, gradients, mode and random states are restored bit by bit.

    Args:
        folder: where to store the bridges for a moment, on the disk that is going to keep them; None = the temporary
            folder.

    Raises:
        UserError: one line that names the bases, what failed, and by how much.
    """
    began = time.monotonic()
    devices = [parameter.device for parameter in model.composition_parameters().values()]
    with (
        unchanged_chance(*devices),
        tempfile.TemporaryDirectory(prefix=".self-check-", dir=folder) as scratch,
    ):
        file = Path(scratch) / "bridges.safetensors"
        try:
            measured = _measured(model, file)
        except _Refused as refused:
            if refused.deviation is None:
                raise
            try:
                with in_float32(model):
                    measured = _measured(model, file) | {"rounding": refused.deviation}
            except (UserError, RuntimeError, MemoryError):
                raise refused from None  # float32 has the fault too, or lacks memory or kernels
    return {name: float(f"{value:.2g}") for name, value in measured.items()} | {
        "seconds": round(time.monotonic() - began, 2)
    }


class _Refused(UserError):
    """The check failed; `deviation` is set if rounding in 16 bits may be the reason."""

    def __init__(self, message: str, found_deviation: float | None) -> None:
        super().__init__(message)
        self.deviation = found_deviation


def _measured(model: ComposedModelForCausalLM, file: Path) -> dict[str, float]:
    """Run all steps in order and return their measurements."""
    with restored(model):
        check = _Check(model)
        measured = {
            "tolerance": check.allowed,
            **check.identity(),
            **check.effect(),
            **check.suffix(),
            **check.padding(),
            **check.cache(),
            **check.gradient(),
            **check.storing(file),
        }
        if check.apart is not None:
            raise check.apart
        return measured


class _Check:
    """The steps, each of which builds on those before.

    Attributes:
        apart: the first refusal of a 16-bit model for a deviation above the tolerance. The check continues, to find
            faults that only 16 bits show (numbers that are not finite above all).
    """

    def __init__(self, model: ComposedModelForCausalLM) -> None:
        self.model, self.bases = model, model.bases()
        self.allowed = tolerance(self.bases)
        self.ids = probe_ids(self.bases, ROWS, LENGTH)
        self.logits, self.has_half = torch.empty(0), has_halves(model)
        self.apart: _Refused | None = None

    def identity(self) -> dict[str, float]:
        """Check that with closed bridges the logits equal the anchor's."""
        close(self.model)
        expected = self._answer("the anchor alone", lambda: self.model.anchor(input_ids=self.ids).logits)
        if not torch.isfinite(expected).any(-1).all() or expected.isnan().any():
            raise self._refusal(f"the anchor's logits are no finite numbers (in {self.model.anchor.dtype})")
        found = self._answer("closed bridges", lambda: self._logits(self.ids))
        return {"identity": self._compare("with closed bridges, its logits are not the anchor's", found, expected)}

    def effect(self) -> dict[str, float]:
        """Open the bridges and check that together they change the logits."""
        closed = self._answer("closed bridges", lambda: self._logits(self.ids))
        self._answer("open bridges", lambda: open_up(self.model, lambda: self._logits(self.ids)))
        self.logits = self._answer("open bridges", lambda: self._logits(self.ids))
        effect = deviation(self.logits, closed)
        if not self.logits.isfinite().any(-1).all() or self.logits.isnan().any():
            raise self._refusal("with open bridges, its logits are no finite numbers")
        if effect <= self.allowed:
            raise self._refusal(f"its bridges do not reach the logits (open, they move them by {effect:.2g})")
        return {"effect": effect}

    def suffix(self) -> dict[str, float]:
        """Check that logits do not depend on later tokens."""
        worst, other = 0.0, probe_ids(self.bases, ROWS, LENGTH, seed=1)
        for seen in SEEN:
            changed = torch.cat([self.ids[:, :seen], other[:, seen:]], dim=1)
            found = self._answer("later tokens", partial(self._logits, changed))
            what = f"logits of the first {seen} tokens depend on later tokens"
            worst = max(worst, self._compare(what, found[:, :seen], self.logits[:, :seen]))
        return {"suffix": worst}

    def padding(self) -> dict[str, float]:
        """Check that padding changes no logits: on both sides of the first row, on the right of the others."""
        wide = probe_ids(self.bases, ROWS, LEFT + LENGTH + RIGHT, seed=2)
        mask, starts = torch.zeros_like(wide), [LEFT] + [0] * (ROWS - 1)
        for row, start in enumerate(starts):
            wide[row, start : start + LENGTH], mask[row, start : start + LENGTH] = self.ids[row], 1
        found = self._answer("padding", lambda: self._logits(wide, starts, {"attention_mask": mask}))
        found = torch.stack([found[row, start : start + LENGTH] for row, start in enumerate(starts)])
        return {"padding": self._compare("padding changes its logits", found, self.logits)}

    def cache(self) -> dict[str, float]:
        """Check that reading the tokens in chunks with a cache gives the same logits."""

        def chunks() -> Tensor:
            cache, start, pieces = self.model.new_cache(), 0, []
            for length in CHUNKS:
                ids = self.ids[:, start : start + length]
                pieces.append(self._logits(ids, more={CACHE: cache, "use_cache": True}))
                start += length
            return torch.cat(pieces, dim=1)

        found = self._answer("the cache", chunks)
        return {"cache": self._compare("decoding with a cache gives other logits than without", found, self.logits)}

    def gradient(self) -> dict[str, float]:
        """Check that every parameter of the bridges gets a gradient, and no other parameter does."""
        labels = self.ids.clone()
        labels[:, : CHUNKS[0]] = IGNORED

        def backward() -> Tensor:
            loss = self.model.train()(input_ids=self.ids, labels=labels, use_cache=False).loss
            loss.backward()
            return loss.detach()

        loss = self._answer("the gradient", backward)
        if not torch.isfinite(loss):
            raise self._refusal(f"its loss is {loss.item()}")
        ours = self.model.composition_parameters()
        for name, parameter in self.model.named_parameters():
            if name not in ours and parameter.grad is not None:
                raise self._refusal(f"a frozen parameter gets a gradient: {name}")
        for name, parameter in ours.items():
            # In float16 layers the gradient may underflow; training scales the loss.
            if parameter.grad is None or not parameter.grad.any() and self.model.anchor.dtype != torch.float16:
                raise self._refusal(f"no gradient reaches {name}")
            if not parameter.grad.isfinite().all():
                raise self._refusal(f"the gradient of {name} is not finite")
        self.model.eval()
        return {"loss": float(loss)}

    def storing(self, path: Path) -> dict[str, float]:
        """Check that stored bridges load unchanged and that stored configurations describe the same bases."""
        names = ["the anchor", *(f"aug {index}" for index in range(len(self.model.augs)))]
        configs = [self.model.config.anchor_config(), *self.model.config.aug_configs()]
        for name, base, config in zip(names, self.bases, configs, strict=True):
            self._check_described(name, base, config)
        expected = {name: each.detach().clone() for name, each in self.model.stored_tensors().items()}

        def again() -> Tensor:
            save_file({name: tensor.cpu().contiguous() for name, tensor in expected.items()}, path)
            for each in self.model.stored_tensors().values():
                each.data.zero_()
            load_parameters(self.model, path)
            return self._logits(self.ids)

        found = self._answer("storing the bridges", again)
        for name, each in self.model.stored_tensors().items():
            if not torch.equal(each, expected[name]):
                raise self._refusal(f"stored and loaded again, {name} is another")
        return {"storing": self._compare("stored and loaded again, it gives other logits", found, self.logits)}

    def _check_described(self, name: str, base: PreTrainedModel, config: PreTrainedConfig) -> None:
        """Check that the stored configuration of a base leads to the same model class and parameter shapes."""
        if is_own_code(base):
            return  # only that code can build the model, and loading runs it again
        try:
            described = without_weights(config)
        except UserError as error:
            raise self._refusal(f"{name} could not be loaded again: {error}") from error
        if type(described).__name__ != type(base).__name__:
            raise self._refusal(f"loaded again, {name} would be a {type(described).__name__}")
        if getattr(base, "is_quantized", False):
            return
        shapes = ({n: p.shape for n, p in model.named_parameters() if "lora_" not in n} for model in (base, described))
        found, expected = shapes
        if differing := sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name)):
            raise self._refusal(f"loaded again, {name} would have other parameters ({differing[0]}, for one)")

    def _logits(
        self, ids: Tensor, starts: Sequence[int] = (0,) * ROWS, more: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Return the logits of rows whose real tokens begin at `starts`."""
        arguments = {"input_ids": ids, "use_cache": False, **(more or {})}
        if self.model.config.aug_reads == "prompt":
            arguments["prompt_lengths"] = torch.tensor([start + CHUNKS[0] for start in starts], device=ids.device)
        with torch.no_grad():
            return self.model(**arguments).logits

    def _answer(self, step: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return `compute()`; turn unexpected errors into a refusal of one line."""
        try:
            return compute()
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise self._refusal(f"{type(error).__name__} with {step}: {reason}") from error

    def _compare(self, what: str, found: Tensor, expected: Tensor) -> float:
        found_deviation = deviation(found, expected)
        if found_deviation > self.allowed:
            said = f"{what} (by {found_deviation:.2g} of their spread; {self.allowed:.2g} is rounding)"
            if not (self.has_half and math.isfinite(found_deviation)):
                raise self._refusal(said)
            self.apart = self.apart or self._refusal(said, found_deviation)
        return found_deviation

    def _refusal(self, reason: str, found_deviation: float | None = None) -> "_Refused":
        augs = " and ".join(type(aug).__name__ for aug in self.model.augs)
        names = f"{type(self.model.anchor).__name__} with {augs}"
        return _Refused(f"self-check: {names} cannot be composed: {reason}", found_deviation)
