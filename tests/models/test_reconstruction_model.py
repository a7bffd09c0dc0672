"""Block reconstruction on tiny networks of all architectures."""

import copy
import shutil
import signal

import pytest
import torch

from basicsr import train as train_command
from basicsr.archs import build_network
from basicsr.evaluation.evaluator import check_levels
from basicsr.models.reconstruction_model import ReconstructionModel
from basicsr.quant.insertion.insert import named_quantizers, quantized_weights
from basicsr.quant.observe.capture import count_codes
from basicsr.quant.quantizers.adaround_quantizer import soft_rounding
from basicsr.training.reconstruction import block_reconstruction
from basicsr.training.reconstruction.block_cache import BlockCache, CacheOptions, _fisher_diagonal
from basicsr.training.reconstruction.block_reconstruction import BlockReconstruction, ReconstructionOptions
from basicsr.training.reconstruction.blocks import trial_calls
from basicsr.utils.errors import OptionsError, TrainingError
from basicsr.utils.options import load_options
from tests import tiny

CPU = torch.device("cpu")
BRECQ, QDROP = (tiny.ROOT / f"options/train/demo_{name}.yml" for name in ("BRECQ", "QDrop"))
NETWORKS = {
    "SwinIR": ({"type": "SwinIR", **tiny.NETWORK}, "2dquant"),
    "EDSR": ({"type": "EDSR", "num_feat": 6, "num_block": 3, "img_range": 1.0, "upscale": 2}, "body"),
    "RDN": ({"type": "RDN", "num_feat": 6, "num_block": 2, "num_layer": 2, "num_grow_ch": 4, "upscale": 2}, "body"),
}
FAST = {"optim_rounding": {"type": "Adam", "lr": 0.1}, "optim_bound": {"type": "Adam", "lr": 1e-2}}
SWIN_BLOCKS = [f"layers.{i}.residual_group.blocks.{j}" for i in (0, 1) for j in (0, 1)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def crops():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def build(weights):
    """Return a function that makes a calibrated model and its crops."""

    def make(crops, kind="SwinIR", total_iter=8, calibrate=True, changes=(), **arguments):
        torch.manual_seed(3)
        description, coverage = NETWORKS[kind]
        network = build_network(description).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        options = load_options(
            BRECQ,
            tiny.train_overrides(
                weights,
                f"train:total_iter={total_iter}",
                f"quantization:coverage={coverage}",
                "bit=3",
                "calibration:weights={type: MinMax}",
                "calibration:activations={type: MinMax}",
                "calibration:batch_size=2",
                *changes,
            ),
        )
        model = ReconstructionModel(network, options, CPU, **{**FAST, **arguments})
        model.prepare(crops)
        if calibrate:
            model.calibrate(crops)
        return model

    return make


def run(model, steps, first=0):
    """Take steps on batches of 2 crops that depend on the number of the step only."""
    for number in range(first, first + steps):
        index = torch.tensor([number % 5, (3 * number + 1) % 5])
        losses = model.optimize_parameters({"lq": model._crops[index], "index": index})
    return losses


def block_error(model, crops):
    """Return the mean squared error of the last block's output."""
    name = model.blocks[-1]
    outputs = [trial_calls(n, [name], crops)[name].output for n in (model.network, model.full_precision)]
    return float((outputs[0] - outputs[1]).square().mean())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "loss"), [("SwinIR", "mse"), ("EDSR", "fisher_diag"), ("RDN", "mse")])
def test_reconstruction_brings_the_blocks_nearer_to_full_precision(build, crops, kind, loss):
    total = 20 * {"SwinIR": 4, "EDSR": 3, "RDN": 2}[kind]
    model = build(crops, kind, total, loss=loss, rounding_weight=0.1)
    before = block_error(model, crops)
    teacher = copy.deepcopy(model.full_precision.state_dict())
    losses = run(model, total)
    assert set(losses) == {"l_block", "l_rounding"}
    assert block_error(model, crops) < 0.9 * before
    assert all(torch.equal(value, teacher[key]) for key, value in model.full_precision.state_dict().items())
    assert check_levels(model.network, crops[0]) <= 8
    weights = quantized_weights(model.network)
    roundings = [q.rounding for name, q in named_quantizers(model.network) if name in weights]
    assert roundings and all(rounding.dtype == torch.bool for rounding in roundings)
    assert not any(p.requires_grad for p in model.network.parameters())


