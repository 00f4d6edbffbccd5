"""Which images are pairs: how the name of an input is made of its target's, and which sizes fit each other."""

import os
from collections.abc import Iterable, Sequence

Size = tuple[int, int]

MOST_CUT_OFF = 8
"""Pixels per side by which a target may be larger than its input says.

What division by the scale leaves, and a row or two; with more it is another image.
"""

ENDINGS = (('', ''), ('', 'x{scale}'), ('_HR', '_LR{scale}'), ('', '_LR{scale}'), ('', '_x{scale}'),
           ('_x{scale}', '_x1'), ('_HR', '_LR'), ('', '_LR'), ('_HR', ''))
"""What published sets put behind the common name of a pair: of the target, of the input (DIV2K, RealSR, DRealSR, …)."""


def endings(scale: int) -> list[tuple[str, str]]:
    """``ENDINGS`` of a scale."""
    return [(target.replace('{scale}', str(scale)), lq.replace('{scale}', str(scale))) for target, lq in ENDINGS]


def endings_in_words(scale: int) -> str:
    """What is allowed, for a message."""
    behind = ', '.join(f'{lq or "nothing"} beside {target or "nothing"}' for target, lq in endings(scale)[1:])
    return f'equal names, or names that differ in their ends: {behind}'


def fitting_template(inputs: Iterable[str], targets: Iterable[str], scale: int) -> str | None:
    """The ``filename_tmpl`` by which every target has an input, of those in use; None where there is none.

    Args:
        inputs: Their names without file endings.
        targets: Likewise.
        scale: Target size divided by input size.
    """
    there, wanted = set(inputs), list(targets)
    for target, lq in endings(scale):
        if not target and wanted and all(f'{name}{lq}' in there for name in wanted):
            return '{}' + lq
    return None


def pairing_remedy(roots: Sequence[str], inputs: Iterable[str], targets: Iterable[str], scale: int) -> str:
    """What to say behind an error of names that do not pair: the template that does it, or to part the folder.

    Args:
        roots: The folders of inputs and targets; of one for both ``{}`` would pair each image with itself.
        inputs: Their names without file endings.
        targets: Likewise.
        scale: Target size divided by input size.
    """
    if os.path.realpath(roots[0]) == os.path.realpath(roots[1]):
        return '; inputs and targets lie in one folder: allowed: a folder for each'
    template = fitting_template(inputs, targets, scale)
    return '' if template is None else f"; filename_tmpl: '{template}' pairs them"


def shown_part(target: Size, lq: Size, scale: int) -> Size | None:
    """Height and width of the upper left part of a target that its input shows, ``scale`` times the input's.

    A target may be a few pixels larger (``MOST_CUT_OFF``), as what does not divide by the scale is cut off to make the
    input; BasicSR's validation crops it likewise. At scale 1 both are of one size.

    Returns:
        The size; None where they are no pair.
    """
    height, width = lq[0] * scale, lq[1] * scale
    surplus = target[0] - height, target[1] - width
    most = MOST_CUT_OFF if scale > 1 else 0
    return (height, width) if min(surplus) >= 0 and max(surplus) <= most else None
