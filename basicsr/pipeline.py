"""What `train.py` and `test.py` do, stage by stage: build, quantize, calibrate, optimise, evaluate."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from basicsr.archs import build_network
from basicsr.data import build_dataset, build_evaluation_sets, calibration_crops, crop_batches, training_batches
from basicsr.metrics.complexity_metric import measure_complexity
from basicsr.models.calibration import total_error
from basicsr.models.evaluation import DatasetResult, Evaluator, check_levels
from basicsr.models.quantized_network import load_quantized, quantized_copy
from basicsr.models.results import write_results
from basicsr.models.training_loop import TrainingLoop
from basicsr.quant.spec import QuantizationError
from basicsr.utils import dist
from basicsr.utils.errors import CheckpointError, DataError, OptionsError, UserError
from basicsr.utils.experiment import Experiment
from basicsr.utils.logger import configure_logger, get_logger, run_log
from basicsr.utils.options import Options
from basicsr.utils.registry import MODEL_REGISTRY
from basicsr.utils.weights import load_network_weights, load_weights_file

USER_ERRORS = (UserError, QuantizationError)


def train(options: Options, root: Path, device: torch.device, auto_resume: bool = False) -> None:
    """Run one experiment; leaves `experiments/<name>/` under `root`.

    Args:
        options: the options of the run.
        root: folder that holds `experiments/` and `tb_logger/`.
        device: where networks run.
        auto_resume: continue from the latest training state of this run, if there is one.

    Raises:
        UserError: something that the user gave cannot be used.
        Interrupted: the run was asked to stop; a checkpoint has been saved if training had begun.
    """
    if options.train is None:
        raise OptionsError("Section 'train' is required for training; to evaluate a network call basicsr/test.py.")
    validation = build_evaluation_sets(options.datasets_of("val"), options.scale)
    tests = build_evaluation_sets(options.datasets_of("test"), options.scale)
    model_class = MODEL_REGISTRY.get(options.model_type, "model_type")
    training = training_set(options) if model_class.trains_on == "images" else None
    crops = calibration_crops(options.calibration, options.datasets.get("train"), options.scale, options.manual_seed)
    model = build_model(options, device)
    if model_class.trains_on == "crops":
        model.prepare(crops)
    experiment = Experiment(options, root, auto_resume, model.network_name)
    evaluator = Evaluator(options.val, options.scale, model.full_precision if options.val.full_precision else None)

    def evaluate(stage: str, network: nn.Module, iteration: int, seconds: float | None = None) -> list[DatasetResult]:
        results = []
        for dataset in validation if stage == "train" else validation + tests:
            saves = options.val.save_img and stage == "final"
            result = evaluator.evaluate(network, dataset, experiment.visualization / dataset.name if saves else None)
            experiment.record(
                stage, iteration, result.name, result.means, result.seconds if seconds is None else seconds
            )
            get_logger().info("%s, iteration %d, %s", stage, iteration, result.describe())
            results.append(result)
        return results

    state = experiment.load() if experiment.resume_file else None
    if state is None:
        if options.val.full_precision:
            evaluate("fp", model.full_precision, 0)
        seconds = calibrate(model, crops, experiment)
        evaluate("calibrated", model.network, 0, seconds)
    else:
        model.load(experiment.resumed_network_file(state["iter"]), state)
    loop = TrainingLoop(model, experiment, lambda i, s: evaluate("train", model.network, i, s), state)
    if options.train.total_iter > 0:
        seed, start = options.manual_seed, loop.iteration
        if training is not None:
            batches = training_batches(training, options.train, seed, start)
        else:
            batches = crop_batches(crops, options.train.batch_size, seed, start)
        loop.run(batches)
    else:
        experiment.save_network(model.network, "latest")
    evaluate("final", model.network, loop.iteration, loop.seconds)
    get_logger().info("No quantizer gives more than %d distinct values.", check_levels(model.network, crops[0]))
    experiment.close()


def training_set(options: Options) -> Dataset | None:
    """Build the training data; None for a run that only calibrates.

    Raises:
        OptionsError: the run trains and names no data.
    """
    if options.train.total_iter == 0:
        return None
    if "train" not in options.datasets:
        raise OptionsError("Section 'datasets:train' is required with 'train:total_iter' above 0.")
    return build_dataset(options.datasets["train"], options.scale, "train", "datasets:train")


def full_precision_network(options: Options) -> nn.Module:
    """Build the network of the options with its full-precision weights.

    Raises:
        OptionsError: no weights are named.
        CheckpointError: they cannot be read or belong to another network.
    """
    network = build_network(options.network_g)
    path = options.path.pretrain_network_FP
    if path is None:
        raise OptionsError("Option 'path:pretrain_network_FP' is required: the weights of the full-precision network.")
    load_network_weights(network, load_weights_file(path, options.path.param_key_FP), path)
    return network


def build_model(options: Options, device: torch.device) -> Any:
    """Build the model that `model_type` names, on its full-precision network."""
    arguments = options.train.model_extra or {}
    network = full_precision_network(options)
    return MODEL_REGISTRY.build({"type": options.model_type, **arguments}, network, options, device, where="train")


def calibrate(model: Any, crops: torch.Tensor, experiment: Experiment) -> float:
    """Calibrate a model and return the seconds it took; quantization_map.json and calibration.json record what was done.

    A model whose options name a quantized network (`path:pretrain_network_Q`) starts from the bounds of that one instead.
    """
    started = time.monotonic()
    get_logger().info("Coverage '%s':\n%s", model.options.quantization.coverage, model.quantization_map.format_table())
    experiment.write_json("quantization_map.json", model.quantization_map.as_dict())
    start = model.options.path.pretrain_network_Q
    if start is not None:
        load_quantized(model.network, start)
        get_logger().info("Starting from the quantized network '%s' instead of a calibration.", start)
        return time.monotonic() - started
    report = model.calibrate(crops)
    seconds = time.monotonic() - started
    experiment.write_json("calibration.json", [row.as_dict() for row in report])
    get_logger().info(
        "Calibrated %d quantizers on %d crops in %.1f s; geometric mean of their squared errors %.3e.",
        len(report),
        len(crops),
        seconds,
        total_error(report),
    )
    return seconds


def test(options: Options, root: Path, device: torch.device) -> None:
    """Evaluate a network on the test sets of the options; leaves `results/<name>/` under `root`.

    Raises:
        UserError: something that the user gave cannot be used.
    """
    folder = root / "results" / options.name
    try:
        configure_logger(run_log(folder, "test", options.name), dist.is_main())
    except OSError as error:
        raise CheckpointError(
            f"The folder '{folder}' cannot be set up: {error}. Check its permissions and the space left."
        ) from error
    datasets = build_evaluation_sets(options.datasets_of("test"), options.scale)
    if not datasets:
        raise DataError(
            "None of the benchmarks is on disk. Lay one out with scripts/prepare_data.py, or name another folder with "
            "--force_yml datasets:test_1:dataroot_gt=FOLDER datasets:test_1:dataroot_lq=null."
        )
    full_precision = full_precision_network(options).to(device).eval()
    network = full_precision if options.quantization is None else quantized_network(full_precision, options)
    if network is not full_precision:
        most = check_levels(network, datasets[0][0]["lq"])
        get_logger().info("No quantizer gives more than %d distinct values.", most)
    evaluator = Evaluator(options.val, options.scale, full_precision if options.val.full_precision else None)
    results = []
    for dataset in datasets:
        images = folder / "visualization" / dataset.name if options.val.save_img else None
        results.append(evaluator.evaluate(network, dataset, images))
        get_logger().info("%s", results[-1].describe())
    write_results(folder / "metrics.json", options, results, measure_complexity(network))


def quantized_network(full_precision: nn.Module, options: Options) -> nn.Module:
    """Return the quantized network of `path:pretrain_network_Q`.

    Raises:
        OptionsError: no file is named.
        CheckpointError: it cannot be read, or belongs to another network.
        QuantizationError: its bits are not those of the options.
    """
    if options.path.pretrain_network_Q is None:
        raise OptionsError("Option 'path:pretrain_network_Q' is required: the quantized network to evaluate.")
    network, _ = quantized_copy(full_precision, options, share_weights=False)
    load_quantized(network, options.path.pretrain_network_Q)
    return network
