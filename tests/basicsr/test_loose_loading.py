"""``path.strict_load_g: false``: what does not fit is set aside, as BasicSR does it."""

import copy

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model

from dil_plugin.errors import DataError

RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3}


@pytest.fixture
def from_four_to_two(base, tmp_path):
    """An x4 network's parameters for an x2 one, whose first convolution has 12 channels."""
    checkpoint = tmp_path / 'x4.pth'
    torch.manual_seed(9)
    torch.save({'params': build_network({**RRDB, 'scale': 4}).state_dict()}, checkpoint)
    base |= {'scale': 2, 'network_g': {**RRDB, 'scale': 2},
             'distortions': [{'type': 'RealESRGAN', 'order': 1, 'scale': 2}] * 2,
             'path': {'pretrain_network_g': str(checkpoint), 'strict_load_g': False, 'resume_state': None}}
    base['datasets']['train'] |= {'gt_size': 32}
    return base


def test_an_x4_network_goes_into_an_x2_one(from_four_to_two, parsed, caplog):
    opt = from_four_to_two
    theirs = build_model(parsed({**copy.deepcopy(opt), 'model_type': 'SRModel'})).net_g.state_dict()
    caplog.clear()
    model = build_model(parsed(opt))
    ours = model.net_g.state_dict()
    assert 'Size different, ignore [conv_first.weight]' in caplog.text
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    average = model.net_g_ema.state_dict()  # BasicSR's has another random first convolution
    assert all(torch.equal(ours[name], average[name]) for name in ours)
    saved = torch.load(opt['path']['pretrain_network_g'], weights_only=True)['params']
    assert [name for name in ours if not torch.equal(ours[name], saved[name])] == ['conv_first.weight']


def test_it_trains_and_goes_on(from_four_to_two, pipeline):
    """A resumed run needs all of its own parameters."""
    root = pipeline(from_four_to_two)
    from_four_to_two['train']['total_iter'] = 6
    pipeline(from_four_to_two, 'train', '--auto_resume')
    assert (root / 'experiments/run/models/net_g_6.pth').is_file()


def test_strictly_it_is_refused_and_so_is_what_has_nothing_in_common(from_four_to_two, parsed, tmp_path):
    opt = from_four_to_two
    opt['path']['strict_load_g'] = True
    with pytest.raises(DataError, match=r'x4\.pth does not fit network_g.*conv_first\.weight'):
        parsed(opt)
    torch.save({'params': {'other': torch.ones(1)}}, opt['path']['pretrain_network_g'])
    opt['path']['strict_load_g'] = False
    with pytest.raises(DataError, match='not one of its parameters has the name and the shape'):
        parsed(opt)
