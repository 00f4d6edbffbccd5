"""The recipes of docs/baselines.md: each is valid over the file it is for, and trains."""

import copy
import re
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.models import build_model

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs/baselines.md').read_text(encoding='utf-8')
RECIPES = [yaml.safe_load(block) for block in re.findall(r'```yaml\n(.*?)```', TEXT, flags=re.DOTALL)]


def over(options, recipe):
    """Blocks within ``train`` and ``logger`` take the place of those there, others that of the block."""
    result = copy.deepcopy(options)
    for name, block in recipe.items():
        if name in ('train', 'logger'):
            result[name].update(block)
        else:
            result[name] = block
    return result


@pytest.mark.parametrize('recipe', RECIPES, ids=str)
def test_recipe_trains(recipe, crops, parsed, capfd):
    options = yaml.safe_load((ROOT / 'options/train/denoising_small_sf.yml').read_text())
    options = over(options, recipe)
    options['num_gpu'] = 0
    options['datasets']['train'].update(dataroot_gt=str(crops), io_backend={'type': 'disk'}, gt_size=16,
                                        batch_size_per_gpu=8)
    if 'deploy_patches' in options['train']['dil']:
        options['train']['dil']['deploy_patches'] = 4
    model = build_model(parsed(options))
    assert not model.dil.unused()
    before = [p.clone() for p in model.net_g.parameters()]
    model.update_learning_rate(1)
    model.feed_data({'gt': torch.rand(8, 3, 16, 16)})
    model.optimize_parameters(1)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.net_g.parameters(), strict=True))


def test_every_baseline_has_one():
    assert len(RECIPES) == 11
    blocks = [recipe['train'] for recipe in RECIPES if 'train' in recipe]
    assert {'mldg', 'erm', 'sf', 'ps'} == {block['dil']['variant'] for block in blocks}
    assert any(recipe.get('network_g', {}).get('bias') is False for recipe in RECIPES)
