"""Options files in the forms of BasicSR and of 2DQuant, with every key that those of EDSR, SwinIR and 2DQuant have, for tests."""

from pathlib import Path

_LOG = """
logger:
  print_freq: {print_freq}
  save_checkpoint_freq: !!float {save}
  use_tb_logger: true
  wandb:
    project: {project}
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""

_BASICSR_TRAIN = """
name: {name}
model_type: {model}
scale: {scale}
num_gpu: {num_gpu}
manual_seed: 10
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/DIV2K_train_HR_sub
    dataroot_lq: datasets/DIV2K/DIV2K_train_LR_bicubic/X{scale}_sub
    filename_tmpl: '{{}}'
    io_backend:
      type: disk
    gt_size: {gt_size}
    {flip}: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: {batch}
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: datasets/Set5/GTmod12
    dataroot_lq: datasets/Set5/LRbicx{scale}
    io_backend:
      type: disk
network_g:
{network}
path:
{path}
  resume_state: ~
train:
{ema}  optim_g:
    type: Adam
    lr: !!float {lr}
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: {milestones}
    gamma: 0.5
  total_iter: {total_iter}
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: {scale}
      test_y_channel: false
"""

_BASICSR_TEST = """
name: {name}
model_type: {model}
scale: {scale}
num_gpu: 1
manual_seed: 0
datasets:
  test_1:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: datasets/Set5/GTmod12
    dataroot_lq: datasets/Set5/LRbicx{scale}
    io_backend:
      type: disk
  test_2:
    name: DIV2K100
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/DIV2K_valid_HR
    dataroot_lq: datasets/DIV2K/DIV2K_valid_LR_bicubic/X{scale}
    filename_tmpl: '{{}}x{scale}'
    io_backend:
      type: disk
network_g:
{network}
path:
  pretrain_network_g: {weights}
  strict_load_g: true
val:
  save_img: true
  suffix: ~
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: {scale}
      test_y_channel: false
    ssim:
      type: calculate_ssim
      crop_border: {scale}
      test_y_channel: false
"""

_2DQUANT = """
name: {name}
model_type: TDQuantModel
scale: {scale}
num_gpu: 1
manual_seed: {seed}
gpu: 0
bit: 4
cali_data: keydata/cali_data_x{scale}.pth
quant:
  hook_per_layer: True
  hook_per_block: False
  qkv_separation: True
{more}
"""

_2DQUANT_TRAIN = """
datasets:
  train:
    task: SR
    name: DF2K
    type: PairedImageDataset
    dataroot_gt: datasets/DF2K/HR
    dataroot_lq: datasets/DF2K/LR_bicubic/X{scale}
    filename_tmpl: "{{}}x{scale}"
    io_backend:
      type: disk
    gt_size: {gt_size}
    use_hflip: True
    use_rot: True
    use_shuffle: True
    num_worker_per_gpu: 8
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 1
    prefetch_mode: cpu
    pin_memory: True
    num_prefetch_queue: 16
{set5}
{network}
pathFP:
  pretrain_network_FP: {weights}
  strict_load_FP: true
path:
  pretrain_network_Q: ~
  strict_load_Q: ~
train:
  optim_bound:
    type: Adam
    lr: !!float 1e-2
    weight_decay: 0
    betas: [0.9, 0.99]
  optim_bit:
    type: Adam
    lr: !!float 1e-3
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [10000]
  total_iter: 4000
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
  feature_loss:
    type: MSELoss
    loss_weight: 5
    reduction: mean
val:
  val_freq: !!float 100
  save_img: False
{metrics}
"""

_2DQUANT_TEST = """
better: True
datasets:
{set5}
network_g:{of_network}
{network}
path:
  pretrain_network_Q: {weights}
  strict_load_Q: true
pathFP:
  pretrain_network_FP: {weights}
  strict_load_FP: true
val:
  save_img: false
  suffix: ~
  selfensemble_testing: false
  patchwise_testing: false
{metrics}
"""

_SET5 = """
  {key}:
    task: SR
    name: Set5
    type: PairedImageDataset
    dataroot_gt: datasets/benchmark/Set5/HR
    dataroot_lq: datasets/benchmark/Set5/LR_bicubic/X{scale}
    filename_tmpl: "{{}}x{scale}"
    io_backend:
      type: disk
"""

_METRICS = """
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: {scale}
      test_y_channel: True
    ssim:
      type: calculate_ssim
      crop_border: {scale}
      test_y_channel: True
