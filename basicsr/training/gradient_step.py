"""The forward and backward pass of a training step, as fast as the hardware allows; what fails is done without, and said."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basicsr.losses.base import total_of
from basicsr.training.recordable import RecordingError, require_recordable
from basicsr.utils.errors import TrainingError
from basicsr.utils.logger import get_logger

Losses = Mapping[str, Tensor]
Step = Callable[[Tensor, Tensor], dict[str, Tensor]]
Compile = Literal["none", "default", "max-autotune"]

_WARM_UP_PASSES = 3  # before a CUDA graph is recorded: compilers, cuDNN and the allocator settle
_COMPILE_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}  # graphs are recorded here


class GradientStep:
    """Computes the gradients of a batch.

    A batch goes through the network in `accumulation_steps` parts. Where memory does not suffice, this number is doubled.
    A compiler that fails, or a pass that cannot be recorded as a CUDA graph, is named in the log and not tried again; the
    results differ by rounding only.

    Args:
        network: what is trained.
        losses: returns the losses by name, given the float32 output and the ground truth of a part.
        accumulation_steps: parts of a batch to begin with.
        bfloat16: run the network under bfloat16 autocast; weights, gradients and losses stay float32.
        channels_last: hand the images on in this layout, the one that the network's weights have.
        compile: mode of torch.compile for the network.
        cuda_graphs: record all kernels of a step once and replay them, which saves the time of launching them one by one.
        cudnn_benchmark: let cuDNN time its algorithms and choose the fastest, which may not be a deterministic one.

    Attributes:
        accumulation_steps: parts of a batch by now.
        compiles: whether the network is compiled.
        records: whether the step is replayed from a CUDA graph.
    """

    def __init__(
        self,
        network: nn.Module,
        losses: Callable[[Tensor, Tensor], Losses],
        *,
        accumulation_steps: int = 1,
        bfloat16: bool = False,
        channels_last: bool = False,
        compile: Compile = "none",
        cuda_graphs: bool = False,
        cudnn_benchmark: bool = False,
    ) -> None:
        self.accumulation_steps = accumulation_steps
        self._network = network
        self._forward: Callable[..., Any] = network
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._device = self._parameters[0].device
        self._losses = losses
        self._bfloat16 = bfloat16
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._cudnn_benchmark = cudnn_benchmark
        self._graph: _RecordedStep | None = None
        self.records = cuda_graphs
        self.compiles, self._worked = compile != "none", False
        if cuda_graphs and self._device.type != "cuda":
            self.records = False
            get_logger().warning("CUDA graphs need a CUDA device, not '%s'; training goes on without.", self._device)
        if self.compiles:
            self._compile(_COMPILE_MODES[compile])

    def __call__(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Put the gradients of the mean loss of a batch into the parameters.

        Args:
            lq: LR images (N, 3, h, w).
            gt: HR images (N, 3, scale h, scale w).

        Returns:
            The losses, detached.

        Raises:
            TrainingError: memory does not suffice for a single image.
        """
        lq, gt = (images.to(self._device, non_blocking=True, memory_format=self._memory_format) for images in (lq, gt))
        while True:
            try:
                losses = self._record_and_replay(lq, gt) if self.records else self._pass(lq, gt)
            except torch.cuda.OutOfMemoryError as error:
                out_of_memory = str(error)
            except Exception as error:
                self._do_without(error)
                continue
            else:
                self._worked = True
                return losses
            # outside of the handler, whose traceback keeps the tensors of the failed pass alive
            self._split_further(len(lq), out_of_memory)

    def _compile(self, mode: str) -> None:
        """Have the network compiled when it is first called."""
        get_logger().info("The network is compiled in the first iteration, which takes a while.")
        try:
            self._forward = torch.compile(self._network, mode=mode, dynamic=False)
        except RuntimeError as error:  # there is no compiler for this platform or version of Python
            self._do_without(error)

    def _pass(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        for parameter in self._parameters:
            parameter.grad = None
        sums: dict[str, Tensor] = {}
        parts = zip(lq.chunk(self.accumulation_steps), gt.chunk(self.accumulation_steps), strict=True)
        with self._convolution_algorithms():
            for lq_part, gt_part in parts:
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                    output = self._forward(lq_part)
                losses = self._losses(output.float(), gt_part)
                share = len(lq_part) / len(lq)
                (total_of(losses) * share).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0) + loss.detach() * share
        return sums

    def _record_and_replay(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        if self._graph is None:
            # the operations of a compiled network are those of the network, but its compiler cannot be looked at
            _warm_up(lambda: self._pass(lq, gt), lq.device, looks=not self.compiles)
            self._graph = _RecordedStep(self._pass, lq, gt)
        return self._graph(lq, gt)

    @contextmanager
    def _convolution_algorithms(self) -> Iterator[None]:
        """Let cuDNN choose by speed within this block only: at other times images have many sizes, each of which it would time."""
        if not self._cudnn_benchmark or self._device.type != "cuda":
            yield
            return
        cudnn = torch.backends.cudnn
        before = cudnn.benchmark, cudnn.deterministic
        cudnn.benchmark, cudnn.deterministic = True, False
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.deterministic = before

    def _do_without(self, error: Exception) -> None:
        """Give up what failed when it was first used, graph or compiler; raise the error if it is of another kind."""
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if self.records and isinstance(error, RecordingError):
            self.records = False
            get_logger().warning("The step cannot be recorded as a CUDA graph; training goes on without: %s", reason)
        elif self.compiles and not self._worked:
            self.compiles, self._forward = False, self._network
            get_logger().warning("The network cannot be compiled; training goes on without: %s", reason)
        else:
            raise error

    def _split_further(self, batch_size: int, reason: str) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        self._graph, self._worked = None, False  # a part has another shape now
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.accumulation_steps >= batch_size:
            raise TrainingError(
                "The memory of the GPU does not suffice for a single crop. Set a smaller datasets:train:lq_size, or "
                f"train:autocast to bf16. ({reason.strip().partition(chr(10))[0]})"
            )
        self.accumulation_steps = min(2 * self.accumulation_steps, batch_size)
        get_logger().warning(
            "The memory of the GPU does not suffice: a batch of %d now goes through the network in %d parts whose gradients "
            "are added up (train:accumulation_steps).", batch_size, self.accumulation_steps,
        )  # fmt: skip


def _warm_up(step: Callable[[], object], device: torch.device, looks: bool) -> None:
    """Take a step on a stream of its own, which CUDA asks for before a recording; look at its operations meanwhile."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_PASSES - 2 if looks else _WARM_UP_PASSES):
            step()
        if looks:
            require_recordable(step)
    torch.cuda.current_stream(device).wait_stream(stream)


class _RecordedStep:
    """A step that was recorded as a CUDA graph for one shape of batch; its gradients stay at the same addresses."""

    def __init__(self, step: Step, lq: Tensor, gt: Tensor) -> None:
        self._lq, self._gt = lq.clone(), gt.clone()
        torch.cuda.synchronize(lq.device)
        torch.cuda.empty_cache()  # the graph allocates from memory of its own
        self._graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: threads that load images may go on using CUDA meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._losses = step(self._lq, self._gt)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise RecordingError(str(error)) from error

    def __call__(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        self._lq.copy_(lq)
        self._gt.copy_(gt)
        self._graph.replay()
        return {name: loss.clone() for name, loss in self._losses.items()}
