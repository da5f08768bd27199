"""Try models on a few tokens: probe tokens, deviations between logits, tolerances, and remembered findings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from calmctl.environment import total_memory
from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.placement import is_movable
from calmctl.modeling.stored.parts import PartsModel

Found = TypeVar("Found")
_HALVES = (torch.float16, torch.bfloat16)
# Share of the free memory to use: several processes may need it at once.
ROOM_FOR_FLOAT32 = 0.5

# Precision assumed for models without floating-point parameters (integers, packed weights).
_QUANTIZED_EPS = torch.finfo(torch.bfloat16).eps
# Precision of float32 matrix products on a GPU, by `torch.set_float32_matmul_precision`.
_MATMUL_EPS = {"highest": 0.0, "high": 2.0**-10, "medium": torch.finfo(torch.bfloat16).eps}
# Larger deviations are faults in any dtype: in real models with 18 to 30 layers, in bfloat16 and with open bridges, the
# largest deviation due to padding or a cache was 0.03.
_MOST = 0.1
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def probe_ids(
    models: Sequence[PreTrainedModel], rows: int, length: int, seed: int = 0, without: Sequence[int] = ()
) -> Tensor:
    """Return random token ids (rows, length), on the first model's device, that are ordinary tokens of all models.

    Args:
        without: further ids to leave out.
    """
    known = min(layers.text_config(model.config).vocab_size for model in models)
    special = {token for model in models for token in _special_ids(model.config.to_dict())} | set(without)
    ordinary = torch.tensor([token for token in range(min(known, 2**16)) if token not in special] or [0])
    drawn = torch.randint(len(ordinary), (rows, length), generator=torch.Generator().manual_seed(seed))
    return ordinary[drawn].to(input_device(models[0]))


def _special_ids(config: dict[str, Any]) -> Iterator[int]:
    """Yield the special token ids in a configuration: begin, end and padding, images, sounds and their borders."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _special_ids(value)
        elif "token" in str(name):
            yield from (each for each in (value if isinstance(value, list) else [value]) if type(each) is int)


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device that a model takes token ids on, even if its weights are offloaded."""
    return layers.device_of(model.get_input_embeddings())


def deviation(found: Tensor, expected: Tensor) -> float:
    """Return how far logits (..., vocabulary) lie apart at the worst position, as a share of their spread.

    The distance is the root mean square over the vocabulary, which depends less on its size than the maximum does.
    Tokens that both models rule out (-inf) do not count; any other value that is not finite makes the deviation
    infinite.
    """
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.detach().float(), expected.detach().to(found.device).float()
    ruled_out = expected < -1e30
    if not torch.equal(ruled_out, found < -1e30):
        return float("inf")
    counted = (~ruled_out).float()
    number = counted.sum(-1).clamp(min=1)
    found, expected = found.masked_fill(ruled_out, 0), expected.masked_fill(ruled_out, 0)
    mean = expected.sum(-1, keepdim=True) / number[..., None]
    spread = (((expected - mean) * counted).square().sum(-1) / number).sqrt()
    # Rounding grows with the size of logits even if they hardly vary.
    spread = spread + 0.01 * mean.squeeze(-1).abs()
    distance = ((found - expected).square().sum(-1) / number).sqrt()
    shares = torch.where(distance == 0, 0.0, distance / spread.clamp(min=torch.finfo(torch.float32).tiny))
    return float(shares.nan_to_num(nan=float("inf")).max())


def agree(way: Callable[[], Tensor], expected: Tensor, allowed: float) -> bool:
    """Tell whether `way` gives these logits (..., vocabulary); an error means no."""
    try:
        return deviation(way(), expected) <= allowed
    except Exception as error:  # models raise anything on unsupported input
        if is_out_of_memory(error):
            raise
        return False


@contextmanager
def failing_as(complaint: str) -> Iterator[None]:
    """Turn any error of a model, lack of memory aside, into a UserError with this complaint."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise UserError(f"{complaint}: {type(error).__name__}: {reason}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that a device or the machine ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


