"""The files under options/: they parse, belong together and train as they stand; docs/reproduce.md says what is so."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import dil_plugin.basicsr  # noqa: F401

# isort: split
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.utils.options import parse_options

from dil_plugin.basicsr.checks.moving_average import warn_of_the_start
from dil_plugin.data_preparation import CutSettings, prepare_data
from dil_plugin.distortions import parse_distortions
from dil_plugin.evaluation.benchmark_sets.catalogue import CATALOGUE
from dil_plugin.evaluation.protocols import load_protocol, parse_protocol, table_names
from dil_plugin.evaluation.published import published_numbers
from dil_plugin.evaluation.reproduce_options import ReproduceOptions, make_plan, read_options
from dil_plugin.options import convert

ROOT = Path(__file__).parents[1]
TRAIN = sorted((ROOT / 'options').glob('*.yml')) + sorted((ROOT / 'options/train').glob('*.yml'))
BENCHMARK = sorted((ROOT / 'options/benchmark').glob('*.yml'))
DOCUMENT = (ROOT / 'docs/reproduce.md').read_text()
STEM = re.compile(r'(?P<task>.+)_(?P<variant>erm|sf|pf|ss|ps)')
DIL = [path for path in TRAIN if not path.stem.endswith('_erm')]
CHECKPOINT = re.compile(r'experiments/(?P<name>\w+)/models/net_g_latest\.pth')

TINY = {'num_feat': 6, 'num_block': 1, 'num_grow_ch': 3, 'embed_dim': 12, 'depths': [2], 'num_heads': [2]}
"""What makes each kind of network tiny."""

RUN = ['DIL_RealSR', 'DIL_RealSR_small', 'train/denoising_sf', 'train/deblurring_sf', 'train/hybrid_ps',
       'train/realsr_sf', 'train/augmentation_D2_erm', 'train/real_denoising_ps', 'train/deraining_ps',
       'train/backbones_SwinIR_sf', 'train/realsr_small_sf', 'train/realsr_SwinIR_ps', 'train/realsr_finetune_erm']
TWELVE = ['DIL_RealSR', 'realsr_sf', 'augmentation_D2_sf', 'realsr_finetune_ps']
"""Files whose steps have Real-ESRNet's 12 patches."""


def baseline(path: Path) -> Path:
    """The file of ERM that a file of DIL stands beside."""
    task = path.stem.replace('DIL_RealSR', 'realsr') if path.parent.name == 'options' else path.stem.rpartition('_')[0]
    return ROOT / f'options/train/{task}_erm.yml'


def stem(path: Path) -> str:
    return path.stem


