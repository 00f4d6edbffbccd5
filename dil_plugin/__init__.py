"""Distortion invariant representation learning (DIL, CVPR 2023) for image restoration networks.

``import dil_plugin.basicsr`` registers the BasicSR parts; ``dil_plugin.learning`` is the method in plain PyTorch.
"""

__version__ = '0.1.0'