def test_only_the_block_in_progress_changes_and_the_network_stays_a_quantized_one(build, crops):
    model = build(crops, total_iter=12)
    assert model.blocks == SWIN_BLOCKS
    before = copy.deepcopy(model.network.state_dict())
    run(model, 4)
    after = model.network.state_dict()
    changed = {
        key.rsplit(".attn", 1)[0].rsplit(".mlp", 1)[0]
        for key in after
        if not torch.equal(after[key], before.get(key, torch.empty(0)))
    }
    assert changed == set(SWIN_BLOCKS[:2])
    quantizers = dict(named_quantizers(model.network))
    states = {
        block: {
            q.rounding is not None and q.rounding.dtype
            for name, q in quantizers.items()
            if name.startswith(block) and name.endswith("weight_quantizer")
        }
        for block in SWIN_BLOCKS
    }
    assert list(states.values()) == [{torch.bool}, {torch.float32}, {False}, {False}]
    with torch.no_grad(), count_codes(model.network) as counts:
        model.network(crops)
    assert max(counts.values()) <= 8
    with torch.no_grad(), soft_rounding(model.network), count_codes(model.network) as counts:
        model.network(crops)
    assert max(counts.values()) > 8  # the roundings in progress were not hidden from the count


def test_weights_first_learns_one_part_at_a_time(build, crops):
    model = build(crops, total_iter=8, order="weights_first", bounds_share=0.5)

    def roundings_and_bounds():
        quantizers = dict(named_quantizers(model.network))
        weights = quantized_weights(model.network)
        roundings = {name: quantizers[name].rounding for name in weights}
        others = {n: [b.detach().clone() for b in q.bounds()] for n, q in quantizers.items() if n not in weights}
        return copy.deepcopy(roundings), others

    _, calibrated = roundings_and_bounds()
    run(model, 4)
    learned, untouched = roundings_and_bounds()
    assert all(rounding.dtype == torch.bool for rounding in learned.values())
    assert all(torch.equal(a, b) for name in calibrated for a, b in zip(untouched[name], calibrated[name], strict=True))
    run(model, 4, 4)
    final, moved = roundings_and_bounds()
    assert all(torch.equal(final[name], learned[name]) for name in learned)
    assert sum(not torch.equal(moved[name][0], calibrated[name][0]) for name in calibrated) > len(calibrated) / 2


def test_while_roundings_are_learned_activations_are_in_full_precision(build, crops):
    model = build(crops, total_iter=16, order="weights_first", bounds_share=0.5, changes=["quantization:w_bits=8"])
    run(model, 1)
    error = model._current._measure()
    with torch.no_grad():
        whole = trial_calls(model.network, SWIN_BLOCKS[:1], crops)[SWIN_BLOCKS[0]].output
        target = trial_calls(model.full_precision, SWIN_BLOCKS[:1], crops)[SWIN_BLOCKS[0]].output
    assert error < float((whole - target).square().mean()) / 20  # 8 bits of weights against 3 of activations


def test_the_exponent_of_the_error_is_that_of_the_options(build, crops):
    model = build(crops)
    options = CacheOptions("quantized", False, 2, error_exponent=2.4)
    cache = BlockCache(model.full_precision, model.network, SWIN_BLOCKS[0], crops, options)
    target = trial_calls(model.full_precision, SWIN_BLOCKS[:1], crops)[SWIN_BLOCKS[0]].output
    assert float(cache.error(target + 0.5, torch.arange(5))) == pytest.approx(0.5**2.4, rel=1e-4)


@pytest.mark.slow
def test_layers_outside_of_blocks_are_blocks_in_the_order_of_execution(build, crops):
    model = build(crops, changes=["quantization:coverage=full"], total_iter=9)
    convs = ["layers.0.conv", "layers.1.conv", "conv_after_body", "upsample.0"]
    assert model.blocks == ["conv_first", *SWIN_BLOCKS[:2], convs[0], *SWIN_BLOCKS[2:], *convs[1:]]
    run(model, 9)
    assert all(
        q.rounding.dtype == torch.bool for n, q in named_quantizers(model.network) if n.endswith("weight_quantizer")
    )


def test_named_blocks_are_all_that_is_reconstructed(build, crops):
    model = build(crops, total_iter=5, blocks=[SWIN_BLOCKS[2], SWIN_BLOCKS[0]])
    assert model.blocks == [SWIN_BLOCKS[0], SWIN_BLOCKS[2]]
    assert [(unit.first, unit.end) for unit in model._units] == [(0, 3), (3, 5)]
    run(model, 5)
    done = {
        n.split(".attn")[0].split(".mlp")[0]
        for n, q in named_quantizers(model.network)
        if getattr(q, "rounding", None) is not None
    }
    assert done == {SWIN_BLOCKS[0], SWIN_BLOCKS[2]}


