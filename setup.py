"""Installs the plugin: ``pip install -e .`` (README.md has the commands that pin everything)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
version = re.search(r"__version__ = '(.+)'", (ROOT / 'dil_plugin' / '__init__.py').read_text()).group(1)

setup(
    name='dil_plugin',
    version=version,
    description='Distortion invariant representation learning (DIL) for image restoration, a plugin for BasicSR '
                'and mmagic',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['dil_plugin', 'dil_plugin.*']),
    package_data={
        'dil_plugin.verification': ['vectors/*.npz'],
        'dil_plugin.evaluation': ['published.json'],
        'dil_plugin.evaluation.protocols': ['*.yml'],
        'dil_plugin.evaluation.html_report': ['*.j2', '*.css', '*.js'],
    },
    python_requires='>=3.10,<3.13',
    install_requires=[
        'torch>=2.4',
        'torchvision',
        'basicsr>=1.4.2',  # brings OpenCV, lmdb, numpy, scipy
        'msgspec>=0.18.6',
        'jinja2',
        'lmdb',
        'matplotlib',
        'numpy',
        'pillow',
        'scipy>=1.15',
        'tqdm',
    ],
    # No extra for mmagic: it would bring BasicSR above, and what mmagic declares, which no installation of it should
    # get whole (requirements/mmagic.txt says why, and has the commands).
    extras_require={
        'dnd': ['h5py'],  # reads DND's files
        'metrics': ['pyiqa'],  # LPIPS and others
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
    ],
)
