"""Folders as `train.py` and `test.py` leave them, with numbers of a test's own."""

import json

import numpy as np
import yaml

from basicsr.utils.image import write_image
from basicsr.utils.resize import crop_to_multiple

PROTOCOL = {"crop_border": None, "test_y_channel": True, "pad": "official", "self_ensemble": False}


def hr_pictures(folder, names=("one", "two"), size=96):
    """Write HR pictures whose pixels compress as badly as those of photos do, and return them by name."""
    random = np.random.default_rng(0)
    pictures = {}
    for name in names:
        coarse = random.integers(0, 256, (size // 8, size // 8, 3)).repeat(8, 0).repeat(8, 1)
        pictures[name] = np.clip(coarse + random.integers(-12, 13, coarse.shape), 0, 255).astype(np.uint8)
        write_image(folder / f"{name}.png", pictures[name])
    return pictures


def results(
    root, name, method="FP", bits=32, psnr=31.0, hr=None, pictures=None, dataset="demo", scale=4, save=True, **more
):
    """Write `results/<name>/` and return it; the pictures that it saved are HR with an error that grows as bits fall."""
    folder = root / "results" / name
    names = list(pictures or ("one", "two"))
    quantized = bits < 32
    values = {"psnr": psnr, "ssim": psnr / 40, "fidelity": psnr + 10 if quantized else None}
    metrics = {
        "network": "SwinIR", "method": method, "scale": scale, "w_bits": bits, "a_bits": bits,
        "activation_ranges": "static" if quantized else None, "weights": None, "protocol": PROTOCOL,
        "complexity": {"parameters": 1000, "bytes": 4000.0 if not quantized else 500.0 + bits},
        "datasets": {dataset: {**values, "images": dict.fromkeys(names, values)}},
        "provenance": {"version": "9.9", "commit": "abc1234", "command": "test.py"},
    } | more  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    options = {
        "name": name, "method": method, "scale": scale, "network_g": {"type": "SwinIR"},
        "datasets": {"test_1": {"type": "PairedImageDataset", "name": dataset, "dataroot_gt": str(hr), "dataroot_lq": None}},
        "provenance": metrics["provenance"],
    }  # fmt: skip
    (folder / "options.yml").write_text(yaml.safe_dump(options))
    if hr is not None and save:
        for picture, image in (pictures or {}).items():
            error = np.random.default_rng(bits).integers(-64 // bits, 64 // bits + 1, image.shape)
            output = np.clip(image.astype(int) + error, 0, 255).astype(np.uint8)
            write_image(folder / "visualization" / dataset / f"{picture}.png", crop_to_multiple(output, scale))
    return folder


def experiment(root, name, method="2DQuant", bits=2, losses=True):
    """Write `experiments/<name>/` of a run of 4 iterations and return it."""
    folder = root / "experiments" / name
    (folder / "models").mkdir(parents=True)
    history = [
        ("fp", 0, 31.0, None, 1.0), ("calibrated", 0, 28.0, 35.0, 5.5), ("train", 2, 28.5, 36.0, 2.0),
        ("train", 4, 29.0, 37.0, 4.0), ("final", 4, 29.0, 37.0, 4.25),
    ]  # fmt: skip
    keys = ("stage", "iter", "psnr", "fidelity", "seconds")
    lines = [{"dataset": "val", **dict(zip(keys, values, strict=True))} for values in history]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {
        "name": name, "method": method, "scale": 4, "bit": bits, "network_g": {"type": "SwinIR"},
        "quantization": {"coverage": "2dquant"}, "val": PROTOCOL, "provenance": {"version": "9.9"},
    }  # fmt: skip
    (folder / "options.yml").write_text(yaml.safe_dump(options))
    if losses:
        rows = [{"iter": i, "lr": 0.01, "losses": {"l_pix": 1 / i, "l_feature": 2 / i}} for i in range(1, 5)]
        (folder / "losses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def activations(errors, pictures=("one",)):
    """Return the content of an activations.json of one quantizer for each error, with a histogram each."""
    names = [f"layer{i}.act_quantizer" for i in range(len(errors))]
    quantizers = [
        {"name": name, "type": "Affine", "bits": 2, "per_channel": False, "bounds": [-1.0, 1.0], "gives": [-1.0, 1.0], "error": error}
        for name, error in zip(names, errors, strict=True)
    ]  # fmt: skip
    histogram = {"range": [-2.0, 2.0], "full_precision": [1, 5, 9, 4], "quantized": [0, 6, 9, 3]}
    return {"pictures": list(pictures), "quantizers": quantizers, "histograms": dict.fromkeys(names, histogram)}
