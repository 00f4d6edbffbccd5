"""What is told of a run before its first iteration: batches that cannot be divided, orders that will not come again."""

import pytest
from mmengine.config import Config

from dil_plugin.errors import DataError, OptionError

from .conftest import MODEL, runner
from .test_config_files import FILES

EPOCHS = {'type': 'EpochBasedTrainLoop', 'max_epochs': 2}
ONE_AFTER_ANOTHER = {'type': 'DefaultSampler', 'shuffle': True}


@pytest.fixture
def bare(run_config):
    """Without validation; two iterations."""
    run_config['val_dataloader'] = run_config['val_cfg'] = run_config['val_evaluator'] = None
    run_config['train_cfg'] = {'type': 'IterBasedTrainLoop', 'max_iters': 2}
    run_config['model'] = {**MODEL, 'dil': {'variant': 'sf', 'patches': 'fresh'}}  # of six images
    return run_config


@pytest.mark.parametrize('loop', [EPOCHS, {'type': 'IterBasedTrainLoop', 'max_iters': 4}])
def test_a_short_last_batch_is_told_of_at_the_start(loop, bare):
    """Six images in batches of four leave two; four confounders want multiples of four."""
    bare['train_cfg'] = loop
    bare['train_dataloader']['sampler'] = ONE_AFTER_ANOTHER
    trained = runner(bare)
    trained.model.train_step = None
    with pytest.raises(OptionError, match=r'the last batch of an epoch has 2 of 4 images \(there are 6\); add '
                                          r'drop_last=True to train_dataloader.*model\.dil\.patches: fresh'):
        trained.train()
    bare['train_dataloader']['drop_last'] = True
    trained = runner(bare)
    trained.train()
    assert trained.iter == (2 if loop is EPOCHS else 4)


def test_batches_that_can_be_divided_are_left_alone(bare):
    """A short one is no fault where all versions are of the same patches."""
    bare['model'] = MODEL
    bare['train_cfg'] = EPOCHS
    bare['train_dataloader']['sampler'] = ONE_AFTER_ANOTHER
    trained = runner(bare)
    trained.train()
    assert trained.iter == 4


@pytest.mark.parametrize(('changes', 'words'), [
    ({'batch_size': 6}, r'train_dataloader\.batch_size: 6 cannot be divided into 4 equal parts, which '
                        r'model\.dil\.patches: fresh needs'),
    ({'batch_size': 8, 'sampler': ONE_AFTER_ANOTHER, 'drop_last': True}, '6 images make no batch of 8'),
])
def test_other_batches(changes, words, bare):
    bare['train_cfg'] = EPOCHS
    bare['param_scheduler'] = None  # mmengine's own complain of a run without iterations
    bare['train_dataloader'] |= changes
    trained = runner(bare)
    trained.model.train_step = None
    with pytest.raises((OptionError, DataError), match=words):
        trained.train()


def test_a_pool_of_pairs_and_a_short_batch(bare):
    bare['model'] = {**MODEL, 'queue_size': 8}
    bare['train_cfg'] = EPOCHS
    bare['train_dataloader'] |= {'sampler': ONE_AFTER_ANOTHER, 'batch_size': 5}
    with pytest.raises(OptionError, match=r'model\.queue_size: 8 is no multiple of 5'):
        runner(bare).train()
    bare['train_dataloader']['batch_size'] = 4
    bare['model']['queue_size'] = 12
    runner(bare).train()  # batches of four and two


def test_a_run_without_a_seed_is_told_what_it_gives_up(bare, capfd):
    del bare['randomness']
    bare['default_hooks']['checkpoint']['interval'] = 2
    first = runner(bare)
    first.train()
    assert 'randomness.seed: the config has none; a run that is resumed from this one would take its images in ' \
        'another order. Add randomness = dict(seed=0)' in capfd.readouterr().out
    runner(bare, resume=True, **{'train_cfg.max_iters': 3}).train()
    log = capfd.readouterr().out
    assert 'randomness.seed: the config has none, so that this resumed run takes its images in another order' in log
    assert f'randomness = dict(seed={first.seed}) has that order' in log
    bare['randomness'] = {'seed': first.seed}
    runner(bare, resume=True, **{'train_cfg.max_iters': 3}).train()
    assert 'randomness.seed' not in capfd.readouterr().out


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_configs_have_a_seed(path):
    assert isinstance(Config.fromfile(path).randomness.seed, int)


def test_a_checkpoint_within_an_epoch_is_told_of(bare, capfd):
    bare['train_cfg'] = EPOCHS
    bare['train_dataloader'] |= {'sampler': ONE_AFTER_ANOTHER, 'batch_size': 2}
    bare['model'] = MODEL
    bare['default_hooks']['checkpoint'] |= {'interval': 4, 'save_last': False}
    runner(bare).train()  # two epochs of three iterations; saved after the fourth
    rest = runner(bare, resume=True)
    rest.train()
    said = 'from within an epoch, after 1 of its 3 iterations; EpochBasedTrainLoop begins that epoch anew'
    assert said in capfd.readouterr().out
    assert rest.iter == 7
