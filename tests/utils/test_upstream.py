"""Options files of BasicSR and 2DQuant mean what they mean there, under the names of this project."""

import re

import pytest
import torch

from basicsr.training.optimizers import build_scheduler
from basicsr.utils.errors import OptionsError
from basicsr.utils.options import by_path, load_options
from basicsr.utils.options.upstream import values
from basicsr.utils.options.upstream.known import is_known
from basicsr.utils.options.upstream.paths import matches
from basicsr.utils.options.upstream.table import DEFAULTS, READ_BEFORE, ROWS, SAME
from basicsr.utils.registry import ALL_REGISTRIES
from basicsr.utils.yaml_loader import guessed, parse_yaml
from tests import tiny
from tests import upstream_files as upstream

OPTIONS = tiny.ROOT / "options"
ADAM = {"type": "Adam", "weight_decay": 0, "betas": [0.9, 0.99]}
TRAINED = {
    "EDSR": {
        "batch_size": 16, "num_workers": 6, "total_iter": 300_000, "ema_decay": 0, "optim_g": {**ADAM, "lr": 1e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": [200_000], "gamma": 0.5, "warmup_iter": 0},
        "pixel_loss": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
    },
    "SwinIR": {
        "batch_size": 32, "num_workers": 6, "total_iter": 500_000, "ema_decay": 0.999, "optim_g": {**ADAM, "lr": 2e-4},
        "scheduler": {
            "type": "MultiStepLR", "milestones": [250_000, 400_000, 450_000, 475_000], "gamma": 0.5, "warmup_iter": 0,
        },
    },
    "RDN": {"batch_size": 16, "total_iter": 600_000, "ema_decay": 0, "optim_g": {**ADAM, "lr": 1e-4}},
}  # fmt: skip
NETWORKS = {
    "EDSR": {"num_feat": 64, "num_block": 16, "img_range": 255.0, "rgb_mean": [0.4488, 0.4371, 0.4040], "upscale": 4},
    "SwinIR": {"depths": [6] * 6, "embed_dim": 180, "upsampler": "pixelshuffle", "drop_path_rate": 0.1, "in_chans": 3},
    "RDN": {"num_layer": 8, "num_grow_ch": 64},
}


@pytest.fixture
def load(tmp_path):
    def loaded(text, *overrides):
        return load_options(upstream.write(tmp_path / "theirs.yml", text), list(overrides))

    return loaded


def has(options, expected):
    """Whether a mapping has these entries, mappings in it too."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {key: plain.get(key) for key in expected} == expected


@pytest.mark.parametrize("architecture", TRAINED)
def test_trainings_of_basicsr(load, architecture):
    options = load(upstream.basicsr_training(architecture))
    assert (options.model_type, options.manual_seed, options.quantization) == ("SRModel", 10, None)
    assert has(options.train.model_dump(), TRAINED[architecture]) and has(options.network_g, NETWORKS[architecture])
    train, val = options.datasets["train"], options.datasets["val"]
    assert train["lq_size"] == (32 if architecture == "RDN" else 48) and train["use_hflip"] and train["use_rot"]
    assert (train["dataroot_lq"], train["filename_tmpl"]) == ("datasets/DIV2K/DIV2K_train_LR_bicubic/X4_sub", "{}")
    assert (val["name"], val["dataroot_gt"]) == ("Set5", "datasets/Set5/GTmod12")
    assert (options.val.val_freq, type(options.val.val_freq)) == (5000, int)
    assert options.val.metrics == {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False}}
    assert (options.val.pad, options.logger.save_checkpoint_freq, options.logger.print_freq) == ("reflect", 5000, 100)


def test_weights_that_a_training_starts_from(load):
    path = load(upstream.basicsr_training("EDSR")).path
    assert path.pretrain_network_g == "experiments/201_EDSR_Mx2/models/net_g_300000.pth"
    assert (path.strict_load_g, path.param_key_g) == (False, "params")
    assert load(upstream.basicsr_training("RDN")).path.param_key_g is None  # no weights are named


@pytest.mark.parametrize("architecture", TRAINED)
def test_tests_of_basicsr(load, architecture):
    options = load(upstream.basicsr_test(architecture, 2))
    assert options.model_type == "SRModel" and options.train is None and options.quantization is None
    assert [data["name"] for data in options.datasets_of("test").values()] == ["Set5", "DIV2K100"]
    assert options.datasets["test_2"]["filename_tmpl"] == "{}x2" and options.network_g["upscale"] == 2
    assert (options.path.pretrain_network_g, options.path.param_key_g) == ("net_g_latest.pth", "params")
    assert options.val.save_img and options.val.metrics["ssim"] == {
        "type": "calculate_ssim", "crop_border": 2, "test_y_channel": False,
    }  # fmt: skip


SAID = {"crop_border", "test_y_channel", "loss_weight", "weight_decay", "gamma", "filename_tmpl", "num_workers"}
"""What 2DQuant's files say and the shipped ones leave to defaults, which are the same; gamma counts after 10,000 iterations."""


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_trainings_of_2dquant_are_the_recipe_as_released(load, scale):
    theirs = by_path(load(upstream.training_2dquant(scale)).model_dump())
    given = [f"scale={scale}", "recipe=2DQuant_as_released"]
    ours = by_path(load_options(OPTIONS / "train/train_2DQuant.yml", given).model_dump())
    different = {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
    unlike = {
        key for key in different if key.rpartition(":")[2] not in SAID and not re.match("datasets:(val|test)", key)
    }
    assert unlike == {
        "name", "network", "recipe", "path:param_key_FP", "calibration:data", "val:metrics:fidelity:type",
        "logger:wandb:project",
    }  # fmt: skip
    assert theirs["calibration:data"] == f"keydata/cali_data_x{scale}.pth" and theirs["train:scheduler:gamma"] == 0.1
    assert theirs["datasets:val_0:dataroot_lq"] == f"datasets/benchmark/Set5/LR_bicubic/X{scale}"
    assert theirs["val:metrics:psnr:crop_border"] == scale and theirs["val:metrics:psnr:test_y_channel"] is True
    assert theirs["path:pretrain_network_FP"] == ours["path:pretrain_network_FP"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tests_of_2dquant(load, scale):
    options = load(upstream.testing_2dquant(scale), "bit=3", "path:pretrain_network_Q=mine.pth")
    assert (options.quantization.coverage, options.required_bits(), options.method) == (
        "2dquant",
        (3, 3),
        "2DQuant as released",
    )
    assert options.network_g["upscale"] == scale and options.path.pretrain_network_Q == "mine.pth"
    assert options.path.pretrain_network_FP == upstream.WEIGHTS.format(scale=scale)
    assert (options.val.pad, options.val.self_ensemble, options.train) == ("mirror", False, None)


def test_features_of_blocks(load):
    options = load(
        upstream.training_2dquant(4),
        "quant:hook_per_layer=false",
        "quant:hook_per_block=true",
        "network_g:depths=[1, 2]",
    )
    layers = options.train.model_extra["feature_layers"]
    assert layers == ["layers.0.residual_group.blocks.0", *(f"layers.1.residual_group.blocks.{i}" for i in range(2))]


@pytest.mark.parametrize(
    ("overrides", "place", "value"),
    [
        (["num_gpu=4"], "train:batch_size", 64),
        (["num_gpu=0"], "train:batch_size", 16),
        (["num_gpu=0"], "device", "cpu"),
        (["num_gpu=2", "datasets:train:batch_size_per_gpu=3"], "train:batch_size", 6),
        (["train:batch_size=5"], "train:batch_size", 5),
        (["train:warmup_iter=100"], "train:scheduler:warmup_iter", 99),
        (["train:pixel_opt:loss_weight=2"], "train:pixel_loss:loss_weight", 2),
        (["datasets:train:gt_size=96"], "datasets:train:lq_size", 24),
        (["train:scheduler={type: MultiStepRestartLR, milestones: [9]}"], "train:scheduler:gamma", 0.1),
        (["train:pixel_opt={type: CharbonnierLoss, eps: 1e-6}"], "train:pixel_loss:eps", 1e-6),
        (["train:niter=!!float 2e3"], "train:total_iter", 2000),
        (["val:val_freq=!!float 2e3"], "val:val_freq", 2000),
        (["train:total_iter=2e3"], "train:total_iter", 2000),
        (["path:strict_load=true"], "path:strict_load_g", True),
        (["val:selfensemble_testing=true"], "val:self_ensemble", True),
        (["train:gan_opt:type=GANLoss", "train:gan_opt=null"], "train:total_iter", 300_000),
    ],
)  # fmt: skip
def test_overrides_in_old_names_and_in_new_ones(load, overrides, place, value):
    assert by_path(load(upstream.basicsr_training("EDSR"), *overrides).model_dump())[place] == value


def test_a_warm_up_has_the_rates_of_basicsr(load):
    """There iteration k of a warm-up of n has the rate k/n."""
    options = load(upstream.basicsr_training("EDSR"), "train:warmup_iter=4")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = build_scheduler(options.train.model_extra["scheduler"], optimizer, 10, "train:scheduler")
    rates = []
    for _ in range(6):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_old_names_are_understood_beside_our_own_files(caplog):
    with caplog.at_level("INFO", "basicsr"):
        options = load_options(OPTIONS / "train/demo_2DQuant.yml", ["datasets:train:batch_size_per_gpu=3"])
    assert options.train.batch_size == 3 and options.val.pad == "official"  # and no defaults of BasicSR come with it
    assert "'datasets:train:batch_size_per_gpu=3' is 'train:batch_size=3' here" in caplog.text
    assert "where the file says nothing" not in caplog.text


def test_a_file_may_build_on_one_of_basicsr(tmp_path):
    upstream.write(tmp_path / "theirs.yml", upstream.basicsr_training("EDSR"))
    file = upstream.write(tmp_path / "mine.yml", "base: theirs.yml\ntrain: {batch_size: 8, ema_decay: 0.5}\nnum_gpu: 2")
    options = load_options(file)
    assert (options.train.batch_size, options.train.model_extra["ema_decay"], options.val.pad) == (8, 0.5, "reflect")


def test_weights_and_biases_are_left_out_where_the_package_is_not_installed(load, monkeypatch, caplog, tmp_path):
    text = upstream.training_2dquant(4)
    assert load(text).logger.wandb.project == "ptq"
    monkeypatch.setattr(values, "find_spec", lambda _package: None)
    with caplog.at_level("INFO", "basicsr"):
        assert load(text).logger.wandb is None
    assert "Option 'logger:wandb' is left out." in caplog.text
    ours = load_options(OPTIONS / "train/demo_2DQuant.yml", ["logger:wandb:project=mine"])
    assert ours.logger.wandb.project == "mine"  # who asks for it here is told by the run that it is missing


def test_auto_counts_the_processes_of_torchrun(load, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert load(upstream.basicsr_training("SwinIR"), "num_gpu=auto").train.batch_size == 12


def test_everything_is_told_once_with_its_new_name(load, caplog):
    with caplog.at_level("INFO", "basicsr"):
        load(upstream.training_2dquant(4))
    told = [record.message for record in caplog.records]
    assert len(told) == len(set(told))
    for start in (
        "Option 'datasets:train:batch_size_per_gpu=16' is 'train:batch_size=16' here.",
        "Option 'train:pixel_opt:type=L1Loss' is 'train:pixel_loss:type=Released2DQuantPixelLoss' here.",
        "Options 'datasets:train:io_backend:type', 'datasets:val_0:io_backend:type' are left out.",
        "Option 'cali_data=keydata/cali_data_x4.pth' is 'calibration:data=keydata/cali_data_x4.pth' here.",
        "Option 'train:scheduler:gamma=0.1' is taken where the file says nothing. It is 0.5 here.",
    ):
        assert sum(sentence.startswith(start) for sentence in told) == 1, start


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train:perceptual_opt={type: PerceptualLoss}", "out of scope.*--force_yml train:perceptual_opt=null"),
        ("network_d={type: VGGStyleDiscriminator}", "'network_d:type=VGGStyleDiscriminator' has no counterpart"),
        ("model_type=ESRGANModel", "Perceptual and GAN losses are out of scope"),
        ("network_g={type: RRDBNet}", "Another architecture is one file"),
        ("datasets:val:type=VideoTestDataset", "Video is out of scope"),
        ("datasets:train:color=y", "Networks see RGB"),
        ("datasets:train:mean=[0.5, 0.5, 0.5]", "'datasets:train:mean' has no counterpart"),
        ("network_g:ape=true", "'network_g:ape=true' has no counterpart"),
        ("val:patchwise_testing=true", "val:tile"),
        ("val:metrics:lpips={type: calculate_lpips, crop_border: 4}", "Metrics here compare with HR"),
        ("cali_data_save_path=keydata/x.pth", "2DQuant-getcalidata.sh"),
    ],
)
def test_what_has_no_counterpart_stops_the_run_with_the_reason(load, override, reason):
    with pytest.raises(OptionsError, match=reason):
        load(upstream.basicsr_training("EDSR"), override)


def test_of_a_model_out_of_scope_only_its_components_are_told(load):
    text = (
        upstream.basicsr_training("EDSR").replace("SRModel", "RealESRGANModel").replace("type: EDSR", "type: RRDBNet")
    )
    with pytest.raises(OptionsError) as error:
        load(f"resize_prob: [0.2]\ngt_usm: true\n{text}")
    model, network = str(error.value).split("\n")
    assert model.startswith("Option 'model_type=RealESRGANModel' has no counterpart. Perceptual and GAN losses")
    assert network.startswith("Option 'network_g:type=RRDBNet' has no counterpart.")
    with pytest.raises(OptionsError, match=r"'gt_usm=true' has no counterpart. Blind degradations are out of scope"):
        load(f"gt_usm: true\n{upstream.basicsr_training('EDSR')}")


def test_all_problems_of_a_file_are_named_at_once(load):
    text = upstream.basicsr_training("EDSR").replace("  pixel_opt:", "  gan_opt: {type: GANLoss}\n  pixel_op:")
    text = text.replace("batch_size_per_gpu", "batch_size_per_gpus")
    with pytest.raises(OptionsError) as error:
        load(text)
    first, *others = str(error.value).split("\n")
    assert first.startswith("Option 'train:gan_opt:type=GANLoss' has no counterpart.")
    assert set(others) == {
        "Unknown option 'train:pixel_op'. Did you mean 'pixel_opt'?",
        "Unknown option 'datasets:train:batch_size_per_gpus'. Did you mean 'batch_size_per_gpu'?",
    }


def test_a_model_that_is_nearly_one_of_theirs(load):
    with pytest.raises(OptionsError, match="'model_type' is '2DQuantModel'. Did you mean 'TDQuantModel'?"):
        load(upstream.training_2dquant(4).replace("TDQuantModel", "2DQuantModel"))


def test_other_unknown_names_are_told_as_in_our_own_files(load):
    with pytest.raises(OptionsError, match="Unknown option 'val:val_frequency'. Did you mean 'val_freq'"):
        load(upstream.basicsr_training("EDSR"), "val:val_frequency=3")
    with pytest.raises(OptionsError, match="Unknown option 'network_g:num_feats'. Did you mean 'num_feat'"):
        load(upstream.basicsr_training("EDSR").replace("num_feat:", "num_feats:"))


OWN_ARCH = """
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class RRDBNet(EDSR):
    def __init__(self, *, use_checkpoint: bool = False, num_feat: int = 64, upscale: int = 4) -> None:
        super().__init__(num_feat=num_feat, upscale=upscale)
"""


def test_components_of_ones_own_keep_their_options(load, tmp_path, monkeypatch):
    for registry in ALL_REGISTRIES:  # what a plugin brings is remembered as long as the process lives
        monkeypatch.setattr(registry, "_folders", list(registry._folders))
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    (tmp_path / "rrdbnet_arch.py").write_text(OWN_ARCH, encoding="utf-8")
    network = "network_g={type: RRDBNet, use_checkpoint: true, num_feat: 8}"
    options = load(upstream.basicsr_training("EDSR"), network, f"plugins=[{tmp_path}]")
    assert options.network_g == {"type": "RRDBNet", "use_checkpoint": True, "num_feat": 8, "upscale": 4}


def test_no_row_hides_an_option_of_this_project():
    """A row for an option that has come to this project would never be applied."""
    given = {
        "model_type": "SRModel",
        "network_g": {"type": "SwinIR"},
        "val": {"metrics": {"x": {"type": "calculate_psnr"}}},
    }
    for row in ROWS:
        path = row.old.replace("val:metrics:*", "val:metrics:x").replace("*", "train")
        for value in row.equals or (None,):
            assert not is_known(row, path, value, given), row
    assert len({(row.old, row.equals, row.models) for row in ROWS}) == len(ROWS)
    assert all(row.note.endswith(".") for row in (*ROWS, *DEFAULTS) if row.note)


TEXTS = [
    *(upstream.basicsr_training(architecture) for architecture in TRAINED),
    *(upstream.basicsr_test(architecture) for architecture in TRAINED),
    *(make(4) for make in (upstream.training_2dquant, upstream.testing_2dquant)),
]


def test_the_table_has_every_option_of_their_files():
    """So the page of docs is complete: what is no row there would be unknown to its readers."""
    rows = [row for row in (*ROWS, *READ_BEFORE, *SAME) if not row.equals]
    for text in TEXTS:
        options = guessed(parse_yaml(text, "theirs"))
        listed = {path for row in rows for path, _ in matches(options, row.old)}
        unlisted = {
            path
            for path in by_path(options)
            if not any(path == known or path.startswith(f"{known}:") for known in listed)
        }
        assert {path for path in unlisted if not path.endswith("type")} == set()


@pytest.mark.parametrize(
    "text", TEXTS, ids=[*(f"{name} train" for name in TRAINED), *TRAINED, "2DQuant train", "2DQuant"]
)
def test_none_of_our_names_hides_theirs_and_all_rows_can_be_read(load, text):
    assert load(text).name
