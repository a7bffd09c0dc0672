"""Weights alone, with activations in full precision: through training, test, packed file, graph, and what is told where it cannot be."""

import json
import re

import pytest
import torch

from basicsr import quantize
from basicsr import test as test_command
from basicsr import train as train_command
from basicsr.export import main as export_main
from basicsr.quant.insertion.insert import named_quantizers
from tests import tiny

BITS = ["quantization:w_bits=3", "quantization:a_bits=32"]


def command(folder, method, *more, optimizers=()):
    picture = f"{{name: t, type: PairedImageDataset, dataroot_gt: {tiny.ROOT / 'datasets/demo/val/HR'}, num_images: 1}}"
    given = [*BITS, f"datasets:test_1={picture}", "val:val_freq=6", *more]
    overrides = tiny.train_overrides(folder, *given, architecture="EDSR", optimizers=optimizers)
    return [
        "-opt",
        str(tiny.ROOT / f"options/train/demo_{method}.yml"),
        "--root",
        str(folder),
        "--force_yml",
        *overrides,
    ]


@pytest.mark.slow
def test_weights_alone_run_end_to_end(tmp_path):
    train = command(tmp_path, "LSQ", "train:total_iter=2")
    assert train_command.main(train) == 0
    test = [*train, f"path:pretrain_network_Q={tmp_path}/experiments/tiny/models/net_Q_latest.pth"]
    assert test_command.main(test) == 0
    results = json.loads((tmp_path / "results/tiny/metrics.json").read_text())
    assert (results["w_bits"], results["a_bits"], results["activation_ranges"]) == (3, 32, None)
    complexity = results["complexity"]
    assert complexity["quantized_macs"] == 0  # no product of two quantized factors
    inside, all_macs = 4 * 8 * 8 * 9 * 128 * 128, complexity["macs"]  # four convolutions in the body
    assert complexity["bit_operations"] == inside * 3 * 32 + (all_macs - inside) * 32 * 32
    assert export_main([*test[:2], "--onnx", *test[2:]]) == 0
    exported = json.loads((tmp_path / "results/tiny/export.json").read_text())
    measured = exported["datasets"]["t"]
    in_float32 = [values for name, values in measured.items() if "BF16" not in name]
    assert len(in_float32) >= 3  # trained, packed, onnxruntime, and what else is installed
    assert all(values["fidelity"] is None or values["fidelity"] > 120 for values in in_float32)  # None: the same bits
    assert (tmp_path / "results/tiny/tiny.onnx").is_file()


@pytest.mark.parametrize(
    ("method", "message", "optimizers"),
    [
        ("ODM", "'train:mismatch_loss' regularises quantized activations.*Set it to null", ()),
        ("DBDC_Pac", "the activation quantizers of this network have none", ("optim_activation", "optim_weight")),
    ],
)
def test_a_method_that_needs_activations_says_so(tmp_path, capsys, method, message, optimizers):
    assert train_command.main(command(tmp_path, method, optimizers=optimizers)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_interface_quantizes_weights_alone():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, 1, 1), torch.nn.Conv2d(6, 12, 3, 1, 1), torch.nn.PixelShuffle(2)
    )
    quantized = quantize(network, torch.rand(2, 3, 8, 8), bits=3, a_bits=32)
    kinds = [name.rpartition(".")[2] for name, _ in named_quantizers(quantized.network)]
    assert kinds == ["weight_quantizer"] * 2
