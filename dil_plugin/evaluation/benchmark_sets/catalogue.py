"""Which benchmarks there are, and the folders and layouts in which they are found on people's disks.

``<…>`` and ``[…]`` in patterns are explained in ``patterns.py``; ``{scale}`` is the factor of super-resolution. Folders
and layouts are tried in the order written; the first with images is taken.
"""

from typing import NamedTuple

from dil_plugin.data_preparation.pairing import ENDINGS


class Layout(NamedTuple):
    """Where the images of a set are, relative to its folder.

    Attributes:
        gt: Pattern of the clean images.
        lq: Pattern of the distorted images; None where both are halves of one file, clean left and distorted right.
    """

    gt: str
    lq: str | None


class SetEntry(NamedTuple):
    """One benchmark.

    Attributes:
        folders: Where it may be below the folder of data sets; in ``.``, that folder itself, only MATLAB files count.
        published: Number of images of the published set, by scale (1: clean images, and pairs of one size).
        clean: Patterns of the clean images, for sets without distorted ones.
        pairs: Layouts of the pairs, for sets that have some.
        matlab: The MATLAB files that hold the set, where it is published so.
        crops: Whether copies of equal square crops go about, which are not the published images.
    """

    folders: tuple[str, ...]
    published: dict[int, int]
    clean: tuple[str, ...] = ()
    pairs: tuple[Layout, ...] = ()
    matlab: tuple[str, ...] = ()
    crops: bool = False


# BasicSR and ESRGAN (original, GTmod12), HAT (GTmod4), EDSR and SwinIR (HR), RCAN (HR/x4, _HR_x4), SelfExSR
# (image_SRF_4).
_SUPER_RESOLUTION = (
    '<name>', 'original/<name>', 'HR/<name>', 'GTmod12/<name>', 'GTmod4/<name>', 'HR/x4/<name>[_HR_x4]',
    'image_SRF_4/<name>_SRF_4_HR', 'image_SRF_2/<name>_SRF_2_HR', 'image_SRF_3/<name>_SRF_3_HR',
)

_HR_LR = (Layout('HR/<name>', 'LR/<name>'), Layout('test_HR/<name>', 'test_LR/<name>'),
          Layout('gt/<name>', 'lq/<name>'))
_INPUT_TARGET = (Layout('target/<name>', 'input/<name>'), )
# As PReNet has them; the name in rainy/ was changed in some copies.
_NORAIN = (
    Layout('norain-<name>', 'rainy/rain-<name>'), Layout('norain-<name>', 'rainy/norain-<name>[x2]'),
    Layout('norain/norain-<name>', 'rain/rain-<name>'), Layout('norain/norain-<name>', 'rain/norain-<name>[x2]'),
    Layout('norain/<name>', 'rain/<name>'), Layout('norain-<name>', 'rain-<name>'),
)


def _test_set(count: int, *names: str) -> SetEntry:
    """A test set of super-resolution; EDSR keeps them in ``benchmark``, KAIR and SwinIR in ``testsets``."""
    folders = names + tuple(f'{parent}/{name}' for parent in ('benchmark', 'testsets') for name in names)
    return SetEntry(folders, {1: count}, clean=_SUPER_RESOLUTION)


