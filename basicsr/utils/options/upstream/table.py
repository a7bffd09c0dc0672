"""The table from the options of BasicSR, SwinIR and 2DQuant to those of this project; docs/from-basicsr.md shows it.

A row whose old name is an option of this project, or of the component that a file names, is passed over.
"""

from basicsr.utils.options.upstream.out_of_scope import BLIND, GAN, VIDEO
from basicsr.utils.options.upstream.out_of_scope import ROWS as OUT_OF_SCOPE
from basicsr.utils.options.upstream.rows import (
    QUANT_MODELS,
    SR_MODELS,
    Default,
    Row,
    left_out,
    refused,
    renamed,
)
from basicsr.utils.options.upstream.values import (
    device,
    first_metric,
    home,
    if_installed,
    of_all_gpus,
    released_loss,
    swin_layers,
    warmup,
)

_MEMORY = "It changes how batches are loaded, not what they hold."
_NOT_READ = "2DQuant's code does not read it."
_NETWORKS = (
    "This project has EDSR, MSRResNet, RCAN, RDN and SwinIR. Another architecture is one file, see docs/extending.md."
)

ROWS: tuple[Row, ...] = (
    renamed(
        "logger:wandb", "logger:wandb", "Left out where the package `wandb` is not installed, for it changes no result.",
        convert=if_installed("wandb"), beside="num_gpu",
    ),
    # general
    renamed("model_type", "model_type", "One model trains all networks.", equals=("SwinIRModel",), convert=lambda *_: "SRModel"),
    renamed(
        "model_type", "model_type", "The recipe of the released code: the same as `recipe=2DQuant_as_released`.",
        equals=("TDQuantModel",), convert=lambda *_: "PTQModel",
    ),
    refused("model_type", GAN, equals=("SRGANModel", "ESRGANModel", "RealESRGANModel", "StyleGAN2Model", "HiFaceGANModel")),
    refused("model_type", BLIND, equals=("RealESRNetModel",)),
    refused(
        "model_type", VIDEO,
        equals=(
            "VideoBaseModel", "VideoGANModel", "VideoRecurrentModel", "VideoRecurrentGANModel", "EDVRModel", "BasicVSRModel"
        ),
    ),
    renamed("num_gpu", "device", "0 is `cpu`. Other numbers multiply `batch_size_per_gpu`; torchrun says how many GPUs work.", convert=device),
    left_out("gpu", "The first free GPU is taken; `device=cuda:1` chooses another one."),
    left_out("gpu_ids", "`device=cuda:1` chooses a GPU."),
    left_out("set_CUDA_VISIBLE_DEVICES", "`device=cuda:1` chooses a GPU."),
    left_out("dist_params", "torchrun and Slurm say how processes find each other."),
    left_out("find_unused_parameters", "Gradients are averaged without DistributedDataParallel, which needs to know."),
    left_out("better", _NOT_READ),
    renamed("cali_data", "calibration:data", "In tests nothing is calibrated, and the file need not be there."),
    refused("cali_data_save_path", "Calibration sets are made by `bash scripts/2DQuant-getcalidata.sh`."),
    refused("quant_conv", "Name a coverage with convolutions: `quantization:coverage=full`.", harmless=(False,)),
    left_out("quant:hook_per_layer", "Where it is true, `train:feature_layers` names the layers, see the defaults below."),
    left_out("quant:hook_per_block", "Where it counts, `train:feature_layers` names the blocks, see the defaults below."),
    refused("quant:qkv_separation", "q, k and v always have quantizers of their own; rules of one's own are possible as `quantization:coverage`.", harmless=(True,)),
    left_out("quant:awe", _NOT_READ),
    renamed("quant:self_ensamble", "val:self_ensemble"),
    refused("quant:fp_test", "Full precision is tested with `options/test/test_FP.yml`.", harmless=(False,)),
    refused("quant:bicubic", "Bicubic enlargement is measured by `scripts/bicubic.py`.", harmless=(False,)),
    # data
    left_out("datasets:*:task", "There is one task."),
    left_out("datasets:*:phase", "The name of the data set tells it."),
    refused("datasets:*:io_backend:type", "Folders that end in `.lmdb` are read as databases, others as files.", harmless=("disk", "lmdb")),
    refused("datasets:*:color", "Networks see RGB; metrics compare Y where `test_y_channel` is true.", harmless=("n", "rgb")),
    refused("datasets:*:mean", "Networks take their mean away themselves (`rgb_mean`)."),
    refused("datasets:*:std", "Networks take values in 0..1."),
    renamed("datasets:*:dataroot_gt", "datasets:*:dataroot_gt", "", convert=home),
    renamed("datasets:*:dataroot_lq", "datasets:*:dataroot_lq", "May be left out: then LR pictures are made by bicubic reduction.", convert=home),
    renamed("datasets:*:use_flip", "datasets:*:use_hflip"),
    left_out("datasets:*:use_shuffle", "Training data are always shuffled, as by BasicSR."),
    renamed("datasets:train:num_worker_per_gpu", "train:num_workers", "Of each process."),
    renamed("datasets:train:num_worker", "train:num_workers", "Of each process."),
    renamed("datasets:train:batch_size_per_gpu", "train:batch_size", "Of all GPUs together: times `num_gpu`.", convert=of_all_gpus),
    renamed("datasets:train:batch_size", "train:batch_size", "Of all GPUs together."),
    left_out("datasets:*:dataset_enlarge_ratio", "Batches go on without a pause between epochs."),
    left_out("datasets:*:prefetch_mode", _MEMORY),
    left_out("datasets:*:num_prefetch_queue", _MEMORY),
    left_out("datasets:*:pin_memory", _MEMORY),
    left_out("datasets:*:persistent_workers", _MEMORY),
    refused(
        "datasets:*:type", VIDEO,
        equals=(
            "REDSDataset", "REDSRecurrentDataset", "Vimeo90KDataset", "Vimeo90KRecurrentDataset", "VideoTestDataset",
            "VideoTestVimeo90KDataset", "VideoTestDUFDataset", "VideoRecurrentTestDataset",
        ),
    ),
    refused("datasets:*:type", "Only pairs of LR and HR pictures are trained on.", equals=("RealESRGANDataset", "FFHQDataset")),
    # network
    left_out("network_g", "2DQuant's code builds `network_Q` twice and does not read this one.", models=QUANT_MODELS, beside="network_Q"),
    renamed("network_Q", "network_g"),
    refused(
        "network_g:type", _NETWORKS,
        equals=("RRDBNet", "SRVGGNetCompact", "ECBSR", "RIDNet", "EDVR", "BasicVSR", "IconVSR", "BasicVSRPlusPlus", "DUF", "TOFlow", "StyleGAN2Generator", "HiFaceGAN"),
    ),
    left_out("network_g:use_checkpoint", "It changes memory, not results; `train:accumulation_steps` saves memory here."),
    refused("network_g:ape", "No official network has it.", harmless=(False,)),
    refused("network_g:patch_norm", "All official networks have it.", harmless=(True,)),
    refused("network_g:patch_size", "Tokens are single pixels.", harmless=(1,)),
    refused("network_g:qk_scale", "The scale is the usual one, one by the root of the width of a head."),
    refused("network_g:drop_rate", "Only `drop_path_rate` is here.", harmless=(0,)),
    refused("network_g:attn_drop_rate", "Only `drop_path_rate` is here.", harmless=(0,)),
    # files
    renamed("path:pretrain_model_g", "path:pretrain_network_g"),
    renamed("path:strict_load", "path:strict_load_g"),
    renamed("path:pretrain_network_g", "path:pretrain_network_g", "", convert=home),
    renamed("path:pretrain_network_Q", "path:pretrain_network_Q", "Networks that were released with 2DQuant load.", convert=home),
    renamed("path:resume_state", "path:resume_state", "States of other programs are refused; weights are taken as `pretrain_network_g`.", convert=home),
    renamed("pathFP:pretrain_network_FP", "path:pretrain_network_FP"),
    renamed("pathFP:param_key_FP", "path:param_key_FP"),
    refused("pathFP:strict_load_FP", "All weights must fit.", harmless=(True,)),
    refused("path:strict_load_Q", "All weights must fit.", harmless=(True,)),
    refused("path:strict_load_d", GAN, harmless=(True,)),
    left_out("path:experiments_root", "`--root` says where `experiments/` is made."),
    left_out("path:results_root", "`--root` says where `results/` is made."),
    left_out("path:ignore_resume_networks", "A run that continues loads its own network."),
    # training
    renamed("train:pixel_opt", "train:pixel_loss", "Against HR pictures.", models=SR_MODELS),
    renamed(
        "train:pixel_opt", "train:pixel_loss", "`L1Loss` is `Released2DQuantPixelLoss`, which divides by the number of elements once more.",
        models=QUANT_MODELS, convert=released_loss("Released2DQuantPixelLoss", "L1Loss"),
    ),
    renamed("train:pixel_opt", "train:pixel_loss"),
    renamed(
        "train:feature_loss", "train:feature_loss", "`MSELoss` is `Released2DQuantFeatureLoss`, which does what the released code does.",
        models=QUANT_MODELS, convert=released_loss("Released2DQuantFeatureLoss", "MSELoss"),
    ),
    left_out("train:optim_bit", "2DQuant's code builds no optimiser from it."),
    renamed("train:niter", "train:total_iter"),
    renamed("train:manual_seed", "manual_seed"),
    renamed("train:warmup_iter", "train:scheduler:warmup_iter", "One less, for the same rates: in BasicSR iteration k of n has the rate k/n. A `MultiStepLR` of BasicSR stays at (n - 1)/n afterwards.", convert=warmup),
    left_out("train:net_d_iters", "There is no discriminator."),
    left_out("train:net_d_init_iters", "There is no discriminator."),
    # validation
    renamed("save_img", "val:save_img"),
    renamed("suffix", "val:suffix"),
    renamed("crop_border", "val:crop_border"),
    left_out("val:pbar", "The log tells what is measured."),
    renamed("val:selfensemble_testing", "val:self_ensemble"),
    refused("val:patchwise_testing", "The side of tiles is said by `val:tile`, in LR pixels.", harmless=(False,)),
    left_out("val:metrics:*:better", "Metrics know it."),
    left_out("val:metrics:*:input_order", "Pictures are height x width x channels."),
    refused("val:metrics:*:type", "Metrics here compare with HR, or with full precision; `val:metrics:<name>=null` goes on without it.", equals=("calculate_niqe", "calculate_lpips", "calculate_fid")),
    *OUT_OF_SCOPE,
)  # fmt: skip

