"""The schema of all top-level options.

A section that describes a component (`network_g`, a dataset, a loss, a calibrator ...) is a mapping with `type` and the
parameters of that component's constructor, which are its schema.
"""

from typing import Annotated, Literal

import pydantic

from basicsr.utils.errors import OptionsError
from basicsr.utils.options.names import DeviceName, FilePart, FolderName
from basicsr.utils.options.quantizing import CalibrationOptions, QuantizationOptions
from basicsr.utils.options.section import Bits, Component, Positive, Section
from basicsr.utils.signature import NOT_RECIPE

PHASES = ("train", "val", "test")
DEFAULT_METRICS: dict[str, Component] = {
    "psnr": {"type": "calculate_psnr"},
    "ssim": {"type": "calculate_ssim"},
    "fidelity": {"type": "calculate_fidelity"},
}
RESERVED_KEYS = ("stage", "iter", "dataset", "seconds", "images", "counted", "last")
"""Other keys of what results hold beside the values of metrics."""


class PathOptions(Section):
    """Files that a run reads."""

    pretrain_network_g: str | None = None
    """Weights that the training of a full-precision network starts from, or a network of such a training to evaluate."""
    param_key_g: str | None = None
    """Entry of that file that holds the weights; by default params_ema, then params, then the file itself."""
    strict_load_g: bool = True
    """False starts from the weights that fit by name and shape, such as those of another scale; the log names the rest."""
    pretrain_network_FP: str | None = None
    """Weights of the full-precision network to quantize or to evaluate (.pth or .safetensors)."""
    param_key_FP: str | None = None
    """Entry of the file that holds the weights; by default params_ema, then params, then the file itself."""
    pretrain_network_Q: str | None = None
    """A quantized network: a checkpoint of this framework or one released with 2DQuant."""
    resume_state: str | None = None
    """A training state (.state) to continue from; `--auto_resume` finds the latest one of the run."""


class TrainOptions(Section):
    """The training loop. Further keys belong to the model and are checked against its constructor."""

    model_config = pydantic.ConfigDict(extra="allow")

    total_iter: Annotated[int, pydantic.Field(ge=0)]
    """Iterations; 0 stops after calibration."""
    batch_size: Positive = 16
    """Crops in one step of the optimiser, over all processes and accumulation steps together."""
    accumulation_steps: Positive = 1
    """Number of equal parts in which a batch goes through the network, to save memory."""
    num_workers: Annotated[int, pydantic.Field(ge=0, le=1024), NOT_RECIPE] = 4
    """Processes that load and cut images, where these are not held in memory."""
    data_in_memory: Annotated[bool | Literal["auto"], NOT_RECIPE] = False
    """Hold the decoded training images on the device and cut batches there; `auto` where they fit. The crops are the same."""
    data_memory_mb: Annotated[Positive, NOT_RECIPE] = 8192
    """Memory that they may take, in MiB; on a GPU at most half of what is free."""
    fused_quantizers: Annotated[bool | Literal["auto"], NOT_RECIPE] = "auto"
    """Run quantizers on the CPU as loops in C, compiled once on a machine: one pass over memory instead of many. `auto` where there is a
    C compiler. Values are the same bits, gradients of bounds are rounded otherwise."""
    piece_minutes: Annotated[Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None, NOT_RECIPE] = None
    """Stop with a checkpoint after so many minutes; `--auto_resume` continues with the next piece."""
    allow_new_length: Annotated[bool, NOT_RECIPE] = False
    """Continue a training with another `total_iter` or schedule, although its learning rates so far would have been others."""


class ValOptions(Section):
    """Evaluation during and after training, and in `test.py`."""

    val_freq: Positive = 100
    """Iterations between two evaluations on the validation sets."""
    metrics: dict[str, Component] = DEFAULT_METRICS
    """What is measured, by the names that results have: `{type: registered metric, ...its options}` each."""
    best_metric: str = "psnr"
    """The one of them that chooses the best iterate of a training, on the first validation set."""
    crop_border: Annotated[int, pydantic.Field(ge=0)] | None = None
    """Pixels left out on every side, by metrics that do not set it themselves; by default the scale factor."""
    test_y_channel: bool = True
    """Compare the Y channel instead of RGB, in metrics that do not set it themselves."""
    pad: Literal["official", "mirror", "reflect"] = "official"
    """How an image grows to a multiple of the window, see evaluation/inference.py."""
    tile: Positive | None = None
    """Side of the tiles in LR pixels; by default an image is processed whole."""
    tile_overlap: Annotated[int, pydantic.Field(ge=0)] = 16
    """LR pixels that neighbouring tiles share; by default at most half of a tile."""
    self_ensemble: bool = False
    """Mean over the 8 flips and rotations."""
    batch_size: Positive = 1
    """Images of equal size that go through the network together."""
    save_img: bool = False
    """Write the enlarged images: those of the last evaluation, and in a training those of each validation."""
    suffix: FilePart | None = None
    """Put behind the names of the images that `test.py` and the last evaluation of a training write: `<image>_<suffix>.png`."""
    histograms: bool = True
    """`test.py` records how the activations of a quantized network are distributed (activations.json), for its report."""
    full_precision: bool = True
    """Evaluate the full-precision network too, which fidelity needs."""
    reference_folder: str | None = None
    """Where outputs of the full-precision network are kept for other runs, which then need not compute them."""

    @pydantic.field_validator("metrics")
    @classmethod
    def _metric_names(cls, metrics: dict[str, Component]) -> dict[str, Component]:
        for name in metrics:
            if not name.isidentifier() or name in RESERVED_KEYS:
                raise ValueError(
                    f"'{name}' cannot name a metric: take letters, digits and underscores, and none of {', '.join(RESERVED_KEYS)}"
                )
        return metrics


