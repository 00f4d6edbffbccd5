"""The outer optimiser: SGD makes ``sf`` the interpolation of Reptile and Fish; Adam takes whole numbers as betas."""

import copy

import pytest
import torch
from basicsr.models import build_model
from torch import nn

EPSILON = 0.5
INNER = {
    'SGD': ({'type': 'SGD', 'lr': 0.05}, lambda params: torch.optim.SGD(params, 0.05)),
    'Adam': ({'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.999]}, lambda params: torch.optim.Adam(params, 1e-3)),
}


class Fish:
    """Algorithm 1 of Shi et al., ICLR 2022, on copies of a network: a walk over the domains, then an interpolation."""

    def __init__(self, network, optimizer, seed):
        self.network, self.make = copy.deepcopy(network), optimizer
        self.moments = None
        self.order = torch.Generator().manual_seed(seed)

    def step(self, gt, versions):
        fast = copy.deepcopy(self.network)
        optimizer = self.make(fast.parameters())
        if self.moments is not None:  # as DomainBed's Fish keeps them
            optimizer.load_state_dict(self.moments)
        for i in torch.randperm(versions.shape[1], generator=self.order).tolist():
            optimizer.zero_grad()
            nn.functional.l1_loss(fast(versions[:, i]), gt).backward()
            optimizer.step()
        self.moments = copy.deepcopy(optimizer.state_dict())
        with torch.no_grad():
            for theta, phi in zip(self.network.parameters(), fast.parameters(), strict=True):
                theta += EPSILON * (phi - theta)


@pytest.mark.parametrize('inner', INNER)
def test_sf_with_outer_sgd_is_fish(base, parsed, inner):
    block, optimizer = INNER[inner]
    base['datasets']['train']['distort_on'] = 'worker'
    base['train'].update(dil={'variant': 'sf', 'inner': block}, optim_g={'type': 'SGD', 'lr': EPSILON}, ema_decay=0,
                         scheduler={'type': 'MultiStepLR', 'milestones': [100]})
    model = build_model(parsed(base))
    fish = Fish(model.net_g, optimizer, base['manual_seed'])
    generator = torch.Generator().manual_seed(0)
    for k in range(1, 5):
        gt = torch.rand(2, 3, 16, 16, generator=generator)
        versions = torch.rand(2, 4, 3, 16, 16, generator=generator)
        model.update_learning_rate(k)
        model.feed_data({'gt': gt, 'lq': gt, 'counterfactuals': versions})
        model.optimize_parameters(k)
        fish.step(gt, versions)
        for ours, theirs in zip(model.net_g.parameters(), fish.network.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize('patches', ['same', 'fresh'])
def test_walks_to_their_end_are_serial_erm(base, parsed, patches):
    """With epsilon 1; so what is between the two is the outer optimiser alone."""
    base['datasets']['train'].update(distort_on='worker', batch_size_per_gpu=8)
    base['train'].update(ema_decay=0, scheduler={'type': 'MultiStepLR', 'milestones': [100]})
    adam = {'type': 'Adam', 'lr': 1e-3, 'betas': [0.0, 0.999]}
    models = []
    for dil, outer in (({'variant': 'sf', 'inner': adam}, {'type': 'SGD', 'lr': 1.0}),
                       ({'variant': 'erm', 'erm_sampling': 'serial'}, adam)):
        base['train'].update(dil={**dil, 'patches': patches}, optim_g=outer)
        models.append(build_model(parsed(base)))
    walk, erm = models
    generator = torch.Generator().manual_seed(0)
    for k in range(1, 5):
        gt = torch.rand(8, 3, 16, 16, generator=generator)
        versions = torch.rand(8, 4, 3, 16, 16, generator=generator)
        erm.sampler.order.set_state(walk.variant.generator.get_state())  # each has an order of its own
        for model in models:
            model.update_learning_rate(k)
            model.feed_data({'gt': gt, 'lq': gt, 'counterfactuals': versions})
            model.optimize_parameters(k)
        for ours, theirs in zip(walk.net_g.parameters(), erm.net_g.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize('optimizer', [{'type': 'Adam', 'lr': 1e-3, 'betas': [0, 0.999]},
                                       {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'nesterov': True}])
def test_outer_optimisers_train_and_resume(base, pipeline, optimizer):
    base['train'].update(optim_g=optimizer, total_iter=4)
    run = pipeline(base) / 'experiments/run'
    expected = torch.load(run / 'models/net_g_4.pth', weights_only=True)['params']
    for name in ('training_states/4.state', 'models/net_g_4.pth'):
        (run / name).unlink()
    pipeline(base, 'train', '--auto_resume')
    resumed = torch.load(run / 'models/net_g_4.pth', weights_only=True)['params']
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
