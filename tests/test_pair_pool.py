"""The training pair pool against BasicSR's ``_dequeue_and_enqueue``, and the crop after the degradation."""

import io
from types import SimpleNamespace

import dil_plugin.basicsr  # noqa: F401  BasicSR needs its shims

# isort: split
import pytest
import torch
from basicsr.models.realesrnet_model import RealESRNetModel
from scipy import stats
from torch import Tensor

from dil_plugin.distortions import DistortionSet, Downsample, RealESRGAN
from dil_plugin.errors import OptionError
from dil_plugin.learning import MetaBatch, Pair
from dil_plugin.pair_pool import PairPool, cropped, replaced
from dil_plugin.sampling import MetaBatchSampler, PairedSets


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(first: int, count: int) -> list[Tensor]:
    """Groups ``first``, ``first + 1``, …: a target and two versions that carry the group's number."""
    numbers = torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1)
    return [numbers.expand(-1, 3, 8, 8), numbers.expand(-1, 3, 2, 2) + 0.25, numbers.expand(-1, 3, 2, 2) + 0.5]


def number_of(group: list[Tensor]) -> list[int]:
    """The groups' numbers, where all tensors of each agree on it."""
    numbers = [(tensor.mean((1, 2, 3)) - offset) for tensor, offset in zip(group, (0, 0.25, 0.5), strict=True)]
    assert all(torch.equal(numbers[0], other) for other in numbers)
    return [int(n) for n in numbers[0]]


