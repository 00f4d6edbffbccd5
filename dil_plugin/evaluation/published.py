"""The numbers that the paper prints, with the table each stands in."""

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

PAPER = 'Li et al., CVPR 2023 (arXiv 2303.06859)'


class PublishedNumber(NamedTuple):
    """PSNR and SSIM of one method on one data set, as printed.

    Attributes:
        table: The table's number in the paper.
        group: What the table is divided by: the backbone (Table 6), the degradation in training (Table 7), else None.
        dataset: The data set, by the name it has here.
        condition: Degree or level of the test distortion, None where there is one only.
        method: As the table calls it; ``DIL`` alone where the table does not say which variant.
        psnr: In dB.
        ssim: In [0, 1].
    """

    table: str
    group: str | None
    dataset: str
    condition: str | None
    method: str
    psnr: float
    ssim: float


@functools.cache
def published_numbers(task: str) -> tuple[PublishedNumber, ...]:
    """All printed numbers of one task (``denoising``, ``backbones``, …); none for an unknown task."""
    table: dict[str, Any] = _tables().get(task, {})
    numbers: list[PublishedNumber] = []
    grouped = task in ('backbones', 'augmentation')
    for outer, inner in table.get('results', {}).items():
        for group, dataset, block in ([(outer, name, block) for name, block in inner.items()] if grouped
                                      else [(None, outer, inner)]):
            number = table['table'].split()[0]  # of '7 (paper only)', that the poster lacks it is no part
            numbers += _of_dataset(number, group, dataset, block)
    return tuple(numbers)


def find_published(task: str, group: str | None, dataset: str, condition: str | None,
                   method: str) -> PublishedNumber | None:
    """The number printed for a method, or None.

    A condition that the table does not name matches a table without conditions. ``DIL_sf`` (or any other variant) also
    finds ``DIL`` in a table that does not say which variant it is. Upper and lower case of a method are the same.
    """
    found = [n for n in published_numbers(task)
             if n.group == group and n.dataset == dataset and n.condition in (condition, None)]
    wanted = method.casefold()
    names = (wanted, 'dil') if wanted.startswith('dil') else (wanted, )
    return next((n for name in names for n in found if n.method.casefold() == name), None)


def _of_dataset(table: str, group: str | None, dataset: str, block: dict[str, Any]) -> list[PublishedNumber]:
    conditions: list[tuple[str | None, Any]] = [(None, block)] if _is_methods(block) else [*block.items()]
    return [PublishedNumber(table, group, dataset, condition, method, value['psnr'], value['ssim'])
            for condition, methods in conditions for method, value in methods.items()]


def _is_methods(block: dict[str, Any]) -> bool:
    return all('psnr' in value for value in block.values())


@functools.cache
def _tables() -> dict[str, Any]:
    text = resources.files('dil_plugin.evaluation').joinpath('published.json').read_text(encoding='utf-8')
    tables: dict[str, Any] = json.loads(text)
    return tables
