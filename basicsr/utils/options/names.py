"""Texts that name folders, files and devices, with what they may be."""

import re
from typing import Annotated

import pydantic

from basicsr.utils.device_names import KNOWN_DEVICES, is_device_name

_NOT_IN_NAMES = r"""[/\\:*?"<>|\x00-\x1f]"""


def _folder_name(name: str) -> str:
    if re.search(_NOT_IN_NAMES, name) or name.startswith(".") or not 0 < len(name) <= 200:
        raise ValueError(
            "must be usable as the name of a folder: no slash, no dot at the beginning, 1 to 200 characters"
        )
    return name


def _file_part(text: str) -> str:
    if re.search(_NOT_IN_NAMES, text) or not 0 < len(text) <= 100:
        raise ValueError("must be usable in the name of a file: no slash or other sign of paths, 1 to 100 characters")
    return text


FilePart = Annotated[str, pydantic.AfterValidator(_file_part)]
FolderName = Annotated[str, pydantic.AfterValidator(_folder_name)]


def _device_name(name: str) -> str:
    if not is_device_name(name):
        raise ValueError(f"must be {KNOWN_DEVICES}")
    return name


DeviceName = Annotated[str, pydantic.AfterValidator(_device_name)]
