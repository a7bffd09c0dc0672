"""List, check and download the official full-precision networks that the options files name.

    python scripts/download_pretrained.py                        what there is, and what is in place
    python scripts/download_pretrained.py --check                read every file in place: does it fit its network?
    python scripts/download_pretrained.py --download EDSR_x4     fetch (several names or globs, such as 'SwinIR*')

Nothing is downloaded unless asked for. The networks belong to their authors; read their licences on the source pages.
"""

import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.archs import build_network
from basicsr.utils.arguments import command_parser
from basicsr.utils.errors import CheckpointError, OptionsError, UserError, explained
from basicsr.utils.files import atomic_path, sha256_of
from basicsr.utils.weights import load_network_weights, load_weights_file

FOLDER = Path("experiments/pretrained_models")
_SWINIR = "https://github.com/JingyunLiang/SwinIR"
_EDSR = "https://github.com/sanghyun-son/EDSR-PyTorch"
_EDSR_FILES = "https://cv.snu.ac.kr/research/EDSR/models"
_RDN = "https://github.com/yjn870/RDN-pytorch"


@dataclass(frozen=True)
class OfficialFile:
    """A file of weights that its authors publish.

    Attributes:
        file: where it goes below `FOLDER`, as the options files name it.
        page: page of the authors.
        url: the file itself.
        network: type and options of the architecture.
        parameters: number of parameters that the network must have.
        megabytes: size of the file, about.
        sha256_start: the first digits of its sha256, where the authors' file name tells them.
    """

    file: str
    page: str
    url: str
    network: dict[str, Any]
    parameters: int
    megabytes: float
    sha256_start: str = ""


def _swinir(scale: int, parameters: int) -> OfficialFile:
    name = f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth"
    network = {"type": "SwinIR", "upscale": scale}
    return OfficialFile(
        f"SwinIR/{name}", _SWINIR, f"{_SWINIR}/releases/download/v0.0/{name}", network, parameters, 16.7
    )


def _edsr(kind: str, scale: int, digest: str, parameters: int) -> OfficialFile:
    large = {"num_feat": 256, "num_block": 32, "res_scale": 0.1} if kind == "edsr" else {}
    network = {"type": "EDSR", "upscale": scale, **large}
    url = f"{_EDSR_FILES}/{kind}_x{scale}-{digest}.pt"
    return OfficialFile(f"EDSR/{kind}_x{scale}.pt", _EDSR, url, network, parameters, 4e-6 * parameters, digest)


def _rdn(scale: int, key: str, parameters: int) -> OfficialFile:
    url = f"https://www.dropbox.com/s/{key}/rdn_x{scale}.pth?dl=1"
    return OfficialFile(
        f"RDN/RDN_B_x{scale}.pt", _RDN, url, {"type": "RDN", "upscale": scale}, parameters, 4e-6 * parameters
    )


OFFICIAL_FILES = {
    "SwinIR-light_x2": _swinir(2, 910152),
    "SwinIR-light_x3": _swinir(3, 918267),
    "SwinIR-light_x4": _swinir(4, 929628),
    "EDSR_x2": _edsr("edsr_baseline", 2, "1bc95232", 1369859),
    "EDSR_x3": _edsr("edsr_baseline", 3, "abf2a44e", 1554499),
    "EDSR_x4": _edsr("edsr_baseline", 4, "6b446fab", 1517571),
    "EDSR-large_x2": _edsr("edsr", 2, "0edfb8a3", 40729603),
    "EDSR-large_x3": _edsr("edsr", 3, "ea3ef2c6", 43680003),
    "EDSR-large_x4": _edsr("edsr", 4, "4f62e9ef", 43089923),
    "RDN_x2": _rdn(2, "pd52pkmaik1ri0h", 22123395),
    "RDN_x3": _rdn(3, "56topxdwm6rakwd", 22308035),
    "RDN_x4": _rdn(4, "yphiyivb1v7jya2", 22271107),
}


def check(entry: OfficialFile, path: Path) -> None:
    """Raise a CheckpointError unless the file is the one of the list: its digest, its parameters, the names of its tensors."""
    digest = sha256_of(path)
    if not digest.startswith(entry.sha256_start):
        raise CheckpointError(
            f"The file '{path}' is not the official one: its sha256 begins with {digest[:8]}, not {entry.sha256_start}. "
            f"It may be cut off, or of another source; download it again from {entry.url}."
        )
    network = build_network(entry.network)
    count = parameters_of(network)
    if count != entry.parameters:
        raise CheckpointError(
            f"The network for '{path}' has {count} parameters here, the official one {entry.parameters}."
        )
    load_network_weights(network, load_weights_file(path), path)


def parameters_of(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def download(entry: OfficialFile, path: Path) -> None:
    """Fetch a file and put it in place once it has passed `check`."""
    remedy = f"Download it with a browser from {entry.page} and put it to '{path}'."
    with (
        explained(CheckpointError, f"'{entry.url}' cannot be fetched", remedy),
        urllib.request.urlopen(entry.url, timeout=60) as response,
    ):
        content = response.read()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        check(entry, temporary)


def chosen_files(patterns: Iterable[str]) -> dict[str, OfficialFile]:
    """Return the files whose names match one of the globs.

    Raises:
        OptionsError: a glob matches none.
    """
    chosen: dict[str, OfficialFile] = {}
    for pattern in patterns:
        matching = {name: entry for name, entry in OFFICIAL_FILES.items() if fnmatchcase(name, pattern)}
        if not matching:
            raise OptionsError(f"There is no official file '{pattern}'. Names: {', '.join(OFFICIAL_FILES)}.")
        chosen |= matching
    return chosen


def report(name: str, entry: OfficialFile, folder: Path, checked: bool) -> bool:
    """Print the line of a file, and whether it is in place (and, if asked, sound); return whether anything is wrong."""
    path, problem = folder / entry.file, None
    state = "in place" if path.is_file() else "absent"
    if checked and path.is_file():
        try:
            check(entry, path)
            state = "in place, checked"
        except UserError as error:
            state, problem = "WRONG", error
    print(f"{name:16} {state:18} {entry.megabytes:6.1f} MB {entry.parameters:>11,} parameters  {path}  {entry.page}")
    if problem:
        print(f"    {problem}")
    return problem is not None


def main(argv: list[str] | None = None) -> int:
    """List, check or download; return 2 if something is wrong."""
    parser = command_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="read the files that are in place")
    parser.add_argument("--download", nargs="+", default=[], metavar="NAME", help="names or globs to fetch")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where the files are (default: {FOLDER})")
    arguments = parser.parse_args(argv)
    try:
        for name, entry in chosen_files(arguments.download).items():
            print(f"Fetching {name} from {entry.url}")
            download(entry, arguments.folder / entry.file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    checked = arguments.check or bool(arguments.download)
    wrong = [report(name, entry, arguments.folder, checked) for name, entry in OFFICIAL_FILES.items()]
    return 2 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
