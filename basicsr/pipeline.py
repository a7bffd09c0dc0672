"""What `train.py` and `test.py` do, stage by stage: build, quantize and calibrate where asked for, optimise, evaluate."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basicsr.data import (
    CalibrationCrops,
    TrainingImages,
    build_dataset,
    build_evaluation_sets,
    calibration_crops,
    crop_batches,
    hold_in_memory,
    training_batches,
)
from basicsr.data.sampler import check_batch_size
from basicsr.evaluation.activation_statistics import activation_statistics
from basicsr.evaluation.evaluator import Evaluator, report_levels
from basicsr.evaluation.inference import check_tiles
from basicsr.evaluation.results import write_results
from basicsr.evaluation.stages import StageEvaluation
from basicsr.metrics.complexity_metric import measure_complexity
from basicsr.models.base_model import Model, model_class_of, restore
from basicsr.models.quantized_model import QuantizedModel
from basicsr.networks.build import full_precision_network, network_to_test, quantized_network, trainable_network
from basicsr.networks.description import log_network
from basicsr.reporting.attempt import PACKAGES, attempt
from basicsr.reporting.entries import read_folder
from basicsr.training.calibration.network_calibration import describe_errors
from basicsr.training.chosen_bits import with_chosen_bits
from basicsr.training.fusing import compiled_quantizers
from basicsr.training.loop import TrainingLoop
from basicsr.training.sensitivity import report_sensitivity
from basicsr.utils import dist
from basicsr.utils.errors import CheckpointError, DataError, OptionsError, explained
from basicsr.utils.experiment import Experiment
from basicsr.utils.extras import usable
from basicsr.utils.files import write_json
from basicsr.utils.locks import claimed
from basicsr.utils.logger import configure_logger, get_logger, run_log
from basicsr.utils.options import Options
from basicsr.utils.provenance import write_options
from basicsr.utils.registry import MODEL_REGISTRY
from basicsr.utils.saved_images import result_files


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
    usable(PACKAGES)  # said before the work, not after it
    check_batch_size(options.train.batch_size, dist.world_size())
    validation = build_evaluation_sets(options.datasets_of("val"), options.scale)
    for dataset in validation:
        if not dataset.has_gt:
            raise OptionsError(
                f"The validation set '{dataset.name}' has LR images alone, so that nothing tells which iterate is the best. Give it "
                "HR images, or make it a test set."
            )
    tests = build_evaluation_sets(options.datasets_of("test"), options.scale)
    model_class = model_class_of(options)
    training = training_set(options, device) if model_class.trains_on == "images" else None
    needs_crops = issubclass(model_class, QuantizedModel) or model_class.trains_on == "crops"
    chosen = calibration_set(options) if needs_crops else None
    crops = None if chosen is None else chosen.lq
    started = time.monotonic()
    model = build_model(options, device, crops, _folder_before(options, root, auto_resume))
    choosing = time.monotonic() - started if options.average_bits is not None else 0.0
    check_tiles(model.network, options.val.tile, options.val.tile_overlap)
    if model.trains_on == "crops" and crops is not None:
        model.prepare(crops)
    identity = None if chosen is None else chosen.identity()
    with (
        compiled_quantizers(options.train.fused_quantizers, device),
        Experiment(options, root, auto_resume, model.network_name, identity, model.stated()) as experiment,
    ):
        log_network(model.full_precision if isinstance(model, QuantizedModel) else model.network)
        compared = model.full_precision if isinstance(model, QuantizedModel) and options.val.full_precision else None
        evaluator = Evaluator(options.val, options.scale, compared)
        evaluator.require(options.val.best_metric)
        evaluate = StageEvaluation(experiment, evaluator, validation, tests)
        state = begin(model, crops, experiment, evaluate, compared, choosing)
        loop = TrainingLoop(
            model, experiment, lambda i, s: evaluate("train", model.network_for_evaluation(), i, s), state
        )
        if options.train.total_iter == 0:
            experiment.save_network(model.checkpoint(), "latest")
        elif training is not None:
            loop.run(training_batches(training, options.train, options.manual_seed, loop.iteration))
        elif crops is not None:
            loop.run(crop_batches(crops, options.train.batch_size, options.manual_seed, loop.iteration))
        if loop.finished:
            evaluate("final", model.network_for_evaluation(), loop.iteration, loop.seconds)
            if isinstance(model, QuantizedModel) and crops is not None:
                report_levels(model.network, crops[0])
        if dist.is_main():
            leave_report(experiment.folder, options.name)


def begin(
    model: Model,
    crops: torch.Tensor | None,
    experiment: Experiment,
    evaluate: StageEvaluation,
    compared: nn.Module | None,
    choosing: float,
) -> dict[str, Any] | None:
    """Bring a model to where its training goes on: load the state to resume, which is returned, or else calibrate it.

    Args:
        model: freshly built.
        crops: the calibration set (N, 3, h, w) of a model that quantizes.
        experiment: knows which state to resume, if any.
        evaluate: measures the network that was calibrated and the one to compare with.
        compared: the full-precision network, where it is measured.
        choosing: seconds that the choice of bits took, which count as those of the calibration.
    """
    state = experiment.load(model.why_not_continue) if experiment.resume_file else None
    if experiment.calibration_set is not None:
        experiment.write_json("calibration_set.json", experiment.calibration_set)
    if state is not None:
        restore(model, experiment.resumed_network_file(), state)
    elif isinstance(model, QuantizedModel) and crops is not None:
        if compared is not None:
            evaluate("fp", compared, 0)
        seconds = calibrate(model, crops, experiment)
        evaluate("calibrated", model.network, 0, choosing + seconds)
    return state


def training_set(options: Options, device: torch.device) -> TrainingImages | None:
    """Build the training data, in memory where the options ask for it; None for a run that only calibrates.

    Raises:
        OptionsError: the run trains and names no data.
        DataError: the images cannot be used.
    """
    if options.train is None or options.train.total_iter == 0:
        return None
    if "train" not in options.datasets:
        raise OptionsError("Section 'datasets:train' is required with 'train:total_iter' above 0.")
    dataset = build_dataset(options.datasets["train"], options.scale, "train", "datasets:train")
    return hold_in_memory(dataset, options.train, device)


def calibration_set(options: Options) -> CalibrationCrops:
    """Return the LR calibration crops of a run that quantizes; see `calibration_crops`."""
    return calibration_crops(options.calibration, options.datasets.get("train"), options.scale, options.manual_seed)


def build_model(
    options: Options, device: torch.device, crops: torch.Tensor | None = None, before: Path | None = None
) -> Model:
    """Build the model that `model_type` names, on the network to quantize or to train.

    Args:
        options: of the run.
        device: where networks live.
        crops: the calibration set (N, 3, h, w), by which bits are chosen where the options ask for it.
        before: folder of the run that is continued, whose bits stay; None for a new one.
    """
    arguments = (options.train.model_extra if options.train is not None else None) or {}
    quantizes = issubclass(model_class_of(options), QuantizedModel)
    network = full_precision_network(options) if quantizes else trainable_network(options)
    if quantizes and crops is not None:
        options = with_chosen_bits(network.to(device).eval(), options, crops, before)
    return MODEL_REGISTRY.build({"type": options.model_type, **arguments}, network, options, device, where="train")


def _folder_before(options: Options, root: Path, auto_resume: bool) -> Path | None:
    """Return the folder of the run that is continued, which may be another one (`path:resume_state`); None for a new run."""
    if options.path.resume_state is not None:
        return Path(options.path.resume_state).parent.parent
    return root / "experiments" / options.name if auto_resume else None


def calibrate(model: QuantizedModel, crops: torch.Tensor, experiment: Experiment) -> float:
    """Calibrate a model and return the seconds it took; quantization_map.json and calibration.json record what was done.

    A model whose options name a quantized network (`path:pretrain_network_Q`) starts from that one instead.
    """
    started = time.monotonic()
    coverage = model.options.quantization.coverage_name if model.options.quantization is not None else ""
    get_logger().info("Coverage '%s':\n%s", coverage, model.quantization_map.format_table())
    experiment.write_json("quantization_map.json", model.quantization_map.as_dict())
    start = model.options.path.pretrain_network_Q
    if start is not None:
        translation, report = model.start_from(Path(start), crops)
        get_logger().info("Starting from the quantized network '%s':\n%s", start, translation.describe())
        if report:
            experiment.write_json("calibration.json", [row.as_dict() for row in report])
        return time.monotonic() - started
    report = model.calibrate(crops)
    seconds = time.monotonic() - started
    experiment.write_json("calibration.json", [row.as_dict() for row in report])
    get_logger().info(
        "Calibrated %d quantizers on %d crops in %.1f s. %s", len(report), len(crops), seconds, describe_errors(report)
    )
    if number := model.options.calibration.sensitivity:
        experiment.write_json("sensitivity.json", report_sensitivity(model.network, crops[:number]))
    return seconds


def test(options: Options, root: Path, device: torch.device) -> None:
    """Evaluate a network on the test sets of the options; leaves `results/<name>/` under `root`.

    Raises:
        UserError: something that the user gave cannot be used, or another process works in that folder.
    """
    folder = root / "results" / options.name
    with claimed(folder):
        with explained(CheckpointError, f"The folder '{folder}' cannot be set up"):
            configure_logger(run_log(folder, "test", options.name), dist.is_main())
            if dist.is_main():
                write_options(options, folder)
        _test_into(folder, options, device)


def _test_into(folder: Path, options: Options, device: torch.device) -> None:
    usable(PACKAGES)
    datasets = build_evaluation_sets(options.datasets_of("test"), options.scale)
    if not options.datasets_of("test"):
        raise DataError(
            f"The options of '{options.name}' name no test set (datasets:test_1). Files that test are in options/test/; test.yml there "
            "and demo.yml take a recipe and a network, such as --force_yml recipe=DOBI network=edsr_baseline."
        )
    if not datasets:
        raise DataError(
            "None of the benchmarks is on disk. Lay one out with scripts/prepare_data.py, or name another folder with "
            "--force_yml datasets:test_1:dataroot_gt=FOLDER datasets:test_1:dataroot_lq=null."
        )
    full_precision = network_to_test(options).to(device).eval()
    log_network(full_precision)
    network = full_precision if options.quantization is None else quantized_network(full_precision, options)[0]
    check_tiles(network, options.val.tile, options.val.tile_overlap)
    if network is not full_precision:
        report_levels(network, datasets[0][0]["lq"])
    evaluator = Evaluator(options.val, options.scale, full_precision if options.val.full_precision else None)
    results = []
    for dataset in datasets:
        saves = options.val.save_img or not dataset.has_gt
        files = result_files(folder / "visualization", dataset.name, options.val.suffix) if saves else None
        results.append(evaluator.evaluate(network, dataset, files))
        get_logger().info("%s", results[-1].describe())
    write_results(folder / "metrics.json", options, results, measure_complexity(network))
    if dist.is_main():
        record_activations(network, datasets[0], options, folder / "activations.json")
        leave_report(folder, options.name)


def record_activations(network: nn.Module, dataset: Any, options: Options, file: Path) -> None:
    """Write how the activations of a quantized network are distributed, where the options ask for it; see `activation_statistics`.

    What an earlier evaluation left is removed otherwise, since it would be of another network.
    """
    try:
        file.unlink(missing_ok=True)
        if options.quantization is not None and options.val.histograms:
            write_json(file, activation_statistics(network, dataset, options.val.pad), indent=None)
    except OSError as error:
        get_logger().warning("'%s' could not be written: %s. The report does without it.", file, error)


def leave_report(folder: Path, title: str) -> None:
    """Write the report of a run into its folder; nothing that goes wrong with it is raised, see `attempt`."""
    attempt(folder / "report.html", title, lambda: read_folder(folder))
