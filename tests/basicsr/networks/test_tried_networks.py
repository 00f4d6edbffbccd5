"""Every network of the tables goes through check.py, train.py, a kill, test.py and restore.py, and trains as it should.

In each run of the tests a network of the first table has one of the three variants; the rest is left to
``make test-slow``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import plain_loop
import pytest
import torch
from basicsr.archs import build_network
from tools_in_process import Tools, training_options
from tried_networks import ODD, TABLE, VARIANTS

from dil_plugin.basicsr.models.dil_model import DILModel
from dil_plugin.sampling import MetaBatchSampler

NETWORKS = TABLE | ODD
DAILY = [(name, list(VARIANTS)[k % len(VARIANTS)]) for k, (name, tried) in enumerate(TABLE.items())
         if tried.scale < 3 and tried.gt_size is None]


def product() -> Iterator[Any]:
    for name in NETWORKS:
        for variant in VARIANTS:
            yield pytest.param(name, variant, marks=[] if (name, variant) in DAILY else [pytest.mark.slow])


@pytest.fixture
def seen(monkeypatch):
    """The state of the network as a training begins, and what its iterations see."""
    seen: dict[str, Any] = {'state': None, 'iterations': []}
    sample, feed = MetaBatchSampler.sample, DILModel.feed_data

    def recorded(sampler, *arguments):
        batches = sample(sampler, *arguments)
        steps = [([(pair.lq.clone(), pair.gt.clone()) for pair in batch.confounders],
                  None if batch.query is None else (batch.query.lq.clone(), batch.query.gt.clone()))
                 for batch in batches]
        seen['iterations'].append(plain_loop.Iteration(steps, torch.get_rng_state()))
        return batches

    def begun(model, data):
        if seen['state'] is None:
            seen['state'] = {name: value.clone() for name, value in model.net_g.state_dict().items()}
        feed(model, data)

    monkeypatch.setattr(MetaBatchSampler, 'sample', recorded)
    monkeypatch.setattr(DILModel, 'feed_data', begun)
    return seen


@pytest.mark.parametrize(('name', 'variant'), product())
def test_through_all_tools(name, variant, images, tmp_path, monkeypatch, seen):
    tried, tools = NETWORKS[name], Tools(tmp_path, monkeypatch)
    opt = training_options(tried, VARIANTS[variant], images)
    assert any(line.startswith('network') for line in tools.check(opt))
    assert not tools.run.exists()

    def begun():
        network = build_network(dict(tried.twin or tried.network))
        network.load_state_dict(seen['state'])
        return network

    seen.update(state=None, iterations=[])
    whole = tools.train(opt)
    for key, state in plain_loop.train(variant, begun, seen['iterations']).items():
        assert set(state) == set(whole[key])
        for name_of, value in state.items():
            difference = (whole[key][name_of] - value).abs().max() if value.numel() else 0.0
            assert difference <= 1e-5, f'{key}, {name_of}'
    last = tools.psnr[-1]

    tools.kill()
    resumed = tools.train(opt, '--auto_resume')
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, resumed[key][parameter]) for parameter, value in whole[key].items())
    assert tools.psnr[-1] == last

    saved = tools.test(opt)
    assert tools.psnr[-1] == last
    assert np.array_equal(saved, tools.restore(opt))