@functools.cache
def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def without(options: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A copy that lacks ``keys``, each as in ``train/dil``."""
    options = yaml.safe_load(yaml.safe_dump(options))
    for key in keys:
        *path, last = key.split('/')
        functools.reduce(lambda block, name: block[name], path, options).pop(last)
    return options


def variant(path: Path) -> str:
    return read(path)['train']['dil']['variant']


def confounders(path: Path) -> int:
    options = read(path)
    return len(parse_distortions(options['distortions']) if 'distortions' in options
               else options['datasets']['train']['confounders'])


def step_batch(path: Path) -> int:
    """Patches in one inner step (ERM: in one plain step)."""
    dil, size = read(path)['train']['dil'], read(path)['datasets']['train']['batch_size_per_gpu']
    if dil.get('patches', 'same') == 'same':
        return size
    return size // (confounders(path) + (dil['variant'] in ('pf', 'ss', 'ps')))


# Data as the files' headers lay them out, tiny.

def picture(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """A smooth picture with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image += rng.integers(-8, 9, image.shape, dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    return path


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with all data sets that the files name."""
    root = tmp_path_factory.mktemp('world')
    data = root / 'datasets'
    for size, names in ((256, ['datasets/DF2K_sub256.lmdb', 'datasets/train.lmdb', 'demo/train.lmdb']),
                        (400, ['datasets/DF2K_sub400.lmdb', 'datasets/train_sub160.lmdb'])):
        for k in range(2):
            picture(root / f'source{size}/{k}.png', size, size, k)
        for name in names:
            (root / name).parent.mkdir(exist_ok=True)
            prepare_data(root / f'source{size}', root / name, CutSettings(), workers=1)
    picture(data / 'CBSD68/101085.png', 82, 91)
    for k in (1, 2):
        picture(data / f'Nam/noisy/{k:02}_noise.png', 40, 48, k)
        picture(data / f'Nam/gt/{k:02}_gt.png', 40, 48, k)
        for side, scale in (('HR', 4), ('LR', 1)):
            picture(root / f'pairs_{side}/Canon_{k:03}.png', 20 * scale, 24 * scale, k)
        for name in ('Rain100L', 'Rain12'):
            for side in ('input', 'target'):
                picture(data / f'{name}/{side}/{k}.png', 40, 48, k)
    picture(data / 'DID-MDN/train/Rain_Heavy/train2018new/1.jpg', 72, 144)
    picture(data / 'Rain14000/training/rainy_image/9_1.jpg', 72, 72)
    picture(data / 'Rain14000/training/ground_truth/9.jpg', 72, 72)
    picture(data / 'HeavyRain/train/in/im_0001_s80_a05.png', 72, 72)
    picture(data / 'HeavyRain/train/gt/im_0001.png', 72, 72)
    for name in ('RealSR_V3', 'DRealSR'):
        for side in ('HR', 'LR'):
            prepare_data(root / f'pairs_{side}', data / f'{name}_test_x4_{side}.lmdb', CutSettings(), workers=1)
    options = without(read(ROOT / 'options/train/realsr_finetune_erm.yml'))
    checkpoint = root / options['path']['pretrain_network_g']
    checkpoint.parent.mkdir(parents=True)
    of_zeros = {name: torch.zeros(1).expand(value.shape) for name, value in network_state(options).items()}
    torch.save({options['path']['param_key_g']: of_zeros}, checkpoint)
    return root


def network_state(options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The parameters that a network of the options has, without memory for them."""
    with torch.device('meta'):
        return build_network(dict(options['network_g'])).state_dict()


@pytest.fixture
def parsed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The options of a file as the training pipeline gets them, checked, with the project's folder at ``world``."""
    monkeypatch.chdir(world)

    def parse(path: Path) -> dict[str, Any]:
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(path), '--force_yml', 'num_gpu=0'])
        return parse_options(str(tmp_path), True)[0]

    return parse


# Training files, one by one.

@pytest.mark.parametrize('path', TRAIN, ids=stem)
def test_an_average_of_the_weights_forgets_its_start(path, capsys):
    warn_of_the_start(read(path))
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('path', TRAIN, ids=stem)
def test_train_file_passes_all_checks_and_its_data_sets_open(path: Path, parsed):
    options = parsed(path)
    for dataset in options['datasets'].values():
        assert len(build_dataset(dataset)) > 0
    assert options['name'].removesuffix('_RRDB') == path.stem
    assert variant(path) == ('ps' if path.parent.name == 'options' else path.stem.rpartition('_')[2])


@pytest.mark.parametrize('path', TRAIN, ids=stem)
def test_header_tells_how_to_run_this_very_file(path: Path):
    """And the packing command writes the LMDB that the file reads, of sub-images that hold a training patch."""
    header = path.read_text().split('\n\n')[0]
    commands = re.findall(r'tools/train.py -opt (\S+)', header)
    assert commands
    assert set(commands) == {path.relative_to(ROOT).as_posix()}
    train = read(path)['datasets']['train']
    for target, size in re.findall(r'tools/prepare_data.py .*-o (\S+)(?: --size (\d+))?', header):
        assert target == train['dataroot_gt']
        assert not size or int(size) >= train['gt_size']


@functools.cache
def built(block: str) -> torch.nn.Module:
    return build_network(yaml.safe_load(block)).eval().requires_grad_(False)


@pytest.mark.parametrize('path', TRAIN, ids=stem)
def test_network_is_of_the_files_scale(path: Path):
    options = read(path)
    network = built(yaml.safe_dump(options['network_g'], sort_keys=True))
    with torch.no_grad():
        restored = network(torch.zeros(1, 3, 8, 16))
    assert restored.shape == (1, 3, 8 * options['scale'], 16 * options['scale'])


