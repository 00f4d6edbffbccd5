"""tools/verify.py: passes on the packaged vectors, fails on vectors that the method does not compute."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dil_plugin.basicsr  # noqa: F401
from dil_plugin.errors import DataError
from dil_plugin.verification import verify_folder
from dil_plugin.verification.golden import PACKAGED

ROOT = Path(__file__).parents[1]


def changed(tmp_path, name, change):
    arrays = dict(np.load(PACKAGED / name))
    change(arrays)
    np.savez(tmp_path / name, **arrays)
    return {check.name: check for check in verify_folder(tmp_path)}


def test_packaged_vectors_are_those_of_the_tests():
    for name in ('variants.npz', 'released_sf.npz'):
        assert (ROOT / 'tests/data' / name).read_bytes() == (PACKAGED / name).read_bytes()


def test_packaged_vectors_pass():
    checks = verify_folder()
    assert len(checks) == 21
    assert all(check.passed for check in checks)


def test_one_changed_value_fails_and_is_named(tmp_path):
    def change(arrays):
        arrays['ps_l1_17'].flat[0] *= 1 + 1e-6
    checks = changed(tmp_path, 'variants.npz', change)
    assert [name for name, check in checks.items() if not check.passed] == ['ps_l1']


def test_another_alpha_fails_everywhere(tmp_path):
    def change(arrays):
        arrays['alpha'] = arrays['alpha'] * 1.001
    checks = changed(tmp_path, 'variants.npz', change)
    assert not any(check.passed for check in checks.values())


def test_nan_fails(tmp_path):
    def change(arrays):
        arrays['final_03'].flat[0] = np.nan
    checks = changed(tmp_path, 'released_sf.npz', change)
    assert not checks['released sf, final parameters'].passed
    assert checks['released sf, inner losses'].passed


def test_another_order_of_the_walk_fails(tmp_path):
    def change(arrays):
        arrays['order'] = arrays['order'][:, ::-1]
    assert not changed(tmp_path, 'released_sf.npz', change)['released sf, final parameters'].passed


@pytest.mark.parametrize(('change', 'words'), [
    (lambda a: a.pop('query'), "no array 'query'"),
    (lambda a: a.pop('param_37'), 'not the parameters of an RRDB'),
    (lambda a: a.update(param_05=np.zeros(4)), 'param_05 has shape'),
    (lambda a: a.pop('ss_mse_37'), 'the file has 37'),
    (lambda a: a.update({f'ss_huber_{k:02d}': np.zeros(1) for k in range(38)}), "unknown loss 'huber'"),
])
def test_malformed_file_is_named(tmp_path, change, words):
    with pytest.raises(DataError, match=words) as error:
        changed(tmp_path, 'variants.npz', change)
    assert 'variants.npz' in str(error.value)


def test_tool_exit_status(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, 'tools/verify.py', *arguments], cwd=ROOT, capture_output=True, text=True)
    shutil.copy(PACKAGED / 'released_sf.npz', tmp_path)
    good = run('--vectors', str(tmp_path))
    assert good.returncode == 0
    assert 'released sf, final parameters' in good.stdout
    assert run('--vectors', '/nowhere').returncode == 2
    arrays = dict(np.load(PACKAGED / 'released_sf.npz'))
    arrays['inner_losses'][0, 0] += 1
    np.savez(tmp_path / 'released_sf.npz', **arrays)
    bad = run('--vectors', str(tmp_path))
    assert bad.returncode == 1
    assert 'FAILED' in bad.stdout