def test_errors_come_before_any_work(build, crops, monkeypatch):
    def refused(message, **arguments):
        with pytest.raises(OptionsError, match=message):
            build(crops, calibrate=False, **arguments)

    refused(r"names 'layers.0.block', which the network has not. Did you mean", blocks=["layers.0.block"])
    refused("names 'conv_first', which has no quantizers", blocks=["conv_first"])
    refused("names 'layers.1' and 'layers.1.residual_group.blocks.0', which share", blocks=["layers.1", SWIN_BLOCKS[2]])
    refused("'train:total_iter' leaves 3 iterations, but there are 4 blocks", total_iter=3)
    refused(
        "is a AffineQuantizer, whose rounding cannot be learned",
        changes=["quantization:weight_quantizer={type: Affine}"],
    )
    refused(
        "is a DDTBQuantizer, .*not measured in quantization steps.*choose another 'quantization:activation_quantizer'",
        changes=["quantization:activation_quantizer={type: DDTB}", "calibration:activations={type: DDTB}"],
    )
    refused("'mixed', which needs a 'train:drop_probability'", inputs="mixed")
    refused(
        "block 'layers.0.residual_group.blocks.0.mlp' holds no LayerNorm",
        changes=["calibration:fold_norms=2"],
        blocks=[f"{SWIN_BLOCKS[0]}.mlp"],
        **VARIANTS["QDrop"],
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 7, 3))
    refused("cache of 0 MiB, more than .*cache_budget_mb' 0, and .* has only 0 MiB left", cache_budget_mb=0)


VARIANTS = {
    "BRECQ": {},
    "QDrop": {"inputs": "mixed", "drop_probability": 0.5, "loss": "mse"},
    "weights first": {"order": "weights_first", "bounds_share": 0.5},  # at 4 between the two parts
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [3, 4])  # in the middle of a block and between two
def test_a_run_that_continues_ends_with_the_same_bits(build, crops, tmp_path, variant, stop):
    model = build(crops, total_iter=8, **VARIANTS[variant])
    torch.manual_seed(7)
    run(model, stop)
    file = tmp_path / "net.pth"
    torch.save({"params": model.network.state_dict()}, file)
    torch.save({"iter": stop, "rng": torch.get_rng_state(), **model.training_state()}, tmp_path / "state")
    run(model, 8 - stop, stop)
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = build(crops, total_iter=8, calibrate=False, **VARIANTS[variant])
    resumed.load(file, state)
    torch.set_rng_state(state["rng"])
    run(resumed, 8 - stop, stop)
    expected = model.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())


@pytest.mark.slow
def test_a_mapped_cache_gives_the_same_bits(build, crops, tmp_path):
    networks = []
    for budget in (100, 0):
        model = build(crops, cache_budget_mb=budget, cache_folder=str(tmp_path), inputs="mixed", drop_probability=0.5)
        torch.manual_seed(7)
        run(model, 8)
        networks.append(model.network.state_dict())
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


def test_the_cache_holds_inputs_behind_quantized_blocks_and_full_precision_targets(build, crops):
    model = build(crops, inputs="mixed", drop_probability=0.5)
    run(model, 2)
    name, index = SWIN_BLOCKS[1], torch.tensor([4, 1])
    cache = BlockCache(model.full_precision, model.network, name, crops, CacheOptions("mixed", False, 2))
    teacher, student = (trial_calls(n, [name], crops)[name] for n in (model.full_precision, model.network))
    assert torch.allclose(cache.inputs(index)[0], student.arguments[0][index], atol=1e-6)
    assert cache.inputs(index)[1] == student.arguments[1] == (1, 1, 1, 1)  # windows in each group
    assert float(cache.error(teacher.output[index], index)) < 1e-10
    mixed = cache.inputs(index, full_precision_share=0.25)[0]
    close = torch.isclose(mixed, teacher.arguments[0][index], atol=1e-6)
    assert 0.2 < float(close.float().mean()) < 0.35
    assert torch.allclose(mixed[~close], student.arguments[0][index][~close], atol=1e-6)
    only = BlockCache(model.full_precision, model.network, name, crops, CacheOptions("full_precision", False, 2))
    assert torch.allclose(only.inputs(index)[0], teacher.arguments[0][index], atol=1e-6)


def test_the_fisher_diagonal_of_a_linear_map():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(4, 3)).requires_grad_(False)
    estimate = _fisher_diagonal(network, "0", torch.zeros(20000, 4), torch.Generator().manual_seed(1)).mean(0)
    torch.testing.assert_close(estimate, network[1].weight.square().sum(0), rtol=0.05, atol=0.0)


def test_errors_are_weighted_by_the_fisher_information_with_mean_one(build, crops):
    model = build(crops)
    cache = BlockCache(model.full_precision, model.network, SWIN_BLOCKS[0], crops, CacheOptions("quantized", True, 2))
    index = torch.arange(5)
    target = trial_calls(model.full_precision, SWIN_BLOCKS[:1], crops)[SWIN_BLOCKS[0]].output
    assert float(cache.error(target + 0.5, index)) == pytest.approx(0.25, rel=1e-3)
    shifts = torch.zeros_like(target)
    shifts[0, :, 3] = 1
    assert float(cache.error(target + shifts, index)) != pytest.approx(float(shifts.mean()), rel=1e-3)


