from collections.abc import Mapping
from typing import Any, Literal

from torch.utils.data import Dataset

from basicsr.utils.registry import DATASET_REGISTRY


def build_dataset(options: Mapping[str, Any], scale: int, phase: Literal["train", "val"], where: str) -> Dataset:
    """Construct the data set that `options` describe: `type` and the options of that class.

    Args:
        options: as read from YAML.
        scale: the scale factor.
        phase: `train` for random crops, `val` for whole images.
        where: path of the options, such as `datasets:train`, for messages.

    Raises:
        OptionsError: an option is unknown, missing or of a wrong type.
        DataError: the folders of images cannot be used.
    """
    return DATASET_REGISTRY.build(options, scale, phase, where=where)
