"""Some networks of the table, killed by SIGKILL at random points and resumed, end bit for bit as without."""

import random
import sys
from pathlib import Path

import pytest
from tools_in_process import training_options
from tried_networks import TABLE, VARIANTS

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / 'reliability'))

from training_runs import ROOT, TrainingRun, assert_same_runs  # noqa: E402


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(('name', 'variant'), [('DnCNNStyle', 'ps'), ('HATStyle', 'sf'), ('SwinIR x2', 'erm')])
def test_killed_and_resumed(name, variant, images, tmp_path):
    opt = training_options(TABLE[name], VARIANTS[variant], images)
    opt['train']['total_iter'], opt['val']['val_freq'] = 30, 10
    path = {'PYTHONPATH': f'{ROOT}:{FOLDER}'}
    whole, killed = (TrainingRun(tmp_path / kind, opt) for kind in ('whole', 'killed'))
    whole.finish(**path)
    dice = random.Random(name)
    for first, last in ((4, 13), (14, 24)):
        killed.start('--auto_resume', **path)
        assert killed.wait_for_iteration(dice.randint(first, last))
        killed.kill()
    killed.finish('--auto_resume', **path)
    assert_same_runs(whole, killed)
