"""What the searches of DOBI save in each layer of SwinIR-light x4, and what the saving is worth in the output.

Runs from the root of the repository, on the network and the pictures that it carries.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from basicsr.data import build_evaluation_sets, calibration_crops
from basicsr.evaluation.evaluator import Evaluator
from basicsr.networks.build import full_precision_network
from basicsr.networks.quantized import quantized_copy
from basicsr.quant.calibration import Bounds
from basicsr.quant.insertion.insert import named_quantizers
from basicsr.training.calibration.network_calibration import calibrate_network
from basicsr.utils.devices import select_device
from basicsr.utils.options import CalibrationOptions, Options, load_options

OPTIONS_FILE = "options/train/demo_DOBI.yml"
NUM_CROPS = 8
CALIBRATORS = {
    "MinMax": {"type": "MinMax"},
    "Percentile": {"type": "Percentile"},
    **{search: {"type": "DOBI", "search": search} for search in ("symmetric", "auto", "one_sided", "joint")},
    "by output": {"type": "DOBI", "search": "auto"},
}
BY_OUTPUT = {"by output": ["*.attn.av.a_quantizer"]}
"""Quantizers whose bounds are then chosen by the output of their module, by calibrator."""
WITHOUT_BITS = ("MinMax", "Percentile")
"""Calibrators whose bounds are the same whatever the bits."""
COMBINATIONS = {
    "MinMax": ("MinMax", "MinMax"),
    "Percentile 1..99": ("Percentile", "Percentile"),
    "DOBI symmetric": ("symmetric", "symmetric"),
    "DOBI auto": ("auto", "auto"),
    "DOBI joint": ("joint", "joint"),
    "DOBI, weights symmetric, activations auto": ("symmetric", "auto"),
    "DOBI, weights symmetric, activations joint": ("symmetric", "joint"),
    "DOBI, weights symmetric, activations Percentile 1..99": ("symmetric", "Percentile"),
    "DOBI auto, softmax maps by output": ("symmetric", "by output"),
}
"""Calibrators of weights and of activations, by the name of the combination."""
ACTIVATION_SITES = {  # k and v quantize the same input as q, with the same bounds
    "qkv input": ("qkv.q.act_quantizer", "qkv.k.act_quantizer", "qkv.v.act_quantizer"),
    "q": ("qk.a_quantizer",),
    "k": ("qk.b_quantizer",),
    "softmax map": ("av.a_quantizer",),
    "v": ("av.b_quantizer",),
    "proj input": ("proj.act_quantizer",),
    "fc1 input": ("fc1.act_quantizer",),
    "fc2 input": ("fc2.act_quantizer",),
}
WEIGHT_SITES = {
    f"{layer} weight": (f"{path}.weight_quantizer",)
    for layer, path in {"q": "qkv.q", "k": "qkv.k", "v": "qkv.v", "proj": "proj", "fc1": "fc1", "fc2": "fc2"}.items()
}
SITES = {**ACTIVATION_SITES, **WEIGHT_SITES}
"""Kinds of sites by name: the ends of the names of their quantizers."""

BoundsOfSites = Mapping[str, Bounds]


def run() -> str:
    """Return the three tables at the bits that the recipes use."""
    device = select_device()
    return LayersBenchmark(load_options(OPTIONS_FILE), NUM_CROPS, device).report((4, 3, 2), (4, 2))


class LayersBenchmark:
    """A network, its calibration crops and its validation pictures, with the bounds that were found so far.

    Every bound is one of the full-precision network, so bounds of several calibrators can be put together at will.

    Args:
        options: a run that quantizes.
        num_crops: how many crops of the calibration set are used, the first ones.
        device: where the networks live.
    """

    def __init__(self, options: Options, num_crops: int, device: torch.device) -> None:
        self._options = options
        self._network = full_precision_network(options).to(device).eval().requires_grad_(False)
        crops = calibration_crops(options.calibration, options.datasets.get("train"), options.scale, 0).lq
        self._crops = crops[:num_crops]
        self._validation = build_evaluation_sets(options.datasets_of("val"), options.scale)
        self._evaluator = Evaluator(options.val, options.scale, self._network)
        self._quantized: dict[int, nn.Module] = {}
        self._bounds: dict[tuple[str, int], BoundsOfSites] = {}
        self._fidelities: dict[tuple[int, tuple[tuple[float, float], ...]], float] = {}

    def report(self, bits_of_fidelity: Iterable[int], bits_of_errors: Iterable[int]) -> str:
        """Return all tables, the first and the last one for each of `bits_of_errors`."""
        bits_of_fidelity, bits_of_errors = list(bits_of_fidelity), list(bits_of_errors)
        tables = [self.error_table(bits) for bits in bits_of_errors]
        tables.append(self.fidelity_table(bits_of_fidelity))
        tables.append(self.site_table(bits_of_errors))
        network, images = self._options.network_g["type"], sum(map(len, self._validation))
        count, _, *size = self._crops.shape
        head = (
            f"{network} x{self._options.scale}, coverage {self._options.quantization.coverage_name}. Calibration on "
            f"{count} LR crops of {size[0]} x {size[1]} (the first of the set), fidelity on {images} pictures; "
            "nothing is trained."
        )
        return "\n\n".join([head, *tables])

    def bounds(self, calibrator: str, bits: int) -> BoundsOfSites:
        """Return the bounds of all quantizers by name, found by one of `CALIBRATORS`; found only once."""
        key = (calibrator, 0 if calibrator in WITHOUT_BITS else bits)
        if key not in self._bounds:
            chosen = CALIBRATORS[calibrator]
            options = CalibrationOptions(weights=chosen, activations=chosen, by_output=BY_OUTPUT.get(calibrator, []))
            report = calibrate_network(self._network_of(bits), self._crops, options)
            self._bounds[key] = {row.name: row.result for row in report}
        return self._bounds[key]

    def fidelity(self, bits: int, choose: Callable[[str], str]) -> float:
        """Return the mean fidelity in dB on the validation pictures.

        Args:
            bits: of weights and activations.
            choose: gives the calibrator of a quantizer from its name.
        """
        network = self._network_of(bits)
        pairs = []
        for name, quantizer in named_quantizers(network):
            bounds = self.bounds(choose(name), bits)[name]
            quantizer.set_bounds(bounds.lower_bound, bounds.upper_bound)
            pairs.append((bounds.lower_bound.item(), bounds.upper_bound.item()))
        key = (bits, tuple(pairs))
        if key not in self._fidelities:  # calibrators often agree, such as auto and symmetric on weights
            results = [self._evaluator.evaluate(network, dataset) for dataset in self._validation]
            values = [image["fidelity"] for result in results for image in result.images.values()]
            self._fidelities[key] = sum(values) / len(values)
        return self._fidelities[key]

    def error_table(self, bits: int) -> str:
        """Return the errors of the searches at each kind of site, relative to those of the symmetric search."""
        lines = [
            f"{bits} bits: mean squared error of the searches, in percent of that of the symmetric search: geometric mean "
            "over the layers (smallest to largest)",
            "",
            "| site | auto | one-sided | joint | layers that auto searches one-sided |",
            "|---|---|---|---|---|",
        ]
        symmetric = self.bounds("symmetric", bits)
        for site, endings in SITES.items():
            names = [name for name in symmetric if name.endswith(endings[0])]
            cells = []
            for search in ("auto", "one_sided", "joint"):
                found = self.bounds(search, bits)
                cells.append(_summary([_share(found[name], symmetric[name]) for name in names]))
            sides = [self.bounds("auto", bits)[name].search for name in names]
            one_sided = sum(side.startswith("one_sided") for side in sides)
            lines.append(f"| {site} | {' | '.join(cells)} | {one_sided} of {len(names)} |")
        return "\n".join(lines)

    def fidelity_table(self, bits_to_try: Iterable[int]) -> str:
        """Return the fidelity of each of `COMBINATIONS`."""
        bits_to_try = list(bits_to_try)
        lines = [
            "Fidelity in dB (PSNR of the quantized against the full-precision output), by calibrator",
            "",
            f"| calibrator | {' | '.join(f'{bits} bits' for bits in bits_to_try)} |",
            f"|---|{'---|' * len(bits_to_try)}",
        ]
        for name, (weights, activations) in COMBINATIONS.items():
            values = [
                self.fidelity(bits, lambda n, w=weights, a=activations: w if n.endswith("weight_quantizer") else a)
                for bits in bits_to_try
            ]
            lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
        return "\n".join(lines)

    def site_table(self, bits_to_try: Iterable[int]) -> str:
        """Return what it changes in fidelity to search one kind of site in another way than symmetrically."""
        columns = [(bits, search) for bits in bits_to_try for search in ("auto", "joint", "Percentile")]
        lines = [
            "Change of fidelity in dB where one kind of site has such bounds, and all others those of the symmetric search",
            "",
            f"| site | {' | '.join(f'{search}, {bits} bits' for bits, search in columns)} |",
            f"|---|{'---|' * len(columns)}",
        ]
        base = {bits: self.fidelity(bits, lambda _: "symmetric") for bits, _ in columns}
        rows = {**ACTIVATION_SITES, "all weights": ("weight_quantizer",)}
        for site, endings in rows.items():
            changes = [
                self.fidelity(bits, lambda n, e=endings, s=search: s if n.endswith(e) else "symmetric") - base[bits]
                for bits, search in columns
            ]
            lines.append(f"| {site} | {' | '.join(f'{change:+.2f}' for change in changes)} |")
        return "\n".join(lines)

    def _network_of(self, bits: int) -> nn.Module:
        if bits not in self._quantized:
            options = self._options.model_copy(update={"bit": bits})
            self._quantized[bits] = quantized_copy(self._network, options, share_weights=True)[0]
        return self._quantized[bits]


def _share(found: Bounds, symmetric: Bounds) -> float:
    """Return the error of `found` in percent of that of `symmetric`; where neither has an error it is 100."""
    if not symmetric.mean_squared_error:
        return 100.0
    return 100 * found.mean_squared_error / symmetric.mean_squared_error


def _summary(shares: list[float]) -> str:
    mean = math.exp(sum(map(math.log, shares)) / len(shares))
    return f"{mean:.1f} ({min(shares):.1f} to {max(shares):.1f})"