@pytest.mark.parametrize(('name', 'millions'), [('denoising_erm', 16.62), ('realsr_erm', 16.70),
                                                ('backbones_SwinIR_erm', 11.50)])
def test_networks_are_of_the_published_size(name: str, millions: float):
    """RRDB x4 of ESRGAN, the same without its two up-sampling convolutions of 64 features, SwinIR's colour denoiser."""
    block = read(ROOT / f'options/train/{name}.yml')['network_g']
    parameters = sum(p.numel() for p in built(yaml.safe_dump(block, sort_keys=True)).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.005)


# Training files beside each other.

@pytest.mark.parametrize('path', DIL, ids=stem)
def test_dil_differs_from_its_baseline_in_the_method_alone(path: Path):
    """The batch is compared in the test below; ``ps`` is shorter for its greater cost, and its schedule scaled."""
    allowed = ['name', 'train/dil', 'datasets/train/batch_size_per_gpu']
    one, other = read(path), read(baseline(path))
    if path.stem == 'denoising_small_ps':
        allowed += ['train/total_iter', 'train/scheduler/periods']
    elif same_gradients(path):
        allowed += ['train/total_iter', 'train/scheduler/milestones']
        factor = one['train']['total_iter'] / other['train']['total_iter']
        assert one['train']['scheduler']['milestones'] == [round(factor * iteration)
                                                           for iteration in other['train']['scheduler']['milestones']]
    assert without(one, *allowed) == without(other, *allowed)


def same_gradients(path: Path) -> bool:
    """Whether the file is one of ``ps`` that has as many image gradients as its baseline, not as many iterations."""
    return variant(path) == 'ps' and 'realsr' in path.stem.lower()


@pytest.mark.parametrize('path', [path for path in DIL if same_gradients(path) or variant(path) == 'sf'], ids=stem)
def test_as_many_image_gradients_as_the_baseline(path: Path):
    """A step of ``ps`` takes those of n confounders and the query; ``sf`` and ERM n."""
    def gradients(file: Path) -> int:
        return read(file)['train']['total_iter'] * (confounders(file) + (variant(file) == 'ps'))
    assert gradients(path) == gradients(baseline(path))


@pytest.mark.parametrize('path', DIL, ids=stem)
def test_inner_steps_are_as_large_as_the_baselines_steps(path: Path):
    """With as many steps as confounders, ERM so has as many image gradients as ``sf``."""
    size = 4 if path.stem.startswith('demo') else 12 if path.stem in TWELVE else 8
    assert step_batch(path) == step_batch(baseline(path)) == size
    assert 'erm_steps' not in read(baseline(path))['train']['dil']


def test_files_of_a_pair_of_tables_differ_as_the_tables_do():
    """D1 and D2 in the order of the degradation; SwinIR and RRDB in the network."""
    changing = ['name', 'distortions']
    for one in ('erm', 'sf'):
        first, second = (read(ROOT / f'options/train/{name}_{one}.yml') for name in ('realsr', 'augmentation_D2'))
        assert without(first, *changing) == without(second, *changing)
        assert [block['distortions'][0]['order'] for block in (first, second)] == [1, 2]
        rrdb, swinir = (read(ROOT / f'options/train/{name}_{one}.yml') for name in ('denoising', 'backbones_SwinIR'))
        assert without(rrdb, 'name', 'network_g') == without(swinir, 'name', 'network_g')


@pytest.mark.parametrize(('name', 'block', 'expected'), [
    ('DIL_RealSR', 'val_1', [('Canon_001', 'Canon_001'), ('Canon_002', 'Canon_002')]),
    ('DIL_RealSR_small', 'val_2', [('Canon_001', 'Canon_001'), ('Canon_002', 'Canon_002')]),
    ('train/real_denoising_erm', 'val_2', [('01_noise.png', '01_gt.png'), ('02_noise.png', '02_gt.png')]),
])
def test_validation_pairs_are_found_by_their_names(name: str, block: str, expected: list[tuple[str, str]], parsed):
    dataset = build_dataset(parsed(ROOT / f'options/{name}.yml')['datasets'][block])
    found = [(Path(sample['lq_path']).name, Path(sample['gt_path']).name) for sample in dataset]
    assert sorted(found) == expected


