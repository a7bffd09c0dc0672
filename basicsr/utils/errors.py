"""Errors that a user can mend. The command lines print them as one message, without a traceback."""


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
