"""Fingerprints of images, and which cells of another study are the same trainings."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.errors import OptionError
from dil_plugin.study.cells import Cell, make_cells
from dil_plugin.study.images import check_one_set, fingerprints
from dil_plugin.study.options import parse_study
from dil_plugin.study.results import Curve, curve_of, matching


def prints(study: dict[str, Any], train: Path, test: dict[str, Any]) -> dict[str, str]:
    block = {'dataroot_gt': str(train)}
    return fingerprints(parse_study({**study, 'test': {**study['test'], **test}}), {'datasets': {'train': block}})


def test_fingerprints_are_of_the_images_and_not_of_their_place(study: dict[str, Any], pictures: Path,
                                                               tmp_path: Path) -> None:
    copy = shutil.copytree(pictures, tmp_path / 'copy')
    expected = prints(study, pictures, {})
    assert prints(study, copy, {'images': str(copy)}) == expected
    shutil.copy(copy / '1.png', copy / '0.png')
    assert prints(study, pictures, {'images': str(copy)})['test'] != expected['test']
    assert prints(study, pictures, {'images': str(copy)})['train'] == expected['train']
    pairs = {'images': None, 'seen': {}, 'unseen': {'real': {'gt': str(pictures), 'lq': str(pictures)}}}
    other = {**pairs, 'unseen': {'real': {'gt': str(pictures), 'lq': str(copy)}}}
    assert prints(study, pictures, pairs)['test'] != prints(study, pictures, other)['test']


def test_fingerprints_of_lmdbs(study: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    for name, size in (('one', 48), ('same', 48), ('smaller', 32)):
        prepare_data(pictures, tmp_path / f'{name}.lmdb', CutSettings(size=size, step=size), workers=1)
    one, same, smaller = (prints(study, tmp_path / f'{name}.lmdb', {})['train'] for name in ('one', 'same', 'smaller'))
    assert one == same
    assert one != smaller


def made(cell: Cell, **what: Any) -> Curve:
    return curve_of(cell, 'done', **what)


def test_other_images_are_told_and_unknown_ones_pass(study: dict[str, Any]) -> None:
    cells = make_cells(parse_study(study))
    curves = {cell.name: made(cell, images={'test': 'a', 'train': cell.arm}) for cell in cells}
    check_one_set(curves)
    check_one_set({**curves, 'erm_seed0': made(cells[0])})
    with pytest.raises(OptionError, match='--test-data: cells erm_seed0 and ps_seed1 have different test images'):
        check_one_set({**curves, 'ps_seed1': made(cells[3], images={'test': 'b'})})
    with pytest.raises(OptionError, match='--train-data: cells erm_seed0 and erm_seed1 have different train images'):
        check_one_set({**curves, 'erm_seed1': made(cells[2], images={'test': 'a', 'train': 'b'})})


def test_trainings_whose_data_alone_differ_are_told_apart_by_name(study: dict[str, Any], pictures: Path,
                                                                  tmp_path: Path) -> None:
    there = make_cells(parse_study({**study, 'seeds': [0], 'arms': {
        'all': {}, 'few': {'datasets.train.dataroot_gt': str(tmp_path)}}}))
    found = {cell.name: made(cell, seconds=float(k)) for k, cell in enumerate(there)}
    assert there[0].digest == there[1].digest
    assert matching(found, there) == found
    here = make_cells(parse_study({**study, 'seeds': [0], 'arms': {'few': {}, 'new': {}}}))
    assert list(matching(found, here)) == ['few_seed0']
    assert not matching(found, here[1:])
    assert list(matching({'few_seed0': found['few_seed0']}, here[1:])) == ['new_seed0']
    assert matching({'few_seed0': found['few_seed0']}, here[1:])['new_seed0'].arm == 'new'
