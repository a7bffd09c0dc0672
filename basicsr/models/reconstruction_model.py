"""Block reconstruction: BRECQ and QDrop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from basicsr.models.quantized_model import QuantizedModel
from basicsr.networks.quantized import load_quantized
from basicsr.training.reconstruction.block_cache import BlockCache, CacheOptions, Inputs
from basicsr.training.reconstruction.block_reconstruction import BlockReconstruction, ReconstructionOptions
from basicsr.training.reconstruction.blocks import check_learnable, check_norms_inside, choose_blocks, trial_calls
from basicsr.training.reconstruction.crop_tensors import choose_storage
from basicsr.training.reconstruction.units import Order, Unit, plan_units, running
from basicsr.utils.errors import OptionsError
from basicsr.utils.logger import get_logger
from basicsr.utils.memory import release_freed_memory
from basicsr.utils.options import Component, Options
from basicsr.utils.registry import MODEL_REGISTRY
from basicsr.utils.signature import NOT_RECIPE

Share = Annotated[float, Field(ge=0, lt=1)]


@MODEL_REGISTRY.register()
class ReconstructionModel(QuantizedModel):
    """Reconstructs one block after the other, each to give the outputs of the full-precision network's.

    In a block the roundings of the weights (`AdaRound`, arXiv 2004.10568) and the bounds of the activations are learned. `Affine` has
    for both of its bounds the gradient that LSQ (arXiv 1902.08153) has for a step, so it serves as the learned activation step here.
    With `order: weights_first` this is BRECQ (arXiv 2102.05426) as its authors run it: all roundings with activations in full precision,
    then all bounds. With `joint` a block learns both together; with `inputs: mixed` and a `drop_probability` that is QDrop
    (arXiv 2203.05740).

    The loss of a block is E / E0 + rounding_weight * mean(1 - |2 h(V) - 1|**beta), where E is the squared error of its output and
    E0 that before the first iteration: activations of different blocks and networks differ by orders of magnitude, and so one weight
    suits them all. (The papers sum the second term over the weights and do not divide the first one; as Adam ignores the size of a loss, only
    the balance differs, which depends on the data there too.)

    All blocks get equal shares of `train:total_iter`, or with `weights_first` of what either part has of it. Whenever the network is evaluated or saved, it rounds: blocks that are done
    as they learned to, the block in progress to where its roundings tend, and those to come to the nearest, with calibrated bounds.
    With `--debug`, which makes few iterations, only as many blocks are reconstructed.

    Args:
        network: the full-precision network with its weights; frozen here.
        options: the options of the run, for coverage, bits, calibration and the length of training.
        device: where both networks live.
        blocks: names of the modules to reconstruct, and no others; by default those that the architecture names and that hold
            quantizers, and each quantized layer outside of these as a block of its own.
        inputs: what a block gets: its inputs behind the blocks that are done (`quantized`), those of the full-precision network, or
            `mixed`: elements of the latter with the probability `drop_probability`, of the former otherwise.
        drop_probability: probability of an element of an activation to pass its quantizer as it is.
        loss: squared error of the block's output as it is (`mse`), or weighted by the diagonal of its Fisher information.
        rounding_weight: weight of the loss that decides the roundings.
        beta: its exponent, at the end of the warm-up and of the block.
        warm_up: share of a block's iterations without that loss.
        optim_rounding: optimiser of the roundings, at a constant learning rate.
        optim_bound: optimiser of the bounds of activations; its learning rate counts in quantization steps, see `RelativeSteps` (that of
            other parameters of activation quantizers is as it stands).
        scheduler: its learning-rate schedule, which begins anew in each block.
        order: whether a block learns roundings and bounds together, or all blocks their roundings first and then all their bounds.
        bounds_share: with `weights_first`, share of `train:total_iter` in which bounds are learned; a fifth in the released BRECQ.
        bounds_exponent: with `weights_first`, p of the error |output - target|**p for bounds, which has no Fisher information.
        cache_budget_mb: inputs and targets of a block that need more than so many MiB go to a temporary file; in each process.
        cache_folder: where that is; by default the folder of the system for temporary files.

    Raises:
        OptionsError: a block does not exist or has no quantizers, there are fewer iterations than blocks, or the options contradict each other.
        QuantizationError: the coverage does not fit the network.
    """

    trains_on: ClassVar[Literal["images", "crops"]] = "crops"

    def __init__(
        self,
        network: nn.Module,
        options: Options,
        device: torch.device,
        /,
        *,
        blocks: list[str] | None = None,
        inputs: Inputs = "quantized",
        drop_probability: Share = 0.0,
        loss: Literal["mse", "fisher_diag"] = "fisher_diag",
        rounding_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0,
        beta: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)]] = (20.0, 2.0),
        warm_up: Share = 0.2,
        optim_rounding: Component = {"type": "Adam", "lr": 2e-2},  # noqa: B006 -- never changed
        optim_bound: Component = {"type": "Adam", "lr": 2e-2},  # noqa: B006
        scheduler: Component = {"type": "CosineAnnealingLR"},  # noqa: B006
        order: Order = "joint",
        bounds_share: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        bounds_exponent: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.4,
        cache_budget_mb: Annotated[int, Field(ge=0), NOT_RECIPE] = 2048,
        cache_folder: Annotated[str | None, NOT_RECIPE] = None,
    ) -> None:
        super().__init__(network, options, device, share_weights=True)
        if inputs == "mixed" and not drop_probability:
            raise OptionsError("Option 'train:inputs' is 'mixed', which needs a 'train:drop_probability' above 0.")
        self.network.requires_grad_(False)
        self.blocks = choose_blocks(self.network, blocks)
        if options.calibration.fold_norms and inputs != "quantized":
            check_norms_inside(self.network, self.blocks)
        check_learnable(self.network, self.blocks)
        self._reconstruction_options = ReconstructionOptions(
            drop_probability, rounding_weight, beta, warm_up, optim_rounding, optim_bound, scheduler
        )
        self._reconstruction_options.check()
        self._cache_options = CacheOptions(
            inputs, loss == "fisher_diag", options.calibration.batch_size, None, options.manual_seed
        )
        self._cache_budget_mb, self._cache_folder = cache_budget_mb, cache_folder
        self._order, self._bounds_share, self._bounds_exponent = order, bounds_share, bounds_exponent
        if options.debug:
            self.blocks = self.blocks[: self.total_iter] if order == "joint" else self.blocks[:1]
        self._units = self._plan()
        self.scheduler = None  # each block has its own
        self._iteration = 0
        self._current: BlockReconstruction | None = None
        self._resumed: Mapping[str, Any] | None = None

    def prepare(self, crops: torch.Tensor) -> None:
        """Run one crop to find the order of the blocks and the size of their caches.

        Args:
            crops: LR calibration crops (N, 3, h, w) in 0..1; `optimize_parameters` takes inputs and targets from them.

        Raises:
            OptionsError: the network does not run a block once, or the largest cache fits neither the budget nor the disk.
            TrainingError: a block gets or returns something that cannot be kept crop by crop.
        """
        if self.total_iter == 0:
            return
        self._crops = crops
        calls = trial_calls(self.full_precision, self.blocks, crops[:1].to(self.device))
        self.blocks = list(calls)
        self._units = self._plan()
        largest = len(crops) * max(self._cache_options.bytes_per_crop(name, call) for name, call in calls.items())
        folder = choose_storage(largest, self._cache_budget_mb, self._cache_folder)
        self._cache_options = replace(self._cache_options, folder=folder)
        get_logger().info(
            "%d blocks to reconstruct, about %d iterations each; the largest cache takes %.0f MiB %s.",
            len(self.blocks),
            self.total_iter // len(self.blocks),
            largest / 2**20,
            f"in '{folder}'" if folder else "of memory",
        )

    def optimize_parameters(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take one step in the block that the iteration belongs to; return the losses, see `BlockReconstruction.step`.

        Args:
            batch: `index`, the numbers of calibration crops, int64.
        """
        current = self._begin_unit() if self._current is None else self._current
        losses = current.step(batch["index"], self.accumulation_steps)
        self._iteration += 1
        if any(unit.end == self._iteration for unit in self._units):
            current.finish()
            self._current = None
        return losses

    def _plan(self) -> list[Unit]:
        if self.total_iter == 0:
            return []
        return plan_units(self.network, self.blocks, self.total_iter, self._order, self._bounds_share)

    def _begin_unit(self) -> BlockReconstruction:
        unit = next(unit for unit in self._units if unit.first <= self._iteration < unit.end)
        self._current = None  # its cache makes room for the next
        release_freed_memory()
        options = self._cache_options
        if unit.learns == "bounds":
            options = replace(options, fisher=False, error_exponent=self._bounds_exponent)
        with running(self.network, unit.learns):
            cache = BlockCache(self.full_precision, self.network, unit.block, self._crops, options)
        current = BlockReconstruction(
            unit.block,
            self.network.get_submodule(unit.block),
            cache,
            self._reconstruction_options,
            unit.end - unit.first,
            unit.learns,
            state=self._resumed,
        )
        self._resumed = None
        self.optimizer = next(iter(current.optimizers.values()))
        self._current = current
        return current

    def training_state(self) -> dict[str, Any]:
        """Return the state of the block in progress; all that is learned is in the network."""
        return {"block": self._current.state() if self._current else self._resumed}

    def load(self, network_file: Path, state: Mapping[str, Any]) -> None:
        """Restore the network and what `training_state` returned.

        The cache of the block in progress is made again when training goes on: it depends only on the full-precision network and on
        the blocks that are done, which no longer change, so it is the same.
        """
        load_quantized(self.network, network_file)
        self._iteration = int(state["iter"])
        self._resumed = state["block"]
