"""Measures how training scales over processes on this machine, beside what the time model of docs/scaling.md predicts.

Run as a script: python benchmarks/scaling.py --help
"""

import argparse
import datetime
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

import torch  # noqa: E402
from report import processor  # noqa: E402
from scaling_worker import Settings, work  # noqa: E402
from time_model import VARIANTS, Assumptions, Link, all_reduces, document_tables, payload, ring  # noqa: E402

NETWORKS = {'small': {'num_feat': 32, 'num_block': 4, 'num_grow_ch': 16},
            'tiny': {'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4}}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2, 4], metavar='N')
    parser.add_argument('--network', choices=list(NETWORKS), default='small')
    parser.add_argument('--steps', type=int, default=Settings({}).steps,
                        help='timed of each variant (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='also write a page of results')
    parser.add_argument('--tables', action='store_true', help='print the tables of docs/scaling.md; measure nothing')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns the exit status: 0, 1 if bytes differ from the model's, or 2 for a user mistake."""
    args = parse_arguments(arguments)
    if args.tables:
        print(document_tables(Assumptions()))
        return 0
    for name, values in (('processes', args.processes), ('steps', [args.steps])):
        if min(values) < 1:
            print(f'error: --{name}: {min(values)}; allowed: at least 1', file=sys.stderr)
            return 2
    if args.out is not None and not args.out.parent.is_dir():
        print(f'error: --out: there is no folder {args.out.parent}', file=sys.stderr)
        return 2
    settings = Settings(NETWORKS[args.network], steps=args.steps)
    found = {world: measured(world, settings) for world in args.processes}
    lines = [*wire_lines(found, settings), '', *link_lines(found), '', *step_lines(found, settings)]
    print('\n'.join(lines))
    if args.out is not None:
        args.out.write_text('\n'.join([*header(args, settings, found), '', *lines]) + '\n', encoding='utf-8')
    return int(any(one['bytes'] != expected_bytes(variant, world, results[0]['parameters'], settings.n)
                   for world, results in found.items() for result in results
                   for variant, one in result['variants'].items()))


def measured(world: int, settings: Settings) -> list[dict[str, Any]]:
    """What each of ``world`` processes has found."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / 'meet').as_uri()
        torch.multiprocessing.spawn(work, (world, meeting, folder, settings), nprocs=world)
        return [torch.load(Path(folder) / f'{rank}.pt', weights_only=True) for rank in range(world)]


def expected_bytes(variant: str, world: int, parameters: int, n: int) -> int:
    """Of an iteration; a single process sends nothing."""
    return all_reduces(variant, n) * payload(parameters) if world > 1 else 0


def fitted(times: dict[int, float], world: int) -> Link:
    """The link of a ring whose smallest and largest all-reduce take what was measured."""
    small, large = min(times), max(times)
    latency = times[small] / (2 * (world - 1))
    return Link(latency, 2 * (world - 1) / world * (large - small) / max(times[large] - times[small], 1e-9))


def wire_lines(found: dict[int, list[dict[str, Any]]], settings: Settings) -> list[str]:
    """Calls and bytes, counted and by the model."""
    lines = ['| processes | variant | all-reduces | model | bytes of an iteration | model |',
             '|---:|---|---:|---:|---:|---:|']
    for world, results in found.items():
        for variant in VARIANTS:
            one = results[0]['variants'][variant]
            calls = all_reduces(variant, settings.n) if world > 1 else 0
            lines.append(f'| {world} | `{variant}` | {one["calls"]} | {calls} | {one["bytes"]:,} | '
                         f'{expected_bytes(variant, world, results[0]["parameters"], settings.n):,} |')
    return lines


def link_lines(found: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Times of all-reduces and the ring fitted to the first and the last of them."""
    lines = ['| processes | bytes | all-reduce (ms) | ring (ms) |', '|---:|---:|---:|---:|']
    for world, results in found.items():
        if world == 1:
            continue
        times = results[0]['all_reduce']
        link = fitted(times, world)
        lines += [f'| {world} | {size:,} | {1000 * seconds:.2f} | {1000 * ring(world, size, link):.2f} |'
                  for size, seconds in times.items()]
    return lines


def step_lines(found: dict[int, list[dict[str, Any]]], settings: Settings) -> list[str]:
    """Iterations, measured and predicted: compute as measured without averages, and the all-reduces.

    These are taken once as the fitted ring has them, and once as an average of all gradients takes when it is timed
    alone.
    """
    lines = ['| processes | variant | without averages (ms) | ring (ms) | predicted (ms) | averages alone (ms) | '
             'predicted (ms) | measured (ms) | measured / predicted |',
             '|---:|---|---:|---:|---:|---:|---:|---:|---:|']
    for world, results in found.items():
        size = payload(results[0]['parameters'])
        for variant in VARIANTS:
            one = results[0]['variants'][variant]
            wire = alone = 0.0
            if world > 1:
                count = all_reduces(variant, settings.n)
                wire = count * ring(world, size, fitted(results[0]['all_reduce'], world))
                alone = count * results[0]['average']
            compute, step = one['compute'], one['step']
            times = (compute, wire, compute + wire, alone, compute + alone, step)
            ratios = f'{step / (compute + wire):.2f} and {step / (compute + alone):.2f}'
            lines.append(f'| {world} | `{variant}` | ' + ' | '.join(f'{1000 * t:.1f}' for t in times) +
                         f' | {ratios} |')
    return lines


def header(args: argparse.Namespace, settings: Settings, found: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Machine, date, command, and what was run."""
    shown = ' '.join(['OMP_NUM_THREADS=1 python benchmarks/scaling.py --processes', *map(str, args.processes),
                      f'--network {args.network} --steps {args.steps}'])
    parameters = found[args.processes[0]][0]['parameters']
    return [f'# {", ".join(map(str, args.processes))} gloo processes on {os.cpu_count()} cores', '',
            f'{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, one thread a process, '
            f'torch {torch.__version__}, Python {platform.python_version()}.', '', '```bash', shown, '```', '',
            f'RRDBNetNoUpsample with {parameters:,} parameters, {settings.n} confounders; each process has '
            f'{settings.images} patch of {settings.side}x{settings.side}, however many there are. Medians over '
            f'{settings.steps} iterations, each timed until the last process is done. More processes than cores share '
            'them, which the column without averages has in it: the same processes computing side by side without a '
            'word to each other.']


if __name__ == '__main__':
    sys.exit(main())
