"""The errors that a user can cause; their messages are complete without a traceback."""


class DILError(ValueError):
    """A mistake in what the user gave; the message names it, its value and what is allowed."""


class OptionError(DILError):
    """An option in a YAML file or on the command line is wrong."""


class DataError(DILError):
    """An image, data set or checkpoint file is missing or unusable."""
