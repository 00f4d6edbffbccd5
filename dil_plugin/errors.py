"""The errors that a user can cause; their messages are complete without a traceback."""


class DILError(ValueError):
    """A mistake in what the user gave; the message names it, its value and what is allowed."""


class OptionError(DILError):
    """An option in a YAML file or on the command line is wrong."""


class NumericalError(DILError):
    """A training has come to losses or gradients that are not finite."""


class DataError(DILError):
    """An image, data set or checkpoint file is missing or unusable."""


class UnusableImage(DataError):
    """One image of a set cannot be read or decoded, or is too small; the others may do (``on_bad_image: skip``).

    Args:
        message: What to say where it ends the run; torch makes such an error of a data worker's from this alone.
        name: The file or LMDB key, and where it is.
        reason: What is wrong with it.
    """

    def __init__(self, message: str, name: str = '', reason: str = '') -> None:
        super().__init__(message, name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])
