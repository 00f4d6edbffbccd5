"""What a training iteration sends over the wire and how long it takes, on any number of processes."""

import math
from typing import NamedTuple

VARIANTS = ('erm', 'sf', 'pf', 'ss', 'ps')


def all_reduces(variant: str, n: int) -> int:
    """Of one iteration with n confounders; ``erm`` takes n plain steps.

    A walk (``sf``, ``pf``) reduces the gradient of every inner step. A second-order variant reduces the inner gradient,
    ``v`` and the product ``H v``, ``ss`` once for each confounder.
    """
    return {'erm': n, 'sf': n, 'pf': 2, 'ss': 3 * n, 'ps': 3}[variant]


def passes(variant: str, n: int, product: float) -> float:
    """Forward and backward passes of one batch that an iteration consists of; ``product`` is what ``H v`` counts as."""
    return {'erm': n, 'sf': n, 'pf': n + 1, 'ss': n * (2 + product), 'ps': n + 1 + n * product}[variant]


def payload(parameters: int, itemsize: int = 4) -> int:
    """Bytes of one all-reduce: all gradients and the weight of the rank, a number more."""
    return (parameters + 1) * itemsize


class Link(NamedTuple):
    """What connects processes: seconds from one to the next, and bytes per second of each."""

    latency: float
    bandwidth: float


def ring(world: int, size: float, link: Link) -> float:
    """Seconds of a ring all-reduce of ``size`` bytes: 2(W - 1) hops, each of 1/W of the bytes."""
    return 2 * (world - 1) * (link.latency + size / world / link.bandwidth)


class Cluster(NamedTuple):
    """Nodes of equal GPUs.

    Attributes:
        gpus: In a node.
        inside: Between the GPUs of a node; bandwidth of each GPU.
        between: Between nodes; bandwidth of each node, which its GPUs share.
    """

    gpus: int
    inside: Link
    between: Link


def hierarchical(world: int, size: float, cluster: Cluster) -> float:
    """Seconds of an all-reduce over nodes: a ring inside of each, and all nodes' GPUs of one number among themselves.

    Between m nodes the bytes are those of a ring; the hops are those of a tree, 2 log2 m, as nccl takes them.
    """
    gpus = min(world, cluster.gpus)
    nodes = math.ceil(world / cluster.gpus)
    seconds = ring(gpus, size, cluster.inside)
    if nodes > 1:
        hops = 2 * math.ceil(math.log2(nodes))
        seconds += hops * cluster.between.latency + 2 * (nodes - 1) / nodes * size / cluster.between.bandwidth
    return seconds


class Assumptions(NamedTuple):
    """What the table of ``docs/scaling.md`` assumes; none of it was measured.

    Attributes:
        parameters: Of the network, the full RRDB x4.
        n: Confounders.
        one_pass: Seconds of a forward and backward pass of one GPU's batch.
        products: What a Hessian-vector product counts as, in passes, by variant.
        inside: Eight GPUs by NVLink.
        latency: Between nodes.
    """

    parameters: int = 16_697_987
    n: int = 4
    one_pass: float = 0.1
    products: tuple[tuple[str, float], ...] = (('ss', 2.0), ('ps', 3.0))
    inside: Link = Link(5e-6, 200e9)
    latency: float = 20e-6

    def cluster(self, bandwidth: float) -> Cluster:
        """With this many bytes per second between nodes."""
        return Cluster(8, self.inside, Link(self.latency, bandwidth))

    def compute(self, variant: str) -> float:
        """Seconds of an iteration on one GPU."""
        return self.one_pass * passes(variant, self.n, dict(self.products).get(variant, 0.0))

    def communication(self, variant: str, world: int, bandwidth: float) -> float:
        """Seconds of an iteration's all-reduces."""
        each = hierarchical(world, payload(self.parameters), self.cluster(bandwidth))
        return all_reduces(variant, self.n) * each


WORLDS = tuple(2**k for k in range(10))
NETWORKS = {'100 Gbit/s': 10e9, '400 Gbit/s': 40e9}  # of which four fifths are taken to be reached


def bytes_table(assumed: Assumptions) -> list[str]:
    """All-reduces and bytes of an iteration, by variant."""
    lines = [f'| variant | all-reduces | with n = {assumed.n} | MB of an iteration | passes | MB per pass |',
             '|---|---|---:|---:|---:|---:|']
    words = {'erm': 'n (its plain steps)', 'sf': 'n', 'pf': '2', 'ss': '3n', 'ps': '3'}
    for variant in VARIANTS:
        count = all_reduces(variant, assumed.n)
        megabytes = count * payload(assumed.parameters) / 1e6
        number = assumed.compute(variant) / assumed.one_pass
        lines.append(f'| `{variant}` | {words[variant]} | {count} | {megabytes:.1f} | {number:.0f} | '
                     f'{megabytes / number:.1f} |')
    return lines


def time_table(assumed: Assumptions, bandwidth: float) -> list[str]:
    """Seconds of an iteration, and in brackets the efficiency, by number of GPUs; each has a batch of its own."""
    lines = ['| GPUs | ' + ' | '.join(f'`{variant}`' for variant in VARIANTS) + ' |',
             '|---:|' + '---:|' * len(VARIANTS)]
    for world in WORLDS:
        cells = []
        for variant in VARIANTS:
            compute = assumed.compute(variant)
            total = compute + assumed.communication(variant, world, bandwidth)
            cells.append(f'{total:.3f} ({100 * compute / total:.1f} %)')
        lines.append(f'| {world} | ' + ' | '.join(cells) + ' |')
    return lines


def document_tables(assumed: Assumptions) -> str:
    """Those of ``docs/scaling.md``."""
    lines = bytes_table(assumed)
    for name, bandwidth in NETWORKS.items():
        lines += ['', f'{name} between nodes:', '', *time_table(assumed, bandwidth)]
    return '\n'.join(lines)
