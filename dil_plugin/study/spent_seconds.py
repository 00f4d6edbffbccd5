"""How long a training took that may have been interrupted."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dil_plugin.atomic import whole_file


@contextlib.contextmanager
def spent_seconds(path: Path, goes_on: bool) -> Iterator[Callable[[], float | None]]:
    """Adds the seconds of its block to those of earlier ones, also where the block raises.

    Args:
        path: The file that has the sum. It is away during the block, so that a process that is killed leaves none.
        goes_on: Whether earlier blocks count; False: the sum starts at 0.

    Yields:
        What gives the sum after the block; None where an earlier block was killed.
    """
    before = (float(path.read_text()) if path.is_file() else None) if goes_on else 0.0
    path.unlink(missing_ok=True)
    start = time.monotonic()
    total: float | None = None
    try:
        yield lambda: total
    finally:
        if before is not None:
            total = round(before + time.monotonic() - start, 1)
            with whole_file(path) as file:
                file.write(str(total).encode())