CATALOGUE: dict[str, SetEntry] = {
    'CBSD68': SetEntry(('CBSD68', 'CBSD68-dataset/CBSD68', 'BSD68', 'testsets/CBSD68'), {1: 68},
                       clean=('<name>', 'original_png/<name>', 'original/<name>', 'gt/<name>', 'HR/<name>')),
    'Kodak24': SetEntry(('Kodak24', 'Kodak', 'testsets/Kodak24'), {1: 24}, clean=('<name>', 'HR/<name>', 'gt/<name>')),
    'McMaster': SetEntry(('McMaster', 'McM', 'testsets/McMaster'), {1: 18}, clean=('<name>', 'HR/<name>', 'gt/<name>')),
    'Urban100': _test_set(100, 'Urban100'),
    'Manga109': _test_set(109, 'Manga109'),
    'Set5': _test_set(5, 'Set5'),
    'Set14': _test_set(14, 'Set14'),
    'BSD100': _test_set(100, 'BSD100', 'B100', 'BSDS100'),
    'DIV2K': SetEntry(('DIV2K/DIV2K_valid_HR', 'DIV2K_valid_HR', 'DIV2K/valid_HR', 'DIV2K100', 'DIV2K_valid', 'DIV2K'),
                      {1: 100}, clean=('<name>', 'HR/<name>')),
    # github.com/csjcai/RealSR, version 3: 50 images of each camera and scale; some people merge the two cameras
    'RealSR V3': SetEntry(
        ('RealSR(V3)', 'RealSR V3', 'RealSR_V3', 'RealSRV3', 'RealSR/RealSR(V3)', 'RealSR'),
        {2: 100, 3: 100, 4: 100},
        pairs=(Layout('Canon_Nikon/Test/{scale}/<camera>_<number>_HR',
                      'Canon_Nikon/Test/{scale}/<camera>_<number>_LR{scale}'),
               Layout('<camera>/Test/{scale}/[<camera>_]<number>_HR',
                      '<camera>/Test/{scale}/[<camera>_]<number>_LR{scale}'),
               *_HR_LR, Layout('HR/<name>_HR', 'LR/<name>_LR{scale}')), crops=True),
    # Wei et al., ECCV 2020 (CDC): 83, 84 and 93 pairs; the camera's widest image is called x1
    'DRealSR': SetEntry(
        ('DRealSR', 'DRealSR/x{scale}', 'DRealSR/x{scale}/Test_x{scale}', 'DRealSR/DRealSR/x{scale}/Test_x{scale}'),
        {2: 83, 3: 84, 4: 93},
        pairs=(Layout('Test_x{scale}/test_HR/<name>_x{scale}', 'Test_x{scale}/test_LR/<name>_x1'),
               Layout('test_HR/<name>_x{scale}', 'test_LR/<name>_x1'), *_HR_LR,
               Layout('HR/<name>_x{scale}', 'LR/<name>_x1')), crops=True),
    'SIDD': SetEntry(
        ('SIDD', 'SIDD_Validation_sRGB', 'SIDD_validation', 'SIDD/validation', 'SIDD/val', 'val/SIDD', 'test/SIDD',
         '.'), {1: 1280},
        pairs=(Layout('gt_crops/<name>', 'input_crops/<name>'), Layout('target_crops/<name>', 'input_crops/<name>'),
               Layout('gt/<name>', 'noisy/<name>'), *_INPUT_TARGET),
        matlab=('ValidationGtBlocksSrgb.mat', 'ValidationNoisyBlocksSrgb.mat')),
    'DND': SetEntry(('DND', 'dnd_2017', 'dnd2017', 'DND/dnd_2017'), {1: 1000},
                    matlab=('info.mat', 'images_srgb/*.mat')),
    # Nam et al., CVPR 2016: 11 scenes, of which crops are used; CC15 are the 15 of TWSC and MCWNNM
    'Nam': SetEntry(
        ('Nam', 'CC15', 'Nam/CC15', 'CC', 'Real_ccnoise_denoised_part'), {},
        pairs=(Layout('gt/<name>_gt', 'noisy/<name>_noise'), Layout('gt/<name>', 'noisy/<name>'),
               Layout('<name>_mean', '<name>_real'), Layout('GT/<name>_mean', 'Noisy/<name>_real'),
               *_INPUT_TARGET)),
    'Rain100L': SetEntry(('Rain100L', 'Rain100L/test', 'test/Rain100L'), {1: 100}, pairs=(*_NORAIN, *_INPUT_TARGET)),
    'Rain12': SetEntry(('Rain12', 'test/Rain12', 'test12', 'li_cvpr16_rain'), {1: 12},
                       pairs=(*_INPUT_TARGET, Layout('<name>_GT', '<name>_in'), *_NORAIN)),
    # Zhang et al. (ID-CGAN): its test.lua maps B, the right half, to A, the left one; RESCAN reads it likewise
    'Rain800': SetEntry(('Rain800', 'Test100', 'test/Test100', 'test/Rain800', 'rain'), {1: 100},
                        pairs=(*_INPUT_TARGET, Layout('test_syn/<name>', None), Layout('rain/test_syn/<name>', None),
                               Layout('test/<name>', None))),
}
"""All benchmarks by name."""


def own_set(name: str) -> SetEntry:
    """A folder of one's own: clean images, or pairs in HR and LR, gt and lq, or target and input.

    The names of a pair are equal, or differ in their ends as those of published sets do.
    """
    folders = (('HR', 'LR'), ('test_HR', 'test_LR'), ('gt', 'lq'), ('target', 'input'))
    pairs = (Layout(f'{target}/<name>{behind}', f'{lq}/<name>{behind_lq}')
             for target, lq in folders for behind, behind_lq in ENDINGS)
    return SetEntry((name, ), {}, clean=('<name>', 'HR/<name>', 'gt/<name>'), pairs=tuple(pairs))
