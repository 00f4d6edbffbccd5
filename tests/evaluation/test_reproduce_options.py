"""The options of an evaluation: file and command line together, and what is refused."""

import pytest
import torch
import yaml

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.protocols import load_protocol, table_names
from dil_plugin.evaluation.reproduce_options import make_plan, read_options


@pytest.fixture
def raw(data, save_network):
    return {'table': 'denoising', 'data': str(data), 'runs': {'ERM': str(save_network('erm.pth')),
                                                              'DIL_sf': str(save_network('sf.pth', seed=1))}}


def test_the_command_line_replaces_the_file(raw, tmp_path):
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({**raw, 'seed': 4, 'tile': 100, 'output': 'there'}))
    options = read_options(tmp_path / 'own.yml', {'seed': 5})
    assert (options.seed, options.tile, options.output) == (5, 100, 'there')
    own = {'protocol': {'name': 'x', 'title': 'x', 'datasets': ['Set5'], 'conditions': [{'name': 'a'}]}}
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({**{k: v for k, v in raw.items() if k != 'table'}, **own}))
    assert read_options(tmp_path / 'own.yml', {'table': 'hybrid'}).protocol is None


def test_defaults(raw):
    plan = make_plan(read_options(None, raw))
    assert plan.output.as_posix() == 'results/denoising'
    assert plan.baseline == 'ERM'
    assert plan.conditions == ['5', '10', '15', '20', '30', '40', '50']
    assert plan.protocol == load_protocol('denoising')
    assert plan.device == ('cuda' if torch.cuda.is_available() else 'cpu')


def test_what_is_asked_for_is_in_the_plan(raw):
    plan = make_plan(read_options(None, {**raw, 'datasets': ['Set14', 'Set5'], 'conditions': ['50', '30'],
                                         'channel': 'Y', 'crop_border': 4, 'baseline': 'DIL_sf', 'device': 'cpu'}))
    assert plan.protocol.datasets == ['Set14', 'Set5']
    assert plan.conditions == ['30', '50']
    assert (plan.protocol.channel, plan.protocol.crop_border, plan.baseline) == ('Y', 4, 'DIL_sf')
    assert plan.protocol.notes.startswith('Measured on Y with 4 border pixels left out; the table of the paper is of '
                                          'RGB with 0 border pixels')


@pytest.mark.parametrize('table', table_names())
def test_every_table_has_a_plan(raw, table):
    protocol = load_protocol(table)
    path = raw['runs']['ERM']
    runs = {f'{group}/ERM': path for group in protocol.groups} or {'ERM': path}
    assert make_plan(read_options(None, {**raw, 'table': table, 'runs': runs})).protocol.name == table


@pytest.mark.parametrize(('change', 'message'), [
    ({'table': 'denoise'}, "--table: unknown table 'denoise'; did you mean 'denoising'"),
    ({'table': None}, '--table: missing'),
    ({'datasets': ['CBSD86']}, "--dataset: unknown data set 'CBSD86', .*did you mean 'CBSD68'"),
    ({'datasets': ['RealSR']}, "--dataset: 'RealSR' is called 'RealSR V3' here"),
    ({'datasets': []}, r'--dataset: Expected a list of length >= 1; got \[\]'),
    ({'conditions': ['35']}, "--condition: unknown condition '35'; allowed: 5, 10, 15, 20, 30, 40, 50"),
    ({'baseline': 'DIL'}, "--baseline: there is no run 'DIL'; did you mean 'DIL_sf'"),
    ({'channel': 'y'}, "--channel: got 'y'; allowed: RGB, Y"),
    ({'device': 'gpu'}, "--device: got 'gpu'; allowed: auto, cpu, cuda, cuda:N"),
    ({'device': 'cuda:77'}, "--device: got 'cuda:77', but there are"),
    ({'datasets': ['Set5', 'Set5']}, "--dataset: 'Set5' is given twice"),
    ({'limit': 0}, r'--limit: Expected a whole number >= 1; got 0'),
    ({'batch': 0}, r'--batch: Expected a whole number >= 1; got 0'),
    ({'tile': -1}, r'--tile: Expected a whole number >= 0; got -1'),
    ({'seeds': 3}, "options: unknown option 'seeds'; did you mean 'seed'"),
    ({'runs': {}}, '--run: Expected .*length >= 1'),
    ({'runs': None}, '--run: Expected '),
])
def test_wrong_options(raw, change, message):
    with pytest.raises(OptionError, match=message):
        make_plan(read_options(None, {**raw, **change}))


@pytest.mark.parametrize('missing', ['data', 'runs'])
def test_missing_options(raw, missing):
    del raw[missing]
    with pytest.raises(OptionError, match=f'--{missing[:3]}.*: missing; give it, or -opt FILE with {missing}'):
        read_options(None, raw)


@pytest.mark.parametrize(('name', 'message'), [
    ('input', "'input' is reserved"), ('clean', "'clean' is reserved"), ('', 'cannot name a run'),
    ('../x', 'cannot name a run'), ('a:b', 'cannot name a run'), ('RRDB/ERM', 'has a slash'),
])
def test_names_of_runs(raw, name, message):
    with pytest.raises(OptionError, match=f'--run .*{message}'):
        make_plan(read_options(None, {**raw, 'runs': {name: raw['runs']['ERM']}}))


