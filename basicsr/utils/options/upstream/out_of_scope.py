"""Options of BasicSR's files for video, for adversarial training and for blind degradations, none of which this project does."""

from basicsr.utils.options.upstream.rows import Row, refused

GAN = "Perceptual and GAN losses are out of scope: this project trains for PSNR and quantizes."
VIDEO = "Video is out of scope: this project enlarges single pictures."
BLIND = "Blind degradations are out of scope: LR pictures are bicubic, or given."

_OF_GAN = {
    "train": (
        *("perceptual_opt", "gan_opt", "ldl_opt", "artifacts_opt", "feature_matching_opt", "optim_d", "r1_reg_weight"),
        *("path_reg_weight", "path_batch_shrink", "net_g_reg_every", "net_d_reg_every", "mixing_prob"),
    ),
    "path": ("pretrain_network_d",),
    "": ("network_d",),
}
_OF_VIDEO = {
    "datasets:*": (
        *("num_frame", "interval_list", "random_reverse", "val_partition", "dataroot_flow", "cache_data", "padding"),
        "test_mode",
    ),
    "train": ("tsa_iter", "fix_iter", "flow_lr_mul", "dcn_lr_mul"),
}
_DEGRADATIONS = (
    "resize_prob",
    "resize_range",
    "gaussian_noise_prob",
    "noise_range",
    "poisson_scale_range",
    "gray_noise_prob",
)
_KERNELS = ("blur_kernel_size", "kernel_list", "kernel_prob", "sinc_prob", "blur_sigma", "betag_range", "betap_range")
_OF_BLIND = {
    "": (
        *(f"{name}{number}" for name in (*_DEGRADATIONS, "jpeg_range") for number in ("", "2")),
        *("second_blur_prob", "gt_usm", "l1_gt_usm", "percep_gt_usm", "gan_gt_usm", "gt_size", "queue_size"),
    ),
    "datasets:*": (*(f"{name}{number}" for name in _KERNELS for number in ("", "2")), "final_sinc_prob", "meta_info"),
}

ROWS: tuple[Row, ...] = tuple(
    refused(f"{section}:{name}".lstrip(":"), note)
    for note, sections in ((GAN, _OF_GAN), (VIDEO, _OF_VIDEO), (BLIND, _OF_BLIND))
    for section, names in sections.items()
    for name in names
)
