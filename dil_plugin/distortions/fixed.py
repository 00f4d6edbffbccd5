"""Test distortions that are the same for every method and on every machine."""

import hashlib

import torch


def fixed_generator(seed: int, dataset: str, image: str, label: str) -> torch.Generator:
    """The randomness of one test image under one distortion.

    It depends on the arguments alone: not on the order of the images, the device of the network, or what was evaluated
    before. Draws of a CPU generator are the same on every machine with the same release of torch.

    Args:
        seed: Of the evaluation.
        dataset: The data set's name; two sets may hold images of the same name.
        image: The image's name without its ending.
        label: The distortion's (``Distortion.label``).

    Returns:
        A generator on the CPU, seeded by the first 56 bits of the SHA-256 of ``seed/dataset/image/label``.
    """
    digest = hashlib.sha256(f'{seed}/{dataset}/{image}/{label}'.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], 'big'))
