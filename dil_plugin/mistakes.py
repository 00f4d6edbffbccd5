"""Gathers what is wrong with options over checks that do not need each other, so that one run tells all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType

from dil_plugin.errors import DILError, SeveralErrors, UnknownOption


class Mistakes:
    """The errors of several checks::

        mistakes = Mistakes()
        with mistakes:
            check_one_thing(options)
        with mistakes:
            check_another(options)
        if mistakes.spare('train.dil', 'distortions'):
            with mistakes:
                check_what_needs_both(options)
        mistakes.end()

    A mistake is told once: an error is dropped where an earlier check has found something wrong with the option that
    it begins with, with one inside of it, or with the block around it. A missing option is not told where an unknown
    one is like it, and may be it, misspelt. Once something is wrong, a check that cannot even be made (it stumbles
    over what was found) says nothing.
    """

    def __init__(self) -> None:
        self.errors: list[DILError] = []
        self._concerns: list[str] = []

    def __enter__(self) -> None:
        """Begins a check."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool:
        """Takes the error of the check."""
        if isinstance(error, DILError):
            self.add(error)
            return True
        return isinstance(error, Exception) and bool(self.errors)

    def add(self, error: DILError) -> None:
        """Takes the error, or errors, of one check."""
        found = each(error)
        self.errors += dict.fromkeys(one for one in found if self.spare(*concerned(one)))
        self._concerns += [key for one in found for key in concerned(one)]

    def spare(self, *keys: str) -> bool:
        """Whether nothing is known to be wrong with these options, with what is in them, and the blocks around them."""
        return not any(_related(key, known) for key in keys for known in self._concerns)

    def end(self) -> None:
        """Raises what was found: one error as it is, several as SeveralErrors."""
        raise_all(self.errors)


def raise_all(errors: Iterable[DILError]) -> None:
    """Raises one error as it is, several as SeveralErrors, none not at all."""
    found = tuple(errors)
    if len(found) == 1:
        raise found[0]
    if found:
        raise SeveralErrors(found)


def each(error: DILError) -> tuple[DILError, ...]:
    """The single errors of one that may be several."""
    return error.errors if isinstance(error, SeveralErrors) else (error, )


def reworded(error: DILError, rewrite: Callable[[str], str]) -> DILError:
    """The same error, or errors, with other texts, which may begin with other keys."""
    if isinstance(error, SeveralErrors):
        return SeveralErrors(tuple(reworded(one, rewrite) for one in error.errors))
    if isinstance(error, UnknownOption):
        return type(error)(rewrite(str(error)), error.concerns)
    return type(error)(rewrite(str(error)))


def prefixed(error: DILError, where: str) -> DILError:
    """The same error, or errors, with texts that begin with a place."""
    return reworded(error, lambda text: f'{where}: {text}')


def concerned(error: DILError) -> tuple[str, ...]:
    """The options that an error is about: those that it says itself, or the one that its text begins with."""
    if isinstance(error, UnknownOption) and error.concerns:
        return error.concerns
    return (str(error).partition(':')[0], )


def _related(first: str, second: str) -> bool:
    short, long = sorted((first, second), key=len)
    return long == short or long.startswith((f'{short}.', f'{short}['))
