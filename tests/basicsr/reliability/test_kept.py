"""Which checkpoints stay: the last N, and the best; and what best metrics are after a resume."""

import os

import pytest
import torch
from training_runs import differences

from dil_plugin.basicsr.resuming.kept_checkpoints import remove_older
from dil_plugin.checkpoints import save_atomically
from dil_plugin.errors import OptionError


@pytest.fixture
def validated(base, crops):
    for k in (1, 2):
        base['datasets'][f'val_{k}'] = {
            'name': f'noise{k}', 'type': 'DistortionAugmentedDataset', 'dataroot_gt': str(crops),
            'io_backend': {'type': 'disk'}, 'distortions': [{'type': 'GaussianNoise', 'sigma': 15 * k}]}
    base['val'] = {'val_freq': 2, 'save_img': False, 'keep_best': 'psnr',
                   'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}
    base['train'] |= {'total_iter': 8, 'ema_decay': 0}
    return base


@pytest.fixture
def saved(tmp_path):
    paths = {name: str(tmp_path / name) for name in ('models', 'training_states')}
    for folder in paths.values():
        (tmp_path / folder).mkdir()

    def save(*iterations):
        for k in iterations:
            save_atomically({'params': {}}, f'{paths["models"]}/net_g_{k}.pth')
            save_atomically({'iter': k}, f'{paths["training_states"]}/{k}.state')
            save_atomically({'iter': k}, f'{paths["training_states"]}/{k}.state.rank1')
        return paths

    return save


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def measuring(monkeypatch):
    """Has every metric be a function of the iteration that is validated."""

    def measure(value):
        from basicsr.models import sr_model

        from dil_plugin.basicsr.models.dil_model import DILModel
        validate, now = DILModel.validation, [0]

        def validation(self, dataloader, current_iter, *rest):
            now[0] = current_iter
            validate(self, dataloader, current_iter, *rest)

        monkeypatch.setattr(DILModel, 'validation', validation)
        monkeypatch.setattr(sr_model, 'calculate_metric', lambda *_: value(now[0]))

    return measure


def test_rotation(saved, tmp_path):
    paths = saved(2, 4, 10, 12)
    for name in ('latest', 'best_psnr'):
        save_atomically({}, f'{paths["models"]}/net_g_{name}.pth')
    remove_older(paths, 12, 2)
    assert names(tmp_path / 'models') == ['net_g_10.pth', 'net_g_12.pth', 'net_g_best_psnr.pth', 'net_g_latest.pth']
    assert names(tmp_path / 'training_states') == ['10.state', '10.state.rank1', '12.state', '12.state.rank1']


def test_without_keep_last_all_stay(saved, tmp_path):
    remove_older(saved(2, 4), 4, None)
    assert len(names(tmp_path / 'models')) == 2


@pytest.mark.parametrize('damaged', ['models/net_g_6.pth', 'training_states/6.state'])
def test_nothing_is_removed_for_what_cannot_be_read_back(saved, tmp_path, damaged):
    paths = saved(2, 4, 6)
    with (tmp_path / damaged).open('r+b') as file:
        file.seek(60)
        file.write(b'\xff\xff')
    remove_older(paths, 6, 1)
    assert len(names(tmp_path / 'models')) == 3


def test_later_files_of_a_run_that_was_taken_back(saved, tmp_path):
    """Resumed from 4 because 8 is damaged, and now at 6: 8 counts for nothing, and 6 stays."""
    remove_older(saved(2, 4, 6, 8), 6, 1)
    assert names(tmp_path / 'models') == ['net_g_6.pth', 'net_g_8.pth']


def test_a_rank_that_cannot_be_read_back(saved, tmp_path):
    paths = saved(2, 4)
    (tmp_path / 'training_states/4.state.rank1').write_bytes(b'PK\x03\x04 and no end')
    remove_older(paths, 4, 1)
    assert len(names(tmp_path / 'models')) == 2


def test_a_state_goes_before_its_network_is_replaced(base, pipeline, monkeypatch):
    """Killed in between there must not be the old state beside the new network."""
    from dil_plugin.basicsr.models.dil_model import DILModel
    run = pipeline(base) / 'experiments/run'
    (run / 'models/net_g_4.pth').write_bytes(b'damaged')
    save = DILModel.save_network
    seen = []
    monkeypatch.setattr(DILModel, 'save_network', lambda self, *args, **kwargs: seen.append(
        names(run / 'training_states')) or save(self, *args, **kwargs))
    pipeline(base, 'train', '--auto_resume')
    assert seen[0] == ['2.state']
    assert names(run / 'training_states') == ['2.state', '4.state']


def test_what_killed_runs_left_is_removed(base, pipeline):
    run = pipeline(base) / 'experiments/run'
    old, new = (run / f'training_states/.4.state.{name}.tmp' for name in ('old', 'new'))
    for path in (old, new):
        path.write_bytes(b'half')
    os.utime(old, (0, 0))
    (run / 'training_states/4.state').unlink()
    pipeline(base, 'train', '--auto_resume')
    assert not old.exists()
    assert new.exists()


def test_keep_last_in_a_run(base, pipeline):
    base['train']['total_iter'] = 8
    base['logger'] |= {'save_checkpoint_freq': 1, 'keep_last': 3}
    run = pipeline(base) / 'experiments/run'
    assert names(run / 'training_states') == ['6.state', '7.state', '8.state']
    assert names(run / 'models') == ['net_g_6.pth', 'net_g_7.pth', 'net_g_8.pth', 'net_g_latest.pth']


@pytest.mark.parametrize('better', ['higher', 'lower'])
def test_the_best_network(validated, pipeline, better):
    """Against the means of the values in the log."""
    validated['val']['metrics']['psnr']['better'] = better
    validated['logger'] |= {'save_checkpoint_freq': 2}
    run = pipeline(validated) / 'experiments/run'
    log = next(run.glob('*.log')).read_text()
    values = [float(line.split('# psnr: ')[1].split()[0]) for line in log.splitlines() if '# psnr: ' in line]
    means = [sum(pair) / 2 for pair in zip(values[::2], values[1::2], strict=True)][:4]  # the last repeats iteration 8
    pick = max if better == 'higher' else min
    best = 2 * (1 + means.index(pick(means)))
    assert len(set(means)) == 4
    kept, same = (torch.load(run / f'models/net_g_{k}.pth', weights_only=True) for k in ('best_psnr', best))
    assert not differences(kept['params'], same['params'])
    assert kept['dil_plugin']['iteration'] == best
    assert torch.load(run / 'training_states/8.state', weights_only=True)['dil']['best'].keys() == {
        'metric', 'value', 'iter'}


def test_best_metrics_after_a_resume(validated, pipeline, measuring):
    """The best validation is that of iteration 4, which comes after the state that the run goes on from."""
    measuring(lambda iteration: 20. - abs(iteration - 4))
    run = pipeline(validated) / 'experiments/run'
    whole, best = (torch.load(run / name, weights_only=True)
                   for name in ('training_states/8.state', 'models/net_g_best_psnr.pth'))
    assert whole['dil']['best_metric_results']['noise2']['psnr'] == {'better': 'higher', 'val': 20., 'iter': 4}
    before = torch.load(run / 'training_states/4.state', weights_only=True)['dil']
    assert (before['best_metric_results']['noise2']['psnr']['iter'], before['best']['iter']) == (2, 2)
    for k in (6, 8):
        (run / f'training_states/{k}.state').unlink()
    (run / 'models/net_g_best_psnr.pth').unlink()
    pipeline(validated, 'train', '--auto_resume')
    assert not differences(whole, torch.load(run / 'training_states/8.state', weights_only=True))
    assert not differences(best, torch.load(run / 'models/net_g_best_psnr.pth', weights_only=True))


def test_what_is_not_a_number_is_not_the_best(validated, pipeline, measuring):
    values = {2: float('nan'), 4: 10., 6: float('nan'), 8: 5.}
    measuring(lambda iteration: values[min(iteration, 8)])
    run = pipeline(validated) / 'experiments/run'
    best = torch.load(run / 'models/net_g_best_psnr.pth', weights_only=True)
    assert best['dil_plugin']['iteration'] == 4
    log = next(run.glob('*.log')).read_text()
    assert 'val.keep_best: psnr of iteration 6 is not a number; the network is not kept' in log


@pytest.mark.parametrize('metrics', [
    {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0}},
    {'other': {'type': 'calculate_psnr', 'crop_border': 0}},
], ids=['added', 'renamed'])
def test_other_metrics_after_a_resume(validated, pipeline, metrics):
    run = pipeline(validated) / 'experiments/run'
    for k in (6, 8):
        (run / f'training_states/{k}.state').unlink()
    validated['val'] |= {'metrics': metrics, 'keep_best': next(iter(metrics))}
    pipeline(validated, 'train', '--auto_resume')
    results = torch.load(run / 'training_states/8.state', weights_only=True)['dil']['best_metric_results']['noise1']
    assert results.keys() == metrics.keys()
    assert all(result['iter'] > 0 for result in results.values())


@pytest.mark.parametrize(('block', 'change', 'words'), [
    ('val', {'keep_best': 'pnsr'}, r"val\.keep_best: 'pnsr' is none of val\.metrics; did you mean 'psnr'"),
    ('val', {'metrics': None}, r"val\.keep_best: 'psnr' is none of val\.metrics; there are none"),
    ('logger', {'keep_last': 0}, r'logger\.keep_last: .* got 0'),
])
def test_options_that_cannot_be(validated, parsed, block, change, words):
    validated[block] |= change
    with pytest.raises(OptionError, match=words):
        parsed(validated)


def test_keep_best_without_a_validation_set(validated, parsed):
    del validated['datasets']['val_1'], validated['datasets']['val_2']
    with pytest.raises(OptionError, match=r"val\.keep_best: 'psnr', but datasets has no val_1"):
        parsed(validated)
