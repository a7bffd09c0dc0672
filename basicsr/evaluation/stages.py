"""The evaluations of a run, stage by stage: full precision, calibrated, in the middle of training, final."""

from dataclasses import dataclass

from torch import nn

from basicsr.data.base import PairedDataset
from basicsr.evaluation.dataset_result import DatasetResult
from basicsr.evaluation.evaluator import Evaluator
from basicsr.utils.experiment import Experiment
from basicsr.utils.logger import get_logger
from basicsr.utils.saved_images import FileOf, result_files, validation_files


@dataclass(frozen=True)
class StageEvaluation:
    """Evaluates the networks of a run, stage by stage, and records the results.

    Attributes:
        experiment: takes the results and, with `val:save_img`, the images of all stages but `fp`.
        evaluator: measures a network on a data set.
        validation: data sets of every stage.
        tests: data sets of all stages but those in the middle of a training.
    """

    experiment: Experiment
    evaluator: Evaluator
    validation: list[PairedDataset]
    tests: list[PairedDataset]

    def __call__(
        self, stage: str, network: nn.Module, iteration: int, seconds: float | None = None
    ) -> list[DatasetResult]:
        """Evaluate at `fp`, `calibrated`, `train` or `final`; `seconds` is what the stage took, by default the evaluation."""
        results = []
        for dataset in self.validation if stage == "train" else self.validation + self.tests:
            result = self.evaluator.evaluate(network, dataset, self._files(stage, dataset, iteration))
            taken = result.seconds if seconds is None else seconds
            self.experiment.record(stage, iteration, result.name, result.means, taken)
            get_logger().info("%s, iteration %d, %s", stage, iteration, result.describe())
            results.append(result)
        return results

    def _files(self, stage: str, dataset: PairedDataset, iteration: int) -> FileOf | None:
        """Return where the images of a data set are saved, or None for those that are not."""
        val, folder = self.experiment.options.val, self.experiment.visualization
        if stage == "final":
            saves = val.save_img or not dataset.has_gt
            return result_files(folder, dataset.name, val.suffix) if saves else None
        if stage == "fp" or not val.save_img or dataset not in self.validation:
            return None
        return validation_files(folder, dataset.name if len(self.validation) > 1 else None, iteration)
