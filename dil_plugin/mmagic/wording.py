"""The names that options have in a config of mmengine, where the core says those of a BasicSR YAML."""

import contextlib
import re
from collections.abc import Iterator

from mmengine.logging import print_log

from dil_plugin.errors import DILError, SeveralErrors
from dil_plugin.mistakes import reworded

_ALONE = r'(?<![\w.])'  # not the end of a longer name

_NAMES = [(re.compile(pattern), name) for pattern, name in (
    (r'check scale, ', 'check the scale of model.distortions, '),
    (r'\btrain\.dil\b', 'model.dil'),
    (r'\btrain\.optim_g\b\.?(?=lr\b)', 'optim_wrapper.optimizer.'),
    (r'\btrain\.optim_g\b', 'optim_wrapper.optimizer'),
    (r'\btrain\.accum_iter\b', 'optim_wrapper.accumulative_counts'),
    (r'\btrain\.clip_grad_norm\b', 'optim_wrapper.clip_grad'),
    (r'\btrain\.amp\b', 'optim_wrapper.dtype'),
    (r'\bdatasets\.train\.batch_size_per_gpu\b', 'train_dataloader.batch_size'),
    (r'\bdatasets\.train\b', 'train_dataloader.dataset'),
    (rf'{_ALONE}network_g\b', 'model.generator'),
    (rf'{_ALONE}queue_size\b', 'model.queue_size'),
    (rf'{_ALONE}ema_decay\b', 'model.is_use_ema'),
    (rf'{_ALONE}manual_seed\b', 'randomness.seed'),
    (r'\bexperiments/NAME\b', 'the work dir'),
    (r' \(YAML reads (\S+) as text: write !!float \S+\)', r' (a text: write \1 without quotes)'),
    (r'~ \(nothing\)', 'None'),
    (r'\btrue\b', 'True'),
    (r'\bfalse\b', 'False'),
)]


def in_words_of_the_config(text: str) -> str:
    """The text with the names of options that a config of mmengine has; a text that has them already stays."""
    for pattern, name in _NAMES:
        text = pattern.sub(name, text)
    return text


@contextlib.contextmanager
def names_of_the_config() -> Iterator[None]:
    """Has a user's mistake that is found inside named as the config names it; also a decorator."""
    try:
        yield
    except SeveralErrors as error:
        raise reworded(error, in_words_of_the_config) from None
    except DILError as error:
        error.args = (in_words_of_the_config(str(error.args[0])), *error.args[1:])
        raise


def say(text: str, level: int) -> None:
    """Writes a line into mmengine's log; of several processes the first one does."""
    print_log(in_words_of_the_config(text), 'current', level)
