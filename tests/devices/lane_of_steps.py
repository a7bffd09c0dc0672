"""Networks, quantizers, trainings and a whole run on a device that is not the CPU: the bits of the CPU, and no step makes a GPU wait."""

import copy
import json

import pytest
import torch

from basicsr import pipeline
from basicsr.archs import build_network
from basicsr.deploy.packed_file import load_packed, save_packed
from basicsr.evaluation.inference import upscale
from basicsr.losses.pixel_loss import L1Loss
from basicsr.quant.insertion.insert import insert_quantizers, named_quantizers
from basicsr.quant.spec import QuantizationError, QuantSpec
from basicsr.training.gradient_step import GradientStep
from basicsr.training.host_waits import HostWaits
from basicsr.training.recordable import RecordingError, require_recordable
from basicsr.utils.options import load_options
from basicsr.utils.registry import CALIBRATOR_REGISTRY, MODEL_REGISTRY, QUANTIZER_REGISTRY
from tests import tiny
from tests.deploy import networks
from tests.devices.second import IS_CUDA, NAME, SecondDevice, skipped
from tests.quant.quantizers import test_every_quantizer as quantizers

pytestmark = skipped
LOSS_OF_A_STEP = "not_finite.py"
"""The one place of a step where the host waits: the loss is looked at before the optimiser steps."""
WAITS_OF_A_STEP = 0 if IS_CUDA else 1
"""On CUDA the loss is copied to pinned memory while the device goes on, and the host waits for an event, which is no operation."""


@pytest.fixture
def second():
    return SecondDevice()


def same(value, expected, exactly=True):
    """Whether a value is on the device and has the bits of the CPU, or is close where the network goes another way on the CPU.

    Close is one hundredth: another order of sums lets values at the border of two codes fall to the other side.
    """
    here = value.cpu()
    close = torch.equal(here, expected) if exactly else torch.allclose(here, expected, rtol=1e-2, atol=1e-5)
    return value.device.type == NAME and here.dtype == expected.dtype and close


@pytest.mark.parametrize(("name", "spec"), quantizers.CASES, ids=str)
def test_quantizers_give_the_same_bits_and_never_wait(second, name, spec):
    torch.manual_seed(0)
    quantizer = quantizers.build(name, *spec)
    x = torch.randn(2, 5, 6, 6, requires_grad=True)
    with second:
        other, y = copy.deepcopy(quantizer).to(second.device), x.detach().to(second.device).requires_grad_()
        with HostWaits() as looked_at:
            output, codes = other(y), other.codes(y.detach())
            output.square().sum().backward()
        assert not looked_at.waits, looked_at.by_place
        assert same(output.detach(), quantizer(x)) and same(codes, quantizer.codes(x.detach()))
        quantizer(x).square().sum().backward()
        pairs = zip((x, *quantizer.parameters()), (y, *other.parameters()), strict=True)
        assert all((a.grad is None) is (b.grad is None) and (a.grad is None or same(b.grad, a.grad)) for a, b in pairs)


def calibrated(name, spec, batches):
    """Return what a calibrator finds in all its passes over batches."""
    calibrator = CALIBRATOR_REGISTRY.build({"type": name}, spec, where="calibration")
    another = True
    while another:
        for batch in batches:
            calibrator.update(batch)
        another = calibrator.end_pass()
    return calibrator.finish()


def found(name, spec, batches):
    result = calibrated(name, spec, batches).as_dict()
    return result.pop("mean_squared_error"), result


@pytest.mark.parametrize("name", CALIBRATOR_REGISTRY.names())
def test_calibrators_find_the_same_bits(second, name):
    """On signed data and on softmax maps, for the quantizers and the data that the calibrator is for."""
    compared = 0
    for spec in (QuantSpec(4), QuantSpec(3, symmetric=True), QuantSpec(2, granularity="per_channel", channel_axis=1)):
        torch.manual_seed(0)
        signed = [torch.randn(2, 3, 8, 9) for _ in range(2)]
        for batches in (signed, [batch.softmax(-1) for batch in signed]):
            try:
                error, expected = found(name, spec, batches)
            except QuantizationError:  # such as bounds -u and u, or data below 0
                continue
            with second:
                other_error, result = found(name, spec, [batch.to(second.device) for batch in batches])
            assert result == expected
            assert (other_error or 0) == pytest.approx(error or 0, rel=1e-9)  # a sum in float64, whose order is free
            compared += 1
    assert compared


