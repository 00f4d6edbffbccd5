"""From clean patches to meta-batches."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from dil_plugin.distortions import DistortionSet, GaussianBlur, GaussianNoise
from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch
from dil_plugin.sampling import MetaBatchSampler, PairedSets

# Deterministic, and told apart by their output.
BLURS = DistortionSet([GaussianBlur(sigma) for sigma in (0.5, 1, 2)])
NOISES = DistortionSet([GaussianNoise(sigma) for sigma in (5, 10, 20)])


def patches(batch: int = 8) -> Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def under_every_confounder(gt: Tensor, distortions: DistortionSet = BLURS) -> Tensor:
    """``(B, n, C, H, W)``, as the workers of a data set make them."""
    return torch.stack(distortions.counterfactuals(gt), 1)


def tensors_of(batches: list[MetaBatch]) -> list[Tensor]:
    pairs = [pair for batch in batches for pair in [*batch.confounders, *([batch.query] if batch.query else [])]]
    return [tensor for pair in pairs for tensor in pair]


def same(left: list[MetaBatch], right: list[MetaBatch]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors_of(left), tensors_of(right), strict=True))


def confounder_of(distorted: Tensor, clean: Tensor) -> int:
    """Which of the three blurs a sample went through."""
    close = [torch.allclose(distorted, blur(clean[None])[0], atol=1e-6) for blur in BLURS]
    assert sum(close) == 1
    return close.index(True)


@pytest.mark.parametrize('precomputed', [False, True])
def test_same_patches_under_every_confounder(precomputed: bool) -> None:
    gt = patches()
    given = {'counterfactuals': under_every_confounder(gt)} if precomputed else {}
    [batch] = MetaBatchSampler(BLURS, True, True).sample(gt, **given)
    assert len(batch.confounders) == 3
    for (lq, clean), blur in zip(batch.confounders, BLURS, strict=True):
        assert torch.equal(clean, gt)
        assert torch.equal(lq, blur(gt))


@pytest.mark.parametrize('precomputed', [False, True])
def test_query_has_one_drawn_confounder_per_sample(precomputed: bool) -> None:
    gt = patches(240)
    given = {'counterfactuals': under_every_confounder(gt)} if precomputed else {}
    [batch] = MetaBatchSampler(BLURS, True, True, seed=3).sample(gt, **given)
    assert batch.query is not None
    assert torch.equal(batch.query.gt, gt)
    drawn = torch.tensor([confounder_of(lq, clean) for lq, clean in zip(*batch.query, strict=True)])
    assert torch.bincount(drawn, minlength=3).min() > 50


def test_precomputed_counterfactuals_draw_the_same_query() -> None:
    gt = patches()
    made, given = (MetaBatchSampler(BLURS, True, True, seed=3).sample(gt, None, counterfactuals)
                   for counterfactuals in (None, under_every_confounder(gt)))
    for left, right in zip(tensors_of(made), tensors_of(given), strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=0)


@pytest.mark.parametrize('precomputed', [False, True])
def test_fresh_patches_for_every_step(precomputed: bool) -> None:
    """Batch 8, three inner steps and a query: two patches each, none twice."""
    gt = patches(8)
    given = {'counterfactuals': under_every_confounder(gt)} if precomputed else {}
    [batch] = MetaBatchSampler(BLURS, True, True, 'fresh').sample(gt, **given)
    assert batch.query is not None
    cleans = [clean for _, clean in batch.confounders] + [batch.query.gt]
    assert [len(clean) for clean in cleans] == [2, 2, 2, 2]
    assert torch.equal(torch.cat(cleans), gt)
    for (lq, clean), blur in zip(batch.confounders, BLURS, strict=True):
        torch.testing.assert_close(lq, blur(clean), atol=1e-6, rtol=0)
    for lq, clean in zip(*batch.query, strict=True):
        confounder_of(lq, clean)


@pytest.mark.parametrize(('how', 'sizes'), [('same', [6, 6, 6]), ('fresh', [2, 2, 2])])
def test_variant_without_outer_loss_gets_no_query(how: str, sizes: list[int]) -> None:
    [batch] = MetaBatchSampler(BLURS, True, False, how).sample(patches(6))
    assert batch.query is None
    assert [len(clean) for _, clean in batch.confounders] == sizes


@pytest.mark.parametrize('precomputed', [False, True])
@pytest.mark.parametrize(('how', 'steps', 'sizes'), [
    ('same', None, [8, 8, 8]),
    ('same', 5, [8] * 5),
    ('fresh', 4, [2, 2, 2, 2]),
    ('fresh', 1, [8]),
])
def test_erm_gets_plain_steps(how: str, steps: int | None, sizes: list[int], precomputed: bool) -> None:
    gt = patches(8)
    given = {'counterfactuals': under_every_confounder(gt)} if precomputed else {}
    batches = MetaBatchSampler(BLURS, False, True, how, steps).sample(gt, **given)
    assert all(not batch.confounders for batch in batches)
    queries = [batch.query for batch in batches if batch.query]
    assert [len(query.gt) for query in queries] == sizes
    expected = gt if how == 'fresh' else gt.repeat(len(sizes), 1, 1, 1)
    assert torch.equal(torch.cat([query.gt for query in queries]), expected)
    for query in queries:
        for lq, clean in zip(*query, strict=True):
            confounder_of(lq, clean)


def test_erm_steps_draw_anew() -> None:
    first, second = MetaBatchSampler(BLURS, False, True, erm_steps=2).sample(patches(16))
    assert not same([first], [second])


@pytest.mark.parametrize(('how', 'rows'), [('same', slice(0, 8)), ('fresh', slice(6, 8))])
def test_given_pairs_become_the_query(how: str, rows: slice) -> None:
    gt, lq = patches(8), patches(8) * 0.5
    [batch] = MetaBatchSampler(BLURS, True, True, how).sample(gt, lq)
    assert batch.query is not None
    assert torch.equal(batch.query.lq, lq[rows])
    assert torch.equal(batch.query.gt, gt[rows])
    torch.testing.assert_close(batch.confounders[1].lq, BLURS[1](batch.confounders[1].gt), atol=1e-6, rtol=0)


def test_given_pairs_are_what_erm_learns() -> None:
    gt, lq = patches(8), patches(8) * 0.5
    batches = MetaBatchSampler(BLURS, False, True, 'fresh', 4).sample(gt, lq)
    assert torch.equal(torch.cat([batch.query.lq for batch in batches if batch.query]), lq)


def test_erm_draws_from_the_counterfactuals_of_the_workers() -> None:
    """With these ``lq`` is no real pair but one draw of many, and would be the same in every step."""
    gt = patches(16)
    batches = MetaBatchSampler(BLURS, False, True, erm_steps=2).sample(gt, gt * 0.5, under_every_confounder(gt))
    for batch in batches:
        assert batch.query is not None
        for lq, clean in zip(*batch.query, strict=True):
            confounder_of(lq, clean)
    assert not same(batches[:1], batches[1:])


@pytest.mark.parametrize(('confounders', 'query', 'how', 'steps', 'parts'), [
    (True, True, 'same', None, 1),
    (True, True, 'fresh', None, 4),
    (True, False, 'fresh', None, 3),
    (False, True, 'fresh', None, 3),
    (False, True, 'fresh', 5, 5),
    (False, True, 'same', 5, 1),
])
def test_parts(confounders: bool, query: bool, how: str, steps: int | None, parts: int) -> None:
    sampler = MetaBatchSampler(BLURS, confounders, query, how, steps)
    assert sampler.parts == parts
    sampler.check_batch_size(parts)
    sampler.check_batch_size(2 * parts)
    sampler.sample(patches(2 * parts))


@pytest.mark.parametrize('batch', [2, 6, 9])
def test_batch_that_cannot_be_divided(batch: int) -> None:
    sampler = MetaBatchSampler(BLURS, True, True, 'fresh')
    with pytest.raises(OptionError) as caught:
        sampler.check_batch_size(batch)
    message = str(caught.value)
    for part in ('train.batch_size_per_gpu', f' {batch} ', '3 confounders and a query batch', 'multiples of 4'):
        assert part in message
    with pytest.raises(OptionError):
        sampler.sample(patches(batch))


def sampled(seed: int, **options: Any) -> list[MetaBatch]:
    return MetaBatchSampler(NOISES, True, True, seed=seed, **options).sample(patches())


@pytest.mark.parametrize('how', ['same', 'fresh'])
def test_same_seed_same_batch(how: str) -> None:
    torch.manual_seed(0)
    first = sampled(1, patches=how)
    torch.manual_seed(1)
    assert same(sampled(1, patches=how), first)
    assert not same(sampled(2, patches=how), first)


def test_consecutive_batches_differ() -> None:
    sampler = MetaBatchSampler(NOISES, True, True)
    assert not same(sampler.sample(patches()), sampler.sample(patches()))


def test_patches_are_unchanged() -> None:
    gt = patches()
    [batch] = MetaBatchSampler(NOISES, True, True).sample(gt)
    for lq in [*(lq for lq, _ in batch.confounders), batch.query.lq if batch.query else gt.clone()]:
        lq.fill_(9)
    assert torch.equal(gt, patches())


@pytest.mark.parametrize('confounders', [True, False])
def test_resumed_sampler_continues(confounders: bool) -> None:
    sampler, resumed = (MetaBatchSampler(NOISES, confounders, True, seed=seed) for seed in (1, 2))
    sampler.sample(patches())
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        assert same(resumed.sample(patches()), sampler.sample(patches()))


def serial(**options: Any) -> MetaBatchSampler:
    return MetaBatchSampler(BLURS, False, True, order_seed=5, **options)


def turns_of(batches: list[MetaBatch]) -> list[int]:
    """The confounder of each plain step; all its samples have the same one."""
    found = []
    for batch in batches:
        assert not batch.confounders
        assert batch.query is not None
        [one] = {confounder_of(lq, clean) for lq, clean in zip(*batch.query, strict=True)}
        found.append(one)
    return found


@pytest.mark.parametrize('precomputed', [False, True])
@pytest.mark.parametrize(('how', 'steps'), [('same', None), ('fresh', None), ('same', 6), ('same', 1), ('fresh', 4)])
def test_serial_sampling_has_one_confounder_per_plain_step(how: str, steps: int | None, precomputed: bool) -> None:
    """Each confounder as often as any other: an order is drawn anew when all have had their turn."""
    sampler = serial(patches=how, erm_steps=steps)
    gt = patches(12)
    given = {'counterfactuals': under_every_confounder(gt)} if precomputed else {}
    found: list[int] = []
    for _ in range(24 // (steps or 3)):
        batches = sampler.sample(gt, **given)
        found += turns_of(batches)
        cleans = [batch.query.gt for batch in batches if batch.query]
        expected = torch.cat(cleans) if how == 'same' else gt
        # by ascending confounder the parts of the batch are handed out
        order = sorted(range(len(batches)), key=turns_of(batches).__getitem__)
        assert torch.equal(torch.cat([cleans[k] for k in order]), expected)
    rounds = [found[k:k + 3] for k in range(0, len(found), 3)]
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_serial_sampling_takes_the_same_order_on_all_ranks() -> None:
    """And other noise: the order has a generator of its own."""
    one, other = (MetaBatchSampler(NOISES, False, True, seed=seed, order_seed=5) for seed in (1, 2))
    gt = patches(4)
    for _ in range(3):
        left, right = one.sample(gt), other.sample(gt)
        assert not same(left, right)
        spreads = [[float((batch.query.lq - gt).std()) for batch in batches if batch.query]
                   for batches in (left, right)]
        assert sorted(range(3), key=spreads[0].__getitem__) == sorted(range(3), key=spreads[1].__getitem__)


def test_serial_sampling_of_sets_of_pairs() -> None:
    lq, gt = (torch.rand(4, 3, 3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(2))
    sampler = MetaBatchSampler(PairedSets(('a', 'b', 'c')), False, True, order_seed=5)
    for _ in range(3):
        queries = [batch.query for batch in sampler.sample_pairs(lq, gt) if batch.query]
        sets = [next(i for i in range(3) if torch.equal(query.lq, lq[:, i])) for query in queries]
        assert sorted(sets) == [0, 1, 2]
        assert all(torch.equal(query.gt, gt[:, i]) for i, query in zip(sets, queries, strict=True))


def test_serial_sampling_keeps_the_pool_apart() -> None:
    """The pool exchanges a patch for an older one of the same confounder, in whatever order the steps are."""
    sampler = serial(queue_size=16)
    generator = torch.Generator().manual_seed(0)
    seen = [turns_of(sampler.sample(torch.rand(4, 3, 16, 16, generator=generator))) for _ in range(12)]
    assert all(sorted(one) == [0, 1, 2] for one in seen)
    with pytest.raises(OptionError, match='erm_steps: 4; allowed .* multiples of 3'):
        serial(queue_size=16, erm_steps=4).sample(patches(4))


def test_serial_sampling_of_pairs_of_unknown_distortion() -> None:
    with pytest.raises(OptionError, match='erm_sampling: serial, but the data set gives pairs'):
        serial().sample(patches(), patches() * 0.5)


def test_resumed_serial_sampling_continues() -> None:
    """In the middle of an order, too: two steps an iteration of three confounders."""
    sampler, resumed = (MetaBatchSampler(NOISES, False, True, erm_steps=2, seed=seed, order_seed=seed)
                        for seed in (1, 2))
    sampler.sample(patches())
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(4):
        assert same(resumed.sample(patches()), sampler.sample(patches()))
