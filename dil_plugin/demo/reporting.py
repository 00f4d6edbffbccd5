"""What the demo tells: the table, who was ahead, the curve and the crops."""

from collections.abc import Sequence
from pathlib import Path

import cv2
from basicsr.metrics import calculate_psnr

from dil_plugin.data_preparation import read_image
from dil_plugin.demo import settings
from dil_plugin.demo.settings import (
    OPTIONS,
    TEST,
    TRAINING,
    Photograph,
    Score,
    Scores,
    load,
    result_path,
    training_levels,
)
from dil_plugin.evaluation import Column, Panel, degree_curve, markdown_table, save_png, side_by_side

CROP_LEVEL, CROP_SIZE, CROP_ZOOM = 40, 128, 2


def report(scores: Scores, options: Path) -> str:
    """The table with what was done, who was ahead, and what it is worth, in Markdown."""
    trained = load(options)
    iterations, steps = trained['train']['total_iter'], len(training_levels(options))
    levels = ', '.join(f'{level:g}' for level in training_levels(options))
    batch = trained['datasets']['train']['batch_size_per_gpu'] // steps
    rows = []
    columns_of_scores = (scores[name] for name in ('noisy', 'ERM', 'DIL'))
    for level, noisy, erm, dil in zip(settings.SEEN + settings.UNSEEN, *columns_of_scores, strict=True):
        seen = 'seen' if level in settings.SEEN else 'unseen'
        rows.append([str(level), seen, cell(noisy), cell(erm), cell(dil), difference(erm, dil)])
    columns = [Column('sigma'), Column('in training', align='left'),
               *(Column(title) for title in ('noisy', 'ERM', 'DIL', 'DIL - ERM'))]
    return f'''# Gaussian noise: ERM and DIL on photographs that neither was trained on

PSNR (dB) / SSIM on 8-bit RGB, means over {", ".join(photograph.name for photograph in TEST)}.

{markdown_table(columns, rows)}

{verdict(scores, settings.SEEN, 'Seen')}
{verdict(scores, settings.UNSEEN, 'Unseen')}

Noise in training: sigma {levels}. Each method took {iterations} iterations of {steps} image gradients, {batch} patches
each: ERM {steps * iterations} plain steps, DIL (variant sf) {iterations} meta-steps of {steps} inner steps.

This is a small network, a short training, {len(TEST)} photographs and one seed: it shows that the tools work, and is no
evidence for or against the method.

Photographs to train on: {credits_of(TRAINING)}.
Photographs to test on: {credits_of(TEST)}.
'''


def cell(score: Score) -> str:
    """PSNR and SSIM in one cell."""
    return f'{score.psnr:.2f} / {score.ssim:.3f}'


def difference(erm: Score, dil: Score) -> str:
    """How far DIL is ahead of ERM, in PSNR and SSIM."""
    return f'{dil.psnr - erm.psnr:+.2f} / {dil.ssim - erm.ssim:+.3f}'


def verdict(scores: Scores, levels: Sequence[int], name: str) -> str:
    """Which method was ahead in PSNR over some levels, as a line of a list."""
    gains = {}
    for level in levels:
        at = (settings.SEEN + settings.UNSEEN).index(level)
        gains[level] = round(scores['DIL'][at].psnr - scores['ERM'][at].psnr, 2)
    mean = round(sum(gains.values()) / len(gains), 2)
    ahead = f'{winner_of(mean)} is ahead by {abs(mean):.2f} dB' if mean else 'neither is ahead'
    each = ', '.join(f'sigma {level}: {winner_of(gain)}' for level, gain in gains.items())
    return f'* {name} levels: {ahead} on average ({each}).'


def winner_of(gain: float) -> str:
    """The method that is ahead where DIL's PSNR minus ERM's is ``gain`` dB."""
    return 'DIL' if gain > 0 else 'ERM' if gain < 0 else 'neither'


def credits_of(photographs: Sequence[Photograph]) -> str:
    """The photographs' names and who took them."""
    return '; '.join(f'{photograph.name} ({photograph.credit})' for photograph in photographs)


def draw_curve(scores: Scores, options: Path, out: Path) -> None:
    """Writes ``curve.png``: PSNR over the noise level."""
    psnr = {name: [score.psnr for score in values] for name, values in scores.items()}
    levels = training_levels(options)
    noisy = {'noisy input': psnr.pop('noisy')}
    figure = degree_curve(settings.SEEN + settings.UNSEEN, psnr, training_range=(min(levels), max(levels)),
                          references=noisy,
                          title=f'Mean over {len(TEST)} photographs not trained on; one short run, one seed')
    save_png(figure, out / 'curve.png')


def draw_crops(out: Path) -> None:
    """Writes ``crops.png``: a part of each test photograph at an unseen level, clean, noisy and restored."""
    rows = []
    for photograph in TEST:
        y, x = photograph.crop
        part = slice(y, y + CROP_SIZE), slice(x, x + CROP_SIZE)
        clean = read_image(out / 'photographs' / 'test' / f'{photograph.name}.png')[0][part]
        row = [Panel(cv2.cvtColor(clean, cv2.COLOR_BGR2RGB), 'clean')]
        for what in ('noisy', *OPTIONS):
            crop = read_image(result_path(out, CROP_LEVEL, photograph.name, what))[0][part]
            psnr = calculate_psnr(crop, clean, crop_border=0)
            row.append(Panel(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), f'{what}, {psnr:.2f} dB'))
        rows.append(row)
    title = f'Gaussian noise of sigma {CROP_LEVEL}, unseen in training; PSNR of the part shown'
    save_png(side_by_side(rows, zoom=CROP_ZOOM, title=title), out / 'crops.png')
