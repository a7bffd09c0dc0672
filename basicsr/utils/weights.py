"""Read files of network weights and put them into networks."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from basicsr.utils.cards import check_card
from basicsr.utils.checkpoint import load_torch, unusual_form
from basicsr.utils.errors import CheckpointError, explained
from basicsr.utils.files import require_weights
from basicsr.utils.logger import get_logger
from basicsr.utils.stated_network import ENTRY, QUANTIZERS_ENTRY, Weights, check_stated, stated_in, tell_differences
from basicsr.utils.weight_entries import largest_part, likely_missing, weights_in

_NAMES_SHOWN = 3
_TORCH_SIGNATURE = b"PK\x03\x04"


@runtime_checkable
class KnowsLayouts(Protocol):
    """A network that knows other layouts of its names than its own; see `archs.base.SRNetwork`."""

    def remap_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict in the layout of the network."""


@runtime_checkable
class TellsOptions(Protocol):
    """A network that derives options from a state dict; see `archs.base.SRNetwork`."""

    def options_from_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the options of the network that a state dict in this layout belongs to."""


def load_weights_file(path: str | Path, param_key: str | None = None) -> Weights:
    """Read a state dict from a `.pth`, `.pt` or `.safetensors` file. No code of the file is ever run.

    Args:
        path: the file.
        param_key: entry that holds the state dict; by default a usual one, see `weights_in`.

    Returns:
        Tensors on the CPU by name, without the prefixes of wrappers such as `module.`; float16 and bfloat16 become float32. With
        them what the file, or a card beside it, says of the network and of its quantizers.

    Raises:
        CheckpointError: there is no such file, it is damaged, it needs code to be run, it holds no tensors or values that are not finite, or a
            card beside it speaks of another file.
    """
    path = Path(path)
    require_weights(path)
    if path.stat().st_size == 0:
        raise CheckpointError(f"The file of weights '{path}' is empty (0 bytes); download or copy it again.")
    card = check_card(path)
    if _is_safetensors(path):
        content, stated = _read_safetensors(path)
    else:
        content = load_torch(path)
        stated = stated_in(content.get(ENTRY)) if isinstance(content, Mapping) else None
    quantizers = content.get(QUANTIZERS_ENTRY) if isinstance(content, Mapping) else None
    tensors = weights_in(content, path, param_key)
    _refuse_forms(tensors, path)
    tensors = {name: _as_float32(tensor) for name, tensor in tensors.items()}
    _refuse_not_finite(tensors, path)
    return Weights(
        tensors,
        stated or (card.network if card is not None else None),
        quantizers if isinstance(quantizers, Mapping) else None,
    )


def load_network_weights(
    network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path, strict: bool = True
) -> None:
    """Put weights into a network.

    Args:
        network: if its class has `remap_state_dict`, that turns other layouts of names into its own.
        state_dict: tensors by name.
        path: where they come from, for messages.
        strict: whether missing and unexpected names are errors. Shapes that differ always are.

    Raises:
        CheckpointError: the weights do not fit; says what the likely reason is. Or the file says that they are of a network with
            other options, see `check_stated`.
    """
    stated = state_dict.network if isinstance(state_dict, Weights) else None
    state_dict = _remapped(network, state_dict, path)
    _refuse_codes(network, state_dict, path)
    try:
        missing, unexpected = network.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:  # of shapes, or from a module that loads its state in its own way
        raise CheckpointError(_explain_mismatch(network, state_dict, path, str(error))) from error
    if strict and (missing or unexpected):
        raise CheckpointError(_explain_mismatch(network, state_dict, path, _count_names(missing, unexpected)))
    check_stated(network, stated, path)


def load_fitting_weights(network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Put those weights into a network that fit by name and shape, such as the body of a network of another scale factor.

    The log says what stays as it was and what of the file is not used.

    Args:
        network: see `load_network_weights`.
        state_dict: tensors by name.
        path: where they come from, for messages.

    Raises:
        CheckpointError: no weight fits.
    """
    tell_differences(network, state_dict.network if isinstance(state_dict, Weights) else None, path)
    state_dict = _remapped(network, state_dict, path)
    own = network.state_dict()
    fitting = {key: value for key, value in state_dict.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise CheckpointError(_explain_mismatch(network, state_dict, path, "no tensor fits"))
    network.load_state_dict(fitting, strict=False)
    new, unused = ([key for key in keys if key not in fitting] for keys in (own, state_dict))
    if new or unused:
        get_logger().warning(
            "%d of %d tensors of the network are those of '%s'. Left as initialised: %s. Not used of the file: %s.",
            len(fitting), len(own), path, ", ".join(new) or "none", ", ".join(unused) or "none",
        )  # fmt: skip


def _remapped(network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    """Return a state dict in the layout of the network, whose class may know others (`remap_state_dict`), out of wrappers of any name."""
    own = set(network.state_dict())
    remapped = _in_own_layout(network, state_dict, path)
    if 2 * len(own & set(remapped)) >= len(own):
        return remapped
    prefix, inner = "", state_dict
    while (part := largest_part(inner)) is not None:
        prefix, inner = prefix + part[0], part[1]
        with contextlib.suppress(CheckpointError):
            inside = _in_own_layout(network, inner, path)
            if 2 * len(own & set(inside)) >= len(own):
                _tell_part(prefix, state_dict, path)
                return inside
    return remapped


def _tell_part(prefix: str, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Say which part of a file is read."""
    others = [name for name in state_dict if not name.startswith(prefix)]
    if others:
        get_logger().warning(
            "Of the weights '%s' those are read whose names begin with '%s'. %d others are left out, such as %s.",
            path, prefix, len(others), others[0],
        )  # fmt: skip
    else:
        get_logger().info("The names of the weights '%s' begin with '%s', which is passed over.", path, prefix)


def _in_own_layout(network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    if not isinstance(network, KnowsLayouts):
        return state_dict
    try:
        return network.remap_state_dict(state_dict)
    except CheckpointError as error:
        raise CheckpointError(
            f"The weights '{path}' do not fit the network {type(network).__name__}: {error}"
        ) from error


def _refuse_codes(network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse whole numbers in place of weights, which torch would take for the weights themselves."""
    codes = [
        name
        for name, parameter in network.named_parameters()
        if parameter.is_floating_point() and name in state_dict and not state_dict[name].is_floating_point()
    ]
    if codes:
        raise CheckpointError(
            f"The weights '{path}' are whole numbers of type {state_dict[codes[0]].dtype} in {len(codes)} tensors such as {codes[0]}: "
            "codes of another program's quantized network. Give its full-precision weights."
        )


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is safetensors by its content, whatever its name; the name tells where the content is damaged."""
    failure = f"The file of weights '{path}' cannot be read"
    with explained(CheckpointError, failure, "Check its permissions."), path.open("rb") as file:
        start = file.read(9)
    length_of_header = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and length_of_header <= path.stat().st_size:
        return True
    return path.suffix.lower() == ".safetensors" and not start.startswith(_TORCH_SIGNATURE)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the tensors of a file, and what it says of their network."""
    try:
        with explained(CheckpointError, f"The file of weights '{path}' cannot be read", "Check its permissions."):
            with safetensors.safe_open(str(path), framework="pt") as file:
                stated = stated_in((file.metadata() or {}).get(ENTRY))
            return safetensors.torch.load_file(path), stated
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"The file of weights '{path}' is damaged or cut off: {error}.") from error


def _refuse_forms(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are no plain rows of numbers, with which hardly anything can be computed."""
    for name, tensor in tensors.items():
        form = unusual_form(tensor)
        if form is not None:
            raise CheckpointError(
                f"The weights '{path}' hold {form}, such as {name}, where plain values are expected. Save the network's state dict "
                "in full precision on the CPU."
            )


def _refuse_not_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if names:
        raise CheckpointError(
            f"The weights '{path}' hold values that are not finite (nan or infinite), in {len(names)} tensors such as {names[0]}: "
            "the training that wrote them diverged. Take an earlier file of it."
        )


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _count_names(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = ", .." if len(names) > _NAMES_SHOWN else ""
            parts.append(f"{len(names)} {kind} ({', '.join(names[:_NAMES_SHOWN])}{more})")
    return " and ".join(parts)


def _explain_mismatch(network: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path, details: str) -> str:
    """Return one sentence with the most likely reason why weights do not fit a network."""
    start = f"The weights '{path}' do not fit the network {type(network).__name__}:"
    reason = _reason(network, state_dict, details)
    forgotten = likely_missing(state_dict)
    if any(key not in reason for key in forgotten):
        reason = f"the file is incomplete, {_count_names(forgotten, [])}. Get it again from where it was made"
    return f"{start} {reason}."


def _reason(network: nn.Module, state_dict: Mapping[str, Tensor], details: str) -> str:
    """Return what tells weights and network apart, without a full stop."""
    own = network.state_dict()
    shared = [key for key in state_dict if key in own]
    if 2 * len(shared) < min(len(own), len(state_dict)):
        names = _count_names(
            [key for key in own if key not in state_dict], [key for key in state_dict if key not in own]
        )
        return f"hardly a name is the same, so they belong to another architecture; tensors: {names}"
    differences = _differing_options(network, state_dict, own)
    if differences:
        return f"the file holds a network with {differences[0]}, the options ask for {differences[1]}"
    shapes = [
        f"{key} is {tuple(state_dict[key].shape)} in the file and {tuple(own[key].shape)} in the network"
        for key in shared
        if isinstance(own[key], Tensor) and state_dict[key].shape != own[key].shape
    ]
    if not shapes:
        return f"names of tensors: {details}. Correct network_g, or get a file of this very network"
    shown = "; ".join(shapes[:_NAMES_SHOWN])
    if all("upsample" in shape or "tail" in shape or "UPNet" in shape for shape in shapes):
        return f"only the upsampler differs, so they belong to another scale factor; {shown}"
    return f"{len(shapes)} shapes differ; {shown}"


def _differing_options(
    network: nn.Module, state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Return the options in which file and network differ, if the architecture can tell options from shapes."""
    if not isinstance(network, TellsOptions):
        return None
    try:
        in_file, wanted = network.options_from_state_dict(state_dict), network.options_from_state_dict(own)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None
    names = [name for name in wanted if in_file[name] != wanted[name]]
    if not names:
        return None
    of_file, of_options = (", ".join(f"{name} {options[name]}" for name in names) for options in (in_file, wanted))
    return of_file, of_options
