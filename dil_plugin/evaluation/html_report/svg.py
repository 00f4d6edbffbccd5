"""Matplotlib figures as SVG that stands inside an HTML page."""

import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

_DROPPED = {'metadata', 'style', 'script'}
_REFERENCE = re.compile(r'url\(#([^)]+)\)')
_DARK_GREY = re.compile(r'#([0-5][0-9a-f])\1\1')
_FONT_SIZE = re.compile(r'([\d.]+px)')
# Those of matplotlib's SVG writer. Fonts are left out: the page's own takes their place.
_PRESENTATION = {
    'clip-path', 'display', 'fill', 'fill-opacity', 'fill-rule', 'font-size', 'font-style', 'font-weight', 'opacity',
    'stroke', 'stroke-dasharray', 'stroke-dashoffset', 'stroke-linecap', 'stroke-linejoin', 'stroke-miterlimit',
    'stroke-opacity', 'stroke-width', 'text-anchor', 'visibility'
}


def inline_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as one ``<svg>`` element for an HTML page.

    Text stays text. Styles become presentation attributes, which a content security policy without inline styles
    allows and which the page's style sheet can override; black and dark grey become the colour of the page's text, so
    that they stand out in dark mode too. References to anything outside are dropped. The
    same figure gives the same text.

    Args:
        figure: Any figure of matplotlib.
        prefix: Stands before every id, so that several figures fit on one page.
        label: What the figure shows, for those who cannot see it.

    Returns:
        The markup, as wide as the figure's view box and no wider.
    """
    root = ET.fromstring(_written(figure))
    _simplify(root, prefix)
    for key in ('width', 'height', 'version'):
        root.attrib.pop(key, None)
    root.attrib.update({'role': 'img', 'aria-label': label, 'stroke-linejoin': 'round', 'stroke-linecap': 'butt'})
    return Markup(ET.tostring(root, encoding='unicode', short_empty_elements=True))


def _written(figure: Figure) -> str:
    buffer = io.StringIO()
    # the salt makes ids the same in every run, and the bounding box keeps a user's matplotlibrc out
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'dil_plugin'}):
        figure.savefig(buffer, format='svg', metadata={'Date': None}, bbox_inches=figure.bbox_inches)
    return buffer.getvalue()


def _simplify(root: ET.Element, prefix: str) -> None:
    for element in root.iter():
        element.tag = _local(element.tag)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in _DROPPED]:
            parent.remove(child)
    for element in root.iter():
        attributes = {_local(key): value for key, value in element.attrib.items()}
        attributes.update(_presentation(attributes.pop('style', '')))
        element.attrib.clear()
        element.attrib.update(_referring(attributes, prefix))
    used = set(_references(root))
    for element in root.iter():
        if element.get('id') not in used:
            element.attrib.pop('id', None)


def _local(name: str) -> str:
    return name.rpartition('}')[2]


def _presentation(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(';'):
        key, _, value = (part.strip() for part in declaration.partition(':'))
        if key == 'font' and (size := _FONT_SIZE.search(value)):  # the shorthand of older matplotlib
            yield 'font-size', size.group(1)
        elif key in _PRESENTATION:
            yield key, 'currentColor' if _DARK_GREY.fullmatch(value) else value


def _referring(attributes: dict[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        if key == 'id':
            yield key, f'{prefix}-{value}'
        elif key == 'href':
            if value.startswith('#'):
                yield key, f'#{prefix}-{value[1:]}'
            elif value.startswith('data:image/'):
                yield key, value
        else:
            yield key, _REFERENCE.sub(rf'url(#{prefix}-\1)', value)


def _references(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == 'href' and value.startswith('#'):
                yield value[1:]
            yield from _REFERENCE.findall(value)
