"""Errors that a user can mend, and the sentences they share. The command lines print them as one message, without a traceback."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

_MOST_NAMES = 40  # a network has hundreds of modules
_OUT_OF_SCOPE = dict.fromkeys(
    ("PerceptualLoss", "LPIPSLoss", "GANLoss", "MultiScaleGANLoss"),
    "Perceptual and GAN losses are out of scope: this project trains for PSNR and quantizes. Take a pixel loss: L1Loss, MSELoss or "
    "CharbonnierLoss.",
)
"""Components of BasicSR that have no counterpart, and why; of its options the table in options/upstream tells it."""


class UserError(Exception):
    """Something the user gave cannot be used. The message is a full sentence with the value and the remedy."""


class OptionsError(UserError):
    """An option is unknown, missing, of a wrong type or out of range."""


class DataError(UserError):
    """A folder of images or an image cannot be used."""


class CheckpointError(UserError):
    """A file of weights or a training state cannot be read, written or used for this network."""


class TrainingError(UserError):
    """A run cannot go on: a loss that is not finite, a batch that does not fit."""


@contextlib.contextmanager
def explained(
    kind: type[UserError], failure: str, remedy: str = "Check the permissions and the space left."
) -> Iterator[None]:
    """Turn an OSError of the block into an error that the user can mend.

    Args:
        kind: class of the error to raise.
        failure: what cannot be done, with the path and without a full stop: `The image 'a.png' cannot be written`.
        remedy: a full sentence.

    Raises:
        UserError: of the class `kind`; its message joins the failure, the reason of the system and the remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            remedy = "Shorten the name."
        raise kind(f"{failure}: {error.strerror or error}. {remedy}") from error


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `Did you mean 'x'?` for the known name nearest to `name` in letters of any case, or the known names.

    For a component of BasicSR that is out of scope, return why it is not there.
    """
    known = sorted(known)
    if name in _OUT_OF_SCOPE and name not in known:
        return _OUT_OF_SCOPE[name]
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if nearest:
        return f"Did you mean '{by_lower_case[nearest[0]]}'?"
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return f"Known names: {', '.join(known[:_MOST_NAMES]) or 'none'}{more}."