# Two iterations, and one validation.

@pytest.mark.parametrize('name', RUN)
def test_train_file_runs_two_iterations(name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import basicsr.utils.logger
    from basicsr.train import train_pipeline
    options = without(read(ROOT / f'options/{name}.yml'))
    options['num_gpu'] = 0
    options['network_g'].update({key: value for key, value in TINY.items() if key in options['network_g']})
    if options['path'].get('pretrain_network_g'):
        options['path']['pretrain_network_g'] = str(tmp_path / 'tiny.pth')
        torch.save({options['path']['param_key_g']: build_network(dict(options['network_g'])).state_dict()},
                   tmp_path / 'tiny.pth')
    train = options['datasets']['train']
    train.update(gt_size=32, num_worker_per_gpu=0, pin_memory=False,
                 batch_size_per_gpu=4 if options['train']['dil'].get('patches') == 'fresh' else 1)
    if 'crop_pad_size' in train:
        train['crop_pad_size'] = 76  # which the second order needs
        options['queue_size'] = 1
    options['train'].update(total_iter=2)
    options['logger'].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False, pbar=False)
    if 'val' in options:
        options['val']['val_freq'] = 2
    file = tmp_path / 'options.yml'
    file.write_text(yaml.safe_dump(options))
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, 'argv', ['train', '-opt', str(file)])
    basicsr.utils.logger.initialized_logger.clear()
    train_pipeline(str(tmp_path))
    experiment = tmp_path / 'experiments' / options['name']
    weights = torch.load(experiment / 'models/net_g_latest.pth', weights_only=True)['params']
    assert all(value.isfinite().all() for value in weights.values())
    moments, = torch.load(experiment / 'training_states/2.state', weights_only=True)['optimizers']
    plain = options['train']['dil']['variant'] == 'erm'
    for moment in moments['state'].values():  # of Adam, one for every parameter
        assert moment['step'] == 2 * (confounders(ROOT / f'options/{name}.yml') if plain else 1)
        assert moment['exp_avg'].any()
    log, = experiment.glob('train_*.log')
    text = log.read_text()
    assert 'Multiple validation datasets' not in text  # BasicSR's warning, which is not true of DILModel
    for dataset in list(options['datasets'].values())[1:]:
        assert re.search(rf'Validation {re.escape(dataset["name"])}\s+# psnr: \d+\.\d+', text), dataset['name']


# Benchmark files.

@functools.cache
def train_files() -> dict[str, Path]:
    return {read(path)['name']: path for path in TRAIN}


def trained_by(checkpoint: str) -> Path:
    match = CHECKPOINT.fullmatch(checkpoint)
    assert match is not None
    return train_files()[match['name']]


def test_every_table_has_a_benchmark_file():
    assert [name for name in table_names() if name not in {path.stem for path in BENCHMARK}] == []


def test_full_size_training_files_all_stand_in_a_benchmark_file():
    used = {trained_by(checkpoint) for path in BENCHMARK for checkpoint in read(path)['runs'].values()}
    assert [path.stem for path in TRAIN if path not in used and not path.stem.startswith('demo')] == []


