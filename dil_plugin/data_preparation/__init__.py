"""Cuts training images into sub-images and packs them into an LMDB (or a PNG folder) that BasicSR reads."""

from dil_plugin.data_preparation.cutting import subimage_boxes
from dil_plugin.data_preparation.images import CutSettings, Source, find_images, incomplete_reason, read_image
from dil_plugin.data_preparation.packing import Summary, pack_images, prepare_data, verify_data

__all__ = [
    'CutSettings',
    'Source',
    'Summary',
    'find_images',
    'incomplete_reason',
    'pack_images',
    'prepare_data',
    'read_image',
    'subimage_boxes',
    'verify_data',
]
