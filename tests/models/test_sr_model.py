"""The training step of SRModel: moving average, clipping, checkpoints."""

import copy

import pytest
import torch

from basicsr.archs import build_network
from basicsr.models.sr_model import SRModel
from basicsr.utils.errors import OptionsError, TrainingError
from basicsr.utils.options import load_options
from tests import tiny

CPU = torch.device("cpu")
RECIPE = tiny.ROOT / "options/train/train_FP.yml"


@pytest.fixture(scope="module")
def options():
    return load_options(RECIPE, ["scale=2", *(f"network_g:{key}={value}" for key, value in tiny.NETWORK.items())])


def model(options, **arguments):
    torch.manual_seed(0)
    return SRModel(build_network(options.network_g), options, CPU, **arguments)


def batch(seed=0):
    random = torch.Generator().manual_seed(seed)
    return {"lq": torch.rand(2, 3, 8, 8, generator=random), "gt": torch.rand(2, 3, 16, 16, generator=random)}


def test_the_average_moves_towards_the_weights_slowly_and_faster_at_first(options):
    trained = model(options, ema_decay=0.5)
    average = trained.network.conv_first.weight.detach().clone()
    for step in range(12):
        trained.optimize_parameters(batch(step))
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * trained.network.conv_first.weight.detach()
    evaluated = trained.network_for_evaluation()
    torch.testing.assert_close(evaluated.conv_first.weight, average)
    assert not evaluated.training and trained.network.training
    assert not any(parameter.requires_grad for parameter in evaluated.parameters())


def test_checkpoints_hold_both_networks_and_continue_to_the_same_bits(options, tmp_path):
    trained = model(options, clip_grad_norm=0.1)
    for step in range(3):
        trained.optimize_parameters(batch(step))
    entries = {key: {k: v.clone() for k, v in value.items()} for key, value in trained.checkpoint().items()}
    assert set(entries) == {"params", "params_ema"}
    torch.save(entries, tmp_path / "net_g_3.pth")
    torch.save(trained.training_state(), tmp_path / "3.state")
    continued = model(options, clip_grad_norm=0.1)
    continued.load(tmp_path / "net_g_3.pth", torch.load(tmp_path / "3.state", weights_only=True))
    for step in range(3, 6):
        losses = [one.optimize_parameters(batch(step))["l_pix"] for one in (trained, continued)]
        assert torch.equal(*losses)
    for entry, state in trained.checkpoint().items():
        assert all(torch.equal(continued.checkpoint()[entry][key], value) for key, value in state.items())


def test_without_an_average_the_network_itself_is_evaluated(options):
    trained = model(options, ema_decay=0.0)
    assert set(trained.checkpoint()) == {"params"}
    assert trained.network_for_evaluation() is trained.network and not trained.network.training
    trained.optimize_parameters(batch())
    assert trained.network.training


def test_gradients_are_clipped_to_a_norm(options):
    norms = []
    for limit in (None, 1e-3):
        trained = model(options, clip_grad_norm=limit)
        trained.optimize_parameters(batch())
        norms.append(torch.stack([p.grad.norm() for p in trained.network.parameters()]).norm())
    assert norms[0] > 1e-2
    torch.testing.assert_close(norms[1], torch.tensor(1e-3), rtol=1e-3, atol=0)


def test_a_loss_that_is_not_finite_takes_no_step_and_names_the_activation(options):
    trained = model(options)
    trained.optimize_parameters(batch())
    before = copy.deepcopy(trained.checkpoint())
    trained.network.conv_after_body.register_forward_hook(lambda _m, _i, output: output * float("nan"))
    with pytest.raises(
        TrainingError, match=r"The loss 'l_pix' is nan\..*activation that 'conv_after_body'.*clip_grad_norm"
    ):
        trained.optimize_parameters(batch())
    for entry, state in trained.checkpoint().items():
        assert all(torch.equal(value, before[entry][key]) for key, value in state.items())


def test_training_lowers_the_loss(options):
    trained = model(options, optim_g={"type": "Adam", "lr": 1e-3}, channels_last=True, autocast="bf16")
    losses = [trained.optimize_parameters(batch())["l_pix"] for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in trained.network.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_loss": {"type": "L1Los"}}, "Did you mean 'L1Loss'"),
        ({"optim_g": {"type": "Adam", "lr": -1.0}}, "train:optim_g:lr"),
        ({"scheduler": {"type": "MultiStepLR"}}, "milestones"),
    ],
)
def test_components_are_checked(options, arguments, message):
    with pytest.raises(OptionsError, match=message):
        model(options, **arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("fast", [{}, {"cuda_graphs": True, "cudnn_benchmark": True, "channels_last": True}])
def test_a_gpu_takes_the_steps_of_the_cpu(options, fast):
    networks = []
    for device, arguments in ((CPU, {}), (torch.device("cuda"), fast)):
        torch.manual_seed(0)
        trained = SRModel(build_network(options.network_g), options, device, **arguments)
        for step in range(5):
            trained.optimize_parameters(batch(step))
        networks.append({key: value.cpu() for key, value in trained.checkpoint()["params_ema"].items()})
    for key, value in networks[0].items():
        torch.testing.assert_close(networks[1][key], value, rtol=1e-2, atol=2e-4)
