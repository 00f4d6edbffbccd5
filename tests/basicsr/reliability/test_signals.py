"""SIGTERM and SIGINT: the step is ended, everything is saved, and the run goes on as if nothing had been."""

import multiprocessing
import os
import signal
import time

import pytest
import torch
from basicsr.models import build_model
from training_runs import TrainingRun, assert_same_runs

from dil_plugin.basicsr.resuming.stop_signals import StopSignals


@pytest.mark.parametrize(('number', 'workers'), [
    (signal.SIGTERM, 2), pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow)])
def test_a_signal_ends_the_run_cleanly(long_run, tmp_path, number, workers):
    """Sent to the whole process group, as a terminal and batch systems do it, data workers too."""
    long_run['logger'] |= {'save_checkpoint_freq': 100, 'keep_last': None}
    long_run['datasets']['train']['num_worker_per_gpu'] = workers
    whole, stopped = (TrainingRun(tmp_path / name, long_run) for name in ('whole', 'stopped'))
    whole.finish()
    stopped.start()
    assert stopped.wait_for_iteration(8)
    os.killpg(stopped.process.pid, number)
    assert stopped.wait(60) == 128 + number
    done = max(stopped.losses())
    assert 8 <= done < 60
    assert f'{number.name}: the run ends after iteration {done}, which is saved; it goes on with --auto_resume.' \
        in stopped.output.read_text()
    assert {path.name for path in (stopped.experiment / 'training_states').iterdir()} == {f'{done}.state'}
    stopped.finish('--auto_resume')
    for name in (f'models/net_g_{done}.pth', f'training_states/{done}.state'):  # the whole run has not saved there
        (stopped.experiment / name).unlink()
    assert_same_runs(whole, stopped)


@pytest.mark.parametrize('several', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_ranks_stop_after_the_same_iteration(long_run, tmp_path, several):
    """The signal reaches torchrun, which hands it to all; or one rank alone."""
    long_run['train']['total_iter'] = 5000
    long_run['logger'] |= {'save_checkpoint_freq': 10000}
    run = TrainingRun(tmp_path / 'run', long_run, 2)
    run.start()
    assert run.wait_for_iteration(6)
    ranks = run.ranks()
    assert len(ranks) == 2
    os.kill(run.process.pid if several else ranks[1], signal.SIGTERM)
    assert run.wait(90) != 0
    done = max(run.losses())
    assert {path.name for path in (run.experiment / 'training_states').iterdir()} == {
        f'{done}.state', f'{done}.state.rank1'}
    assert f'the run ends after iteration {done}' in run.log()


def test_a_second_interrupt_ends_at_once():
    """Within a second it is the same one: Ctrl-C under torchrun arrives twice."""
    pid = os.fork()
    if pid == 0:
        with StopSignals() as signals:
            signals.listen()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            if signals.received == signal.SIGINT:
                time.sleep(1.1)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(20)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT


def test_handlers_are_put_back(base, pipeline):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    pipeline(base)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert StopSignals.current is None


def test_models_that_do_not_listen_are_ended_as_ever(base, pipeline, monkeypatch):
    """A plain SRModel never asks for signals: they must not be swallowed."""
    seen = []
    base['model_type'] = 'SRModel'
    del base['train']['dil']
    from basicsr.models.sr_model import SRModel
    monkeypatch.setattr(SRModel, 'model_ema', lambda *_, **__: seen.append(signal.getsignal(signal.SIGTERM)))
    pipeline(base)
    assert set(seen) == {signal.SIG_DFL}


def test_a_signal_before_the_first_iteration(base, parsed):
    with StopSignals() as signals:
        model = build_model(parsed(base))
        signals.received = signal.SIGTERM
        with pytest.raises(SystemExit) as stop:
            model.update_learning_rate(1)
    assert stop.value.code == 143


def test_the_schedule_is_not_stepped_by_the_stop(base, parsed, tmp_path):
    base['train']['scheduler']['milestones'] = [1, 2]
    for name in ('models', 'training_states'):
        (tmp_path / 'experiments/run' / name).mkdir(parents=True)
    with StopSignals() as signals:
        model = build_model(parsed(base))
        model.update_learning_rate(1)
        model.feed_data({'gt': torch.rand(4, 3, 16, 16)})
        model.optimize_parameters(1)
        rate = model.get_current_learning_rate()
        signals.received = signal.SIGTERM
        with pytest.raises(SystemExit):
            model.update_learning_rate(2)
    state = torch.load(tmp_path / 'experiments/run/training_states/1.state', weights_only=True)
    assert [state['optimizers'][0]['param_groups'][0]['lr']] == rate


def test_a_data_worker_outlives_a_signal_as_long_as_it_is_needed(monkeypatch):
    """However long what is under way takes, and not longer than the training process."""
    from dil_plugin.basicsr.data import numbered_samples
    monkeypatch.setattr(numbered_samples, 'GRACE', 1)
    prepare = numbered_samples._OutlivingSignals(None)

    def work(ready):
        prepare(0)
        ready.set()
        while True:
            time.sleep(0.05)

    context = multiprocessing.get_context('fork')
    ready = context.Event()
    worker = context.Process(target=work, args=(ready, ), daemon=True)
    worker.start()
    assert ready.wait(30)
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(2.5)
    assert worker.is_alive()
    prepare._leave()
    worker.join(10)
    assert worker.exitcode == 0
