"""A step's gradients are the same with every option, and what cannot be used is done without and said."""

import logging

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.training.gradient_step import GradientStep
from basicsr.utils.errors import TrainingError

NETWORKS = {
    "EDSR": {"type": "EDSR", "num_feat": 8, "num_block": 2},
    "SwinIR": {"type": "SwinIR", "embed_dim": 12, "depths": [2], "num_heads": [2]},
}


def losses(output, gt):
    return {"l_pix": F.l1_loss(output, gt)}


def network_and_batch(name="EDSR", device="cpu"):
    torch.manual_seed(0)
    network = build_network({"upscale": 2, **NETWORKS[name]}).to(device).train()
    return network, torch.rand(4, 3, 16, 16, device=device), torch.rand(4, 3, 32, 32, device=device)


def gradients(device="cpu", name="EDSR", losses=losses, **options):
    network, lq, gt = network_and_batch(name, device)
    step = GradientStep(network, losses, **options)
    found = step(lq, gt)
    return {key: parameter.grad.clone() for key, parameter in network.named_parameters()}, found, step


def assert_close(got, want, **tolerance):
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, **tolerance, msg=lambda text, key=key: f"{key}: {text}")


@pytest.fixture
def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    return lambda: caplog.text


@pytest.mark.parametrize("options", [{"accumulation_steps": 2}, {"accumulation_steps": 3}, {"channels_last": True}])
def test_parts_and_layouts_give_the_same_gradients(options):
    plain, loss, _ = gradients()
    other, other_loss, _ = gradients(**options)
    assert_close(other, plain, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other_loss["l_pix"], loss["l_pix"])


def test_bfloat16_leaves_weights_gradients_and_losses_in_float32():
    plain, _, _ = gradients("cpu")
    low, loss, _ = gradients("cpu", bfloat16=True)
    assert all(value.dtype == torch.float32 for value in (*low.values(), loss["l_pix"]))
    assert any(not torch.equal(low[key], value) for key, value in plain.items())
    assert_close(low, plain, rtol=0.2, atol=5e-3)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_gradients(monkeypatch):
    compile = torch.compile
    counted = torch._dynamo.testing.CompileCounter()  # traces the network and runs what it traced
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile(network, backend=counted))
    compiled, _, _ = gradients(name="SwinIR", compile="default")
    assert counted.frame_count == 1
    assert_close(compiled, gradients(name="SwinIR")[0], rtol=1e-4, atol=1e-6)


def failing(*_arguments, **_more):
    raise RuntimeError("no working C++ compiler\nand many more lines")


@pytest.mark.parametrize("when", ["construction", "call"])
def test_a_compiler_that_fails_is_named_and_done_without(monkeypatch, messages, when):
    monkeypatch.setattr(torch, "compile", failing if when == "construction" else lambda *_, **__: failing)
    compiled, _, step = gradients(compile="max-autotune")
    assert_close(compiled, gradients()[0], rtol=0, atol=0)
    assert "cannot be compiled; training goes on without: no working C++ compiler" in messages()
    assert "many more" not in messages()
    step(*network_and_batch()[1:])
    assert messages().count("cannot be compiled") == 1


def test_an_error_of_the_loss_is_no_reason_to_go_on():
    def wrong(output, gt):
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        gradients(losses=wrong)


def test_cuda_graphs_need_cuda(messages):
    graphed, _, _ = gradients(cuda_graphs=True)
    assert_close(graphed, gradients()[0], rtol=0, atol=0)
    assert "CUDA graphs need a CUDA device, not 'cpu'" in messages()


def memory_for(crops):
    def scarce(output, gt):
        if len(output) > crops:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return losses(output, gt)

    return scarce


@pytest.mark.parametrize(("crops", "parts"), [(2, 2), (1, 4)])
def test_a_batch_that_does_not_fit_is_split_and_that_is_said(messages, crops, parts):
    split, _, step = gradients(losses=memory_for(crops))
    assert step.accumulation_steps == parts
    assert_close(split, gradients()[0], rtol=1e-4, atol=1e-6)
    assert f"a batch of 4 now goes through the network in {parts} parts" in messages()


def test_a_crop_that_does_not_fit():
    with pytest.raises(TrainingError, match=r"does not suffice for a single crop.*lq_size.*Tried to allocate"):
        gradients(losses=memory_for(0))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"bfloat16": True}, {"accumulation_steps": 2}, {"compile": "default"}])
def test_a_recorded_step_gives_the_gradients_of_each_batch(name, options):
    settings = {**options, "channels_last": True, "cudnn_benchmark": True}
    network, lq, gt = network_and_batch(name, "cuda")
    recorded = GradientStep(network, losses, cuda_graphs=True, **settings)
    for _ in range(3):
        found = recorded(lq, gt)
        graph_gradients = {key: parameter.grad.clone() for key, parameter in network.named_parameters()}
        other, _, _ = network_and_batch(name, "cuda")
        want = GradientStep(other, losses, **settings)(lq, gt)
        torch.testing.assert_close(found["l_pix"], want["l_pix"], rtol=1e-3, atol=1e-5)
        eager = {key: parameter.grad for key, parameter in other.named_parameters()}
        assert_close(graph_gradients, eager, rtol=5e-2, atol=1e-3)
        lq, gt = torch.rand_like(lq), torch.rand_like(gt)


@pytest.mark.gpu
def test_a_recorded_step_survives_the_evaluation_of_many_sizes():
    network, lq, gt = network_and_batch("SwinIR", "cuda")
    step = GradientStep(network, losses, cuda_graphs=True)
    first = step(lq, gt)["l_pix"]
    with torch.inference_mode():
        for side in range(8, 120, 8):
            network(torch.rand(1, 3, side, side + 8, device="cuda"))
    torch.testing.assert_close(step(lq, gt)["l_pix"], first)


@pytest.mark.gpu
def test_a_step_that_cannot_be_recorded_is_named_and_done_without(messages):
    def waiting(output, gt):
        loss = F.l1_loss(output, gt)
        return {"l_pix": loss * (1.0 if loss.item() > 0 else 2.0)}  # a recording cannot wait for a number

    found, _, _ = gradients("cuda", losses=waiting, cuda_graphs=True)
    assert "cannot be recorded as a CUDA graph" in messages()
    assert_close(found, gradients("cuda")[0], rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
def test_a_recorded_batch_that_does_not_fit_is_split():
    found, _, step = gradients("cuda", losses=memory_for(2), cuda_graphs=True)
    assert step.accumulation_steps == 2
    assert_close(found, gradients("cuda")[0], rtol=1e-3, atol=1e-5)
