"""The reconstruction of one block: its weights learn how to round, its activation quantizers their bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.observe.capture import drop_quantization
from basicsr.quant.observe.module_calls import call_module
from basicsr.quant.ops.functional import quantize
from basicsr.quant.quantizers.adaround_quantizer import AdaRoundQuantizer, rectified_sigmoid, soft_rounding
from basicsr.training.optimizers import build_optimizer, build_scheduler
from basicsr.training.reconstruction.block_cache import BlockCache
from basicsr.training.reconstruction.units import Part, running
from basicsr.training.relative_steps import RelativeSteps, quantizer_units
from basicsr.utils import dist
from basicsr.utils.logger import get_logger
from basicsr.utils.options import Component

_UNDECIDED = 0.01
"""A rounding h is reported as undecided if it is farther from 0 and from 1 than this."""


@dataclass(frozen=True)
class ReconstructionOptions:
    """How blocks are reconstructed; the attributes are options of `ReconstructionModel`."""

    drop_probability: float
    rounding_weight: float
    beta: tuple[float, float]
    warm_up: float
    optim_rounding: Component
    optim_bound: Component
    scheduler: Component

    def check(self) -> None:
        """Raise an OptionsError if optimisers or schedule cannot be built, before any block is at hand."""
        dummy = [nn.Parameter(torch.zeros(()))]
        build_optimizer(self.optim_rounding, dummy, "train:optim_rounding")
        build_scheduler(
            self.scheduler, build_optimizer(self.optim_bound, dummy, "train:optim_bound"), 1, "train:scheduler"
        )

    def beta_at(self, progress: float) -> float | None:
        """Return the exponent of the rounding loss after a share of the iterations, 0 to 1; None in the warm-up.

        After it, the exponent goes linearly from the first value of `beta` to the second.
        """
        if progress < self.warm_up:
            return None
        first, last = self.beta
        return first + (last - first) * (progress - self.warm_up) / (1 - self.warm_up)


class BlockReconstruction:
    """One block while it is reconstructed. Only the roundings of its weights and the bounds of its activations change.

    Args:
        name: full name of the block, for the log.
        block: the block in the quantized network, with `AdaRound` quantizers at its weights.
        cache: its inputs and targets.
        options: how it is reconstructed.
        num_iterations: number of steps.
        learns: which part of it changes. While roundings alone are learned, its activations are in full precision.
        state: what `state` returned when the run was stopped, while the network is that of the same moment; None to begin.
    """

    def __init__(
        self,
        name: str,
        block: nn.Module,
        cache: BlockCache,
        options: ReconstructionOptions,
        num_iterations: int,
        learns: Part = "both",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._name, self._block, self._cache, self._options = name, block, cache, options
        self._iteration, self._num_iterations, self._learns = 0, num_iterations, learns
        weights, quantizers = quantized_weights(block), dict(named_quantizers(block))
        learned = {
            path: quantizer for path, quantizer in quantizers.items() if isinstance(quantizer, AdaRoundQuantizer)
        }
        self._weights = [(learned[path], weights[path]) for path in weights if learns != "bounds"]
        self._initial_error = self._measure() if state is None else float(state["initial_error"])
        for quantizer, weight in self._weights if state is None else ():
            quantizer.start_rounding(weight)
        self._roundings = [quantizer.started_rounding().requires_grad_() for quantizer, _ in self._weights]
        activations = [q for path, q in quantizers.items() if path not in weights and learns != "roundings"]
        self._bounds = [bound.requires_grad_() for quantizer in activations for bound in quantizer.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._scheduler: LRScheduler | None = None
        self._relative_steps: RelativeSteps | None = None
        if self._roundings:
            self.optimizers["rounding"] = build_optimizer(
                options.optim_rounding, self._roundings, "train:optim_rounding"
            )
        if self._bounds:
            optimizer = build_optimizer(options.optim_bound, self._bounds, "train:optim_bound")
            self.optimizers["bound"] = optimizer
            self._scheduler = build_scheduler(options.scheduler, optimizer, num_iterations, "train:scheduler")
            self._relative_steps = RelativeSteps(optimizer, partial(quantizer_units, activations))
        if state is not None:
            self._load(state)

    def step(self, index: Tensor, accumulation_steps: int) -> dict[str, Tensor]:
        """Take one step of the optimisers.

        Args:
            index: numbers of the calibration crops to take it on.
            accumulation_steps: number of equal parts in which they go through the block.

        Returns:
            `l_block`: the error of the block in units of its error before the first step; `l_rounding`, after the warm-up: the
            mean of 1 - |2 h - 1|**beta over the roundings h, 0 if all are decided. Detached.
        """
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        errors = []
        for part in index.chunk(accumulation_steps):
            loss = self._soft_error(part) * (len(part) / len(index) / (self._initial_error or 1.0))
            loss.backward()
            errors.append(loss.detach())
        losses = {"l_block": reduce(torch.add, errors)}
        beta = self._options.beta_at(self._iteration / self._num_iterations)
        if beta is not None and self._weights:
            count = sum(weight.numel() for _, weight in self._weights)
            undecided = reduce(torch.add, (q.rounding_regularizer(beta) for q, _ in self._weights)) / count
            (self._options.rounding_weight * undecided).backward()
            losses["l_rounding"] = undecided.detach()
        dist.average_gradients([*self._roundings, *self._bounds])
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        self._iteration += 1
        return losses

    def finish(self) -> None:
        """Fix what was learned, and log what it did to the error of the block."""
        shares = self._describe_roundings()
        for quantizer, _ in self._weights:
            quantizer.finish_rounding()
        for bound in self._bounds:
            bound.requires_grad_(False)
        after = self._measure()
        get_logger().info("Block '%s': error %.3e, now %.3e%s.", self._name, self._initial_error, after, shares)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the network."""
        return {
            "iteration": self._iteration,
            "initial_error": self._initial_error,
            "optimizers": {kind: optimizer.state_dict() for kind, optimizer in self.optimizers.items()},
            "scheduler": self._scheduler and self._scheduler.state_dict(),
            "quantization_steps": self._relative_steps and self._relative_steps.state_dict(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        self._iteration = int(state["iteration"])
        for kind, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][kind])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        if self._relative_steps is not None:
            self._relative_steps.load_state_dict(state["quantization_steps"])

    def _soft_error(self, index: Tensor) -> Tensor:
        probability = self._options.drop_probability
        arguments = self._cache.inputs(index, full_precision_share=probability)
        with (
            running(self._block, self._learns),
            soft_rounding(self._block),
            drop_quantization(self._block, probability),
        ):
            return self._cache.error(call_module(self._block, arguments), index)

    @torch.no_grad()
    def _measure(self) -> float:
        """Return the error of the block on all crops as it will run: rounded, all activations quantized if their turn has come."""
        total, count = 0.0, 0
        with running(self._block, self._learns):
            for index in self._cache.batches():
                error = self._cache.error(call_module(self._block, self._cache.inputs(index)), index)
                total, count = total + float(error) * len(index), count + len(index)
        return total / count

    @torch.no_grad()
    def _describe_roundings(self) -> str:
        changed = undecided = count = 0
        for quantizer, weight in self._weights:
            nearest = quantize(weight, *quantizer.bounds(), quantizer.spec.bits, quantizer.spec.channel_axis)
            h = rectified_sigmoid(quantizer.started_rounding())
            changed += int((quantizer.codes(weight) != nearest).sum())
            undecided += int(((h > _UNDECIDED) & (h < 1 - _UNDECIDED)).sum())
            count += weight.numel()
        if not count:
            return ""
        return f"; {changed / count:.1%} of its weights round to the other side, {undecided / count:.1%} were undecided"
