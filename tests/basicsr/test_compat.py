import contextlib
import subprocess
import sys

import pytest
import torch

from dil_plugin.basicsr import compat
from dil_plugin.errors import DataError, OptionError


def test_plain_import_needs_torch_only():
    code = ('import sys, dil_plugin; heavy = {"basicsr", "cv2", "kornia", "msgspec"} & set(sys.modules);'
            'assert not heavy, heavy')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_one_import_registers_everything():
    from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, MODEL_REGISTRY
    assert 'RRDBNetNoUpsample' in ARCH_REGISTRY
    assert 'DistortionAugmentedDataset' in DATASET_REGISTRY
    assert 'PairedConfounderDataset' in DATASET_REGISTRY
    assert 'DILModel' in MODEL_REGISTRY


def test_adapting_twice_changes_nothing():
    from basicsr import train
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import options

    def replaced():
        return train.parse_options, train.load_resume_state, options.init_dist, BaseModel.model_to_device

    before = replaced()
    compat.adapt_imports()
    compat.adapt_basicsr()
    assert replaced() == before


def test_core_packages_import_neither_framework():
    code = ('import sys, dil_plugin.learning, dil_plugin.distortions, dil_plugin.sampling, dil_plugin.data_preparation;'
            'assert not {"basicsr", "mmagic", "mmengine"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_confounders_need_torch_and_msgspec_only():
    code = ('import sys, dil_plugin.distortions;'
            'other = {"basicsr", "mmagic", "cv2", "kornia", "scipy", "torchvision", "lmdb"} & set(sys.modules);'
            'assert not other, other')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_grayscale_shim_is_torchvisions():
    from basicsr.data.degradations import rgb_to_grayscale
    image = torch.rand(1, 3, 5, 5)
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close(rgb_to_grayscale(image), (image * weights).sum(1, keepdim=True), rtol=0, atol=1e-6)


def test_newest_state_is_found_by_number(tmp_path):
    folder = tmp_path / 'experiments' / 'run' / 'training_states'
    folder.mkdir(parents=True)
    for iteration in (800, 1000):
        state = {'epoch': 0, 'iter': iteration, 'optimizers': [], 'schedulers': []}
        torch.save(state, folder / f'{iteration}.state')
        torch.save({'params': {}}, tmp_path / f'net_g_{iteration}.pth')
    opt = {'datasets': {'train': {'batch_size_per_gpu': 1}},
           'auto_resume': True, 'root_path': str(tmp_path), 'name': 'run', 'num_gpu': 0, 'dist': False,
           'rank': 0, 'path': {'models': str(tmp_path)}, 'network_g': {}}
    assert compat.load_resume_state(opt)['iter'] == 1000
    assert opt['path']['pretrain_network_g'].endswith('net_g_1000.pth')



def test_ranks_go_by_the_first_one_s_view_of_the_folder(tmp_path, monkeypatch):
    """A network file system may show the newest state to one rank and not to another."""
    from dil_plugin.basicsr.resuming import training_states
    state = {'epoch': 0, 'iter': 8, 'optimizers': [], 'schedulers': []}
    torch.save(state, tmp_path / '8.state')
    torch.save({'params': {}}, tmp_path / 'net_g_8.pth')
    opt = {'datasets': {'train': {'batch_size_per_gpu': 1}}, 'auto_resume': True, 'root_path': str(tmp_path / 'empty'),
           'name': 'run', 'num_gpu': 0, 'dist': True, 'rank': 1, 'world_size': 2, 'path': {'models': str(tmp_path)},
           'network_g': {}}

    def broadcast(objects, src):
        assert src == 0
        objects[0] = [str(tmp_path / '8.state')]

    monkeypatch.setattr(training_states.distributed, 'broadcast_object_list', broadcast)
    monkeypatch.setattr(training_states.distributed, 'all_gather_object', lambda found, mine: None)
    assert compat.load_resume_state(opt)['iter'] == 8


@pytest.mark.parametrize(('end', 'leaves'), [(None, True), (SystemExit(143), True), (OptionError('x'), False)])
def test_processes_leave_their_group_unless_one_alone_fails(monkeypatch, end, leaves):
    """Others may be inside a collective when one fails."""
    from dil_plugin.basicsr import launch
    left = []
    monkeypatch.setattr(launch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(launch.distributed, 'destroy_process_group', lambda: left.append(1))

    def pipeline(_):
        if end is not None:
            raise end

    with contextlib.suppress(SystemExit):
        launch.run(pipeline, '')
    assert bool(left) == leaves


def test_processes_that_cannot_reach_each_other_by_gloo(monkeypatch):
    from dil_plugin.basicsr.resuming import rank_agreement

    def refused(**_):
        raise RuntimeError('connect [127.0.1.1]: Connection refused')

    monkeypatch.setattr(rank_agreement, 'in_several_processes', lambda: True)
    monkeypatch.setattr(rank_agreement.distributed, 'new_group', refused)
    with pytest.raises(DataError, match=r'--launcher: .*Connection refused.*GLOO_SOCKET_IFNAME'):
        rank_agreement.RankAgreement()