class Findings(Generic[Found]):
    """Cached results of trying a model; tried again when its dtype, attention implementation or open bridges change."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Found]] = WeakKeyDictionary()

    def of(self, model: PreTrainedModel, find: Callable[[], Found], *also: object) -> Found:
        """Return the finding for a model, from the cache if possible; `also` is whatever else it depends on."""
        known = self._known.setdefault(model, {})
        key = (*also, model.dtype, getattr(model.config, "_attn_implementation", None), num_closed(model))
        if key not in known:
            known[key] = find()
        return known[key]


def tolerance(models: Sequence[PreTrainedModel]) -> float:
    """Return the deviation that rounding explains, by the coarsest dtype that the models compute with.

    Rounding errors grow through a model's layers from a few eps to some hundred, whereas faults (visible padding, a
    wrong position) move logits by a tenth of their spread or more. Between them lie 2 sqrt(eps) in float32 (0.0007) and
    float16 (0.06), and a tenth in bfloat16 and below.
    """
    types = {p.dtype for model in models for p in model.parameters() if p.is_floating_point()}
    coarsest = max((torch.finfo(dtype).eps for dtype in types), default=_QUANTIZED_EPS)
    if any(getattr(model, "is_quantized", False) for model in models):
        coarsest = max(coarsest, _QUANTIZED_EPS)
    if any(p.is_cuda for p in next(iter(models)).parameters()):
        coarsest = max(coarsest, _MATMUL_EPS[torch.get_float32_matmul_precision()])
    return min(2 * coarsest**0.5, _MOST)


def num_closed(model: PreTrainedModel) -> int:
    """Return how many trained tensors are still all zero: zero bridges hide what a model does below them."""
    if not isinstance(model, PartsModel):
        return 0
    return sum(not p.is_meta and not bool(p.any()) for p in model.trained_parameters().values())


@contextmanager
def unchanged_chance(*devices: torch.device) -> Iterator[None]:
    """Restore the random states of CPU and GPUs afterwards."""
    gpus = [device for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(gpus):
        yield


def without_rounding(
    model: PreTrainedModel, trial: Callable[[], Found], works: Callable[[Found], bool] = lambda _: True
) -> Found:
    """Return the result of a trial on a model, for a 16-bit model in float32 if there is memory for it.

    In 16 bits rounding may do as much as a fault: padding moves the logits of a Gemma 3 of 270 million parameters in
    bfloat16 by 0.16 of their spread, and in float32 not at all.

    Args:
        works: tells whether a result found in float32 also works in 16 bits; if not, the trial is repeated in 16 bits.

    Raises:
        UserError: raised by the trial.
    """
    if has_halves(model):
        try:
            with in_float32(model):
                found = trial()
            if works(found):
                return found
        except UserError as error:
            if error.__cause__ is None:  # else the model failed, perhaps for lack of float32 kernels
                raise
        except (RuntimeError, MemoryError):  # no memory, or no float32 kernels
            pass
    return trial()


def has_halves(model: PreTrainedModel) -> bool:
    """Tell whether a model has 16-bit parameters and can be converted to float32."""
    return is_movable(model) and any(parameter.dtype in _HALVES for parameter in model.parameters())


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """Convert the 16-bit tensors of a model to float32 within the block; rounding vanishes, a fault remains.

    Raises:
        MemoryError: the machine lacks memory; a GPU raises an error of its own.
    """
    held = [(each, each.data) for each in (*model.parameters(), *model.buffers()) if each.dtype in _HALVES]
    gradients = [(parameter, parameter.grad) for parameter, _ in held]
    needed = sum(2 * values.nbytes for _, values in held if values.device.type == "cpu")
    room = psutil.virtual_memory().available
    if (limit := total_memory()) is not None:  # of a container, not shared with others
        room = min(room, limit - psutil.Process().memory_info().rss)
    if needed > ROOM_FOR_FLOAT32 * room:
        raise MemoryError(f"{needed} bytes for a model in float32")
    try:
        for tensor, values in held:
            tensor.grad = None
            with torch.inference_mode(False):
                tensor.data = values.float()
        yield
    finally:
        for tensor, values in held:
            tensor.grad = None
            tensor.data = values
        for tensor, gradient in gradients:
            tensor.grad = gradient
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
