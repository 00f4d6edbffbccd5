"""Shows what the distortions of a YAML file do to images: a contact sheet of every confounder and every data set's.

python tools/preview_distortions.py -opt options/train/denoising_sf.yml

Images come from --input; without it from the file's training data, or else from photographs that scikit-image ships. Of
training data that are sets of pairs (PairedConfounderDataset) the first training patches are shown. A Markdown
document (docs/confounders.md) is a file too: each of its YAML blocks is drawn into the picture that follows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dil_plugin.errors import DILError


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is less than 1')
    return value


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line (None: that of this process)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-opt', required=True, type=Path, metavar='FILE',
                        help='a BasicSR options file, a list of distortions, or a Markdown document')
    parser.add_argument('-o', '--output', type=Path, metavar='PNG',
                        help='the picture to write (default: preview_NAME.png in the current folder)')
    parser.add_argument('-i', '--input', type=Path, metavar='PATH', help='an image, a folder of images, or an LMDB')
    parser.add_argument('--images', type=positive, default=2, metavar='N', help='how many images (default: 2)')
    parser.add_argument('--size', type=positive, default=160, metavar='PIXELS',
                        help='side of the crop from the middle of each image (default: 160)')
    parser.add_argument('--draws', type=positive, default=1, metavar='N',
                        help='how often random distortions are drawn for each image (default: 1)')
    parser.add_argument('--columns', type=positive, default=6, metavar='N', help='panels in a row (default: 6)')
    parser.add_argument('--seed', type=int, default=0, help='seeds the randomness (default: 0)')
    return parser.parse_args(arguments)


def main() -> int:
    """Runs the tool; returns the exit status: 0, or 2 for a user mistake."""
    options = parse_arguments()
    from dil_plugin.basicsr.preview import write_any_preview  # here, not above: --help needs no torch
    try:
        for path in write_any_preview(options.opt, options.output, options.input, images=options.images,
                                      size=options.size, draws=options.draws, columns=options.columns,
                                      seed=options.seed):
            print(path)
    except DILError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
