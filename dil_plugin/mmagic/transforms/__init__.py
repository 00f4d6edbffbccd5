"""Transforms of the data pipeline."""

from dil_plugin.mmagic.transforms.counterfactual_distortions import CounterfactualDistortions

__all__ = ['CounterfactualDistortions']
