import csv
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dil_plugin.errors import DataError
from dil_plugin.evaluation.output_files import file_stem, write_text
from dil_plugin.evaluation.published import PAPER
from dil_plugin.evaluation.results import INPUT, Results, Score, Skipped
from dil_plugin.evaluation.summary import summarise
from dil_plugin.evaluation.written_tables import write_csv, write_latex, write_markdown
from dil_plugin.evaluation.written_tables.latex import escaped
from dil_plugin.evaluation.written_tables.layout import metric_decimals, published_differ, table_blocks
from dil_plugin.evaluation.written_tables.markdown import plain

AT_30 = ('CBSD68', '30')
HOSTILE = r'a_b%c&d#e~f\g^h{i}j$k[l]*m*<script>|n'


@pytest.fixture
def two_levels(make_results) -> Results:
    """ERM and DIL_sf on two sets, seen and unseen; DIL_sf is better by 1 to 3 dB at 30, by nothing at 10."""
    rng = np.random.default_rng(0)
    scores: dict[tuple[str, str, str], list[float | None | str]] = {}
    for dataset in ('CBSD68', 'Urban100'):
        for condition, gains in (('10', np.tile([-1, 1], 8)), ('30', np.linspace(1, 3, 16))):
            base = rng.uniform(24, 26, 16)
            scores[INPUT, dataset, condition] = list(base - 5)
            scores['ERM', dataset, condition] = list(base)
            scores['DIL_sf', dataset, condition] = list(base + gains)
    return make_results(scores)


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a Markdown text, cell by cell, the header first; an independent reading."""
    found = []
    for part in re.findall(r'(?:^\|.*\n)+', text, flags=re.MULTILINE):
        lines = [re.split(r'(?<!\\)\|', line.strip())[1:-1] for line in part.strip().split('\n')]
        assert len({len(line) for line in lines}) == 1
        found.append([[cell.strip() for cell in line] for line in (lines[0], *lines[2:])])
    return found


def row(table: list[list[str]], name: str) -> dict[str, str]:
    line, = [line for line in table if line[0] == name]
    return dict(zip(table[0][1:], line[1:], strict=True))


def markdown(results: Results, folder: Path) -> str:
    return write_markdown(results, folder).read_text(encoding='utf-8')


def mean(results: Results, run: str, dataset: str, condition: str, metric: str = 'psnr') -> float:
    values = [score.metrics[metric] for score in results.scores
              if (score.run, score.dataset, score.condition) == (run, dataset, condition)]
    return float(np.mean(values))


class TestMarkdown:

    def test_means_beside_published(self, two_levels: Results, tmp_path: Path) -> None:
        found = tables(markdown(two_levels, tmp_path))
        for number, dataset, published in ((0, 'CBSD68', '24.90 / 0.581'), (2, 'Urban100', '25.46 / 0.648')):
            table = found[number]
            assert table[0] == ['method: PSNR (dB) / SSIM', '10, seen', '30, unseen']
            assert [line[0] for line in table[1:]] == [
                'input', 'ERM', 'ERM, published', 'DIL_sf', 'DIL_sf, published', 'DIL_pf, published',
                'DIL_ss, published', 'DIL_ps, published']
            for run in ('input', 'ERM', 'DIL_sf'):
                for condition, title in (('10', '10, seen'), ('30', '30, unseen')):
                    psnr = mean(two_levels, run, dataset, condition)
                    assert row(table, run)[title] == f'{psnr:.2f} / {psnr / 100:.3f}'
            assert row(table, 'ERM, published') == {'10, seen': '–', '30, unseen': published}

    def test_differences_are_bold_where_significant(self, two_levels: Results, tmp_path: Path) -> None:
        table = tables(markdown(two_levels, tmp_path))[1]
        psnr, ssim = row(table, 'DIL_sf − ERM, PSNR (dB)'), row(table, 'DIL_sf − ERM, SSIM')
        assert len(table) == 3
        assert re.fullmatch(r'\*\*\+2\.00 \[\+1\.\d\d, \+2\.\d\d\]\*\*', psnr['30, unseen'])
        assert re.fullmatch(r'\+0\.00 \[-0\.\d\d, \+0\.\d\d\]', psnr['10, seen'])
        assert ssim['30, unseen'].startswith('**+0.020 [+0.01')

    def test_where_the_published_numbers_are_from(self, two_levels: Results, tmp_path: Path) -> None:
        text = markdown(two_levels, tmp_path)
        assert text.startswith('# Gaussian denoising\n')
        assert f'The published numbers are of Table 1 of {PAPER}' in text
        assert '16 images.' in text
        assert 'too narrow' not in text
        assert 'full set' not in text

    def test_limit_and_remark_stand_right_above_the_table(self, two_levels: Results, tmp_path: Path) -> None:
        results = msgspec.structs.replace(two_levels, limit=16, remarks={'Urban100': 'this copy is a JPEG'})
        text = markdown(results, tmp_path)
        limit = 'Only the first 16 images of the set were measured.'
        full = 'The published numbers are of the full set.'
        assert f'> {limit} {full}\n\n| method' in text
        assert f'> {limit} This copy is a JPEG. {full}\n\n| method' in text

    def test_failures(self, make_results, tmp_path: Path) -> None:
        results = make_results({('ERM', *AT_30): [20.0, 30.0, 40.0],
                                ('DIL_sf', *AT_30): [25.0, 'out of | memory\nat once', 'out of | memory\nat once'],
                                ('mine', *AT_30): ['no'] * 3})
        text = markdown(results, tmp_path)
        table = tables(text)[0]
        assert row(table, 'DIL_sf') == {'30, unseen': '25.00 / 0.250 †'}
        assert row(table, 'mine') == {'30, unseen': '– †'}
        assert row(table, 'ERM') == {'30, unseen': '30.00 / 0.300'}
        assert '0 to 3 images; 3 failed.' in text
        assert '- CBSD68, 30, DIL_sf: 2 images (b, c): out of | memory at once\n' in text
        assert '† Some images failed' in text
        difference = row(tables(text)[1], 'DIL_sf − ERM, PSNR (dB)')['30, unseen']
        assert difference == '+5.00'  # of the one common image, without an interval
        assert 'fewer than 10 images' in text

    def test_infinite_psnr_is_said(self, make_results, tmp_path: Path) -> None:
        text = markdown(make_results({('ERM', *AT_30): [20.0, None]}), tmp_path)
        assert 'ERM at 30: 1' in text
        assert row(tables(text)[0], 'ERM')['30, unseen'] == '20.00 / 0.600'

    def test_many_failures_are_cut_short(self, make_results, tmp_path: Path) -> None:
        text = markdown(make_results({('ERM', *AT_30): [f'error {k}' for k in range(25)]}), tmp_path)
        assert len(re.findall('^- CBSD68, 30, ERM', text, flags=re.MULTILINE)) == 20
        assert 'and 5 more' in text

    def test_how_it_was_measured(self, two_levels: Results, tmp_path: Path) -> None:
        changes = {'iteration': 400000, 'trained_on': ['noise 5', 'noise 10'], 'variant': 'sf',
                   'checkpoint': 'models/net_g.pth', 'param_key': 'params_ema'}
        runs = [msgspec.structs.replace(run, **changes) for run in two_levels.runs]
        results = msgspec.structs.replace(two_levels, runs=runs, seed=17, settings={'device': 'cuda:0'},
                                          skipped=[Skipped(dataset='Manga109', reason='no folder datasets/Manga109')])
        text = markdown(results, tmp_path)
        assert '- Manga109: no folder datasets/Manga109' in text
        for fact in ('channel: RGB', 'border pixels left out: 0', 'seed of the test distortions: 17', 'device: cuda:0',
                     'images per set: all', 'compared with: ERM'):
            assert f'- {fact}\n' in text
        distortions, networks = tables(text)[-2:]
        assert distortions[1:] == [['10', 'seen', '`{type: GaussianNoise, sigma: 10}`'],
                                   ['30', 'unseen', '`{type: GaussianNoise, sigma: 30}`']]
        assert networks[2] == ['DIL_sf', 'RRDBNet', '123456', 'sf', '400000', 'noise 5, noise 10', 'models/net_g.pth',
                               'params_ema', '`0123456789ab`']

    def test_four_decimals_where_the_paper_has_four(self, make_results, tmp_path: Path) -> None:
        text = markdown(make_results({('ERM', 'DRealSR', 'x4'): [29.0]}, 'realsr'), tmp_path)
        table = tables(text)[0]
        assert row(table, 'ERM')['x4, unseen'] == '29.00 / 0.2900'
        assert row(table, 'Real-ESRNet, published')['x4, unseen'] == '28.22 / 0.8470'
        assert 'enlarged 4 times' in text
        assert 'does not print how many border pixels' in text

    def test_other_metrics_have_a_table_of_their_own(self, make_results, tmp_path: Path) -> None:
        results = make_results({('ERM', *AT_30): [20.0], ('DIL_sf', *AT_30): [22.0]})
        scores = [msgspec.structs.replace(score, metrics={**score.metrics, 'lpips': 0.25, 'niqe': None})
                  for score in results.scores]
        results = msgspec.structs.replace(results, scores=scores, metrics=['psnr', 'ssim', 'lpips', 'niqe'],
                                          lower_is_better=['lpips', 'niqe'])
        text = markdown(results, tmp_path)
        table = tables(text)[1]
        assert table == [['method: LPIPS / NIQE', '30, unseen'], ['ERM', '0.2500 / –'], ['DIL_sf', '0.2500 / –']]
        assert 'Lower is better: LPIPS, NIQE.' in text

    def test_groups(self, make_results, tmp_path: Path) -> None:
        results = make_results({(run, *AT_30): [20.0, 21.0] for run in ('SwinIR/ERM', 'RRDB/ERM', 'RRDB/DIL_sf')},
                               'backbones')
        found = tables(markdown(results, tmp_path))
        assert [line[0] for line in found[0][1:]] == [
            'RRDB/ERM', 'RRDB/ERM, published', 'RRDB/DIL_sf', 'RRDB/DIL, published', 'SwinIR/ERM',
            'SwinIR/ERM, published', 'SwinIR/DIL, published']
        assert [line[0] for line in found[1][1:]] == ['RRDB/DIL_sf − RRDB/ERM, PSNR (dB)',
                                                      'RRDB/DIL_sf − RRDB/ERM, SSIM']

    def test_names_cannot_break_it(self, make_results, tmp_path: Path) -> None:
        text = markdown(make_results({(HOSTILE, *AT_30): [20.0]}), tmp_path)
        assert r'\<script>' in text
        assert not re.search(r'(?<!\\)<script', text)
        assert len(tables(text)) == 3

    @pytest.mark.parametrize(('text', 'shown'), [
        ('DIL_sf', 'DIL_sf'), ('_x_', r'\_x\_'), ('a*b', r'a\*b'), ('two\nlines', 'two lines'), ('`c`', r'\`c\`'),
        ('[x](y)', r'\[x\](y)'),
    ])
    def test_plain(self, text: str, shown: str) -> None:
        assert plain(text) == shown


def latex_rows(text: str) -> list[list[list[str]]]:
    """The cells of every tabular; checks that braces, environments and columns fit."""
    bare = re.sub(r'(?<!\\)%.*', '', text)
    depth = 0
    for brace in re.findall(r'(?<!\\)[{}]', bare.replace(r'\\', '')):
        depth += 1 if brace == '{' else -1
        assert depth >= 0
    assert depth == 0
    assert re.findall(r'\\begin\{(\w+)\}', bare) == ['table', 'tabular'] * bare.count(r'\begin{table}')
    assert re.findall(r'\\end\{(\w+)\}', bare) == ['tabular', 'table'] * bare.count(r'\begin{table}')
    found = []
    for columns, body in re.findall(r'\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}', bare, flags=re.DOTALL):
        assert body.startswith('\\toprule\n')
        assert body.endswith('\\bottomrule\n')
        lines = [line for line in body.split('\n') if line and not re.fullmatch(r'\\(top|mid|bottom)rule', line)]
        assert all(line.endswith(r' \\') for line in lines)
        rows = [[cell.strip() for cell in re.split(r'(?<!\\)&', line[:-3])] for line in lines]
        assert {len(cells) for cells in rows} == {len(columns)}
        found.append(rows)
    return found


def printed(text: str) -> str:
    """What LaTeX prints of escaped text; the other way round, for these characters."""
    names = {'textbackslash': '\\', 'textasciitilde': '~', 'textasciicircum': '^', 'textless': '<',
             'textgreater': '>', 'textbar': '|'}
    text = re.sub(r'\\(text\w+)\{\}', lambda match: f'\0{ord(names[match[1]])}\0', text)
    text = re.sub(r'\\([_%&#${}])', lambda match: f'\0{ord(match[1])}\0', text)
    assert '\\' not in text
    return re.sub('\0(\\d+)\0', lambda match: chr(int(match[1])), re.sub('[{}]', '', text))


class TestLatex:

    def latex(self, results: Results, folder: Path) -> str:
        return write_latex(results, folder).read_text(encoding='utf-8')

    def test_the_papers_form(self, two_levels: Results, tmp_path: Path) -> None:
        text = self.latex(two_levels, tmp_path)
        rows, = latex_rows(text)
        assert rows[0] == ['Data set', 'Method', '30']  # 10 is for the curve
        assert [cells[0] for cells in rows[1:] if cells[0]] == ['CBSD68', 'Urban100']
        assert len(rows) == 1 + 2 * 8
        assert text.count(r'\midrule') == 2
        assert [cells[1] for cells in rows[1:4]] == ['input', 'ERM', r'\textcolor{gray}{ERM, published}']
        assert rows[3][2] == r'\textcolor{gray}{(24.90/0.581)}'
        assert rf'Table 1 of {PAPER}' in text

    def test_preamble_is_named(self, two_levels: Results, tmp_path: Path) -> None:
        text = self.latex(two_levels, tmp_path)
        assert [line for line in text.split('\n') if 'usepackage' in line] == [r'% \usepackage{booktabs}',
                                                                             r'% \usepackage{xcolor}']
        assert 'toprule' in text
        assert 'textcolor' in text

    def test_best_method_is_bold(self, make_results, tmp_path: Path) -> None:
        results = make_results({(INPUT, *AT_30): [99.0], ('ERM', *AT_30): [25.0], ('a', *AT_30): [27.001],
                                ('b', *AT_30): [27.0], ('ERM', 'CBSD68', '40'): [22.0], ('a', 'CBSD68', '40'): [21.0]})
        rows, = latex_rows(self.latex(results, tmp_path))
        cells = {line[1]: line[2:] for line in rows}
        assert cells['input'] == ['99.00/0.990', '--']
        assert cells['ERM'] == ['25.00/0.250', r'\textbf{22.00}/\textbf{0.220}']
        assert cells['a'] == [r'\textbf{27.00}/\textbf{0.270}', '21.00/0.210']
        assert cells['b'] == [r'\textbf{27.00}/\textbf{0.270}', '--']  # prints the same

    def test_one_run_is_not_bold(self, make_results, tmp_path: Path) -> None:
        assert 'textbf' not in self.latex(make_results({('ERM', *AT_30): [25.0]}), tmp_path)

    def test_best_of_each_group(self, make_results, tmp_path: Path) -> None:
        values = {'RRDB/ERM': 20.0, 'RRDB/DIL': 21.0, 'SwinIR/ERM': 31.0, 'SwinIR/DIL': 30.0}
        results = make_results({(run, *AT_30): [value] for run, value in values.items()}, 'backbones')
        rows, = latex_rows(self.latex(results, tmp_path))
        assert {cells[1] for cells in rows if 'textbf' in cells[2]} == {'RRDB/DIL', 'SwinIR/ERM'}

    def test_lower_is_better(self, make_results, tmp_path: Path) -> None:
        results = make_results({('ERM', *AT_30): [0.5], ('a', *AT_30): [0.4]})
        scores = [msgspec.structs.replace(score, metrics={'psnr': 20.0, 'lpips': score.metrics['psnr']})
                  for score in results.scores]
        results = msgspec.structs.replace(results, scores=scores, metrics=['psnr', 'lpips'], lower_is_better=['lpips'])
        text = self.latex(results, tmp_path)
        _, more = latex_rows(text)
        assert [cells[1:] for cells in more[1:]] == [['ERM', '0.5000'], ['a', r'\textbf{0.4000}']]
        assert 'LPIPS, lower is better' in text
        assert len(set(re.findall(r'\\label\{(.*?)\}', text))) == 2

    def test_failed_images(self, make_results, tmp_path: Path) -> None:
        text = self.latex(make_results({('ERM', *AT_30): [25.0, 'broken']}), tmp_path)
        assert latex_rows(text)[0][1][2] == r'25.00/0.250$^\dagger$'
        assert r'$^\dagger$Some images failed' in text

    def test_limit_and_remarks_are_in_the_caption(self, two_levels: Results, tmp_path: Path) -> None:
        results = msgspec.structs.replace(two_levels, remarks={'CBSD68': '100% JPEG'})
        caption, = re.findall(r'\\caption\{(.*)\}', self.latex(results, tmp_path))
        assert r'CBSD68: 100\% JPEG. The published numbers are of the full set.' in caption
        assert 'Urban100:' not in caption

    def test_seen_is_said_where_both_are_in_the_table(self, make_results, tmp_path: Path) -> None:
        results = make_results({('ERM', 'BSD100', name): [25.0] for name in ('mild', 'moderate', 'severe')}, 'hybrid')
        rows, = latex_rows(self.latex(results, tmp_path))
        assert rows[0][2:] == ['mild', 'moderate', 'severe (seen)']

    def test_levels_of_the_curve_where_no_other_was_measured(self, make_results, tmp_path: Path) -> None:
        rows, = latex_rows(self.latex(make_results({('ERM', 'CBSD68', '5'): [25.0]}), tmp_path))
        assert rows[0][2:] == ['5']

    @pytest.mark.parametrize('text', [HOSTILE, *HOSTILE, r'\\', '{}', r'\{', 'DIL_sf', '[0]'])
    def test_escaped(self, text: str) -> None:
        assert printed(escaped(text)) == text

    def test_a_bracket_cannot_follow_a_command(self) -> None:
        r"""``\midrule[x]`` and ``\\[x]`` would take it for a length."""
        assert not escaped('[0]').startswith('[')

    def test_names_cannot_break_it(self, make_results, tmp_path: Path) -> None:
        results = make_results({(HOSTILE, *AT_30): [20.0]}, remarks={'CBSD68': 'a\n% line } \\end{table}'})
        rows, = latex_rows(self.latex(results, tmp_path))
        assert printed(rows[1][1]) == HOSTILE


def records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, strict=True))


class TestCsv:

    def test_summary(self, two_levels: Results, tmp_path: Path) -> None:
        summary, _ = write_csv(two_levels, tmp_path)
        cells = summarise(two_levels)
        rows = records(summary)
        assert len(rows) == len(cells) == 2 * (3 + 3 + 3)
        for line, cell in zip(rows, cells, strict=True):
            assert (line['run'], line['dataset'], line['condition']) == (cell.run, cell.dataset, cell.condition)
            assert (line['seen'], line['measured']) == (str(cell.seen).lower(), str(cell.measured).lower())
            if cell.measured:
                assert float(line['psnr']) == cell.means['psnr']
            else:
                assert line['psnr'] == line['ssim'] == line['psnr_difference'] == ''
            if cell.differences:
                parts = [float(line[f'ssim_{part}']) for part in ('difference', 'low', 'high', 'images')]
                assert parts == list(cell.differences['ssim'])
        erm = next(line for line in rows if line['run'] == 'ERM' and line['condition'] == '30')
        assert (erm['published_method'], erm['published_psnr'], erm['published_ssim']) == ('ERM', '24.9', '0.581')

    def test_every_image(self, two_levels: Results, tmp_path: Path) -> None:
        rows = records(write_csv(two_levels, tmp_path)[1])
        assert list(rows[0]) == ['run', 'dataset', 'condition', 'image', 'psnr', 'ssim', 'error']
        for line, score in zip(rows, two_levels.scores, strict=True):
            assert (line['run'], line['image'], line['error']) == (score.run, score.image, '')
            assert (float(line['psnr']), float(line['ssim'])) == (score.metrics['psnr'], score.metrics['ssim'])

    def test_nothing_is_empty(self, make_results, tmp_path: Path) -> None:
        error = 'a "quoted", long\nerror'
        results = make_results({('ERM', *AT_30): [None, error], ('DIL', *AT_30): [20.0, 30.0]})
        summary, images = map(records, write_csv(results, tmp_path))
        assert [(line['psnr'], line['ssim'], line['error']) for line in images[:2]] == [('', '1.0', ''),
                                                                                         ('', '', error)]
        assert (summary[0]['psnr'], summary[0]['missing'], summary[0]['images']) == ('', '1', '1')
        assert (summary[1]['ssim_difference'], summary[1]['ssim_low']) == ('-0.8', '')  # one image has no interval

    def test_same_bytes_on_every_system(self, two_levels: Results, tmp_path: Path) -> None:
        assert all(b'\r' not in path.read_bytes() for path in write_csv(two_levels, tmp_path))


@pytest.mark.parametrize('write', [write_markdown, write_latex, write_csv])
def test_nothing_measured(make_results, tmp_path: Path, write) -> None:
    skipped = [Skipped(dataset='CBSD68', reason='no folder')]
    results = make_results({('ERM', *AT_30): [20.0]}, scores=[], skipped=skipped)
    assert write(results, tmp_path)
    if write is write_markdown:
        assert '- CBSD68: no folder' in (tmp_path / 'table.md').read_text()


@pytest.mark.parametrize('write', [write_markdown, write_latex, write_csv])
def test_cells_at_hand_give_the_same(two_levels: Results, tmp_path: Path, write) -> None:
    for folder, cells in (('a', None), ('b', summarise(two_levels))):
        write(two_levels, tmp_path / folder, cells)
    names = sorted(path.name for path in (tmp_path / 'a').iterdir())
    assert names
    assert all((tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes() for name in names)


@pytest.mark.parametrize('write', [write_markdown, write_latex, write_csv])
def test_folder_that_cannot_be(two_levels: Results, tmp_path: Path, write) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'):
        write(two_levels, tmp_path / 'file')


class TestLayout:

    def test_one_published_row_below_the_last_run_it_is_of(self, make_results) -> None:
        runs = ('DIL_sf', 'ERM', 'DIL_ps', 'mine')
        results = make_results({(run, 'Set5', '4.2'): [29.0] for run in runs}, 'deblurring')
        block, = table_blocks(results, summarise(results))
        assert [one.label for one in block.rows] == ['DIL_sf', 'ERM', 'ERM, published', 'DIL_ps', 'DIL, published',
                                                     'mine']

    def test_a_run_without_all_conditions(self, make_results) -> None:
        """Where a run was not measured, the paper's number of that method still stands in its one row."""
        results = make_results({('ERM', *AT_30): [20.0], ('DIL_sf', 'CBSD68', '40'): [20.0]})
        block, = table_blocks(results, summarise(results))
        rows = {one.label: one.values for one in block.rows}
        assert len(rows) == len(block.rows)
        assert set(rows['ERM']) == {'30'}
        assert set(rows['ERM, published']) == {'30', '40'}

    @pytest.mark.parametrize(('task', 'decimals'), [
        ('denoising', 3), ('deblurring', 3), ('hybrid', 3), ('backbones', 3),
        ('real_denoising', 4), ('deraining', 4), ('realsr', 4), ('augmentation', 4),
    ])
    def test_decimals_are_the_papers(self, make_results, task: str, decimals: int) -> None:
        assert metric_decimals(make_results({('ERM', *AT_30): [1.0]}, task)) == {'psnr': 2, 'ssim': decimals}

    @pytest.mark.parametrize(('changes', 'dataset', 'text'), [
        ({}, 'SIDD', ''),
        ({'limit': 1}, 'Nam', 'Only the first image of the set was measured.'),
        ({'limit': 2}, 'SIDD',
         'Only the first 2 images of the set were measured. The published numbers are of the full set.'),
        ({'remarks': {'SIDD': 'other'}}, 'Nam', ''),
        ({'remarks': {'SIDD': 'other!'}}, 'SIDD', 'Other! The published numbers are of the full set.'),
    ])
    def test_published_differ(self, make_results, changes: dict, dataset: str, text: str) -> None:
        results = make_results({('ERM', 'SIDD', 'real'): [1.0]}, 'real_denoising', **changes)
        assert published_differ(results, dataset) == text


class TestOutputFiles:

    @pytest.mark.parametrize(('parts', 'stem'), [
        (('RealSR V3', 'x4'), 'RealSR_V3_x4'), (('4.2', '../a/b'), '4.2___a_b'), (('..', ), '_'),
        (('a:b*c', ), 'a_b_c'), (('été', ), 'été'),
    ])
    def test_file_stem(self, parts: tuple[str, ...], stem: str) -> None:
        assert file_stem(*parts) == stem

    def test_folder_is_made(self, tmp_path: Path) -> None:
        path = write_text(tmp_path / 'a' / 'b.txt', 'é\n')
        assert path.read_bytes() == 'é\n'.encode()


def test_scores_without_the_metric(make_results, tmp_path: Path) -> None:
    """A set without clean images has no-reference metrics only."""
    scores = [Score(run='ERM', dataset='CBSD68', condition='30', image='a', metrics={'niqe': 4.0})]
    results = make_results({('ERM', *AT_30): [1.0]}, scores=scores, metrics=['psnr', 'ssim', 'niqe'])
    found = tables(markdown(results, tmp_path))
    assert row(found[0], 'ERM')['30, unseen'] == '–'
    assert row(found[1], 'ERM')['30, unseen'] == '4.0000'
