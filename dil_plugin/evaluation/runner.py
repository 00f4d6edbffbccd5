"""Runs networks over the test sets of a protocol and scores every image."""

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.benchmark_sets import BenchmarkSet, DndSubmission, MissingSet, open_benchmark
from dil_plugin.evaluation.inputs import DistortedImage, DistortedSet, Image, enlarged, to_image, write_input
from dil_plugin.evaluation.metrics import PyiqaMetrics, psnr_ssim
from dil_plugin.evaluation.networks import RestorationNetwork, load_network
from dil_plugin.evaluation.output_files import file_stem
from dil_plugin.evaluation.pictures import PictureFolder
from dil_plugin.evaluation.prefetch import prefetched
from dil_plugin.evaluation.reproduce_options import Plan
from dil_plugin.evaluation.results import INPUT, Results, Run, Score, Skipped
from dil_plugin.evaluation.score_store import ScoreStore
from dil_plugin.evaluation.tiling import restore_tiled


class _Task(NamedTuple):
    """One set under one condition, for one run."""

    run: str
    inputs: DistortedSet
    condition: str
    names: list[str]


class Evaluation:
    """All runs of a plan on all sets and conditions.

    Order: run by run (``input`` first), so that one network is on the device at a time. Scores already in
    ``OUTPUT/scores.jsonl`` are not computed again. An image that cannot be read is a failure of its own and does not
    stop the rest; neither does a set that is not there.

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
        self.runs = [self._describe(name, path) for name, path in plan.runs.items()]
        self.pictures = PictureFolder(plan.output, [INPUT, *plan.runs])
        self.store = ScoreStore(plan.output / 'scores.jsonl', self._settings(),
                                {INPUT: INPUT, **{run.name: f'{run.sha256} {run.param_key}' for run in self.runs}},
                                plan.options.overwrite)
        if plan.options.overwrite:
            for name in ('images', 'inputs', 'dnd'):
                shutil.rmtree(plan.output / name, ignore_errors=True)
        # several large images at once do not stay in a CPU's caches
        self._batch = plan.options.batch or (8 if plan.device.startswith('cuda') else 1)
        self._pool = ThreadPoolExecutor(max(1, min(8, (os.cpu_count() or 2))))

    def evaluate(self) -> Results:
        """Computes what is missing; shows a progress bar.

        Raises:
            DataError: The output cannot be written, or the GPU's memory does not suffice.
        """
        tasks = list(self._tasks())
        todo = sum(len(task.names) for task in tasks)
        total = sum(len(self._names(one)) for one in self.sets) * len(self.plan.conditions) * (1 + len(self.runs))
        with self.store, tqdm(total=total, initial=total - todo, unit='image', dynamic_ncols=True,
                              disable=todo == 0) as bar:
            for run in (INPUT, *self.plan.runs):
                of_run = [task for task in tasks if task.run == run]
                network = self._load(run, self.plan.device) if of_run and run != INPUT else None
                for task in of_run:
                    bar.set_description(f'{run}, {task.inputs.benchmark.name}, {task.condition}')
                    self._run_task(task, network, bar)
        self._bundle()
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
            return run != INPUT and not self._submission(run).has(name)
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
        benchmark, condition = task.inputs.benchmark, task.condition
        for batch in self._batches(task, bar):
            images = self._restore(network, batch)
            for item, image in zip(batch, images, strict=True):
                if item.gt is None:
                    self._submission(task.run).add(item.name, image.clamp(0, 1).permute(1, 2, 0).numpy())
                    bar.update()
                    continue
                restored = to_image(image)
                if self._is_pictured(benchmark, condition, item.name):
                    self.pictures.add(benchmark.name, condition, item.name, task.run, restored, item.gt)
                if network is None and self._saves(benchmark):
                    write_input(item.lq, self._input_path(benchmark, condition, item.name))
                # pyiqa's networks here, on the device; BasicSR's functions in threads, while the network goes on
                extra = self.metrics(restored, item.gt)
                waiting.append(self._pool.submit(self._score, task, item, restored, extra))
            if len(waiting) >= 32:
                self._collect(waiting, bar)
        self._collect(waiting, bar)

    def _collect(self, waiting: list[Future[Score]], bar: 'tqdm[None]') -> None:
        self.store.add([future.result() for future in waiting])
        bar.update(len(waiting))
        waiting.clear()

    def _batches(self, task: _Task, bar: 'tqdm[None]') -> Iterator[list[DistortedImage]]:
        """Images of equal size together; at most four batches wait for company."""
        size = self._batch
        buckets: dict[tuple[int, ...], list[DistortedImage]] = defaultdict(list)
        for name, future in prefetched(task.inputs.load, task.names, self._pool):
            try:
                item = future.result()
            except DataError as error:
                self._fail(task, name, str(error))
                bar.update()
                continue
            bucket = buckets[tuple(item.lq.shape)]
            bucket.append(item)
            if len(bucket) == size:
                yield buckets.pop(tuple(item.lq.shape))
            elif sum(map(len, buckets.values())) >= 4 * size:
                yield buckets.pop(max(buckets, key=lambda shape: len(buckets[shape])))
        yield from buckets.values()

    def _restore(self, network: RestorationNetwork | None, batch: Sequence[DistortedImage]) -> list[Tensor]:
        """``(3, H, W)`` float32 on the CPU for each image."""
        if network is None:
            return [enlarged(item.lq, self.protocol.scale) for item in batch]
        options = self.plan.options
        stacked = torch.stack([item.lq for item in batch]).to(network.device, non_blocking=True)
        try:
            return list(restore_tiled(network, stacked, options.tile, options.overlap).cpu())
        except torch.OutOfMemoryError:
            side = max(stacked.shape[-2:])
            raise DataError(f'--batch {self._batch}, --tile {options.tile}: {len(batch)} images of {side} pixels do '
                            'not fit the memory of the GPU; give a smaller --batch or --tile (not 0)') from None

    def _score(self, task: _Task, item: DistortedImage, restored: Image, extra: dict[str, float | None]) -> Score:
        assert item.gt is not None
        values = psnr_ssim(restored, item.gt, self.protocol.channel, self.protocol.crop_border)
        return Score(run=task.run, dataset=task.inputs.benchmark.name, condition=task.condition, image=item.name,
                     metrics={**values, **extra})

    def _fail(self, task: _Task, name: str, error: str) -> None:
        self.store.add([Score(run=task.run, dataset=task.inputs.benchmark.name, condition=task.condition, image=name,
                              error=error)])

    # Networks

    def _describe(self, name: str, path: Path) -> Run:
        network = self._load(name, 'cpu')
        notes = network.notes
        if network.scale != self.protocol.scale:
            raise OptionError(f'--run {name}={path}: the network enlarges by {network.scale}, but the table '
                              f'{self.protocol.name} is of scale {self.protocol.scale}')
        if network.channels != 3:
            raise OptionError(f'--run {name}={path}: the network takes {network.channels} channels; the test sets have '
                              '3')
        return Run(name=name, checkpoint=str(path), sha256=_sha256(path), network=network.name,
                   parameters=network.parameters, param_key=network.param_key,
                   iteration=notes.iteration if notes else None, trained_on=notes.confounders if notes else [],
                   variant=notes.variant if notes else None)

    def _load(self, name: str, device: str) -> RestorationNetwork:
        options = self.plan.options
        return load_network(self.plan.runs[name], Path(options.opt) if options.opt else None, options.param_key, device)

    # What comes out

    def _submission(self, run: str) -> DndSubmission:
        # crops are not scored, so nothing but the folder's name keeps those of another checkpoint or tile apart
        settings = f'{self.store.identities[run]} {self.plan.options.tile} {self.plan.options.overlap}'
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        return DndSubmission(self.plan.output / 'dnd' / f'{file_stem(run)}_{digest}')

    def _bundle(self) -> None:
        """The submissions for DND's server, where all crops are there."""
        for run in self.plan.runs if not all(benchmark.has_gt for benchmark in self.sets) else ():
            if not self._submission(run).missing:
                self._submission(run).bundle()

    def _settings(self) -> dict[str, str]:
        """What scores depend on, beside the checkpoints."""
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
        remarks = {one.name: one.remark for one in self.sets if one.remark}
        for one in self.sets:
            if not one.has_gt:
                remarks[one.name] = 'no public clean images: submissions for its server are in dnd/RUN_…/bundled'
        pictures = [self.pictures.picture(one.name, condition, name) for one in self.sets
                    for condition in self.plan.conditions for name in self._names(one)
                    if one.has_gt and self._is_pictured(one, condition, name)]
        return Results(
            protocol=self.protocol, runs=self.runs, baseline=self.plan.baseline, scores=scores, skipped=self.skipped,
            remarks=remarks, pictures=[picture for picture in pictures if picture is not None],
            metrics=['psnr', 'ssim', *self.metrics.names], lower_is_better=self.metrics.lower_is_better,
            seed=self.plan.options.seed, limit=self.plan.options.limit, settings=self._record())

    def _record(self) -> dict[str, str]:
        import dil_plugin
        options = self.plan.options
        device = torch.cuda.get_device_name(self.plan.device) if self.plan.device.startswith('cuda') else 'CPU'
        return {'device': device, 'torch': str(torch.__version__), 'dil_plugin': dil_plugin.__version__,
                'tile': f'{options.tile} px, overlap {options.overlap} px' if options.tile else 'none'}


def _open_sets(plan: Plan) -> tuple[list[BenchmarkSet], list[Skipped]]:
    sets, skipped = [], []
    pairs = {condition.distortion is None for condition in plan.protocol.conditions}
    if len(pairs) > 1:
        raise OptionError('protocol.conditions: some have a distortion and some take the pairs of the sets; allowed: '
                          'all of one kind')
    for name in plan.protocol.datasets:
        try:
            sets.append(open_benchmark(name, plan.data, plan.protocol.scale, pairs == {True}))
        except MissingSet as error:
            skipped.append(Skipped(dataset=name, reason=str(error)))
    if not sets:
        raise DataError(f'--data: none of the test sets is in {plan.data}: '
                        f'{"; ".join(one.reason for one in skipped)}')
    return sets, skipped


def _spread(names: Sequence[str], count: int) -> set[str]:
    """Names evenly spaced over the set."""
    count = min(count, len(names))
    return {names[(2 * k + 1) * len(names) // (2 * count)] for k in range(count)}


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') \
            else hashlib.sha256(file.read()).hexdigest()
