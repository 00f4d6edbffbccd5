import base64
import hashlib
import html.parser
import os
import re
import shutil
from itertools import pairwise

import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from dil_plugin.errors import DataError
from dil_plugin.evaluation import degree_curve
from dil_plugin.evaluation.html_report import write_html
from dil_plugin.evaluation.html_report.svg import inline_svg
from dil_plugin.evaluation.protocols import load_protocol
from dil_plugin.evaluation.results import INPUT, Picture, Results, Run, Score, Skipped

EVIL = '<!--<script>alert(1)'
RUNS = ('ERM', EVIL)
CONDITIONS = ('20', '30', '50')
IMAGES = tuple(f'img{k}' for k in range(1, 13))
WIDTH, HEIGHT = 240, 80
DIVIDER = 20  # pixels on either side of the divider that its handle may cover


def noise(*shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def psnr(run, condition, image):
    """Made up: no two are alike, and the second run is better at 20 and worse at 50, without a doubt."""
    base = 30 - int(condition) / 10 + IMAGES.index(image) * 0.37
    return base + {INPUT: -6, 'ERM': 0, EVIL: {'20': 1, '30': 0, '50': -1}[condition]}[run] \
        + (0.01 * (-1)**IMAGES.index(image) if run == EVIL else 0)


def score(run, condition, image, **change):
    value = psnr(run, condition, image)
    metrics = {'psnr': value, 'ssim': value / 50, 'lpips': 1 - value / 50, **change}
    return Score(run=run, dataset='CBSD68', condition=condition, image=image, metrics=metrics)


def run_of(name):
    return Run(name=name, checkpoint=f'{name}.pth', sha256='3f' * 32, network='RRDBNet', parameters=1234567,
               iteration=400000, trained_on=['GaussianNoise(sigma=5)'], variant='sf')


def save(folder, name, image):
    cv2.imwrite(str(folder / name), image)
    return name


def make_results(folder, **changes):
    """12 images, 3 conditions, 2 runs; one infinite PSNR, one failure, two pictures."""
    scores = [score(run, condition, image) for image in IMAGES for condition in CONDITIONS for run in (INPUT, *RUNS)]
    special = {('ERM', '20', 'img2'): score('ERM', '20', 'img2', psnr=None),
               ('ERM', '20', 'img3'): Score(
                   run='ERM', dataset='CBSD68', condition='20', image='img3', error='NaN in <b>output</b> & more')}
    scores = [special.get((one.run, one.condition, one.image), one) for one in scores]
    names = (INPUT, *RUNS, 'clean')
    first = {name: save(folder, f'first{k}.png', noise(HEIGHT, WIDTH, 3, seed=k)) for k, name in enumerate(names)}
    names = (INPUT, 'ERM', 'clean')
    second = {name: save(folder, f'second{k}.png', noise(60, 100, 3, seed=9 + k)) for k, name in enumerate(names)}
    return Results(**{
        'protocol': load_protocol('denoising'),
        'runs': [run_of(name) for name in RUNS],
        'baseline': 'ERM',
        'scores': scores,
        'skipped': [Skipped(dataset='Urban100', reason='datasets/<Urban100>: no such folder')],
        'remarks': {'CBSD68': 'JPEG & <i>recompressed</i>.'},
        'pictures': [Picture(dataset='CBSD68', condition='20', image='img1', files=first),
                     Picture(dataset='CBSD68', condition='50', image='img4', files=second)],
        'metrics': ['psnr', 'ssim', 'lpips'],
        'lower_is_better': ['lpips'],
        'settings': {'command': 'reproduce.py "<&>"'},
        **changes,
    })


def curves():
    return {name: degree_curve([20, 30, 50], {EVIL: [30.0, 29.0, 28.0], 'ERM': [29.0, 28.5, 28.0]},
                               training_range=(5, 20), title=name) for name in ('CBSD68', 'Kodak24')}


def page_text(folder, results, figures=None):
    return write_html(results, folder, folder / 'report.html', figures or {}).read_text(encoding='utf-8')


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, and the text inside style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ('style', 'script') and self.cdata_elem:
            self.inside.append((*self.tags[-1], data))


def table_rows(text):
    """The cells of all table rows as text, by the row's first cell."""
    rows = re.findall(r'<tr[^>]*>(.*?)</tr>', text, re.S)
    cells = [[re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', '', cell)).strip()
              for cell in re.findall(r'<t[hd][^>]*>(.*?)</t[hd]>', row, re.S)] for row in rows]
    return {row[0]: row[1:] for row in reversed(cells)}  # the first table of means wins


# ---------------------------------------------------------------------------------------------- the file, unopened


def test_same_input_same_bytes(tmp_path):
    results = make_results(tmp_path)
    first = write_html(results, tmp_path, tmp_path / 'new' / 'a.html', curves()).read_bytes()
    assert write_html(results, tmp_path, tmp_path / 'b.html', curves()).read_bytes() == first


def test_policy_allows_exactly_what_the_file_contains(tmp_path):
    elements = Elements(page_text(tmp_path, make_results(tmp_path), curves()))
    policy = next(attrs['content'] for tag, attrs in elements.tags if attrs.get('http-equiv'))
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(';')}
    assert rules['default-src'] == ["'none'"]
    assert rules['img-src'] == ['data:']
    for kind in ('style', 'script'):
        texts = [text for tag, attrs, text in elements.inside if tag == kind and 'type' not in attrs]
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[f'{kind}-src'] == [f"'sha256-{digest}'" for digest in digests]
    assert not [attrs for _, attrs in elements.tags if 'style' in attrs or any(key.startswith('on') for key in attrs)]
    assert {attrs['src'][:15] for _, attrs in elements.tags if attrs.get('src')} == {'data:image/png;'}


