"""The optimiser of quantization-aware training: a group of parameters for each learning rate."""

import fnmatch
from collections.abc import Mapping

import torch
from torch import nn

from basicsr.quant.insertion.insert import learned_by_quantizers
from basicsr.quant.modules.base import Role
from basicsr.training.optimizers import build_optimizer
from basicsr.training.relative_steps import weight_units
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import Component


def grouped_optimizer(
    network: nn.Module,
    optim_g: Component,
    ratio_of_role: Mapping[Role, float],
    ratio_of_glob: Mapping[str, float],
    relative_weight_lr: float | None,
) -> torch.optim.Optimizer:
    """Build the optimiser of all parameters of a network with quantizers.

    Args:
        network: the network.
        optim_g: optimiser; its `lr` is that of all that is in no group of its own.
        ratio_of_role: rate of what quantizers of a role learn, as a multiple of `lr`.
        ratio_of_glob: the same for some of what quantizers learn, by globs on their names; later ones win.
        relative_weight_lr: rate of the weights that are quantized, in their quantization steps; None for `lr`.

    Raises:
        OptionsError: the optimiser does not exist, or a glob matches nothing.
    """
    learned = {role: learned_by_quantizers(network, role) for role in ratio_of_role}
    group_of: dict[str, str] = {name: role for role, parameters in learned.items() for name in parameters}
    for glob in ratio_of_glob:
        names = fnmatch.filter(group_of, glob)
        if not names:
            raise OptionsError(
                f"Option 'train:quantizer_lr_ratios' names '{glob}', but nothing that quantizers learn is called so. "
                f"Names are such as '{next(iter(group_of), 'none here')}'; null takes all globs away."
            )
        group_of |= dict.fromkeys(names, glob)
    quantized = [] if relative_weight_lr is None else [weight for weight, _ in weight_units(network)]
    apart = {id(weight) for weight in quantized}
    others = [p for name, p in network.named_parameters() if name not in group_of and id(p) not in apart]
    optimizer = build_optimizer(optim_g, others, "train:optim_g")
    if quantized:
        optimizer.add_param_group({"params": quantized, "lr": relative_weight_lr, "weight_decay": 0.0})
    parameters = {**learned["activation"], **learned["weight"]}
    ratio_of_group: dict[str, float] = {
        **{str(role): ratio for role, ratio in ratio_of_role.items()},
        **ratio_of_glob,
    }
    for group, ratio in ratio_of_group.items():
        chosen = [parameters[name] for name in parameters if group_of[name] == group]
        if chosen:  # a decay towards 0 means nothing to bounds
            learning_rate = ratio * optimizer.defaults["lr"]
            optimizer.add_param_group({"params": chosen, "lr": learning_rate, "weight_decay": 0.0})
    return optimizer
