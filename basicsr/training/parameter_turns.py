"""Groups of parameters that are trained in turns: while one of them learns, the others stay as they are."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from basicsr.utils.errors import OptionsError


class ParameterTurns:
    """Lets one group of parameters after the other take gradients, round and round, in turns of equal length.

    The optimiser passes over parameters without a gradient and keeps what it knows of them until their next turn. So which iteration it is
    says all, and nothing has to be stored.

    Args:
        parameters: what is trained, by name.
        groups: a glob on these names for each group; the first that fits a name counts.
        turns: turns in the whole training, of which the first is that of the first group.
        iterations: of the whole training.

    Raises:
        OptionsError: a group has no parameter, a parameter is in no group, or there are fewer turns than groups.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], groups: Sequence[str], turns: int, iterations: int
    ) -> None:
        self._groups: list[list[nn.Parameter]] = [[] for _ in groups]
        self._turns, self._iterations = turns, max(iterations, 1)
        for name, parameter in parameters.items():
            fitting = next((index for index, glob in enumerate(groups) if fnmatchcase(name, glob)), None)
            if fitting is None:
                raise OptionsError(
                    f"Option 'train:parameter_turns' has no glob that fits '{name}', which is trained, so that it would never have a turn. "
                    "Add one, such as '*', which takes what is left."
                )
            self._groups[fitting].append(parameter)
        for glob, group in zip(groups, self._groups, strict=True):
            if not group:
                raise OptionsError(
                    f"Option 'train:parameter_turns' names '{glob}', but no parameter is left that is trained and is called so. One that is "
                    f"trained: '{next(iter(parameters), 'none')}'."
                )
        if turns < len(groups):
            raise OptionsError(
                f"Option 'train:turns' is {turns}, but there are {len(groups)} groups in 'train:parameter_turns': give each at least one turn."
            )

    def group_of(self, iteration: int) -> int:
        """Return which group learns in an iteration, counted from 0."""
        turn = min(iteration, self._iterations - 1) * self._turns // self._iterations
        return turn % len(self._groups)

    def begin(self, iteration: int) -> None:
        """Let the group of an iteration, counted from 0, take gradients, and no other."""
        chosen = self.group_of(iteration)
        for index, group in enumerate(self._groups):
            for parameter in group:
                parameter.requires_grad_(index == chosen)
