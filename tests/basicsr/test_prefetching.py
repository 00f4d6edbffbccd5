"""``prefetch_mode``: what is taken in place of BasicSR's prefetchers, and what they need."""

import contextlib
import importlib
import shutil

import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher, PrefetchDataLoader
from torch.utils.data import DataLoader

from dil_plugin.basicsr.checks.prefetching import complete_prefetching
from dil_plugin.basicsr.data.cuda_prefetcher import SafeCUDAPrefetcher
from dil_plugin.basicsr.data.draw_sampler import DrawSampler
from dil_plugin.errors import DataError, OptionError


class FakeStream:
    """Stands in for a CUDA stream."""

    def wait_stream(self, other):
        pass


@pytest.fixture
def no_gpu_needed(monkeypatch):
    """Runs BasicSR's prefetcher on the CPU; gives the current stream, and the tensors recorded on it."""
    current, recorded = FakeStream(), []
    monkeypatch.setattr(torch.cuda, 'Stream', FakeStream)
    monkeypatch.setattr(torch.cuda, 'stream', lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: current)
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda self, stream: recorded.append((self, stream)))
    return current, recorded


def test_prefetcher_gives_what_the_loader_gives_and_holds_its_memory(base, parsed, no_gpu_needed):
    """What is checked on a GPU in test_cuda.py; here that every tensor is recorded on the stream that computes."""
    current, recorded = no_gpu_needed
    base['distortions'] = [{'type': 'GaussianNoise', 'sigma': [5, 10]}]
    base['datasets']['train'].update(distort_on='worker', batch_size_per_gpu=8)
    base['train']['dil'] = {'variant': 'sf'}
    opt = parsed(base)
    block = opt['datasets']['train']
    dataset = build_dataset(block)

    def loader():
        return build_dataloader(dataset, block, num_gpu=0, sampler=DrawSampler(dataset, 1, 0, ratio=4), seed=0)

    prefetcher = SafeCUDAPrefetcher(loader(), {'num_gpu': 0})
    prefetcher.reset()
    expected = list(loader())
    assert len(expected) == 3
    for one in expected:
        recorded.clear()
        batch = prefetcher.next()
        assert batch.keys() == one.keys()
        tensors = [value for value in batch.values() if torch.is_tensor(value)]
        assert len(tensors) == 3
        assert [id(tensor) for tensor, _ in recorded] == [id(tensor) for tensor in tensors]
        assert all(stream is current for _, stream in recorded)
        for key, value in one.items():
            assert torch.equal(batch[key], value) if torch.is_tensor(value) else batch[key] == value
    assert prefetcher.next() is None


def test_training_takes_our_prefetcher():
    train = importlib.import_module('basicsr.train')
    assert train.CUDAPrefetcher is SafeCUDAPrefetcher
    assert issubclass(train.CUDAPrefetcher, CUDAPrefetcher)


def test_prefetching_of_a_gpu_is_switched_off_on_a_cpu(base, pipeline, capsys):
    base['datasets']['train'].update(prefetch_mode='cuda', pin_memory=True)
    base['train']['total_iter'] = 2
    root = pipeline(base)
    assert (root / 'experiments/run/models/net_g_2.pth').is_file()
    assert 'datasets.train.prefetch_mode: cuda has no effect without a GPU' in capsys.readouterr().err


@pytest.mark.parametrize('pin', [None, False])
def test_prefetching_of_a_gpu_needs_page_locked_memory(pin):
    train = {'prefetch_mode': 'cuda', **({} if pin is None else {'pin_memory': pin})}
    with pytest.raises(OptionError, match=r'datasets\.train\.pin_memory: False.*allowed: true, or prefetch_mode cpu'):
        complete_prefetching({'num_gpu': 1, 'datasets': {'train': train}})


@pytest.mark.parametrize('mode', ['cuda', 'cpu', None])
def test_what_is_right_stays_as_it_is(mode, capsys):
    train = {'prefetch_mode': mode, 'pin_memory': mode == 'cuda'}
    complete_prefetching({'num_gpu': 1, 'datasets': {'train': train}})
    assert train['prefetch_mode'] == mode
    assert capsys.readouterr().err == ''


# prefetch_mode: cpu


@pytest.mark.timeout(60)  # it would wait for ever
@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_image_ends_a_training_that_collects_ahead(base, crops, pipeline, tmp_path, workers):
    damaged = shutil.copytree(crops, tmp_path / 'damaged')
    victim = sorted(damaged.iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:200])
    base['datasets']['train'].update(dataroot_gt=str(damaged), prefetch_mode='cpu', num_worker_per_gpu=workers)
    base['train']['total_iter'] = 20
    with pytest.raises(DataError, match=f'{victim.name}.*cannot be decoded'):
        pipeline(base)


def test_batches_that_are_collected_ahead_are_those_of_the_loader():
    def loader(kind, **arguments):
        return kind(dataset=list(range(10)), batch_size=3, **arguments)

    prefetcher = CPUPrefetcher(loader(PrefetchDataLoader, num_prefetch_queue=2))
    for _ in range(2):  # epochs
        prefetcher.reset()
        for expected in loader(DataLoader):
            assert torch.equal(prefetcher.next(), expected)
        assert prefetcher.next() is None
