"""The options that our data sets share, and those of a DistortionAugmentedDataset block."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from dil_plugin.distortions.filtering import USM_MIN_SIZE
from dil_plugin.errors import OptionError
from dil_plugin.mistakes import Mistakes, raise_all
from dil_plugin.options import convert

Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
OnBadImage = Literal['error', 'skip']


class LoaderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the blocks of all our data sets have; the names are those of BasicSR's own data sets."""

    name: Annotated[str, Meta(description='Names the data set in logs and result folders.')]
    type: Annotated[str, Meta(description='The class of the data set.')]
    phase: Annotated[Literal['train', 'val', 'test'], Meta(description='Set by BasicSR.')] = 'train'
    scale: Annotated[Size, Meta(description="Set by BasicSR from the top level's scale.")] = 1
    gt_size: Annotated[Size, Meta(description='Side of the clean training patch, in pixels. Default: none, training '
                                  'needs it.')] = 64
    use_hflip: Annotated[bool, Meta(description='Random horizontal flips.')] = True
    use_rot: Annotated[bool, Meta(description='Random rotations by multiples of 90 degrees.')] = True
    seed: Annotated[Seed, Meta(description='Seeds the draws (patches, confounders) of our data sets. Default: '
                                'manual_seed in training, 0 in validation and testing.')] = 0
    on_bad_image: Annotated[OnBadImage,
                            Meta(description='Training: what happens to an image that cannot be read or decoded, or is '
                                 'smaller than gt_size. error: the run ends, naming it. skip: the next image that is '
                                 'good takes its place; each is named in the log once, and counted at the end.'
                                 )] = 'error'
    num_worker_per_gpu: Annotated[Count, Meta(description='Training: data workers (BasicSR). Default: none, training '
                                              'needs it.')] = 0
    batch_size_per_gpu: Annotated[Size, Meta(description='Training: samples per iteration and process (BasicSR); '
                                             'others go one by one. Default: none, training needs it.')] = 1
    dataset_enlarge_ratio: Annotated[Annotated[float, Meta(gt=0)],
                                     Meta(description='Repeats of the data per epoch (BasicSR); below 1 that share of '
                                          'the images, its first ones, is all that is ever used.')] = 1
    prefetch_mode: Annotated[Literal['cpu', 'cuda'] | None,
                             Meta(description='cuda: the next batch is copied to the GPU while this one is computed; '
                                  'needs pin_memory, and has no effect on a CPU. cpu: a thread collects batches ahead '
                                  '(BasicSR). The data workers load ahead with any of them.')] = None
    num_prefetch_queue: Annotated[Size, Meta(description='Depth of the cpu prefetcher (BasicSR).')] = 1
    pin_memory: Annotated[bool, Meta(description='Page-locked batches, which are copied to a GPU without the host '
                                     'waiting (BasicSR).')] = False
    persistent_workers: Annotated[bool, Meta(description='Training: keep workers between epochs (BasicSR).')] = False


