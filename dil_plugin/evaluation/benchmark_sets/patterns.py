"""Finds the images of a set by a pattern of its layout, and names them by what the pattern leaves open.

A pattern is a path without file ending. ``<word>`` stands for one or more characters of a file or folder name, ``[…]``
for something that may be absent; a ``<word>`` that comes again must be the same again. What the words stand for, joined
by ``/`` in the order of their first use, is the image's name: ``<camera>/Test/4/[<camera>_]<number>_HR`` names
``Canon/Test/4/Canon_001_HR.png`` ``Canon/001``. Case does not matter.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dil_plugin.data_preparation.images import IMAGE_SUFFIXES
from dil_plugin.errors import DataError

_TOKEN = re.compile(r'<(\w+)>|([\[\]])|([^<\[\]]+)')


def find_matches(root: Path, pattern: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, list[Path]]:
    """The files below ``root`` that fit ``pattern``, by name; more than one where only the file endings differ.

    Raises:
        DataError: A folder cannot be listed.
    """
    found: dict[str, list[Path]] = {}
    for path, words in _descend(root, pattern.split('/'), {}, suffixes):
        found.setdefault('/'.join(words.values()), []).append(path)
    return {name: sorted(paths) for name, paths in sorted(found.items())}


def find_folder(parent: Path, relative: str) -> Path | None:
    """The folder of that relative path below ``parent``, whatever the case of its letters; None where there is none."""
    for part in relative.split('/') if relative != '.' else []:
        exact = parent / part
        folders = [exact] if exact.is_dir() else [path for path in _list(parent)
                                                  if path.name.lower() == part.lower() and path.is_dir()]
        if not folders:
            return None
        parent = folders[0]
    return parent


def readable(pattern: str) -> str:
    """The pattern as a message shows it: ``*/Test/4/*_HR``."""
    return re.sub(r'<\w+>', '*', re.sub(r'\[.*?\]', '', pattern))


def _descend(folder: Path, parts: list[str], words: Mapping[str, str],
             suffixes: tuple[str, ...]) -> Iterator[tuple[Path, Mapping[str, str]]]:
    regex = _regex(parts[0], words)
    for path in _list(folder):
        if len(parts) == 1:
            match = regex.fullmatch(path.stem) if path.suffix.lower() in suffixes else None
            if match and path.is_file():
                yield path, {**words, **match.groupdict()}
        elif (match := regex.fullmatch(path.name)) and path.is_dir():
            yield from _descend(path, parts[1:], {**words, **match.groupdict()}, suffixes)


def _regex(part: str, words: Mapping[str, str]) -> re.Pattern[str]:
    known = dict(words)
    text = ''
    for word, bracket, literal in _TOKEN.findall(part):
        if word:
            text += re.escape(known[word]) if word in known else f'(?P<{word}>.+?)'
        else:
            text += {'[': '(?:', ']': ')?'}.get(bracket, re.escape(literal))
    return re.compile(text, re.IGNORECASE)


def _list(folder: Path) -> list[Path]:
    """What is in a folder, hidden files left out."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith('.')]
    except OSError as error:
        raise DataError(f'{folder}: cannot be read: {error.strerror}') from error
