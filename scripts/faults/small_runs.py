"""Overrides that make runs of any shipped options file small: for campaigns of faults, and for the tests."""

from collections.abc import Callable, Mapping
from pathlib import Path

SMALL_NETWORKS: dict[str, dict[str, object]] = {
    "SwinIR": {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]},
    "EDSR": {"num_feat": 8, "num_block": 2},
    "MSRResNet": {"num_feat": 8, "num_block": 2},
    "RCAN": {"num_feat": 8, "num_group": 2, "num_block": 2, "squeeze_factor": 4},
    "RDN": {"num_feat": 8, "num_block": 2, "num_layer": 2, "num_grow_ch": 4},
}
"""Options of the smallest networks by architecture."""


def small_network(network: str, scale: int, options: Mapping[str, object], weights: Path) -> list[str]:
    """Return overrides of a run on a small network, on one thread of the CPU.

    Args:
        network: file in options/networks/.
        scale: scale factor.
        options: of the architecture.
        weights: in full precision.
    """
    return [
        f"network={network}",
        f"scale={scale}",
        *(f"network_g:{key}={value}" for key, value in options.items()),
        f"path:pretrain_network_FP={weights}",
        "device=cpu",
        "num_threads=1",
        "logger:use_tb_logger=false",
    ]


def small_training(train: Path, val: Path) -> list[str]:
    """Return overrides of a training of 6 iterations that validates and saves after every second one.

    Args:
        train: folder of the HR images.
        val: folder of the HR images of the validation, which takes one of them.
    """
    return [
        f"datasets:train:dataroot_gt={train}",
        "datasets:train:dataroot_lq=null",
        "datasets:train:lq_size=16",
        f"datasets:val:dataroot_gt={val}",
        "datasets:val:num_images=1",
        "calibration:data=null",
        "calibration:num_images=2",
        "calibration:crop_size=16",
        "train:total_iter=6",
        "train:batch_size=2",
        "train:num_workers=0",
        "val:val_freq=2",
        "logger:save_checkpoint_freq=2",
    ]


def leave_out_reports(replace: Callable[[object, str, object], object] = setattr) -> None:
    """Let runs of this process end without their report, whose figures take as long as a tiny training.

    Args:
        replace: puts a value into a module, given the name there; such as one that can be undone.
    """
    from basicsr import pipeline  # imports torch

    replace(pipeline, "leave_report", lambda *_: None)