"""

_OF_SWINIR_LIGHT = """
  type: SwinIR
  upscale: {scale}
  img_size: 64
  window_size: 8
  img_range: 1.
  depths: [6, 6, 6, 6]
  embed_dim: 60
  num_heads: [6, 6, 6, 6]
  mlp_ratio: 2
  upsampler: pixelshuffledirect
"""

_NETWORKS = {
    "EDSR": """  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: {scale}
  res_scale: 1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]""",
    "SwinIR": """  type: SwinIR
  upscale: {scale}
  in_chans: 3
  img_size: 48
  window_size: 8
  img_range: 1.
  depths: [6, 6, 6, 6, 6, 6]
  embed_dim: 180
  num_heads: [6, 6, 6, 6, 6, 6]
  mlp_ratio: 2
  upsampler: 'pixelshuffle'
  resi_connection: '1conv'""",
    "RDN": """  type: RDN
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  num_layer: 8
  num_grow_ch: 64
  upscale: {scale}""",
}
_OF_TRAINING = {
    "EDSR": {
        "model": "SRModel",
        "num_gpu": 1,
        "batch": 16,
        "flip": "use_flip",
        "ema": "",
        "lr": "1e-4",
        "milestones": "[200000]",
        "total_iter": 300000,
        "lq_size": 48,
        "path": "  pretrain_model_g: experiments/201_EDSR_Mx2/models/net_g_300000.pth\n  strict_load: false",
    },
    "SwinIR": {
        "model": "SwinIRModel",
        "num_gpu": 8,
        "batch": 4,
        "flip": "use_hflip",
        "ema": "  ema_decay: 0.999\n",
        "milestones": "[250000, 400000, 450000, 475000]",
        "total_iter": 500000,
        "lq_size": 48,
        "lr": "2e-4",
        "path": "  pretrain_network_g: ~\n  strict_load_g: true",
    },
    "RDN": {
        "model": "SRModel",
        "num_gpu": 1,
        "batch": 16,
        "flip": "use_hflip",
        "ema": "",
        "lr": "1e-4",
        "milestones": "[200000, 400000]",
        "total_iter": "!!float 6e5",
        "lq_size": 32,
        "path": "  pretrain_network_g: ~\n  strict_load_g: true",
    },
}
WEIGHTS = "experiments/pretrained_models/SwinIR/002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth"


def basicsr_training(architecture: str, scale: int = 4) -> str:
    """Return a training of EDSR, SwinIR or RDN in the form of BasicSR."""
    values = _OF_TRAINING[architecture]
    network = _NETWORKS[architecture].format(scale=scale)
    text = _BASICSR_TRAIN.format(
        name=f"{architecture}_x{scale}", scale=scale, gt_size=values["lq_size"] * scale, network=network, **values
    )
    return text + _LOG.format(print_freq=100, save="5e3", project="~")


def basicsr_test(architecture: str, scale: int = 4, weights: str = "net_g_latest.pth") -> str:
    """Return a test of EDSR, SwinIR or RDN in the form of BasicSR."""
    network = _NETWORKS[architecture].format(scale=scale)
    model = _OF_TRAINING[architecture]["model"]
    return _BASICSR_TEST.format(
        name=f"{architecture}_x{scale}", scale=scale, model=model, network=network, weights=weights
    )


def training_2dquant(scale: int) -> str:
    """Return a training in the form of 2DQuant."""
    general = _2DQUANT.format(name=f"2DQuant_train_x{scale}", scale=scale, seed=3407, more="")
    text = _2DQUANT_TRAIN.format(
        scale=scale,
        gt_size=64 * scale,
        set5=_SET5.format(key="val_0", scale=scale),
        network="network_Q:" + _OF_SWINIR_LIGHT.format(scale=scale),
        weights=WEIGHTS.format(scale=scale),
        metrics=_METRICS.format(scale=scale),
    )
    return general + text + _LOG.format(print_freq=10, save="100", project="ptq")


def testing_2dquant(scale: int) -> str:
    """Return a test in the form of 2DQuant."""
    general = _2DQUANT.format(name=f"test_2DQuant_x{scale}", scale=scale, seed=0, more="  awe: True")
    return general + _2DQUANT_TEST.format(
        set5=_SET5.format(key="test_1", scale=scale),
        of_network=_OF_SWINIR_LIGHT.format(scale=scale),
        network="network_Q:" + _OF_SWINIR_LIGHT.format(scale=scale),
        weights=WEIGHTS.format(scale=scale),
        metrics=_METRICS.format(scale=scale),
    )


def write(path: Path, text: str) -> Path:
    """Write an options file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path
