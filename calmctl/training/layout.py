"""Layouts: how a model is spread over the processes that train it (DDP or FSDP2), and how its state is gathered.

Without sharding every process holds the whole model. With FSDP2 each decoder layer is a unit of which every process
holds a slice; of a plain model the rest is one more unit. Of a model stored in parts only the frozen parameters of the
bases' layers are sharded: bridges, adapters (also those inside layers) and everything outside layers stay whole, so
that no unit mixes frozen and trainable parameters.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.stored.parts import PartsModel
from calmctl.processes.ranks import Ranks

COMPUTE_DTYPES = {"bf16": torch.bfloat16}
_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def shard(model: PreTrainedModel, ranks: Ranks, precision: str) -> None:
    """Shard the layers of a model over all processes, and move the rest of it to each process's device.

    Layers move to the device one at a time, so that the whole model is never on it.

    Raises:
        UserError: a base is quantised: packed weights cannot be sharded.
    """
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    if isinstance(model, PartsModel):
        trained = set(model.trained_parameters().values())
        for base in model.bases():
            if getattr(base.config, "quantization_config", None):
                raise UserError("train.sharding=fsdp: quantised bases cannot be spread over processes; use none")
            for layer in layers.decoder_layers(base):
                if not isinstance(layer, FSDPModule):  # the same model may be anchor and aug
                    # By default FSDP would keep the gathered parameters of these units, as each is a root.
                    fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    else:
        # Shards keep their dtype; gathered parameters are cast as autocast would cast them.
        policy = MixedPrecisionPolicy(COMPUTE_DTYPES.get(precision), torch.float32)
        for unit in (*layers.decoder_layers(model), model):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
    nn.Module.to(model, ranks.device)


def replicate(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Wrap a model in DDP, which averages the gradients of its trainable parameters over all processes.

    Frozen parameters and buffers, sharded or not, are never synchronised: they do not change.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    constant = [*frozen, *(name for name, _ in model.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, constant)
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return DistributedDataParallel(model, devices, gradient_as_bucket_view=True)


def whole_state(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """Return the whole state of a sharded model on the first process's CPU; all processes must call it."""
    state = {name: _whole(tensor) for name, tensor in model.state_dict().items()}
    return state if ranks.is_first else {}


def reassemble(model: nn.Module, ranks: Ranks) -> None:
    """Turn a sharded model into a plain one on the first process's CPU; all processes must call it.

    Afterwards only the first process can use the model.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    replaced: dict[int, nn.Parameter] = {}  # keeps tied parameters tied
    for module in model.modules():
        for name, parameter in cast(dict[str, nn.Parameter], module._parameters).items():
            if isinstance(cast(Tensor, parameter), DTensor):
                whole = _whole(parameter)
                kept = whole if ranks.is_first else torch.empty(0, dtype=whole.dtype)
                fresh = nn.Parameter(kept, requires_grad=parameter.requires_grad)
                module._parameters[name] = replaced.setdefault(id(parameter), fresh)
    for module in model.modules():
        _release(module)
    nn.Module.to(model, "cpu")


def _release(module: nn.Module) -> None:
    """Remove FSDP's hooks and state from a module: the hooks expect sharded weights and cannot be copied."""
    for name in _HOOKS:
        hooks = getattr(module, name)
        for key in [key for key, hook in hooks.items() if hook.__module__.startswith(fsdp.__name__)]:
            del hooks[key]
    for key in (STATE_KEY, REGISTRY_KEY):
        vars(module).pop(key, None)
    if isinstance(module, FSDPModule):
        module.__class__ = type(module).__bases__[1]


def keep_whole(optimizer: Optimizer) -> None:
    """Make an optimizer save its state unsharded, and load such a state into its own layout.

    All processes must call `state_dict`.
    """
    for part in getattr(optimizer, "parts", [optimizer]):
        part.register_state_dict_post_hook(_gather_state)
        part.register_load_state_dict_pre_hook(_scatter_state)


def _gather_state(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "state": _map_state(state["state"], lambda _, tensor: _whole(tensor))}


def _scatter_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def scatter(index: int, tensor: Tensor) -> Tensor:
        parameter = parameters[index]
        if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
            return tensor
        # Every process has read the same file and takes its slice: nothing has to be sent.
        whole = tensor.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)

    return {**state, "state": _map_state(state["state"], scatter)}


def _map_state(state: Mapping[int, Any], function: Any) -> dict[int, Any]:
    return {
        index: {name: function(index, value) if isinstance(value, Tensor) else value for name, value in of_one.items()}
        for index, of_one in state.items()
    }


def _whole(tensor: Tensor) -> Tensor:
    return cast(DTensor, tensor.detach()).full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