class WandbOptions(Section):
    """A run of Weights & Biases, with the values that TensorBoard has: `pip install -e '.[wandb]'`."""

    project: str | None = None
    """Its project there; null does without."""
    resume_id: str | None = None
    """Id of the run to continue; `--auto_resume` finds the one of the run by itself."""


class LoggerOptions(Section):
    """What is written how often, in iterations."""

    print_freq: Positive = 10
    """Iterations between two lines of the log."""
    save_checkpoint_freq: Positive = 100
    """Iterations between two checkpoints."""
    use_tb_logger: bool = True
    """Write for TensorBoard."""
    wandb: WandbOptions | None = None
    """Send the same to Weights & Biases."""


class Options(Section):
    """All options of a run. Keys are addressed as `section:key`, also by `--force_yml`."""

    name: FolderName
    """Name of the run, and of its folders in experiments/ and results/."""
    model_type: str = "PTQModel"
    """Class that trains: PTQModel, QATModel, ReconstructionModel, PacModel or SRModel."""
    method: str | None = None
    """Label in results; by default the type of the activation calibrator, or FP."""
    network: str | None = None
    """File of options/networks/ that `base: ../networks/{network}.yml` names, and what `where: network=...` asks for."""
    recipe: str | None = None
    """File of options/methods/ that `base: ../methods/{recipe}.yml` names, and what `where: recipe=...` asks for."""
    scale: Literal[2, 3, 4]
    """Factor by which images are enlarged."""
    bit: Bits | None = None
    """Short form for w_bits and a_bits together."""
    manual_seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    device: DeviceName = "auto"
    debug: bool = False
    """A quick look at whether a run works, set by `--debug`: its few iterations need not do the whole work of a method."""
    num_threads: Positive | None = None
    """CPU threads; by default what torch chooses."""
    after: Component | None = None
    """A run that comes first and whose network this one starts from: `options`, its options file, and changes to it."""
    plugins: list[str] = []
    """Folders with components of one's own, in files named as in the package (`my_arch.py`, `my_loss.py`)."""
    datasets: dict[str, Component]
    """Data sets by phase: train, val and test, the latter two with a suffix where there are several."""
    network_g: Component
    """The network: `type` and the options of its architecture."""
    path: PathOptions = PathOptions()
    quantization: QuantizationOptions | None = None
    calibration: CalibrationOptions = CalibrationOptions()
    train: TrainOptions | None = None
    val: ValOptions = ValOptions()
    logger: LoggerOptions = LoggerOptions()

    @pydantic.field_validator("datasets")
    @classmethod
    def _phases(cls, datasets: dict[str, Component]) -> dict[str, Component]:
        for key in datasets:
            if key.split("_")[0] not in PHASES:
                raise ValueError(f"'{key}' must be train, or val or test with a suffix, such as val, test_1, test_Set5")
        return datasets

    @property
    def w_bits(self) -> int | None:
        """Bits of the weights; None without quantization."""
        return None if self.quantization is None else self.quantization.w_bits or self.bit

    @property
    def a_bits(self) -> int | None:
        """Bits of the activations; None without quantization."""
        return None if self.quantization is None else self.quantization.a_bits or self.bit

    def required_train(self) -> TrainOptions:
        """Return the section `train`; an OptionsError where there is none."""
        if self.train is None:
            raise OptionsError("Section 'train' is required for training; to evaluate a network call basicsr/test.py.")
        return self.train

    @property
    def average_bits(self) -> float | None:
        """The average that bits are chosen under; None where they are not chosen, and without quantization."""
        return None if self.quantization is None else self.quantization.average_bits

    def required_bits(self) -> tuple[int, int]:
        """Return the bits of the weights and of the activations; an OptionsError where the options do not say them."""
        if self.w_bits is None or self.a_bits is None:
            bits = "'bit' (or 'quantization:w_bits' and 'quantization:a_bits')"
            raise OptionsError(f"Option {bits} is required for quantization.")
        return self.w_bits, self.a_bits

    @property
    def method_name(self) -> str:
        """Label of the run in results."""
        if self.method:
            return self.method
        return self.calibration.activations.get("type", "") if self.quantization else "FP"

    def datasets_of(self, phase: str) -> dict[str, Component]:
        """Return the datasets of a phase (`train`, `val` or `test`), in the order of the file."""
        return {key: value for key, value in self.datasets.items() if key.split("_")[0] == phase}