def test_pictures_are_embedded_pixel_for_pixel(tmp_path):
    results = make_results(tmp_path)
    elements = Elements(page_text(tmp_path, results))
    uris = [attrs['src'] for tag, attrs in elements.tags if tag == 'img' and attrs.get('src')]
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(',')[2]), np.uint8), cv2.IMREAD_UNCHANGED)
               for uri in uris]
    files = [file for picture in results.pictures for file in picture.files.values()]
    assert len(decoded) == len(files) == 7
    for image, file in zip(decoded, files, strict=True):
        np.testing.assert_array_equal(image, cv2.imread(str(tmp_path / file)))


def test_large_pictures_are_cut_alike_where_the_clean_one_has_detail(tmp_path):
    clean = np.full((360, 500, 3), 90, np.uint8)
    clean[100:140, 450:490] = noise(40, 40, 3, seed=1)
    files = {INPUT: save(tmp_path, 'in.png', 255 - clean), 'clean': save(tmp_path, 'clean.png', clean)}
    picture = Picture(dataset='CBSD68', condition='30', image='img1', files=files)
    text = page_text(tmp_path, make_results(tmp_path, pictures=[picture]))
    left, top = map(int, re.search(r'320 × 320 pixels at \((\d+), (\d+)\) of 500 × 360', text).groups())
    cut = [cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), cv2.IMREAD_UNCHANGED)
           for uri in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    np.testing.assert_array_equal(cut[1], clean[top:top + 320, left:left + 320])
    np.testing.assert_array_equal(cut[0], 255 - cut[1])
    assert left + 320 >= 490


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda folder: (folder / 'first1.png').unlink(), 'first1.png'),
    (lambda folder: (folder / 'first1.png').write_bytes(b'no image'), 'first1.png'),
    (lambda folder: save(folder, 'first1.png', noise(70, WIDTH, 3, seed=0)), r'first1.png: 240 × 70 pixels'),
    (lambda folder: cv2.imwrite(str(folder / 'first1.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint16)), '8-bit'),
])
def test_unusable_pictures_are_named(tmp_path, spoil, message):
    results = make_results(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        page_text(tmp_path, results)


def test_unwritable_path_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(DataError, match='file'):
        write_html(make_results(tmp_path), tmp_path, tmp_path / 'file' / 'report.html')


def test_means_stand_beside_what_the_paper_prints(tmp_path):
    rows = table_rows(page_text(tmp_path, make_results(tmp_path)))
    for run, label in ((INPUT, 'distorted input'), (EVIL, EVIL.replace('<', '&lt;').replace('>', '&gt;'))):
        mean = np.mean([psnr(run, '50', image) for image in IMAGES])
        assert rows[label][2] == f'{mean:.2f} / {mean / 50:.3f}'
    assert rows['ERM'][0].endswith('1 missing')
    assert rows['ERM, published'] == ['–', '24.90 / 0.581', '18.96 / 0.307']  # Table 1 of the paper


def test_best_measured_is_bold_and_lower_lpips_is_better(tmp_path):
    text = page_text(tmp_path, make_results(tmp_path))
    bold = {run: re.findall(r'<b>([\d.]+)</b>', row) for run, row in
            re.findall(r'<tr class="measured"><th scope="row">([^<]+)</th>(.*?)</tr>', text, re.S)[:2]}
    erm = np.mean([psnr('ERM', '50', image) for image in IMAGES])
    assert bold['ERM'][-2:] == [f'{erm:.2f}', f'{erm / 50:.3f}']
    best, other = (np.mean([1 - psnr(run, '50', image) / 50 for image in IMAGES]) for run in RUNS)
    assert best < other
    assert f'<b>{best:.4f}</b>' in text
    assert f'<b>{other:.4f}</b>' not in text


def test_differences_say_better_or_worse_only_where_the_interval_leaves_out_zero(tmp_path):
    text = page_text(tmp_path, make_results(tmp_path))
    table = re.findall(r'<table class="gaps">.*?</table>', text, re.S)[0]
    rows = re.findall(r'alert\(1\) − ERM</th>(.*?)</tr>', table, re.S)
    verdicts = [re.findall(r'<span class="gap (\w*)">', row) for row in rows]
    assert verdicts == [['better', '', 'worse']] * 3  # PSNR, SSIM, and LPIPS, whose difference has the other sign
    assert '−1.00' in rows[0]
    assert '+0.0200' in rows[2]


def test_limit_and_remark_stand_above_the_table(tmp_path):
    text = page_text(tmp_path, make_results(tmp_path, limit=12))
    above = text[text.index('<h3>CBSD68'):text.index('<table')]
    assert 'first 12 images' in above
    assert 'JPEG &amp; &lt;i&gt;recompressed' in above
    assert 'published numbers are of the full set' in above


def test_many_failures_are_cut_short(tmp_path):
    scores = [Score(run='ERM', dataset='CBSD68', condition='30', image=f'img{k}', error='out of memory')
              for k in range(50)]
    text = page_text(tmp_path, make_results(tmp_path, scores=scores))
    assert text.count('<td>out of memory</td>') == 20
    assert 'And 30 more' in text


def test_results_without_scores_pictures_and_baseline(tmp_path):
    text = page_text(tmp_path, Results(protocol=load_protocol('denoising'), runs=[], baseline='', scores=[]))
    assert 'Nothing was measured' in text
    assert 'id="pictures"' not in text


def test_svg_ids_are_unique_and_references_resolve():
    texts = [inline_svg(figure, f'c{k}', name) for k, (name, figure) in enumerate(curves().items())]
    ids = [re.findall(r' id="([^"]+)"', text) for text in texts]
    for own, text in zip(ids, texts, strict=True):
        assert own
        assert set(own) == set(re.findall(r'url\(#([^)]+)\)', text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1])


def test_svg_keeps_text_and_drops_links_and_styles():
    figure = Figure()
    axes = figure.add_subplot()
    axes.text(0.5, 0.5, 'a < b & c', url='https://example.org/')
    axes.imshow(np.eye(4))
    axes.plot([0, 3], [0, 3], color='#333333')
    axes.plot([3, 0], [0, 3], color='#d55e00')
    with matplotlib.rc_context({'svg.fonttype': 'path', 'savefig.bbox': 'tight'}):
        text = inline_svg(figure, 'x', '"quoted" <label>')
    assert '>a &lt; b &amp; c</text>' in text
    assert 'style' not in text
    assert '#333333' not in text
    assert 'stroke="currentColor"' in text
    assert 'stroke="#d55e00"' in text
    assert 'example.org' not in text
    assert 'href="data:image/png;base64,' in text
    assert 'aria-label="&quot;quoted&quot; &lt;label&gt;"' in text


# ------------------------------------------------------------------------------------------------- in a real browser


def absent(reason):
    if os.environ.get('DIL_REQUIRE_BROWSER') == '1':
        pytest.fail(f'DIL_REQUIRE_BROWSER=1, but {reason}')
    pytest.skip(reason)


@pytest.fixture(scope='module')  # not longer: Playwright's event loop would be in the way of other tests
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent('playwright is not installed')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        absent(f'none of {", ".join(names)} is there')
    with sync_playwright() as playwright:
        # the profile makes screenshots the very pixels of the images
        running = playwright.chromium.launch(executable_path=found, args=['--no-sandbox', '--force-color-profile=srgb'])
        yield running
        running.close()


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    return write_html(make_results(folder), folder, folder / 'report.html', curves())


@pytest.fixture
def open_report(browser, report):
    """Opens the report without a network; at the end nothing may have gone wrong in it."""
    opened = []

    def open_one(path=report, width=1150, **options):
        context = browser.new_context(viewport={'width': width, 'height': 800}, **options)
        context.set_offline(True)
        page = context.new_page()
        trouble, requests = [], []
        page.on('console', lambda message: trouble.append(message.text))
        page.on('pageerror', lambda error: trouble.append(str(error)))
        page.on('dialog', lambda dialog: (trouble.append(f'dialog {dialog.message}'), dialog.dismiss()))
        page.on('request', lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        opened.append((context, path, trouble, requests))
        return page

    yield open_one
    for context, path, trouble, requests in opened:
        context.close()
        assert trouble == []
        assert [url for url in requests if not url.startswith('data:')] == [path.as_uri()]


def seen(page):
    """The pixels of the two images' place on the screen, BGR."""
    viewport = page.locator('#viewport')
    viewport.scroll_into_view_if_needed()
    place = {key: round(value) for key, value in viewport.bounding_box().items()}  # text above it may end in a half
    content = page.screenshot(clip=place, animations='disabled')
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def source(report, file):
    return cv2.imread(str(report.parent / file))


def zoom(page, factor):
    page.check(f'[name=zoom][value="{factor}"]')


def assert_divided(page, x, left, right):
    """Left of ``x`` is the one image, right of it the other, but for the divider itself."""
    picture = seen(page)
    assert picture.shape == left.shape
    end, start = max(0, x - DIVIDER), x + DIVIDER
    np.testing.assert_array_equal(picture[:, :end], left[:, :end])
    np.testing.assert_array_equal(picture[:, start:], right[:, start:])


def value_now(page):
    return int(page.get_attribute('#divider', 'aria-valuenow'))


def test_opens_offline_without_errors_or_requests(open_report):
    page = open_report()
    assert page.title().startswith('Gaussian denoising')
    assert page.locator('.curve svg').count() == 2
    assert page.locator('#listing-table tbody tr').count() == 25


def test_names_from_outside_are_text(open_report):
    page = open_report()
    assert page.locator('h1 + .lead b').nth(1).inner_text() == EVIL
    assert 'datasets/<Urban100>: no such folder' in page.inner_text('#missing')
    assert 'NaN in <b>output</b> & more' in page.inner_text('#missing')
    assert 'reproduce.py "<&>"' in page.inner_text('#method')
    assert page.locator('svg text', has_text=EVIL).count() == 2
    assert page.locator('script').count() == 3


@pytest.mark.parametrize('fraction', [0.2, 0.7])
def test_mouse_drags_the_divider(open_report, report, fraction):
    page = open_report()
    zoom(page, 1)
    box = page.locator('#viewport').bounding_box()
    page.mouse.move(box['x'] + WIDTH / 2, box['y'] + 40)
    page.mouse.down()
    page.mouse.move(box['x'] + fraction * WIDTH, box['y'] + 60, steps=4)
    page.mouse.up()
    page.mouse.move(box['x'] + WIDTH - 5, box['y'] + 60)  # let go: it must not follow any more
    assert value_now(page) == round(100 * fraction)
    assert_divided(page, round(fraction * WIDTH), source(report, 'first0.png'), source(report, 'first2.png'))


@pytest.mark.parametrize(('keys', 'percent'), [
    (['End'], 100), (['Home'], 0), (['ArrowRight'] * 3, 53), (['ArrowLeft'] * 3, 47), (['Shift+ArrowRight'], 60),
    (['PageDown', 'PageDown'], 30), (['Home', 'ArrowLeft'], 0), (['End', 'PageUp'], 100),
])
def test_keys_move_the_divider(open_report, report, keys, percent):
    page = open_report()
    zoom(page, 1)
    page.focus('#divider')
    for key in keys:
        page.keyboard.press(key)
    assert value_now(page) == percent
    assert f'{percent} % distorted input' in page.get_attribute('#divider', 'aria-valuetext')
    assert_divided(page, round(percent / 100 * WIDTH), source(report, 'first0.png'), source(report, 'first2.png'))


def test_a_finger_drags_the_divider(open_report, report):
    page = open_report(has_touch=True)
    zoom(page, 1)
    page.locator('#viewport').scroll_into_view_if_needed()
    box = page.locator('#viewport').bounding_box()
    session = page.context.new_cdp_session(page)
    touch = [{'x': box['x'] + x, 'y': box['y'] + 40} for x in (WIDTH / 2, 150, 180)]
    session.send('Input.dispatchTouchEvent', {'type': 'touchStart', 'touchPoints': touch[:1]})
    for point in touch[1:]:
        session.send('Input.dispatchTouchEvent', {'type': 'touchMove', 'touchPoints': [point]})
    session.send('Input.dispatchTouchEvent', {'type': 'touchEnd', 'touchPoints': []})
    assert value_now(page) == 75
    assert_divided(page, 180, source(report, 'first0.png'), source(report, 'first2.png'))


def test_selectors_switch_the_images_and_their_labels(open_report, report):
    page = open_report()
    zoom(page, 1)
    page.select_option('#left', 'clean original')
    page.select_option('#right', 'ERM')
    assert_divided(page, WIDTH // 2, source(report, 'first3.png'), source(report, 'first1.png'))
    assert page.inner_text('#left-label') == 'clean original'
    value = psnr('ERM', '20', 'img1')
    assert page.inner_text('#right-label') == f'ERM: {value:.2f} dB / {value / 50:.3f}'


def test_another_picture_keeps_the_choice_where_it_has_it(open_report, report):
    page = open_report()
    zoom(page, 1)
    page.select_option('#left', 'clean original')
    page.select_option('#picture', '1')
    assert page.locator('#right option').all_inner_texts() == ['distorted input', 'ERM', 'clean original']
    assert page.input_value('#right') == 'ERM'  # the other run has no version of this image
    assert_divided(page, 50, source(report, 'second2.png'), source(report, 'second1.png'))
    assert page.locator('.strip:visible img').count() == 3


@pytest.mark.parametrize('factor', [2, 4])
def test_zoom_repeats_pixels(open_report, report, factor):
    page = open_report()
    zoom(page, factor)
    left, right = (source(report, file).repeat(factor, 0).repeat(factor, 1) for file in ('first0.png', 'first2.png'))
    assert_divided(page, WIDTH * factor // 2, left, right)


def test_scrolled_region_is_the_same_in_both(open_report, report):
    page = open_report(width=400)
    zoom(page, 4)
    page.evaluate("document.getElementById('viewport').scrollLeft = 300")
    page.wait_for_timeout(50)
    width = page.evaluate("document.getElementById('viewport').clientWidth")
    left, right = (source(report, file).repeat(4, 0).repeat(4, 1)[:, 300:300 + width]
                   for file in ('first0.png', 'first2.png'))
    assert width < 400
    picture = seen(page)[:HEIGHT * 4].astype(int)  # below may be a scroll bar
    middle = width // 2
    # scrolled layers are composed on their own and may be off by one in single pixels
    np.testing.assert_allclose(picture[:, :middle - DIVIDER], left[:, :middle - DIVIDER], atol=1)
    np.testing.assert_allclose(picture[:, middle + DIVIDER:width], right[:, middle + DIVIDER:], atol=1)


@pytest.mark.parametrize('gain', [1, 8])
def test_error_map_is_the_absolute_difference(open_report, report, gain):
    page = open_report()
    page.check('[name=mode][value=error]')
    page.select_option('#gain', str(gain))
    page.wait_for_selector(f'#error-map[data-ready$="|{gain}"]')
    pixels = page.evaluate("""() => {
        const read = (id) => { const c = document.getElementById(id);
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; };
        return [read('error-map'), read('ramp')]; }""")
    shown, ramp = (np.array(values).reshape(rows, -1, 4)[..., :3] for values, rows in zip(pixels, (HEIGHT, 1),
                                                                                         strict=True))
    difference = cv2.absdiff(source(report, 'first2.png'), source(report, 'first3.png'))  # to the clean original
    level = np.minimum(difference.max(2).astype(int) * gain, 255)
    np.testing.assert_array_equal(shown, ramp[0][level])
    method = page.input_value('#left')
    assert page.input_value('#right') == 'clean original'
    assert page.inner_text('#reading') == (f'|{method} − clean original|: mean {difference.mean():.2f}, largest '
                                           f'{difference.max()}')
    inferno = matplotlib.colormaps['inferno'](np.arange(256), bytes=True)[:, :3]
    np.testing.assert_allclose(ramp[0], inferno, atol=12)  # straight lines between eleven colours
    assert not page.is_visible('#divider')


def column(page, number):
    """All cells of a column, page by page."""
    cells = []
    while True:
        cells += page.locator(f'#listing-table tbody tr > :nth-child({number})').all_inner_texts()
        if page.is_disabled('#next'):
            return cells
        page.click('#next')


def test_listing_sorts_by_the_value(open_report):
    page = open_report()
    page.click('#listing-table th:has-text("PSNR (dB)") button >> nth=0')
    head = page.locator('#listing-table th').nth(4)
    assert head.get_attribute('aria-sort') == 'ascending'
    rising = column(page, 5)
    values = sorted(psnr(run, condition, image) for image in IMAGES for condition in CONDITIONS
                    for run in (INPUT, *RUNS) if (run, condition, image) not in
                    (('ERM', '20', 'img2'), ('ERM', '20', 'img3')))
    assert rising == [f'{value:.2f}' for value in values] + ['∞', '–']
    head.locator('button').click()
    assert head.get_attribute('aria-sort') == 'descending'
    assert column(page, 5) == ['∞', *reversed(rising[:-2]), '–']


def test_listing_sorts_names_by_their_numbers(open_report):
    page = open_report()
    page.click('#listing-table th button >> nth=0')
    names = column(page, 1)
    assert len(names) == len(IMAGES) * 9
    assert all(IMAGES.index(a) <= IMAGES.index(b) for a, b in pairwise(names))


def test_listing_filters(open_report):
    page = open_report()
    page.select_option('#filter-run', EVIL)
    page.select_option('#filter-condition', '50')
    assert page.inner_text('#shown') == '1 to 12 of 12'
    expected = [psnr(EVIL, '50', image) - psnr('ERM', '50', image) for image in IMAGES]
    assert column(page, 8) == [f'−{abs(value):.2f}' for value in expected]
    page.fill('#filter-image', 'IMG1')
    assert column(page, 1) == ['img1', 'img10', 'img11', 'img12']
    page.fill('#filter-image', 'nowhere')
    assert page.inner_text('#shown') == 'none'
    page.fill('#filter-image', '')
    page.select_option('#filter-run', '')
    assert page.inner_text('#shown') == '1 to 25 of 36'


@pytest.mark.parametrize('width', [400, 320])
@pytest.mark.parametrize('factor', [1, 4])
def test_narrow_windows_do_not_scroll_sideways(open_report, width, factor):
    page = open_report(width=width)
    zoom(page, factor)
    page.check('[name=mode][value=error]')
    assert page.evaluate('document.documentElement.scrollWidth') == width


def test_tables_have_captions_and_scopes_and_ids_are_unique(open_report):
    page = open_report()
    assert page.locator('table').count() >= 6
    assert page.locator('table:not(:has(> caption))').count() == 0
    assert page.locator('th:not([scope])').count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    unnamed = page.evaluate("""[...document.querySelectorAll('input, select')]
        .filter((element) => !element.labels.length).length""")
    assert unnamed == 0


def luminance(colour):
    """Relative luminance by WCAG 2."""
    channels = [int(part) / 255 for part in re.findall(r'\d+', colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055)**2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_has_contrast(open_report, scheme):
    page = open_report(color_scheme=scheme)
    colours = page.evaluate("""['body', 'small', '.key', '.gap.better', '.gap.worse', 'nav a', '.curve text']
        .map((selector) => [selector, getComputedStyle(document.querySelector(selector))])
        .map(([selector, style]) => selector.startsWith('.curve') ? style.fill : style.color)""")
    paper = luminance(page.evaluate('getComputedStyle(document.body).backgroundColor'))
    assert (paper < 0.5) == (scheme == 'dark')
    for colour in colours:
        low, high = sorted((paper, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


def test_print_shows_all_pictures_and_no_controls(open_report):
    page = open_report(color_scheme='dark')
    page.emulate_media(media='print')
    assert page.locator('.strip:visible img').count() == 7
    for selector in ('#comparison', '#viewing', 'nav', '.pager'):
        assert not page.is_visible(selector)
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'


def test_without_scripts_tables_and_pictures_are_there(open_report):
    page = open_report(java_script_enabled=False)
    assert page.locator('.strip img').count() == 7
    assert page.locator('.strip img').last.is_visible()
    assert not page.is_visible('#comparison')
    assert page.locator('.dataset table').first.is_visible()
    assert 'needs JavaScript' in page.inner_text('#scores')
