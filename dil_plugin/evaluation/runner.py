"""Runs networks over the test sets of a protocol and scores every image."""

import hashlib
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from dil_plugin.errors import DataError, OptionError, reason_of
from dil_plugin.evaluation.benchmark_sets import BenchmarkSet, DndSubmission, open_benchmark
from dil_plugin.evaluation.far_pixels import tile_warning
from dil_plugin.evaluation.inputs import DistortedImage, DistortedSet, Image, enlarged, to_image, write_input
from dil_plugin.evaluation.metrics import PyiqaMetrics, psnr_ssim
from dil_plugin.evaluation.networks import RestorationNetwork
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.evaluation.pictures import PictureFolder
from dil_plugin.evaluation.prefetch import prefetched
from dil_plugin.evaluation.reproduce_options import Plan
from dil_plugin.evaluation.results import INPUT, Results, Score, Skipped
from dil_plugin.evaluation.run_networks import RunNetworks
from dil_plugin.evaluation.score_store import ScoreStore
from dil_plugin.evaluation.tiling import restore_tiled

_WAITING = 64  # images whose scores may be awaited; more would fill the memory where the network is fast


class _Task(NamedTuple):
    """One set under one condition, for one run."""

    run: str
    inputs: DistortedSet
    condition: str
    names: list[str]

    def score(self, image: str, metrics: dict[str, float | None] | None = None, error: str | None = None) -> Score:
        """The score of one of its images, or why it has none."""
        return Score(run=self.run, dataset=self.inputs.benchmark.name, condition=self.condition, image=image,
                     metrics=metrics or {}, error=error)


