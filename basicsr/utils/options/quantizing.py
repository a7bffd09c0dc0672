"""The sections of options that say what is quantized, and how bounds are found."""

from typing import Annotated, Literal

import pydantic

from basicsr.utils.options.section import BitsOrFull, Component, Positive, Section
from basicsr.utils.signature import NOT_RECIPE


class OverrideOptions(Section):
    """Other bits for the layers whose name matches a glob."""

    match: str
    """Glob on the names of layers."""
    w_bits: BitsOrFull | None = None
    a_bits: BitsOrFull | None = None


class NamedQuantizerOptions(Section):
    """Another quantizer than that of their role for the quantizers whose name matches a glob."""

    match: str
    """Glob on the names of quantizers, such as `*.attn.av.a_quantizer`."""
    quantizer: Component
    """Quantizer there; bits and granularity stay."""


class RuleOptions(Section):
    """Layers that get one type of quantized layer."""

    modules: str
    """Glob on the names of modules; those of another class than the type replaces are passed over."""
    type: str
    """Registered name of the quantized layer, such as QConv2d."""
    split: list[str] = []
    """Names of the parts, for QSplitLinear."""
    w_bits: BitsOrFull | None = None
    a_bits: BitsOrFull | None = None


class QuantizationOptions(Section):
    """Which layers get which quantizers."""

    coverage: str | Annotated[list[RuleOptions], pydantic.Field(min_length=1)]
    """Preset: 2dquant, body, body_and_attention, full, body_and_skips or all_and_skips; or rules of one's own, each of which must match: the first that matches a layer counts."""
    w_bits: BitsOrFull | None = None
    """Bits of the weights; 32 leaves them in full precision."""
    a_bits: BitsOrFull | None = None
    """Bits of the activations; 32 leaves them in full precision, so that weights alone are quantized."""
    weight_quantizer: Component = {"type": "Affine"}
    """Quantizer of weights."""
    activation_quantizer: Component = {"type": "Affine"}
    """Quantizer of activations."""
    quantizers_by_name: list[NamedQuantizerOptions] = []
    """Other quantizers in single places; later ones win."""
    weight_granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    """One pair of bounds for a weight, or one for each output channel."""
    activation_granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    """One pair of bounds for an activation, or one for each input channel of a layer."""
    weight_symmetric: bool = False
    """Bounds of weights lie at the same distance from 0."""
    activation_symmetric: bool = False
    """Bounds of activations lie at the same distance from 0."""
    input_scales: bool = False
    """Even out the channels of a layer's input by factors that its weight takes back, so that one grid serves all of them."""
    rotate_inputs: bool = False
    """Rotate the inputs of linear layers by a Hadamard matrix, and their weights alike, so that no channel alone decides the range: CompSRT. Costs a product of matrices a layer."""
    late_division: list[str] = []
    """Products (globs) whose first factor is a softmax map, to quantize before its rows are divided by their sum: one grid then serves flat and peaked rows alike."""
    shared_inputs: bool = False
    """One grid for all features of a dense block (RDN), so that each is rounded once and joined as codes; graphs for runtimes are faster."""
    overrides: list[OverrideOptions] = []
    """Other bits for single layers."""
    average_bits: Annotated[float, pydantic.Field(ge=2, le=8)] | None = None
    """Choose 2 to 8 bits for each quantizer, so that the output of the network errs least and the average over all weights, and over all elements of activations, is this; `bit` must be its whole number. Quantizers with bits by overrides or coverage keep them. Needs scipy."""
    depth: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    """Share of the blocks with a learned factor of their skip connection that are computed; the others give their scaled input: QuantSR."""
    exclude: list[str] = []
    """Globs on the names of layers, or of single quantizers (`*.conv1.act_quantizer`), that stay in full precision."""

    @property
    def coverage_name(self) -> str:
        """Name of the preset, for results; `rules` where there is none."""
        return self.coverage if isinstance(self.coverage, str) else "rules"


class CalibrationOptions(Section):
    """How the bounds are found, and on which crops."""

    weights: Component = {"type": "MinMax"}
    """How the bounds of weights are found."""
    activations: Component = {"type": "MinMax"}
    """How the bounds of activations are found."""
    conditioning: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 0.0
    """How strongly the singular values of quantized weights are first brought nearer together, while layers keep what they make of the crops; 0 for not at all, 0.002 in CondiQuant."""
    fold_norms: Annotated[int, pydantic.Field(ge=0)] = 0
    """Crops on which first of all the channels behind each LayerNorm get one range, which it and the linear layers that read it carry; 0 for none."""
    by_output: list[str] = []
    """Quantizers of activations (globs) whose bounds then go to where the output of their module has the smallest squared error: softmax maps."""
    by_gradient: Annotated[int, pydantic.Field(ge=0)] = 0
    """Crops on which the bounds of all activations are then chosen by the output of the network, through its derivatives; 0 for none."""
    weight_fit: Annotated[int, pydantic.Field(ge=0)] = 0
    """Crops on which weights are then fitted to their quantized inputs, layer by layer and in closed form; 0 leaves weights as they are."""
    weight_fit_target: Annotated[float, pydantic.Field(ge=0, le=1)] = 1.0
    """What fitted weights aim at: 1 for what their layer made of inputs in full precision, 0 for what its own weights make of the quantized ones, so that only the rounding of weights is made up for; values between are a mean of both."""
    data: str | list[str] | None = None
    """A calibration set (.json, or .pth as 2DQuant's script saves it), or several, of which the first that is there counts; by default
    crops are drawn from datasets:train."""
    dataroot_gt: str | None = None
    """HR folder of the calibration set, where it is not the one that the set names."""
    dataroot_lq: str | None = None
    num_images: Positive = 32
    """Number of crops that are drawn where `data` is not given."""
    crop_size: Positive = 64
    """Side of these crops in LR pixels."""
    batch_size: Annotated[Positive, NOT_RECIPE] = 4
    """Crops in one forward pass: changes memory and time, and the bounds only where a calibrator averages over batches."""
    sensitivity: Annotated[Annotated[int, pydantic.Field(ge=0)], NOT_RECIPE] = 0
    """Crops on which the error of each layer's quantization alone is then measured, into sensitivity.json; 0 for none. One pass a layer."""

    @property
    def changes_weights(self) -> bool:
        """Whether calibration changes weights, so that the quantized network needs its own."""
        return self.conditioning > 0 or self.fold_norms > 0 or self.weight_fit > 0