class DatasetOptions(LoaderOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The block of one DistortionAugmentedDataset under ``datasets``."""

    dataroot_gt: Annotated[str, Meta(description='LMDB or folder of clean images.')]
    io_backend: Annotated[dict[str, Any], Meta(description='{type: lmdb} or {type: disk}.')]
    meta_info_file: Annotated[str | None,
                              Meta(description='A text file of image names, one a line, to take of a folder.')] = None
    meta_info: Annotated[str | None,
                         Meta(description='The same, by the name that RealESRGANDataset has for it.')] = None
    crop_pad_size: Annotated[Size | None,
                             Meta(description='Side of the clean crop that is distorted; the patch of gt_size is cut '
                                  'from it afterwards, as Real-ESRNet does with 400, so that it is free of borders. '
                                  'Smaller images are padded by reflection. Default: gt_size, or 400 where the '
                                  'top level has a gt_size, as Real-ESRNet.')] = None
    use_shuffle: Annotated[bool,
                           Meta(description='Only true: training data are always shuffled. Stands in many YAML files '
                                'of BasicSR, which does not read it either.')] = True
    distort_on: Annotated[Literal['worker', 'device'],
                          Meta(description='Where training patches are distorted: in the data workers, or on the '
                               "network's device. Default: device for DILModel, worker for other models.")] = 'worker'
    counterfactuals: Annotated[bool,
                               Meta(description='distort_on worker: also give each patch under every confounder. '
                                    'Default: true for DILModel, false for other models.')] = True
    distortions: Annotated[list[Any] | None,
                           Meta(description="The confounders. Default: the top level's block.")] = None
    gt_usm: Annotated[bool, Meta(description='Sharpen clean training patches before they are distorted (unsharp '
                                 "masking, as Real-ESRGAN). Default: the top level's gt_usm.")] = False

    @property
    def synthesis_size(self) -> int:
        """Side of the clean crop that is distorted, in pixels."""
        return self.crop_pad_size or self.gt_size

    @property
    def listed_in(self) -> str | None:
        """The file that lists the images to take, by either of its names."""
        return self.meta_info_file or self.meta_info


NO_OPTIONS = {
    'DistortionAugmentedDataset': {
        'dataroot_lq': 'clean images only', 'filename_tmpl': 'clean images only', 'mean': 'images stay in [0, 1]',
        'std': 'images stay in [0, 1]', 'color': 'images are RGB',
    },
    'PairedConfounderDataset': {
        **dict.fromkeys(('dataroot_lq', 'dataroot_gt', 'filename_tmpl', 'meta_info_file'),
                        'it stands in the entries of confounders'),
        'mean': 'images stay in [0, 1]', 'std': 'images stay in [0, 1]', 'color': 'images are RGB',
    },
}
"""Options of BasicSR's data sets of pairs that ours have no use for, and why; YAML files that were one of those have
them."""


def refuse_options_of_others(raw: Mapping[str, Any], kind: str, key: str) -> None:
    """Raises OptionError for options that only a data set of BasicSR's has, and says what to do."""
    raise_all(OptionError(f'{key}.{name}: got {raw[name]!r}, but {kind} takes none ({reason}: remove it)')
              for name, reason in NO_OPTIONS[kind].items() if name in raw)


Options = TypeVar('Options', bound=LoaderOptions)


def convert_dataset(raw: Mapping[str, Any], cls: type[Options], kind: str, key: str) -> Options:
    """The typed options of a block of one of our data sets; raises OptionError for all that is wrong in it."""
    mistakes = Mistakes()
    with mistakes:
        refuse_options_of_others(raw, kind, key)
    with mistakes:
        convert(raw, cls, key)
    mistakes.end()
    return convert(raw, cls, key)


def loader_mistakes(options: LoaderOptions, key: str) -> Mistakes:
    """What is wrong with the backend, ``on_bad_image`` or ``gt_size`` of a block of our data sets."""
    mistakes = Mistakes()
    with mistakes:
        check_backend(options.io_backend, f'{key}.io_backend')
    with mistakes:
        check_on_bad_image(options.on_bad_image, options.phase, key)
    with mistakes:
        check_patch_size(options, key)
    return mistakes


def parse_dataset_options(raw: Mapping[str, Any], key: str) -> DatasetOptions:
    """The typed options of a data set block.

    Raises:
        OptionError: An option is unknown or wrong, or ``gt_size`` is not a multiple of ``scale``.
    """
    options = convert_dataset(raw, DatasetOptions, 'DistortionAugmentedDataset', key)
    mistakes = loader_mistakes(options, key)
    with mistakes:
        raise_all(_contradictions(options, key))
    mistakes.end()
    return options


def _contradictions(options: DatasetOptions, key: str) -> Iterator[OptionError]:
    if options.meta_info is not None and options.meta_info_file is not None:
        yield OptionError(f'{key}.meta_info: {options.meta_info}, but meta_info_file is there too; allowed: one of '
                          'them')
    if not options.use_shuffle:
        yield OptionError(f'{key}.use_shuffle: got false; allowed: true, training data are always shuffled')
    crop = options.crop_pad_size
    if crop is not None and (crop < options.gt_size or crop % options.scale):
        yield OptionError(f'{key}.crop_pad_size: {crop}; allowed: multiples of scale {options.scale} that are at least '
                          f'gt_size {options.gt_size}')
    if options.gt_usm and options.synthesis_size < USM_MIN_SIZE:
        yield OptionError(f'{key}.gt_size: {options.synthesis_size} is less than the {USM_MIN_SIZE} pixels that gt_usm '
                          'needs')


def check_backend(backend: Mapping[str, Any], key: str) -> None:
    """Raises OptionError unless ``io_backend`` is of a type that our data sets read."""
    if backend.get('type') not in ('lmdb', 'disk'):
        raise OptionError(f'{key}.type: got {backend.get("type")!r}; allowed: lmdb, disk')


def check_on_bad_image(value: str, phase: str, key: str) -> None:
    """Raises OptionError where a validation or test set would leave images out."""
    if value == 'skip' and phase != 'train':
        raise OptionError(f"{key}.on_bad_image: got 'skip', but a validation or test set takes all of its images, so "
                          'that its mean is of the same ones for every network; allowed: error')


def check_patch_size(options: LoaderOptions, key: str) -> None:
    """Raises OptionError unless the training patch can be divided by the scale."""
    if options.phase == 'train' and options.gt_size % options.scale:
        raise OptionError(f'{key}.gt_size: {options.gt_size} is not a multiple of scale {options.scale}')
