"""What was being done when others' code failed, and where: the one line that a user gets of an unexpected error."""

import logging
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from typing import Any

import dil_plugin

_WORDS = 240  # characters of an error's own message
_LIBRARIES = (sysconfig.get_paths()['stdlib'], os.path.dirname(str(dil_plugin.__file__)))
_PACKAGES = re.compile(r'[/\\](site|dist)-packages[/\\]')
_NETWORK_AND_DATA = re.compile(r'[/\\]basicsr[/\\](archs|losses|metrics|data)[/\\]')
_IN_WORKER = re.compile(r'File "([^"]+)", line (\d+)')


def in_words(error: BaseException) -> str:
    """What was being done, the error, and the line of the user's own code that it comes from, as far as there is one.
    """
    text = str(error).strip()
    if 'Traceback (most recent call last)' in text:  # of a data worker, which ends on the error itself
        said = text.splitlines()[-1]
    else:
        said = f'{type(error).__name__}: {text}' if text else type(error).__name__
    said, done, place = ' '.join(said.split()), _done(error), own_place(error)
    said = said if len(said) <= _WORDS else f'{said[:_WORDS]}…'
    where = f' ({place[0]} line {place[1]})' if place else ''
    return f'{done}: {said}{where}' if done else f'{said}{where}'


def of_network_or_data(error: BaseException) -> bool:
    """Whether it comes of what a user chose: code of the user's own, or a network, loss, metric or data set."""
    frames = _frames(error)
    return own_place(error) is not None or any(_NETWORK_AND_DATA.search(file) for file, _ in frames)


def into_the_log(error: BaseException) -> None:
    """Writes the traceback into the log files of the run, and not to standard error."""
    logger = logging.getLogger('basicsr')
    record = logger.makeRecord(logger.name, logging.ERROR, '', 0, ''.join(traceback.format_exception(error)), (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _done(error: BaseException) -> str:
    """By the functions of BasicSR's pipelines that the error has passed; '' where it has passed none of these."""
    done = image = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name, values = frame.f_code.co_name, frame.f_locals
        if name == 'nondist_validation' and 'dataset_name' in values:
            image = _image(values)
            done = f'validation of {values["dataset_name"]}{image}'
            if 'name' in values and 'opt_' in values:
                image = f'val.metrics.{values["name"]}{image}'
        elif name == 'calculate_metric' and image:
            done = image
        elif name == 'imwrite':
            done = f'{done}, writing {values.get("file_path")}'
        elif name == 'optimize_parameters' and 'current_iter' in values:
            done = f'training step of iteration {values["current_iter"]}'
        elif name in ('save', 'save_network', 'save_training_state') and 'current_iter' in values:
            done = f'saving iteration {values["current_iter"]}'
        elif name in ('resume_training', 'load_network'):
            done = 'resuming' if name == 'resume_training' else f'loading {values.get("load_path")}'
    return done


def _image(values: Mapping[str, Any]) -> str:
    """The image in work, of the variables of BasicSR's validation."""
    if 'img_name' not in values:
        return ''
    shape = getattr((values.get('val_data') or {}).get('lq'), 'shape', ())
    size = f', {shape[-2]}x{shape[-1]} pixels' if len(shape) > 2 else ''
    return f", image '{values['img_name']}'{size}"


def own_place(error: BaseException) -> tuple[str, int] | None:
    """The last line of code that is no library's, ours or a tool's."""
    main = getattr(sys.modules.get('__main__'), '__file__', None)
    tools = os.path.realpath(main) if main else ''
    others = ('<', *_LIBRARIES)
    own = [(file, line) for file, line in _frames(error)
           if not _PACKAGES.search(file) and not file.startswith(others) and os.path.realpath(file) != tools]
    return own[-1] if own else None


def _frames(error: BaseException) -> list[tuple[str, int]]:
    found = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    return found + [(file, int(line)) for file, line in _IN_WORKER.findall(str(error))]