READ_BEFORE: tuple[Row, ...] = (
    renamed("datasets:*:gt_size", "datasets:*:lq_size", "In LR pixels, so that it holds at every scale."),
)
"""Rows that old_names.py applies, since files of earlier versions have them as well."""

DEFAULTS: tuple[Default, ...] = (
    Default("train:ema_decay", 0, "This project averages with 0.999.", needs="train", models=SR_MODELS),
    Default("network_g:drop_path_rate", 0.1, "It is 0 here.", needs="network_g:type", equals=("SwinIR",), models=SR_MODELS),
    Default("val:pad", "reflect", "As BasicSR pads to multiples of the window.", needs="network_g", models=SR_MODELS),
    Default("path:param_key_g", "params", "Here `params_ema` comes first.", needs="path:pretrain_network_g"),
    Default("train:scheduler:gamma", 0.1, "It is 0.5 here.", needs="train:scheduler:type", equals=("MultiStepLR", "MultiStepRestartLR")),
    Default("val:metrics:*:test_y_channel", False, "It is true here.", needs="val:metrics:*:type"),
    Default("val:best_metric", first_metric, "The first PSNR.", needs="val:metrics"),
    Default("method", "2DQuant as released", "The label in tables.", needs="network_g", models=QUANT_MODELS),
    Default("quantization:coverage", "2dquant", "All linear layers, and both attention products.", needs="network_g", models=QUANT_MODELS),
    Default("calibration:weights", {"type": "DOBI", "search": "symmetric"}, "The search of the released code.", needs="network_g", models=QUANT_MODELS),
    Default("calibration:activations", {"type": "DOBI", "search": "symmetric"}, "The released code never searches one-sided.", needs="network_g", models=QUANT_MODELS),
    Default("train:pixel_loss", None, "Without `pixel_opt` there is none.", needs="train", models=QUANT_MODELS),
    Default("train:feature_layers", swin_layers, "The layers or blocks that `quant` names.", needs="train:feature_loss", models=QUANT_MODELS),
    Default("path:param_key_FP", "params", "Here `params_ema` comes first.", needs="path:pretrain_network_FP", models=QUANT_MODELS),
    Default("val:pad", "mirror", "As the released code pads.", needs="network_g", models=QUANT_MODELS),
)  # fmt: skip

