"""Strict conversion of YAML blocks to typed options: an unknown or wrong option fails with its full key."""

import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from dil_plugin.errors import MissingOption, OptionError, UnknownOption
from dil_plugin.mistakes import Mistakes, raise_all

T = TypeVar('T')

TOP_LEVEL = 'the top level'

_LARGEST = 3.4e38

_WORDS = {'bool': 'true or false', 'int': 'a whole number', 'float': 'a number', 'str': 'text', 'null': '~ (nothing)',
          'object': 'a block of options', 'array': 'a list'}
"""What msgspec's names of types are called in messages."""

_TYPES = re.compile('`((?:{0})(?: \\| (?:{0}))*)`'.format('|'.join(_WORDS)))


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The allowed names, with the nearest one put forward: ``"'hvp'? Allowed: hvp, inner"``."""
    names = sorted(allowed)
    return nearest(name, names) + f'allowed: {", ".join(names)}'


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The one of the names that is like ``name``, None where none is."""
    lower = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return lower[near[0]] if near else None


def nearest(name: str, names: Iterable[str]) -> str:
    """The nearest of some names, ready to go before what comes next: ``"did you mean 'hvp'? "``; empty if none is."""
    near = nearest_name(name, names)
    return f"did you mean '{near}'? " if near else ''


def convert(raw: Any, cls: type[T], key: str) -> T:
    """Turns one YAML block into a typed ``msgspec.Struct``.

    Args:
        raw: The block as the YAML loader gave it.
        cls: The struct class; constraints stand in its annotations.
        key: Where the block stands, as in ``train.dil``; error messages begin with it.

    Returns:
        The struct.

    Raises:
        OptionError: An option is unknown, missing, of the wrong type or out of range. The message names the key, the
            value and what is allowed.
    """
    if not isinstance(raw, Mapping):
        raise OptionError(f'{key}: expected a block of options, got {raw!r}')
    mistakes = Mistakes()
    with mistakes:
        refuse_unknown(raw, cls, key)
    with mistakes:
        check_known(raw, cls, key)
    mistakes.end()
    return msgspec.convert(raw, cls)


def refuse_unknown(raw: Mapping[str, Any], cls: Any, key: str) -> None:
    """Raises OptionError for options that the class does not have, in the block or in those inside of it."""
    raise_all(_unknown(raw, cls, key))


def _unknown(raw: Mapping[str, Any], cls: Any, key: str) -> Iterator[OptionError]:
    fields, tag = _fields(cls, raw)
    allowed = set(fields) | tag
    for name, value in raw.items() if allowed else ():
        if name not in allowed:
            yield unknown_option(key, str(name), allowed)
        elif isinstance(value, Mapping) and name in fields:
            yield from _unknown(value, fields[name], f'{key}.{name}')
        for k, item in enumerate(value if isinstance(value, list) and name in fields else ()):
            if isinstance(item, Mapping):
                yield from _unknown(item, _item(fields[name]), f'{key}.{name}[{k}]')


def unknown_option(key: str, name: str, allowed: Iterable[str], places: Iterable[str] = (),
                   of: str = '') -> UnknownOption:
    """The error for an option that a block does not have.

    Args:
        key: Where the block stands.
        name: What it has not.
        allowed: What it has.
        places: Other blocks that have it; ``TOP_LEVEL`` is one.
        of: What the block's ``type`` names.
    """
    places, allowed = list(places), list(allowed)
    rest = f'{nearest(name, allowed)}it belongs to {" or ".join(places)}' if places else did_you_mean(name, allowed)
    concerns = [f'{key}.{one}' for one in (name, nearest_name(name, allowed)) if one is not None]
    concerns += [f'{place}.{name}' for place in places]
    concerns = [one.removeprefix(TOP_LEVEL).lstrip('.') for one in concerns]
    whose = f' of {of}' if of else ''
    return UnknownOption(f"{key}: unknown option '{name}'{whose}; {rest}", tuple(concerns))


def check_known(raw: Mapping[str, Any], cls: Any, key: str) -> None:
    """Raises OptionError for all options of a block that are wrong or missing; those that are unknown are left out.

    Args:
        raw: The block as the YAML loader gave it.
        cls: The struct class.
        key: Where the block stands.
    """
    known = _known(raw, cls)
    errors = list(_wrong(known, cls, key, known, cls, ''))
    if not errors and known == raw:
        try:
            msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:  # lies between options
            errors = [OptionError(explain(str(error), raw, cls, key))]
    raise_all(errors)


def _known(raw: Any, hint: Any) -> Any:
    """The block without options that its class, or that of a block inside of it, does not have."""
    if isinstance(raw, list):
        return [_known(item, _item(hint)) for item in raw]
    fields, tag = _fields(hint, raw) if isinstance(raw, Mapping) else ({}, set())
    return {name: _known(raw[name], fields.get(name)) for name in raw if name in fields or name in tag} \
        if fields else raw


def _wrong(raw: Mapping[str, Any], hint: Any, key: str, whole: Mapping[str, Any], cls: Any,
           path: str) -> Iterator[OptionError]:
    """What is wrong with each option of a block that stands at ``path`` of the whole one, and what is missing."""
    struct = _struct_for(hint, raw)
    for field in msgspec.structs.fields(struct) if struct is not None else ():
        name, place = field.encode_name, f'{path}.{field.encode_name}'
        if name not in raw:
            if field.required:
                where = f' - at `${path}`' if path else ''
                text = explain(f'Object missing required field `{name}`{where}', whole, cls, key)
                yield MissingOption(text, (f'{key}{place}'.lstrip('.'), ))
            continue
        found = list(_infinite(raw[name], f'{key}{place}'))
        if not found and isinstance(raw[name], Mapping):
            found = list(_wrong(raw[name], field.type, key, whole, cls, place))
        yield from found
        if not found:
            try:
                msgspec.convert({name: raw[name]}, msgspec.defstruct('One', [(name, field.type)]))
            except msgspec.ValidationError as error:
                what, at, rest = str(error).rpartition(' - at `')
                yield OptionError(explain(f'{what}{at}{rest.replace("$", f"${path}", 1)}', whole, cls, key))


