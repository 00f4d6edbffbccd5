"""Which losses and metrics can be used: what BasicSR registers under these names is not all of one kind."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from dil_plugin.basicsr.checks.built_from import check_arguments
from dil_plugin.basicsr.yaml_options.registered import METRICS, PERCEPTUAL_LOSSES, PIXEL_LOSSES
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes
from dil_plugin.options import did_you_mean

_WITHOUT_TARGETS = 'SingleImageDataset'


class _Kind(NamedTuple):
    """What stands under an option: the names of BasicSR's that do, why the others do not, and what is given to it."""

    known: Mapping[str, Any]
    reason: str
    given: tuple[str, ...] = ()


_PIXEL = _Kind(PIXEL_LOSSES, 'gives no loss of an image and its target')
_PERCEPTUAL = _Kind(PERCEPTUAL_LOSSES, 'gives no pair of losses, of features and of style')
_METRIC = _Kind(METRICS, 'measures no arrays of 8 bits, which validation gives', ('img', 'img2'))


def check_losses_and_metrics(opt: Mapping[str, Any]) -> None:
    """Raises OptionError for a loss or a metric that is not registered, or that the run could not use.

    Losses and metrics of others are held to their arguments; what they give is seen when they are called. Models of
    others may use these options in ways of their own, and are not judged.

    Args:
        opt: The options as BasicSR parsed them.
    """
    from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
    judged = _module(MODEL_REGISTRY.get(opt['model_type'])).startswith(('basicsr.', 'dil_plugin.'))
    train = opt.get('train') or {}
    mistakes = Mistakes()
    for name, kind in (('pixel_opt', _PIXEL), ('perceptual_opt', _PERCEPTUAL)):
        if train.get(name):
            with mistakes:
                _check(f'train.{name}', train[name], LOSS_REGISTRY, kind, judged)
    metrics = (opt.get('val') or {}).get('metrics') or {}
    if not isinstance(metrics, Mapping):
        mistakes.add(OptionError('val.metrics: expected metrics by name, as in psnr: {type: calculate_psnr, '
                                 f'crop_border: 0}}, got {metrics!r}'))
        metrics = {}
    for name, metric in metrics.items():
        with mistakes:
            _check(f'val.metrics.{name}', metric, METRIC_REGISTRY, _METRIC, judged)
    if judged and mistakes.spare('val.metrics'):
        with mistakes:
            _check_targets(opt, metrics, METRIC_REGISTRY)
    mistakes.end()


def _check(key: str, block: Any, registry: Any, kind: _Kind, judged: bool) -> None:
    if not isinstance(block, Mapping):
        raise OptionError(f'{key}: expected a block of options with a type, got {block!r}')
    registered = {one.removesuffix('_basicsr'): entry for one, entry in registry}  # BasicSR finds them by either
    usable = [one for one, entry in registered.items()
              if not judged or one in kind.known or not _module(entry).startswith('basicsr.')]
    name = str(block.get('type'))
    if name.removesuffix('_basicsr') not in registered:
        raise OptionError(f'{key}.type: unknown name {block.get("type")!r}; {did_you_mean(name, usable)}')
    if name.removesuffix('_basicsr') not in usable:
        raise OptionError(f'{key}.type: {name} {kind.reason}; {did_you_mean(name, usable)}')
    entry = registered[name.removesuffix('_basicsr')]
    if judged and not _module(entry).startswith('basicsr.'):
        check_arguments(key, block, entry, kind.given)


def _check_targets(opt: Mapping[str, Any], metrics: Mapping[str, Any], registry: Any) -> None:
    """Refuses a metric that compares where there is nothing to compare with."""
    for name, dataset in opt['datasets'].items():
        if dataset.get('phase') == 'train' or dataset.get('type') != _WITHOUT_TARGETS:
            continue
        for label, metric in metrics.items():
            target = inspect.signature(registry.get(metric['type'])).parameters.get('img2')
            if target is not None and target.default is target.empty:
                raise OptionError(f'val.metrics.{label}: {metric["type"]} compares with targets, and datasets.{name} '
                                  f'({_WITHOUT_TARGETS}) has none; allowed: calculate_niqe, or a data set of pairs')


def one_number(key: str, value: Any) -> Tensor:
    """What a loss gave, a scalar; raises OptionError, naming the option, where it is none."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value
    what = f'a tensor of {tuple(value.shape)}' if isinstance(value, Tensor) else type(value).__name__
    raise OptionError(f'{key}: its loss gives {what}; expected one number, a tensor of one element')


def two_losses(key: str, values: Any) -> list[Tensor | None]:
    """What a perceptual loss gave, for features and style, of which either may be None; raises as ``one_number``."""
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise OptionError(f'{key}: its loss gives {type(values).__name__}; expected two, of features and of style, as '
                          'PerceptualLoss')
    return [None if value is None else one_number(key, value) for value in values]


def _module(entry: Any) -> str:
    return str(getattr(entry, '__module__', ''))