SAME: tuple[Row, ...] = (
    renamed("name", "name"),
    renamed("scale", "scale", "2, 3 or 4."),
    renamed("bit", "bit"),
    renamed("manual_seed", "manual_seed", "0 where it is not given; BasicSR draws one."),
    renamed("datasets:*:name", "datasets:*:name"),
    renamed("datasets:*:filename_tmpl", "datasets:*:filename_tmpl", "Found out where it is not given; `{}` in BasicSR."),
    renamed("datasets:*:meta_info_file", "datasets:*:meta_info_file"),
    renamed("datasets:*:use_hflip", "datasets:*:use_hflip"),
    renamed("datasets:*:use_rot", "datasets:*:use_rot"),
    renamed("network_g:*", "network_g:*", "EDSR, MSRResNet, RCAN, SwinIR and RDN have the options of BasicSR and of the public RDN."),
    renamed("path:param_key_g", "path:param_key_g", "An entry that is absent is an error; BasicSR takes `params` then."),
    renamed("path:strict_load_g", "path:strict_load_g", "False takes what fits; the log names the rest."),
    renamed("train:total_iter", "train:total_iter"),
    renamed("train:optim_g:*", "train:optim_g:*"),
    renamed("train:optim_bound:*", "train:optim_bound:*"),
    renamed("train:scheduler:*", "train:scheduler:*"),
    renamed("train:ema_decay", "train:ema_decay", "The first steps move the average more, so that it forgets the random weights."),
    renamed("val:val_freq", "val:val_freq"),
    renamed("val:save_img", "val:save_img", "Of several validation sets each has a folder between."),
    renamed("val:suffix", "val:suffix", "Without one pictures have no suffix; BasicSR takes the name of the run."),
    renamed("val:metrics:*:crop_border", "val:metrics:*:crop_border"),
    renamed("val:metrics:*:test_y_channel", "val:metrics:*:test_y_channel"),
    renamed("logger:print_freq", "logger:print_freq"),
    renamed("logger:save_checkpoint_freq", "logger:save_checkpoint_freq"),
    renamed("logger:use_tb_logger", "logger:use_tb_logger"),
    renamed("logger:wandb:project", "logger:wandb:project", "TensorBoard need not be on."),
    renamed("logger:wandb:resume_id", "logger:wandb:resume_id", "`--auto_resume` finds the run by itself."),
)  # fmt: skip
"""Options of the same name and meaning, for the page."""
