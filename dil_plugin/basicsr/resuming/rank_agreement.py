"""What the ranks of a distributed run tell each other about signals and failures, without waiting for a GPU."""

import contextlib
from collections.abc import Iterator

import torch
from torch import distributed

from dil_plugin.errors import DataError
from dil_plugin.learning.distributed import in_several_processes


class RankAgreement:
    """Messages between the processes themselves, on a gloo group of their own: a host waits for hosts, not for GPUs.

    All ranks must make one, and call its methods in the same order.
    """

    def __init__(self) -> None:
        self._group = _hosts() if in_several_processes() else None
        self._sum: torch.Tensor | None = None
        self._work: distributed.Work | None = None

    def largest_so_far(self, value: int) -> int:
        """The largest of the values that the ranks gave the call before this one; 0 in the first call.

        In one process it is the value itself. With several it travels while the step is computed, and arrives alike on
        all of them, one call later.
        """
        if self._group is None:
            return value
        largest = 0
        if self._work is not None and self._sum is not None:
            self._work.wait()
            largest = int(self._sum)
        self._sum = torch.tensor(value)
        self._work = distributed.all_reduce(self._sum, distributed.ReduceOp.MAX, self._group, async_op=True)
        return largest

    def finish(self) -> None:
        """Waits for what is still on its way."""
        if self._work is not None:
            self._work.wait()

    @contextlib.contextmanager
    def failing_together(self, what: str) -> Iterator[None]:
        """All ranks wait for each other at the end of the block, and raise if any of them did.

        Args:
            what: Is named in the message of those that did not fail.

        Raises:
            DataError: Another rank failed; the failing one raises its own error.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        ranks: list[int] = []
        if self._group is not None:
            failed = torch.zeros(distributed.get_world_size(), dtype=torch.int)
            failed[distributed.get_rank()] = failure is not None
            distributed.all_reduce(failed, group=self._group)
            ranks = failed.nonzero().flatten().tolist()
        if failure is not None:
            raise failure
        if ranks:
            raise DataError(f'{what} failed on rank {", ".join(map(str, ranks))}; its own message says why')


def _hosts() -> distributed.ProcessGroup:
    try:
        return distributed.new_group(backend='gloo')
    except RuntimeError as error:
        raise DataError('--launcher: the processes cannot reach each other by gloo, beside the backend of dist_params '
                        f'({" ".join(str(error).split())[:200]}); set the environment variable GLOO_SOCKET_IFNAME to '
                        'the network interface between the nodes') from None