def quantized(architecture, coverage):
    torch.manual_seed(0)
    network = build_network({"type": architecture, **tiny.NETWORKS[architecture]})
    preset = "2dquant" if architecture == "SwinIR" else "body"
    insert_quantizers(network, preset if coverage == "preset" else coverage, 4, 4)
    for _, quantizer in named_quantizers(network):
        quantizer.mark_calibrated()
    return network


def step_of(network, lr, hr):
    optimizer = torch.optim.Adam(network.parameters(), foreach=False)
    loss = (network(lr) - hr).abs().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("coverage", ["preset", "full"])
@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_steps_of_quantized_networks_give_the_same_bits_and_never_wait(second, architecture, coverage):
    network = quantized(architecture, coverage)
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 64, 64)
    with second:
        other = copy.deepcopy(network).to(second.device)
        images = lr.to(second.device), hr.to(second.device)
        with HostWaits() as looked_at:
            loss = step_of(other, *images)
        assert not looked_at.waits, looked_at.by_place
        exactly = architecture != "SwinIR"  # whose attention has a way of its own for CPUs
        assert same(loss, step_of(network, lr, hr), exactly)
        if exactly:
            assert all(same(value, network.state_dict()[name]) for name, value in other.state_dict().items())


def test_tiles_and_self_ensembles_give_the_same_bits_and_never_wait(second):
    network, lr = quantized("EDSR", "preset").eval(), torch.rand(1, 3, 19, 22)
    with second:
        other, image = copy.deepcopy(network).to(second.device), lr.to(second.device)
        for options in ({}, {"tile": 16, "tile_overlap": 8}, {"self_ensemble": True}):
            with HostWaits() as looked_at:
                enlarged = upscale(other, image, **options)
            assert same(enlarged, upscale(network, lr, **options)) and not looked_at.waits, looked_at.by_place


@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_packed_files_have_the_same_bytes_and_their_networks_run_on_the_device(second, architecture, tmp_path):
    options = {"type": architecture, **tiny.NETWORKS[architecture]}
    network, inserted = networks.calibrated("2dquant" if architecture == "SwinIR" else "body", 4, options)
    save_packed(network, options, inserted, tmp_path / "cpu.safetensors")
    with second:
        save_packed(copy.deepcopy(network).to(second.device), options, inserted, tmp_path / "second.safetensors")
        other = load_packed(tmp_path / "second.safetensors")[0].to(second.device)
        enlarged = other(networks.IMAGE.to(second.device)).detach()
    assert (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "cpu.safetensors").read_bytes()
    assert same(
        enlarged, load_packed(tmp_path / "cpu.safetensors")[0](networks.IMAGE).detach(), architecture != "SwinIR"
    )


def trainings():
    """Return the files of the demonstration that train."""
    files = sorted((tiny.ROOT / "options/train").glob("demo_*.yml"))
    return [file for file in files if load_options(file).required_train().total_iter]


def tiny_options(file, folder, *changes, architecture=None):
    raw = load_options(file)
    architecture, extras = architecture or raw.network_g["type"], raw.required_train().model_extra
    autocast = ["train:autocast=off"] if "autocast" in extras else []  # in float32 the bits are those of the CPU
    layers = "train:feature_layers=[layers.0.residual_group, layers.1.residual_group]"
    features = [layers] if architecture == "SwinIR" and extras.get("feature_layers") else []
    optimizers = [key for key in extras if key.startswith("optim_")]
    network = {"scale": raw.scale, "architecture": architecture, "optimizers": optimizers}
    return load_options(file, tiny.train_overrides(folder, *autocast, *features, *changes, **network), tell=False)


def training(options, device):
    """Return a model and a function that takes a step of it, with the same numbers on every device."""
    torch.manual_seed(0)
    extras = options.required_train().model_extra
    model = MODEL_REGISTRY.build(
        {"type": options.model_type, **extras}, build_network(options.network_g), options, device, where="train"
    )
    for _, quantizer in named_quantizers(model.network):
        quantizer.mark_calibrated()
    size = 16 * options.scale
    crops, originals = torch.rand(2, 3, 16, 16), torch.rand(2, 3, size, size)
    model.prepare(crops)
    return model, lambda: model.optimize_parameters({"lq": crops, "gt": originals, "index": torch.tensor([0, 1])})