class TwoInputs(torch.nn.Module):
    def forward(self, a, factor, *, b):
        return a * factor + b


def test_blocks_with_arguments_that_cannot_be_kept_are_refused(crops):
    class Network(torch.nn.Module):
        def __init__(self, b, factor):
            super().__init__()
            self.block, self.b, self.factor = TwoInputs(), b, factor
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.block(x, self.factor(x), b=self.b(x))

    def cache(b, factor):
        network = Network(b, factor)
        return BlockCache(network, network, "block", crops, CacheOptions("quantized", False, 2))

    index = torch.tensor([3])
    arguments = cache(lambda x: 2 * x, lambda x: 3).inputs(index)
    assert torch.equal(arguments[0], crops[index]) and torch.equal(arguments["b"], 2 * crops[index])
    assert arguments[1] == 3
    with pytest.raises(TrainingError, match=r"shape \(16, 16\).*axis 0 must be the crops"):
        cache(lambda x: x[0, 0], lambda x: 3)
    with pytest.raises(TrainingError, match="is called with {1: 1} for some calibration crops and with {1: 2}"):
        cache(lambda x: x, lambda x: len(x))


@pytest.mark.parametrize("bit", [2, 4])
def test_bounds_of_activations_move_in_quantization_steps(build, crops, bit):
    model = build(crops, "EDSR", 30, calibrate=False, changes=[f"bit={bit}"], optim_bound={"type": "Adam", "lr": 0.125})
    model.calibrate(crops)
    block = model.network.get_submodule(model.blocks[0])
    weights = quantized_weights(block)
    activations = [quantizer for name, quantizer in named_quantizers(block) if name not in weights]
    before = [tuple(bound.detach().clone() for bound in quantizer.bounds()) for quantizer in activations]
    run(model, 1)
    shares = [
        float((new.detach() - old).abs() * (2**bit - 1) / (upper - lower))
        for quantizer, (lower, upper) in zip(activations, before, strict=True)
        for new, old in zip(quantizer.bounds(), (lower, upper), strict=True)
    ]
    # the first step of Adam is its learning rate wherever the gradient is not about as small as its `eps`
    assert max(shares) <= 0.126
    assert sum(share > 0.124 for share in shares) > len(shares) / 2


def test_the_exponent_falls_after_the_warm_up():
    options = ReconstructionOptions(0.0, 1.0, (20.0, 2.0), 0.2, {}, {}, {})
    assert options.beta_at(0.19) is None
    assert options.beta_at(0.2) == 20 and options.beta_at(0.6) == pytest.approx(11) and options.beta_at(1) == 2


@pytest.mark.slow
def test_a_quick_look_reconstructs_as_many_blocks_as_it_has_iterations(tmp_path):
    changes = tiny.train_overrides(tmp_path, "train:total_iter=3")  # of a network of 4 blocks
    arguments = ["-opt", str(QDROP), "--root", str(tmp_path), "--force_yml", *changes]
    assert train_command.main(arguments) == 2
    assert train_command.main(["--debug", *arguments]) == 0
    learned = torch.load(tmp_path / "experiments/debug_tiny/models/net_Q_3.pth", weights_only=True)["params"]
    assert learned


@pytest.mark.slow
def test_a_stopped_command_continues_to_the_same_bits(tmp_path, capfd, monkeypatch):
    stop = 3  # in the middle of a block
    step, count = BlockReconstruction.step, 0

    def stopping(self, index, accumulation_steps):
        nonlocal count
        count += 1
        if count == stop:
            signal.raise_signal(signal.SIGTERM)
        return step(self, index, accumulation_steps)

    def train(name, *flags):
        changes = tiny.train_overrides(tmp_path, "train:total_iter=8", f"name={name}", "val:val_freq=8")
        arguments = ["-opt", str(QDROP), "--root", str(tmp_path), *flags, "--force_yml", *changes]
        return train_command.main(arguments)

    assert train("whole") == 0
    monkeypatch.setattr(block_reconstruction.BlockReconstruction, "step", stopping)
    assert train("tiny") == 143
    monkeypatch.undo()
    assert train("tiny", "--auto_resume") == 0
    assert f"Continuing 'tiny' after iteration {stop}" in capfd.readouterr().err
    whole, resumed = (
        torch.load(tmp_path / f"experiments/{name}/models/net_Q_8.pth", weights_only=True)["params"]
        for name in ("whole", "tiny")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], value) for key, value in resumed.items())