def test_names_that_share_files(raw):
    path = raw['runs']['ERM']
    with pytest.raises(OptionError, match=r"'my_net' and 'my net' would share their files"):
        make_plan(read_options(None, {**raw, 'runs': {'my net': path, 'my_net': path}}))


def test_conditions_that_share_files(raw):
    del raw['table']
    own = {'name': 'x', 'title': 'x', 'datasets': ['Set5'],
           'conditions': [{'name': name, 'distortion': {'type': 'JPEG', 'quality': 3}} for name in ('a b', 'a_b')]}
    with pytest.raises(OptionError, match="protocol.conditions: 'a_b' and 'a b' would share their files"):
        make_plan(read_options(None, {**raw, 'protocol': own}))


def test_groups(raw):
    path = raw['runs']['ERM']
    with pytest.raises(OptionError, match='divided by RRDB, SwinIR: name the run GROUP/METHOD, as in RRDB/ERM'):
        make_plan(read_options(None, {**raw, 'table': 'backbones'}))
    with pytest.raises(OptionError, match='divided by D1, D2'):
        make_plan(read_options(None, {**raw, 'table': 'augmentation', 'runs': {'RRDB/ERM': path}}))


def test_files_that_are_not_there(raw, tmp_path):
    with pytest.raises(DataError, match=r'--run ERM=/none\.pth: there is no file /none\.pth'):
        make_plan(read_options(None, {**raw, 'runs': {'ERM': '/none.pth'}}))
    with pytest.raises(DataError, match='--data: there is no folder /none'):
        make_plan(read_options(None, {**raw, 'data': '/none'}))
    with pytest.raises(DataError, match=r'-opt: there is no file .*none\.yml'):
        read_options(tmp_path / 'none.yml', {})
    (tmp_path / 'list.yml').write_text('- 1\n')
    with pytest.raises(OptionError, match=r'-opt: .*list\.yml: expected a block of options'):
        read_options(tmp_path / 'list.yml', {})
    (tmp_path / 'bad.yml').write_text('table: [')
    with pytest.raises(OptionError, match=r'-opt: .*bad\.yml is not a YAML file'):
        read_options(tmp_path / 'bad.yml', {})


def test_numbers_name_conditions_too(raw, tmp_path):
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({**raw, 'conditions': [30, '50']}))
    assert make_plan(read_options(tmp_path / 'own.yml', {})).conditions == ['30', '50']
    del raw['table']
    own = {'name': 'x', 'title': 'x', 'datasets': ['Set5'],
           'conditions': [{'name': 4.2, 'distortion': {'type': 'GaussianBlur', 'sigma': 4.2}}]}
    plan = make_plan(read_options(None, {**raw, 'protocol': own, 'conditions': [4.2]}))
    assert plan.conditions == ['4.2']


def test_the_file_is_named_where_it_is_wrong(raw, tmp_path):
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({**raw, 'limit': 0}))
    with pytest.raises(OptionError, match=r'own\.yml\.limit: Expected a whole number >= 1; got 0'):
        read_options(tmp_path / 'own.yml', {'seed': 3})
    (tmp_path / 'own.yml').write_text(yaml.safe_dump({'dta': 'x', 'runs': raw['runs']}))
    with pytest.raises(OptionError, match=r"own\.yml: unknown option 'dta'; did you mean 'data'"):
        read_options(tmp_path / 'own.yml', {})


def test_inputs_of_pairs_are_not_written(raw):
    with pytest.raises(OptionError, match='--save-inputs: realsr takes the distorted images of the sets'):
        make_plan(read_options(None, {**raw, 'table': 'realsr', 'save_inputs': True}))


def test_a_table_and_a_protocol(raw, tmp_path):
    own = {'name': 'x', 'title': 'x', 'datasets': ['Set5'], 'conditions': [{'name': 'a'}]}
    (tmp_path / 'both.yml').write_text(yaml.safe_dump({**raw, 'protocol': own}))
    with pytest.raises(OptionError, match='table, protocol: both are given; allowed: one'):
        make_plan(read_options(tmp_path / 'both.yml', {}))


def test_a_protocol_of_ones_own_is_checked(raw):
    del raw['table']
    own = {'name': 'x', 'title': 'x', 'datasets': ['Set5'],
           'conditions': [{'name': 'a', 'distortion': {'type': 'GaussianNoise', 'sigm': 3}}]}
    with pytest.raises(OptionError, match=r'x\.conditions\[a\]\.distortion\[0\].*did you mean .sigma'):
        make_plan(read_options(None, {**raw, 'protocol': own}))
    own['conditions'] = [{'name': 'a', 'sen': True, 'distortion': {'type': 'GaussianNoise', 'sigma': 3}}]
    with pytest.raises(OptionError, match=r"protocol\.conditions\[0\]: unknown option 'sen'; did you mean 'seen'"):
        make_plan(read_options(None, {**raw, 'protocol': own}))
    own['conditions'] = [{'name': 'a', 'distortion': {'type': 'Downsample', 'scale': 4}}]
    with pytest.raises(OptionError, match='expected one distortion of scale 1, got Downsample.* of scale 4'):
        make_plan(read_options(None, {**raw, 'protocol': own}))
