"""The errors that a user can cause; their messages are complete without a traceback."""

_LONGEST = 300  # characters of a message that is not ours


class DILError(ValueError):
    """A mistake in what the user gave; the message names it, its value and what is allowed."""


class OptionError(DILError):
    """An option in a YAML file or on the command line is wrong."""


class UnknownOption(OptionError):
    """An option that nothing reads.

    Args:
        message: Names it.
        concerns: The full key of the option, and of those that may have been meant and then are missing.
    """

    def __init__(self, message: str = '', concerns: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.concerns = concerns


class MissingOption(UnknownOption):
    """An option that is not there. The arguments are those of UnknownOption."""


class SeveralErrors(OptionError):
    """Mistakes that were found together; its text has a line for each, all of which tools begin alike.

    Args:
        errors: The errors, at least two.
    """

    def __init__(self, errors: tuple[DILError, ...] = ()) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return '\nerror: '.join(map(str, self.errors))


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


def reason_of(error: BaseException) -> str:
    """One line, not too long, on an error of a network or another package; with its kind where the words need it."""
    text = ' '.join(str(error).split())
    text = text if len(text) <= _LONGEST else f'{text[:_LONGEST]} …'
    plain = isinstance(error, RuntimeError | ValueError | AssertionError)
    return text if text and plain else f'{type(error).__name__}{": " if text else ""}{text}'
