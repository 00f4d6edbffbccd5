"""What holds of every meta-gradient, whatever the confounders, shapes and variant: looked for by hypothesis."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from learning_helpers import Criterion, charbonnier
from torch import Tensor, nn

from dil_plugin.distortions import DistortionSet, parse_distortions
from dil_plugin.learning import MetaBatch, MetaGradient, NetworkLoss, Pair
from dil_plugin.learning.options import VARIANTS, build_variant, parse_dil_options
from dil_plugin.sampling import MetaBatchSampler

LARGEST_ALPHA = 2e-3
looked_for = partial(settings, deadline=None, derandomize=True, database=None)

DISTORTIONS = st.one_of(
    st.builds(lambda sigma: {'type': 'GaussianNoise', 'sigma': sigma}, st.floats(0, 80)),
    st.builds(lambda scale: {'type': 'PoissonNoise', 'poisson_scale': scale}, st.floats(0.1, 3)),
    st.builds(lambda sigma: {'type': 'GaussianBlur', 'sigma': sigma}, st.floats(0.3, 1.2)),
    st.builds(lambda quality: {'type': 'JPEG', 'quality': quality}, st.integers(5, 100)),
)
SETS = st.lists(DISTORTIONS, min_size=1, max_size=4)


@dataclass(frozen=True)
class Case:
    """A small network and a meta-batch for it.

    Attributes:
        confounders: The block of distortions.
        batch: Images.
        size: Their height and width.
        width: Features of the network.
        norm: Whether it has running statistics.
        seed: Of weights and images.
    """

    confounders: list[dict[str, Any]]
    batch: int
    size: tuple[int, int]
    width: int
    norm: bool
    seed: int

    def network(self, dtype: torch.dtype) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            norm = [nn.GroupNorm(1, self.width)] if self.norm else []
            return nn.Sequential(nn.Conv2d(3, self.width, 3, padding=1), *norm, nn.Tanh(),
                                 nn.Conv2d(self.width, 3, 1, bias=False)).to(dtype)

    def distortions(self) -> DistortionSet:
        return parse_distortions(self.confounders)

    def clean(self) -> Tensor:
        return torch.rand(self.batch, 3, *self.size, generator=torch.Generator().manual_seed(self.seed))

    def meta_batch(self, dtype: torch.dtype) -> MetaBatch:
        """Each confounder, and a query of one confounder per sample."""
        sampler = MetaBatchSampler(self.distortions(), True, True, seed=self.seed)
        made, = sampler.sample(self.clean())
        assert made.query is not None
        pairs = [Pair(pair.lq.to(dtype), pair.gt.to(dtype)) for pair in (*made.confounders, made.query)]
        return MetaBatch(pairs[:-1], pairs[-1])

    def gradient(self, variant: str, dtype: torch.dtype, alpha: float = 1e-2, batch: MetaBatch | None = None,
                 criterion: Criterion = charbonnier, **options: Any) -> tuple[MetaGradient, list[Tensor]]:
        loss = NetworkLoss(self.network(dtype), criterion)
        inner = {'inner': {'type': 'SGD', 'lr': alpha}} if variant != 'erm' else {}
        made = build_variant(parse_dil_options({'variant': variant, **inner, **options}), loss.parameters())
        found = made(loss, loss.parameters(), batch or self.meta_batch(dtype))
        return found, list(loss.parameters().values())


CASES = st.builds(Case, SETS, st.integers(1, 3), st.tuples(st.integers(8, 15), st.integers(8, 15)), st.integers(1, 5),
                  st.booleans(), st.integers(0, 2**20))
DTYPES = st.sampled_from([torch.float32, torch.float64])


def smooth(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def flat(grads: list[Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize('variant', VARIANTS)
@looked_for(max_examples=40)
@given(case=CASES, dtype=DTYPES)
def test_finite_and_of_the_parameters_shapes(variant: str, case: Case, dtype: torch.dtype) -> None:
    """And the parameters are as they were, without gradients of their own."""
    assume(variant != 'mldg' or len(case.distortions()) > 1)
    found, params = case.gradient(variant, dtype)
    assert [grad.shape for grad in found.grads] == [p.shape for p in params]
    assert {grad.dtype for grad in found.grads} == {dtype}
    assert all(bool(grad.isfinite().all()) for grad in found.grads)
    assert float(flat(found.grads).abs().sum()) > 0
    assert all(p.grad is None for p in params)
    assert all(torch.equal(p, own) for p, own in zip(params, case.network(dtype).parameters(), strict=True))
    n = len(case.distortions())
    assert (found.inner_losses is None) == (variant == 'erm')
    assert found.inner_losses is None or found.inner_losses.shape == (n, )
    assert (found.outer_loss is None) == (variant == 'sf')
    assert found.outer_loss is None or found.outer_loss.shape == ()


@pytest.mark.parametrize('hvp', ['exact', 'finite_difference'])
@pytest.mark.parametrize('variant', ['ss', 'ps'])
@looked_for(max_examples=40)
@given(case=CASES, data=st.data())
def test_the_order_of_the_confounders_does_not_matter(variant: str, hvp: str, case: Case, data: st.DataObject) -> None:
    batch = case.meta_batch(torch.float64)
    order = data.draw(st.permutations(range(len(batch.confounders))))
    shuffled = MetaBatch([batch.confounders[i] for i in order], batch.query)
    one, _ = case.gradient(variant, torch.float64, batch=batch, hvp=hvp)
    other, _ = case.gradient(variant, torch.float64, batch=shuffled, hvp=hvp)
    # a difference quotient divides the rounding of sums in another order by its small step
    tolerance = 1e-10 if hvp == 'exact' else 1e-7
    difference = (flat(one.grads) - flat(other.grads)).norm()
    assert float(difference) <= tolerance * max(1.0, float(flat(one.grads).norm()))
    assert one.inner_losses is not None
    assert other.inner_losses is not None
    assert torch.allclose(one.inner_losses[order], other.inner_losses, rtol=1e-12, atol=0)


@looked_for(max_examples=25)
@given(case=CASES)
def test_serial_first_order_does_depend_on_it(case: Case) -> None:
    """So the test above would see a dependence: two confounders, and the second walk begins with the other one."""
    batch = case.meta_batch(torch.float64)
    darker = Pair(batch.confounders[0].lq / 2, batch.confounders[0].gt)
    pairs = [batch.confounders[0], darker]
    one, other = (case.gradient('sf', torch.float64, batch=MetaBatch(order), order='fixed')[0]
                  for order in (pairs, pairs[::-1]))
    assert float((flat(one.grads) - flat(other.grads)).norm()) > 1e-10


@pytest.mark.parametrize('variant', ['ss', 'ps', 'sf', 'pf'])
@looked_for(max_examples=25)
@given(case=CASES)
def test_linear_in_alpha_to_first_order(variant: str, case: Case) -> None:
    """``g(4a) - 3 g(2a) + 2 g(a)`` is of order ``a^2``: at half the alpha it is a quarter.

    Reptile's displacement is divided by alpha first. The loss is smooth: one with a kink has no such expansion.
    """
    batch = case.meta_batch(torch.float64)
    first = variant in ('sf', 'pf')
    g = []
    for alpha in (LARGEST_ALPHA / 8, LARGEST_ALPHA / 4, LARGEST_ALPHA / 2, LARGEST_ALPHA):
        found, _ = case.gradient(variant, torch.float64, alpha, batch, smooth)
        g.append(flat(found.grads) / (alpha if first else 1))
    small, large = (float((g[k + 2] - 3 * g[k + 1] + 2 * g[k]).norm() / g[0].norm()) for k in (0, 1))
    if len(batch.confounders) == 1 and variant == 'sf':
        assert large < 1e-10  # one step: the gradient itself
    else:
        assert 3 < large / small < 5


@pytest.mark.parametrize('variant', ['ss', 'ps'])
@looked_for(max_examples=25)
@given(case=CASES)
def test_the_slope_in_alpha_is_that_of_two_terms(variant: str, case: Case) -> None:
    """``g(a) = v - a (H v + H_query g_inner) + O(a^2)``, by autograd on products written down here."""
    batch = case.meta_batch(torch.float64)
    assert batch.query is not None
    alpha = 1e-4
    slope = (flat(case.gradient(variant, torch.float64, alpha, batch, smooth)[0].grads)
             - flat(case.gradient(variant, torch.float64, 1e-14, batch, smooth)[0].grads)) / alpha
    loss = NetworkLoss(case.network(torch.float64), smooth)
    params = loss.parameters()
    inner = torch.stack([loss(params, pair) for pair in batch.confounders]).mean()
    weights = list(params.values())
    g, v = (torch.autograd.grad(value, weights, create_graph=True) for value in (inner, loss(params, batch.query)))
    product = sum((a * b).sum() for a, b in zip(g, v, strict=True))
    expected = -flat(list(torch.autograd.grad(product, weights)))
    assert float((slope - expected).norm()) <= 0.02 * float(expected.norm()) + 1e-6


@pytest.mark.parametrize('patches', ['same', 'fresh'])
@pytest.mark.parametrize('query', [False, True])
@looked_for(max_examples=40)
@given(case=CASES, groups=st.integers(1, 3))
def test_the_sampler_keeps_shapes(patches: str, query: bool, case: Case, groups: int) -> None:
    """Every version has the size of its clean patch; fresh patches divide the batch, and none is used twice."""
    n = len(case.distortions())
    sampler = MetaBatchSampler(case.distortions(), True, query, patches, seed=case.seed)
    parts = n + query if patches == 'fresh' else 1
    clean = torch.rand(groups * parts, 3, *case.size, generator=torch.Generator().manual_seed(case.seed))
    made, = sampler.sample(clean.clone())
    assert len(made.confounders) == n
    assert (made.query is not None) == query
    pairs = [*made.confounders, *([made.query] if made.query else [])]
    for pair in pairs:
        assert pair.lq.shape == pair.gt.shape == (groups, 3, *case.size)
        assert pair.lq.dtype == pair.gt.dtype == torch.float32
        assert bool(pair.lq.isfinite().all())
    if patches == 'fresh':
        assert torch.equal(torch.cat([pair.gt for pair in pairs]), clean)
    else:
        assert all(torch.equal(pair.gt, clean) for pair in pairs)