class Evaluation:
    """All runs of a plan on all sets and conditions.

    Order: run by run (``input`` first), so that one network is on the device at a time. Scores already in
    ``OUTPUT/scores.jsonl`` are not computed again. An image that cannot be read or restored is a failure of its own and
    does not stop the rest; neither does a set that is not there.

    Args:
        plan: What to do.

    Raises:
        OptionError: A checkpoint does not fit the protocol, or the output is of other settings.
        DataError: A checkpoint cannot be read, or none of the sets is there.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.protocol = plan.protocol
        self.metrics = PyiqaMetrics(plan.options.metrics, plan.device)
        self.sets, self.skipped = _open_sets(plan)
        self.networks = RunNetworks(plan)
        self.pictures = PictureFolder(plan.output, [INPUT, *plan.runs])
        self.store = ScoreStore(plan.output / 'scores.jsonl', self._settings(), self.networks.identities,
                                self._fingerprint, plan.options.overwrite)
        if plan.options.overwrite and self.store.existed:
            for name in ('images', 'inputs', 'dnd'):
                shutil.rmtree(plan.output / name, ignore_errors=True)
        # several large images at once do not stay in a CPU's caches
        self._batch = plan.options.batch or (8 if plan.device.startswith('cuda') else 1)
        self._probed: set[str] = set()  # runs of which it is known whether tiles change what they restore
        self._pool = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2))))
        self._submissions = {run: self._submission(run) for one in self.sets if not one.has_gt for run in plan.runs}

    def evaluate(self) -> Results:
        """Computes what is missing; shows a progress bar.

        Raises:
            DataError: The output cannot be written, or the GPU's memory does not suffice.
        """
        tasks = list(self._tasks())
        todo = sum(len(task.names) for task in tasks)
        total = sum(len(self._names(one)) for one in self.sets) * len(self.plan.conditions) * (1 + len(self.plan.runs))
        every = 0.1 if sys.stderr.isatty() else 30  # seconds; in a log every update is a line
        with self.store, tqdm(total=total, initial=total - todo, unit='image', dynamic_ncols=True, mininterval=every,
                              disable=todo == 0) as bar:
            for run in (INPUT, *self.plan.runs):
                of_run = [task for task in tasks if task.run == run]
                network = self.networks.load(run, self.plan.device) if of_run and run != INPUT else None
                for task in of_run:
                    bar.set_description(f'{run}, {task.inputs.benchmark.name}, {task.condition}', refresh=False)
                    self._run_task(task, network, bar)
        for submission in self._submissions.values():
            if not submission.missing:
                submission.bundle()
        return self._results()

    # What there is to do

    def _tasks(self) -> Iterator[_Task]:
        for run in (INPUT, *self.plan.runs):
            for benchmark in self.sets:
                for condition in self.plan.conditions:
                    distortion = self.protocol.distortion(self.protocol.condition(condition))
                    inputs = DistortedSet(benchmark, distortion, self.protocol.scale, self.plan.options.seed)
                    names = [name for name in self._names(benchmark)
                             if self._is_missing(run, benchmark, condition, name)]
                    if names:
                        yield _Task(run, inputs, condition, names)

    def _names(self, benchmark: BenchmarkSet) -> list[str]:
        return benchmark.names[:self.plan.options.limit]

    def _is_missing(self, run: str, benchmark: BenchmarkSet, condition: str, name: str) -> bool:
        if not benchmark.has_gt:
            return run != INPUT and not self._submissions[run].has(name)
        if (run, benchmark.name, condition, name) not in self.store.scores:
            return True
        if self._is_pictured(benchmark, condition, name) \
                and not self.pictures.has(benchmark.name, condition, name, run):
            return True
        return run == INPUT and self._saves(benchmark) and not self._input_path(benchmark, condition, name).exists()

    def _is_pictured(self, benchmark: BenchmarkSet, condition: str, name: str) -> bool:
        count = self.plan.options.pictures
        return self.protocol.condition(condition).table and name in _spread(self._names(benchmark), count)

    def _saves(self, benchmark: BenchmarkSet) -> bool:
        return self.plan.options.save_inputs and not benchmark.paired

    def _input_path(self, benchmark: BenchmarkSet, condition: str, name: str) -> Path:
        return self.plan.output / 'inputs' / file_stem(benchmark.name) / file_stem(condition) / f'{name}.png'

    # Computing

    def _run_task(self, task: _Task, network: RestorationNetwork | None, bar: 'tqdm[None]') -> None:
        waiting: list[Future[Score]] = []
        try:
            for batch in self._batches(task, bar):
                try:
                    images = self._restore(network, batch, task.run)
                except DataError:  # the memory does not suffice
                    raise
                except Exception as error:  # of the network; another image may be restored all the same
                    self._fail(task, [item.name for item in batch], f'{task.run}: {reason_of(error)}', bar)
                    continue
                for item, image in zip(batch, images, strict=True):
                    waiting += self._keep(task, item, image, bar)
                while waiting and (waiting[0].done() or len(waiting) > _WAITING):
                    self._collect([waiting.pop(0)], bar)
        finally:  # also after Ctrl-C: what was restored is scored
            self._collect(waiting, bar)

    def _keep(self, task: _Task, item: DistortedImage, image: Tensor, bar: 'tqdm[None]') -> list[Future[Score]]:
        """Writes what is to be kept of a restored image, and has it scored."""
        benchmark, condition = task.inputs.benchmark, task.condition
        if not torch.isfinite(image).all():
            self._fail(task, [item.name], f'{task.run}: {item.name}: the output is not finite', bar)
            return []
        if item.gt is None:
            self._submissions[task.run].add(item.name, image.clamp(0, 1).permute(1, 2, 0).numpy())
            bar.update()
            return []
        restored = to_image(image)
        if self._is_pictured(benchmark, condition, item.name):
            self.pictures.add(benchmark.name, condition, item.name, task.run, restored, item.gt)
        if task.run == INPUT and self._saves(benchmark):
            write_input(item.lq, self._input_path(benchmark, condition, item.name))
        try:
            extra = self.metrics(restored, item.gt)  # here, on the device; BasicSR's functions in threads
        except Exception as error:  # pyiqa's metrics raise many kinds, for images that are too small for instance
            self._fail(task, [item.name], f'--metric: {item.name}: {" ".join(str(error).split())}', bar)
            return []
        return [self._pool.submit(self._score, task, item, restored, extra)]

    def _collect(self, scored: Sequence[Future[Score]], bar: 'tqdm[None]') -> None:
        self.store.add([future.result() for future in scored])
        bar.update(len(scored))

    def _batches(self, task: _Task, bar: 'tqdm[None]') -> Iterator[list[DistortedImage]]:
        """Images of equal size together; at most four batches wait for company."""
        size = self._batch
        buckets: dict[tuple[int, ...], list[DistortedImage]] = defaultdict(list)
        for name, future in prefetched(task.inputs.load, task.names, self._pool):
            try:
                item = future.result()
            except DataError as error:
                self._fail(task, [name], str(error), bar)
                continue
            bucket = buckets[tuple(item.lq.shape)]
            bucket.append(item)
            if len(bucket) == size:
                yield buckets.pop(tuple(item.lq.shape))
            elif sum(map(len, buckets.values())) >= 4 * size:
                yield buckets.pop(max(buckets, key=lambda shape: len(buckets[shape])))
        yield from buckets.values()

    def _restore(self, network: RestorationNetwork | None, batch: Sequence[DistortedImage], run: str) -> list[Tensor]:
        """``(3, H, W)`` float32 on the CPU for each image."""
        if network is None:
            return [enlarged(item.lq, self.protocol.scale) for item in batch]
        options = self.plan.options
        stacked = torch.stack([item.lq for item in batch]).to(network.device, non_blocking=True)
        if run not in self._probed and 0 < options.tile < max(stacked.shape[-2:]):
            self._probed.add(run)
            if warning := tile_warning(network, stacked, options.tile, options.overlap):
                tqdm.write(f'warning: {run}: {warning}', file=sys.stderr)
        try:
            return list(restore_tiled(network, stacked, options.tile, options.overlap).cpu())
        except torch.cuda.OutOfMemoryError:
            side = max(stacked.shape[-2:])
            raise DataError(f'--batch {self._batch}, --tile {options.tile}: {len(batch)} images of {side} pixels do '
                            'not fit the memory of the GPU; give a smaller --batch or --tile (not 0)') from None

    def _score(self, task: _Task, item: DistortedImage, restored: Image, extra: dict[str, float | None]) -> Score:
        assert item.gt is not None
        try:
            values = psnr_ssim(restored, item.gt, self.protocol.channel, self.protocol.crop_border)
        except DataError as error:
            return task.score(item.name, error=f'{task.inputs.benchmark.name}: {item.name}: {error}')
        return task.score(item.name, {**values, **extra})

    def _fail(self, task: _Task, names: Sequence[str], error: str, bar: 'tqdm[None]') -> None:
        self.store.add([task.score(name, error=error) for name in names])
        bar.update(len(names))

    # What comes out

    def _fingerprint(self, dataset: str, image: str) -> str | None:
        return next((one.fingerprint(image) for one in self.sets if one.name == dataset), None)

    def _submission(self, run: str) -> DndSubmission:
        # crops are not scored, so nothing but the folder's name keeps those of another checkpoint or tile apart
        settings = f'{self.networks.identities[run]} {self.plan.options.tile} {self.plan.options.overlap}'
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return DndSubmission(self.plan.output / 'dnd' / f'{file_stem(run)}_{digest}')

    def _settings(self) -> dict[str, str]:
        """What scores depend on, beside the checkpoints and the images."""
        options = self.plan.options
        distortions = {c.name: str(d.label if (d := self.protocol.distortion(c)) else 'pairs')
                       for c in self.protocol.conditions}
        return {
            'table': self.protocol.name, 'scale': str(self.protocol.scale), 'channel': self.protocol.channel,
            'crop_border': str(self.protocol.crop_border), 'seed': str(options.seed), 'tile': str(options.tile),
            'overlap': str(options.overlap), 'metrics': ', '.join(('psnr', 'ssim', *self.metrics.names)),
            **{f'condition {name}': label for name, label in distortions.items()}
        }

    def _results(self) -> Results:
        wanted = {(run, benchmark.name, condition, name)
                  for run in (INPUT, *self.plan.runs) for benchmark in self.sets for condition in self.plan.conditions
                  for name in self._names(benchmark)}
        order = {name: k for k, name in enumerate([INPUT, *self.plan.runs, *(one.name for one in self.sets),
                                                   *self.plan.conditions])}
        scores = sorted((score for key, score in self.store.scores.items() if key in wanted),
                        key=lambda s: (order[s.run], order[s.dataset], order[s.condition], s.image))
        remarks = {one.name: one.remark if one.has_gt else
                   'no public clean images: submissions for its server are in dnd/RUN_…/bundled' for one in self.sets}
        pictures = [self.pictures.picture(one.name, condition, name) for one in self.sets
                    for condition in self.plan.conditions for name in self._names(one)
                    if one.has_gt and self._is_pictured(one, condition, name)]
        options = self.plan.options
        return Results(
            protocol=self.protocol, runs=self.networks.runs, baseline=self.plan.baseline, scores=scores,
            skipped=self.skipped, remarks={name: text for name, text in remarks.items() if text},
            pictures=[picture for picture in pictures if picture is not None],
            metrics=['psnr', 'ssim', *self.metrics.names], lower_is_better=self.metrics.lower_is_better,
            seed=options.seed, limit=options.limit,
            settings={'tile': f'{options.tile} px, overlap {options.overlap} px' if options.tile else 'none'})


def _open_sets(plan: Plan) -> tuple[list[BenchmarkSet], list[Skipped]]:
    sets, skipped = [], []
    pairs = {condition.distortion is None for condition in plan.protocol.conditions}
    if len(pairs) > 1:
        raise OptionError('protocol.conditions: some have a distortion and some take the pairs of the sets; allowed: '
                          'all of one kind')
    for name in plan.protocol.datasets:
        try:
            sets.append(open_benchmark(name, plan.data, plan.protocol.scale, pairs == {True}))
        except DataError as error:  # it is not there, or damaged
            skipped.append(Skipped(dataset=name, reason=str(error).removeprefix(f'{name}: ')))
    if not sets:
        raise DataError(f'--data: none of the test sets can be read in {plan.data}: '
                        f'{"; ".join(f"{one.dataset}: {one.reason}" for one in skipped)}')
    return sets, skipped


def _spread(names: Sequence[str], count: int) -> set[str]:
    """Names evenly spaced over the set."""
    count = min(count, len(names))
    return {names[(2 * k + 1) * len(names) // (2 * count)] for k in range(count)}
