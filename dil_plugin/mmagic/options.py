"""The options that a mmagic config gives to our classes, as typed objects."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dil_plugin.distortions import DistortionSet, parse_distortions
from dil_plugin.errors import OptionError
from dil_plugin.learning.mldg import check_held_out
from dil_plugin.learning.options import DILOptions
from dil_plugin.options import convert

Size = Annotated[int, Meta(ge=1)]


class ModelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``DILEditModel`` has beside the options of ``BaseEditModel``."""

    dil: Annotated[DILOptions, Meta(description='The method: variant, inner optimiser and so on.')]
    distortions: Annotated[list[Any], Meta(min_length=1, description='The confounders.')]
    gt_size: Annotated[Size | None, Meta(description='Side of the patches that are cut after the distortion, in pixels '
                                         'of the target. Default: they stay as the pipeline gives them.')] = None
    queue_size: Annotated[Size | None, Meta(description="Groups in Real-ESRGAN's training pair pool. Default: no pool."
                                            )] = None
    is_use_ema: Annotated[bool, Meta(description="Restore with generator_ema, which mmagic's "
                                     'ExponentialMovingAverageHook averages.')] = False


class TransformOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of ``CounterfactualDistortions``."""

    distortions: Annotated[list[Any], Meta(min_length=1, description='The confounders; with mode fixed one.')]
    mode: Annotated[Literal['random', 'fixed'],
                    Meta(description='random: training, drawn anew for every sample; fixed: validation and testing, '
                         'the same for every method and machine.')] = 'random'
    key: Annotated[str, Meta(min_length=1, description='The clean image in the results of the pipeline.')] = 'gt'
    seed: Annotated[int, Meta(ge=0, description='Mixed into the draws.')] = 0
    counterfactuals: Annotated[bool, Meta(description='mode random: also give the image under every confounder, which '
                                          'DILEditModel needs and a plain BaseEditModel does not.')] = True
    dataset: Annotated[str | None,
                       Meta(description="mode fixed: the data set's name, which the draws depend on. Default: that of "
                            'the folder or LMDB.')] = None


def plain(raw: Any) -> Any:
    """A block of a mmengine config as dictionaries and lists; its tuples are lists, as they would be in a YAML."""
    if isinstance(raw, Mapping):
        return {name: plain(value) for name, value in raw.items()}
    return [plain(value) for value in raw] if isinstance(raw, list | tuple) else raw


def parse_model_options(raw: Mapping[str, Any]) -> tuple[ModelOptions, DistortionSet]:
    """The typed options of a ``DILEditModel`` and its confounders.

    Raises:
        OptionError: An option is unknown, wrong or missing.
    """
    block = plain({name: value for name, value in raw.items() if value is not None})
    if 'dil' not in block:
        raise OptionError("model.dil: the block is missing, as in dil=dict(variant='sf')")
    if 'distortions' not in block:
        raise OptionError('model.distortions: the block is missing; the counterfactuals are made from it, as in '
                          "distortions=[dict(type='GaussianNoise', sigma=[5, 10, 15, 20])]")
    options = convert(block, ModelOptions, 'model')
    if options.dil.patches_to_deploy is not None:
        raise OptionError("model.dil.deploy: 'phi', which validates and saves another network than it trains; a "
                          "DILEditModel saves the trained one; allowed: 'theta' (BasicSR's DILModel has both)")
    distortions = parse_distortions(block['distortions'], 'model.distortions')
    if options.dil.variant == 'mldg':
        check_held_out(options.dil.held_out_or_default, len(distortions), 'model.dil.held_out')
    if options.gt_size is not None and options.gt_size % distortions.scale:
        raise OptionError(f'model.gt_size: {options.gt_size}; allowed: multiples of {distortions.scale}, by which the '
                          'distortions divide the resolution')
    return options, distortions


def parse_transform_options(raw: Mapping[str, Any]) -> tuple[TransformOptions, DistortionSet]:
    """The typed options of ``CounterfactualDistortions`` and its confounders.

    Raises:
        OptionError: An option is unknown, wrong or missing, or the fixed distortion is not one.
    """
    key = 'CounterfactualDistortions'
    options = convert(plain(raw), TransformOptions, key)
    distortions = parse_distortions(options.distortions, f'{key}.distortions')
    if options.mode == 'fixed' and len(distortions) != 1:
        raise OptionError(f'{key}.distortions: mode fixed takes one distortion, got {", ".join(distortions.labels)}; '
                          'give one data set per degree')
    return options, distortions