@pytest.mark.slow
@pytest.mark.parametrize("file", trainings(), ids=lambda file: file.stem)
def test_steps_of_every_training_give_the_losses_of_the_cpu_and_wait_for_these_alone(second, file, tmp_path):
    options = tiny_options(file, tmp_path, "train:total_iter=40")
    _, step = training(options, torch.device("cpu"))
    expected = step()
    with second:
        model, step = training(options, second.device)
        losses = step()
        exactly = options.network_g["type"] != "SwinIR"
        assert losses.keys() == expected.keys() and all(same(losses[k], expected[k], exactly) for k in losses)
        with HostWaits() as looked_at:
            step()
    assert all(parameter.device.type == NAME for parameter in model.network.parameters())
    assert len(looked_at.waits) <= WAITS_OF_A_STEP, looked_at.by_place
    assert all(LOSS_OF_A_STEP in wait.place for wait in looked_at.waits), looked_at.by_place


@pytest.mark.slow
def test_a_run_with_its_evaluations_checkpoints_and_continuation_gives_the_records_of_the_cpu(second, tmp_path):
    records = {}
    for name in ("cpu", NAME):
        folder = tmp_path / name
        folder.mkdir()
        file = tiny.ROOT / "options/train/demo_QAT.yml"
        if name == "cpu":
            pipeline.train(tiny_options(file, folder), folder, torch.device("cpu"))
        else:
            with second:
                options = tiny_options(file, folder)
                pipeline.train(options, folder, second.device)
                for late in ("models/net_Q_6.pth", "training_states/6.state"):
                    (folder / "experiments/tiny" / late).unlink()
                pipeline.train(options, folder, second.device, auto_resume=True)
        lines = (folder / "experiments/tiny/metrics.jsonl").read_text().splitlines()
        records[name] = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    assert len(records["cpu"]) == len(records[NAME]) > 3
    for expected, found in zip(records["cpu"], records[NAME], strict=True):
        numbers = {key for key, value in expected.items() if isinstance(value, float)}
        assert found.keys() == expected.keys() and "psnr" in numbers
        assert all(found[key] == expected[key] for key in found.keys() - numbers)
        # torch steps many tensors at once on such a device, which rounds otherwise
        assert all(found[key] == pytest.approx(expected[key], rel=1e-3) for key in numbers)


@pytest.mark.parametrize("architecture", tiny.NETWORKS)
def test_the_recorded_part_of_a_step_can_be_recorded(second, architecture):
    with second:
        step = recorded_part(second, architecture)
        step()  # fills the caches of the network
        require_recordable(step)


def recorded_part(second, architecture="EDSR"):
    """Return what `GradientStep` records: the passes of a training in full precision."""
    torch.manual_seed(0)
    network = build_network({"type": architecture, **tiny.NETWORKS[architecture]}).to(second.device)
    loss = L1Loss()
    step = GradientStep(network, lambda output, gt: {"l_pix": loss(output, gt)}, accumulation_steps=2)
    lq, gt = (torch.rand(2, 3, side, side).to(second.device) for side in (16, 64))
    return lambda: step(lq, gt)


def left_behind(self, output, target):
    return (output - target).abs().mean() * torch.ones(1)


def read_by_the_host(self, output, target):
    difference = (output - target).abs().mean()
    return difference * 2 if difference > 1e9 else difference


def test_a_generator_of_the_cpu_draws_no_numbers_on_the_device(second):
    with second, pytest.raises(RuntimeError, match="device type for generator but found 'cpu'"):
        torch.randn(3, device=second.device, generator=torch.Generator())


@pytest.mark.parametrize("recorded", [True, False])
def test_a_tensor_that_is_left_behind_stops_a_real_step(second, recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(L1Loss, "forward", left_behind)
    with (
        second,
        pytest.raises((RuntimeError, RecordingError), match="at least two devices|the same device|from the host"),
    ):
        if recorded:
            require_recordable(recorded_part(second))
        else:
            training(tiny_options(tiny.ROOT / "options/train/demo_QAT.yml", tmp_path), second.device)[1]()


def test_a_read_in_a_real_step_is_found_with_its_place(second, tmp_path, monkeypatch):
    monkeypatch.setattr(L1Loss, "forward", read_by_the_host)
    with second:
        _, step = training(tiny_options(tiny.ROOT / "options/train/demo_QAT.yml", tmp_path), second.device)
        step()
        with HostWaits() as looked_at:
            step()
        with pytest.raises(RecordingError, match=r"lane_of_steps.py:\d+ in read_by_the_host reads a value on the host"):
            require_recordable(recorded_part(second))
    places = [wait.place for wait in looked_at.waits]
    assert sum("read_by_the_host" in place for place in places) == 1 and len(places) == 1 + WAITS_OF_A_STEP


def test_every_registered_quantizer_is_among_them():
    assert {name for name, _ in quantizers.CASES} == set(QUANTIZER_REGISTRY.names())