@pytest.mark.parametrize('path', BENCHMARK, ids=stem)
def test_benchmark_file_names_a_table_its_sets_and_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw = read(path)
    assert path.stem == raw['table'] or path.stem.startswith(f'{raw["table"]}_')
    assert raw['output'] == f'results/{path.stem}'
    assert f'python tools/reproduce.py -opt options/benchmark/{path.name}' in path.read_text()
    for name in ['datasets', *raw['runs'].values()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch() if name.endswith('.pth') else (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    plan = make_plan(read_options(path, {}))
    published = load_protocol(raw['table'])
    assert set(plan.protocol.datasets) <= set(published.datasets)
    assert plan.baseline.rpartition('/')[2] == 'ERM'
    assert path.stem.endswith('_small') or plan.protocol == published


@pytest.mark.parametrize('path', BENCHMARK, ids=stem)
def test_names_of_runs_say_how_they_were_trained(path: Path):
    """A method is one that the paper's table has, ``DIL`` with the variant that was trained; a group likewise."""
    raw = read(path)
    printed = {number.method for number in published_numbers(raw['table'])}
    for name, checkpoint in raw['runs'].items():
        group, _, method = name.rpartition('/')
        file = trained_by(checkpoint)
        assert method == ('ERM' if variant(file) == 'erm' else f'DIL_{variant(file)}')
        assert method in printed or (method.startswith('DIL_') and 'DIL' in printed)
        options = read(file)
        if raw['table'] == 'augmentation':
            assert group == f'D{options["distortions"][0]["order"]}'
        elif raw['table'] == 'backbones':
            assert options['network_g']['type'].startswith(group)
        else:
            assert group == ''


@pytest.mark.parametrize('path', BENCHMARK, ids=stem)
def test_conditions_are_seen_or_unseen_as_the_protocol_says(path: Path):
    raw = read(path)
    protocol = load_protocol(raw['table'])
    for checkpoint in raw['runs'].values():
        options = read(trained_by(checkpoint))
        assert options['scale'] == protocol.scale
        trained = list(parse_distortions(options['distortions'])) if 'distortions' in options else []
        tested = [(condition.seen, protocol.distortion(condition)) for condition in protocol.conditions]
        assert [made for seen, made in tested if not seen and made in trained] == []
        if protocol.degree is not None:
            assert [made for seen, made in tested if seen] == trained


def test_the_papers_tasks_are_measured_on_the_channel_that_validation_shows():
    for path in BENCHMARK:
        raw = read(path)
        for checkpoint in raw['runs'].values():
            for metric in read(trained_by(checkpoint)).get('val', {}).get('metrics', {}).values():
                assert metric['test_y_channel'] == (load_protocol(raw['table']).channel == 'Y'), path.stem


# docs/reproduce.md

def test_document_trains_what_each_benchmark_file_needs():
    """Each table's block of commands: the trainings of its loop are those that the benchmark file names."""
    blocks = re.findall(r'```bash\n((?:(?!```).)*)```', DOCUMENT, flags=re.DOTALL)
    found = {}
    for block in blocks:
        loop = re.search(r'for v in (.+); do', block)
        benchmark = re.search(r'-opt (options/benchmark/\w+\.yml)', block)
        if loop and benchmark:
            found[benchmark[1]] = {ROOT / name.replace('$v', v) for v in loop[1].split()
                                   for name in re.findall(r'tools/train.py -opt (options/\S+)', block)}
    assert found == {f'options/benchmark/{name}.yml': {trained_by(checkpoint) for checkpoint in
                                                       read(ROOT / f'options/benchmark/{name}.yml')['runs'].values()}
                     for name in table_names()}


def test_document_tells_all_options_of_the_tool_and_no_others():
    text = subprocess.run([sys.executable, str(ROOT / 'tools/reproduce.py'), '--help'], capture_output=True, text=True,
                          check=True).stdout
    rows = re.findall(r'^\| `(-[\w-]+)[^`]*` \| (?:`(\w+)` )?\|', DOCUMENT, flags=re.MULTILINE)
    assert {flag for flag, _ in rows} == set(re.findall(r'^  (--?\w[\w-]*)', text, flags=re.MULTILINE)) - {'-h'}
    assert {name for _, name in rows if name} == set(ReproduceOptions.__struct_fields__) - {'protocol'}


def test_document_tells_where_every_test_set_lies():
    rows = re.findall(r'^\| ([\w ,]+) \| ([\d, ]*)\| `', DOCUMENT, flags=re.MULTILINE)
    told = {name: number for names, numbers in rows
            for name, number in zip(names.split(', '), numbers.strip().split(', '), strict=True)}
    protocols = [load_protocol(table) for table in table_names()]
    assert told == {name: str(CATALOGUE[name].published.get(protocol.scale, ''))
                    for protocol in protocols for name in protocol.datasets}


def test_documents_own_protocol_is_valid():
    block, = re.findall(r'```yaml\n((?:(?!```).)*)```', DOCUMENT, flags=re.DOTALL)
    options = convert(yaml.safe_load(block), ReproduceOptions, 'docs')
    assert options.table is None
    protocol = parse_protocol(options.protocol)
    assert [condition.seen for condition in protocol.conditions] == [True, False, False]