def _fields(hint: Any, raw: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The types of the options of the class that ``raw`` is meant for, and the option that chooses it."""
    struct = _struct_for(hint, raw)
    if struct is None:
        return {}, set()
    tag = struct.__struct_config__.tag_field
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}, {tag} if tag else set()


def _infinite(raw: Any, key: str) -> Iterator[OptionError]:
    """No option has a use for a number that is not finite in float32, and ``Meta(ge=0)`` lets it pass."""
    if isinstance(raw, float) and not math.isfinite(raw):
        yield OptionError(f'{key}: Expected a finite number; got {raw!r}')
    elif isinstance(raw, float) and abs(raw) > _LARGEST:
        yield OptionError(f'{key}: Expected a number of at most {_LARGEST:.2g}, the largest of float32; got {raw!r}')
    items = raw.items() if isinstance(raw, Mapping) else enumerate(raw) if isinstance(raw, list | tuple) else ()
    for name, value in items:
        yield from _infinite(value, f'{key}[{name}]' if not isinstance(raw, Mapping) else f'{key}.{name}')


def _members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a field's type, without ``Annotated`` around them."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in _members(part))
    return (hint, )


def _struct_for(hint: Any, raw: Mapping[str, Any]) -> Any:
    """The struct class that ``raw`` is meant for; of a tagged union the member whose tag it carries."""
    structs = _structs(hint)
    tagged = [s for s in structs if s.__struct_config__.tag == raw.get(s.__struct_config__.tag_field or '')]
    return tagged[0] if tagged else (structs[0] if len(structs) == 1 else None)


def _structs(hint: Any) -> list[Any]:
    return [m for m in _members(hint) if isinstance(m, type) and issubclass(m, msgspec.Struct)]


def in_words(message: str) -> str:
    """A message of msgspec with words for the names of types: "a whole number" for ```int```."""
    return _TYPES.sub(lambda types: ' or '.join(_WORDS[name] for name in types[1].split(' | ')), message)


def explain(message: str, raw: Any, cls: Any, key: str) -> str:
    """Adds to msgspec's message the full key, the value, and what the option is or which names are allowed.

    Args:
        message: Of a ``msgspec.ValidationError``.
        raw: What was converted.
        cls: To which type.
        key: Where it stands.
    """
    match = re.fullmatch(r'(?P<what>.*?)(?: - at `(?:\$|key in \$)(?P<path>.*)`)?', message, flags=re.DOTALL)
    assert match is not None
    path = match['path'] or ''
    if match['what'].startswith('.'):  # from a struct's own check of several fields, which names one of them
        return f'{key}{path}{match["what"]}'
    value, hint, parent = raw, cls, cls
    for name, index in re.findall(r'\.(\w+)|\[(\d+)\]', path):
        hint, parent = _field(hint, value, name) if name else _item(hint), hint
        value = value.get(name) if name else value[int(index)]
    what = match['what']
    if missing := re.fullmatch(r'Object missing required field `(.+)`', what):
        what, hint = f"option '{missing[1]}' is missing", _field(hint, value, missing[1])
    elif ' | object`' in what:
        blocks = ', '.join(f'{{{field.encode_name}: …}}' for s in _structs(hint) for field in msgspec.structs.fields(s))
        what = re.sub(r'`(.+?) \| object`', lambda types: f'`{types[1]}` or {blocks}', what)
    whole = '`int' in what
    what = in_words(what)
    choices = [str(c) for m in _members(hint) if typing.get_origin(m) is typing.Literal for c in typing.get_args(m)]
    if path.endswith('.type'):
        choices = [str(s.__struct_config__.tag) for s in _structs(parent)]
    allowed = f'; {nearest(str(value), choices)}allowed: {", ".join(choices)}' if choices else ''
    hint_on_yaml = '' if whole else yaml_hint(value)
    got = f'; got {value!r}' if path else ''
    meaning = _description(hint)
    return f'{key}{path}: {what}{got}{allowed}{hint_on_yaml}' + (f' ({meaning})' if meaning and not choices else '')


def _field(hint: Any, raw: Any, name: str) -> Any:
    """The type of a field of the struct that ``raw`` is meant for."""
    struct = _struct_for(hint, raw) if isinstance(raw, Mapping) else None
    return {f.encode_name: f.type for f in msgspec.structs.fields(struct)}.get(name) if struct else None


def _item(hint: Any) -> Any:
    """The type of the items of a list or tuple."""
    args = [typing.get_args(m) for m in _members(hint) if typing.get_origin(m) in (list, tuple)]
    return args[0][0] if args and args[0] else None


def _description(hint: Any) -> str:
    """What the field's annotation says about it, or one of its alternatives' does."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(filter(None, map(_description, typing.get_args(hint))), '')
    metas = hint.__metadata__ if typing.get_origin(hint) is typing.Annotated else ()
    return next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), '')


def yaml_hint(value: Any) -> str:
    """What to write for a number that YAML reads as text, as 1e-4; '' for what is none."""
    if not isinstance(value, str):
        return ''
    try:
        float(value)
    except ValueError:
        return ''
    return f' (YAML reads {value} as text: write !!float {value})'