def test_new_groups_are_used_at_once_until_the_pool_is_full() -> None:
    pool = PairPool(8)
    assert [number_of(pool.exchange(numbered(4 * k, 4), seeded())) for k in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_groups_stay_together_and_none_is_lost_or_used_twice() -> None:
    pool, generator = PairPool(12), seeded()
    came, left = [], []
    for k in range(50):
        came += list(range(4 * k, 4 * k + 4))
        out = number_of(pool.exchange(numbered(4 * k, 4), generator))
        left += out if k >= 3 else []  # what the filling pool gave stays in it
    held = number_of([row.clone() for row in pool.rows])
    assert len(set(left)) == len(left)
    assert sorted(left + held) == came


def test_groups_leave_after_the_time_that_basicsrs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of what leaves the pool, in iterations, has BasicSR's distribution."""
    monkeypatch.setattr(Tensor, 'cuda', lambda tensor: tensor)  # where BasicSR's pool insists on being
    size, count, rounds = 20, 4, 1500
    pool, generator, ours = PairPool(size), seeded(1), []
    model = SimpleNamespace(queue_size=size)
    torch.manual_seed(2)
    theirs = []
    for k in range(rounds):
        tensors = numbered(count * k, count)[:2]
        out, _ = pool.exchange(tensors, generator)
        model.gt, model.lq = (tensor.clone() for tensor in tensors)
        RealESRNetModel._dequeue_and_enqueue(model)
        if k > size:
            ours += [k - int(n) // count for n in out[:, 0, 0, 0]]
            theirs += [k - int(n) // count for n in model.gt[:, 0, 0, 0]]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert min(ours) == min(theirs) == 1  # what comes is not given back at once


def test_input_tensors_are_not_held() -> None:
    """The pool keeps copies: what the caller does to its tensors later changes nothing."""
    pool = PairPool(4)
    tensors = [tensor.clone() for tensor in numbered(0, 4)]
    pool.exchange(tensors, seeded())
    for tensor in tensors:
        tensor.fill_(-1)
    assert sorted(number_of(pool.exchange(numbered(4, 4), seeded()))) == [0, 1, 2, 3]


def test_resumed_pool_continues() -> None:
    pool, generator = PairPool(8), seeded()
    for k in range(3):
        pool.exchange(numbered(4 * k, 4), generator)
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    resumed, other = PairPool(8), seeded()
    other.set_state(generator.get_state())
    resumed.load_state_dict(torch.load(file, weights_only=True), 'cpu')
    for k in range(3, 6):
        assert number_of(pool.exchange(numbered(4 * k, 4), generator)) == number_of(
            resumed.exchange(numbered(4 * k, 4), other))


def test_pool_of_another_size_starts_empty() -> None:
    pool, resized = PairPool(4), PairPool(8)
    pool.exchange(numbered(0, 4), seeded())
    resized.load_state_dict(pool.state_dict(), 'cpu')
    assert number_of(resized.exchange(numbered(4, 4), seeded())) == [4, 5, 6, 7]
    assert number_of(resized.exchange(numbered(8, 4), seeded())) == [8, 9, 10, 11]


def test_patches_of_another_size_start_it_anew() -> None:
    pool = PairPool(4)
    pool.exchange(numbered(0, 4), seeded())
    larger = [torch.zeros(4, 3, 16, 16), torch.zeros(4, 3, 4, 4), torch.zeros(4, 3, 4, 4)]
    assert [tensor.shape for tensor in pool.exchange(larger, seeded())] == [tensor.shape for tensor in larger]


def test_size_that_is_no_multiple() -> None:
    with pytest.raises(ValueError, match='pool of 10 groups cannot be exchanged by 4'):
        PairPool(10).exchange(numbered(0, 4), seeded())


# ---- In the sampler --------------------------------------------------------------------------------------------------

SCALED = DistortionSet([Downsample(4, 'area')] * 3)


def targets(first: int, count: int, side: int = 16) -> Tensor:
    """Patches of one colour, told apart by it, so that down-sampling leaves the colour as it is."""
    return ((torch.arange(first, first + count) % 250) / 255).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def tensors_of(batches: list[MetaBatch]) -> list[Tensor]:
    return [tensor for batch in batches for pair in [*batch.confounders, *filter(None, [batch.query])]
            for tensor in pair]


@pytest.mark.parametrize('uses', [(True, True), (True, False), (False, True)], ids=['ps', 'sf', 'erm'])
@pytest.mark.parametrize(('how', 'batch'), [('same', 6), ('fresh', 12)])
def test_meta_batches_come_from_the_pool_whole(uses: tuple[bool, bool], how: str, batch: int) -> None:
    """Every pair of a row stays a pair, and with ``same`` all pairs of a row stay versions of one patch."""
    parts = MetaBatchSampler(SCALED, *uses, how).parts
    rows = batch // parts
    sampler = MetaBatchSampler(SCALED, *uses, how, queue_size=4 * rows)
    seen = []
    for k in range(12):
        batches = sampler.sample(targets(batch * k, batch))
        tensors = [tensor.mean((1, 2, 3)) for tensor in tensors_of(batches)]
        assert all(len(tensor) == rows for tensor in tensors)
        for lq, gt in zip(tensors[::2], tensors[1::2], strict=True):
            torch.testing.assert_close(lq, gt)
        if how == 'same':
            assert all(torch.equal(tensors[1], gt) for gt in tensors[1::2])
        seen.append(set((tensors[1] * 255).round().int().tolist()))
    fresh = [set(range(batch * k, batch * k + batch)) for k in range(12)]
    assert all(numbers <= new for numbers, new in list(zip(seen, fresh, strict=True))[:4])
    assert all(not numbers <= new for numbers, new in list(zip(seen, fresh, strict=True))[4:])


def test_shared_targets_take_one_row_of_the_pool() -> None:
    sampler = MetaBatchSampler(SCALED, True, True, queue_size=8)
    sampler.sample(targets(0, 4))
    assert sampler.pool is not None
    assert len(sampler.pool.rows) == 1 + 4  # the target, three versions, the query's


def test_pairs_of_several_sets_go_through_the_pool() -> None:
    sampler = MetaBatchSampler(PairedSets(('a', 'b')), True, True, queue_size=4)
    for k in range(3):
        gt = torch.stack([targets(10 * k, 4), targets(10 * k + 100, 4)], 1)
        [batch] = sampler.sample_pairs(gt[..., ::4, ::4], gt)
        for lq, clean in batch.confounders:
            torch.testing.assert_close(lq.mean((1, 2, 3)), clean.mean((1, 2, 3)))


def test_sampler_resumes_with_its_pool() -> None:
    sampler, resumed = (MetaBatchSampler(SCALED, True, True, seed=seed, queue_size=8) for seed in (1, 2))
    for k in range(3):
        sampler.sample(targets(4 * k, 4))
    resumed.load_state_dict(sampler.state_dict())
    for k in range(3, 6):
        for one, other in zip(*(tensors_of(s.sample(targets(4 * k, 4))) for s in (sampler, resumed)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(('size', 'batch', 'how', 'allowed'), [
    (10, 4, 'same', '4, 8, 12'), (2, 4, 'same', '4, 8, 12'), (5, 8, 'fresh', '2, 4, 6')])
def test_queue_size_that_does_not_fit_the_batch(size: int, batch: int, how: str, allowed: str) -> None:
    with pytest.raises(OptionError, match=f'^queue_size: {size} is no multiple.*allowed: {allowed}'):
        MetaBatchSampler(SCALED, True, True, how, queue_size=size).check_batch_size(batch)


# ---- The crop --------------------------------------------------------------------------------------------------------

def coordinates(height: int, width: int) -> Tensor:
    """``(1, 2, height, width)``: every pixel says where it is."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing='ij')
    return torch.stack([y, x])[None]


def test_crop_cuts_what_belongs_together_at_every_place() -> None:
    gt = coordinates(24, 16)
    versions = [gt[..., ::4, ::4].clone() for _ in range(3)]
    batch = MetaBatch([Pair(versions[0], gt), Pair(versions[1], gt)], Pair(versions[2], gt))
    places, generator = set(), seeded()
    for _ in range(300):
        [cut] = cropped([batch], 8, generator)
        assert cut.query is not None
        corners = {(int(t[0, 0, 0, 0]), int(t[0, 1, 0, 0])) for pair in [*cut.confounders, cut.query] for t in pair}
        assert len(corners) == 1
        places |= corners
        assert torch.equal(cut.query.lq, cut.query.gt[..., ::4, ::4])
        assert cut.query.gt.shape[-2:] == (8, 8)
        assert cut.query.gt is cut.confounders[0].gt  # shared as before, so that the pool holds it once
    assert places == {(y, x) for y in range(0, 17, 4) for x in range(0, 9, 4)}


def test_what_is_no_larger_is_not_cut() -> None:
    batch = MetaBatch([Pair(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 16, 16))])
    [same] = cropped([batch], 16, seeded())
    assert same is batch


def test_sampler_distorts_before_it_cuts() -> None:
    """The patches are free of the borders of the degradation, and have the size that was asked for."""
    sampler = MetaBatchSampler(DistortionSet([RealESRGAN(1)] * 2), True, True, crop=32)
    [batch] = sampler.sample(torch.rand(2, 3, 64, 64, generator=seeded()))
    assert {t.shape[-1] for t in tensors_of([batch])} == {8, 32}
    plain = MetaBatchSampler(DistortionSet([RealESRGAN(1)] * 2), True, True)
    [whole] = plain.sample(torch.rand(2, 3, 64, 64, generator=seeded()))
    windows = whole.confounders[0].lq.unfold(2, 8, 1).unfold(3, 8, 1)
    cut = batch.confounders[0].lq[:, :, None, None]
    assert ((windows == cut).flatten(4).all(-1).all(1).any(-1).any(-1)).all()


def test_replaced_passes_every_tensor_once() -> None:
    gt, lq = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 2, 2)
    seen: list[int] = []

    def exchange(tensors: list[Tensor]) -> list[Tensor]:
        seen.append(len(tensors))
        return [tensor + 1 for tensor in tensors]

    [batch] = replaced([MetaBatch([Pair(lq, gt)], Pair(lq, gt))], exchange)
    assert seen == [2]
    assert batch.query is not None
    assert torch.equal(batch.query.gt, gt + 1)
    assert torch.equal(batch.confounders[0].lq, lq + 1)
