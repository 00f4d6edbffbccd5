"""What a message says of confounders that should divide the resolution is a block that does."""

import re

import pytest
import torch
import yaml

from dil_plugin.distortions import DISTORTION_REGISTRY, parse_distortions, scaling_entry

DEGREES = {'GaussianNoise': {'sigma': [5, 10]}, 'GaussianBlur': {'sigma': 2}, 'JPEG': {'quality': 40, 'draws': 2},
           'HeavyRain': {}, 'Hybrid': {'level': 'mild'}, 'Resize': {'factor': 0.5}, 'MixedBlur': {}}


@pytest.mark.parametrize('name', DEGREES)
@pytest.mark.parametrize('scale', [2, 4])
def test_example_is_complete_and_divides_the_resolution(name, scale):
    raw = [{'type': name, **DEGREES[name]}]
    before = parse_distortions(raw)
    assert before.scale == 1
    text = scaling_entry(raw, scale)
    entry = yaml.safe_load(re.fullmatch(r'entries that .* Compose, as in - (.*)', text)[1])
    after = parse_distortions([entry])
    assert len(after) == len(before)
    assert after[0](torch.rand(1, 3, 64, 64)).shape == (1, 3, 64 // scale, 64 // scale)
    assert [step['type'] for step in entry['distortions']].index(name) == (0 if before.min_size > 1 else 1)


def test_types_with_a_scale_of_their_own_get_it():
    assert scaling_entry([{'type': 'Downsample', 'scale': 2}], 4) == 'scale: 4 in the entries of type Downsample'
    assert scaling_entry([{'type': 'Downsample', 'scale': 2}], 1) == 'confounders that keep it'


def test_types_that_the_message_names_are_those_that_change_the_resolution():
    own = {name for name in DISTORTION_REGISTRY.names() if 'scale' in DISTORTION_REGISTRY.get(name).__struct_fields__
           and DISTORTION_REGISTRY.get(name).__module__.startswith('dil_plugin.')}
    assert own == {'Downsample', 'RealESRGAN'}
