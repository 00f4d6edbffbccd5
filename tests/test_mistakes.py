"""Mistakes that are found together: all of them, each once, and nothing that comes of another."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from dil_plugin.errors import DataError, MissingOption, OptionError, SeveralErrors, UnknownOption
from dil_plugin.launch import errors_in_one_line
from dil_plugin.mistakes import Mistakes, each, reworded
from dil_plugin.options import convert


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(gt=0)]
    steps: int = 1


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=1)]
    name: str
    inner: Inner | None = None
    many: list[Inner] = []

    def __post_init__(self):
        if self.name == 'odd':
            raise ValueError('.name: odd; allowed: others')


def texts(raw):
    with pytest.raises(OptionError) as error:
        convert(raw, Outer, 'block')
    return [str(one) for one in each(error.value)]


@pytest.mark.parametrize(('raw', 'expected'), [
    ({'size': 0, 'name': 3}, ['block.size: Expected a whole number >= 1; got 0',
                              'block.name: Expected text, got a whole number; got 3']),
    ({'size': 1, 'name': 'odd'}, ['block.name: odd; allowed: others']),
    ({'size': 0, 'name': 'odd'}, ['block.size: Expected a whole number >= 1; got 0']),
    ({}, ["block: option 'size' is missing", "block: option 'name' is missing"]),
    ({'sice': 1, 'name': 'x'}, ["block: unknown option 'sice'; did you mean 'size'? allowed: inner, many, name, size"]),
    ({'foo': 1, 'bar': 2, 'size': float('inf'), 'name': 'x'},
     ["block: unknown option 'foo'; allowed: inner, many, name, size",
      "block: unknown option 'bar'; allowed: inner, many, name, size",
      'block.size: Expected a finite number; got inf']),
    ({'size': 1, 'name': 'x', 'inner': {'rate': -1, 'step': 2}},
     ["block.inner: unknown option 'step'; did you mean 'steps'? allowed: rate, steps",
      'block.inner.rate: Expected a number > 0.0; got -1']),
    ({'size': 1, 'name': 'x', 'inner': {'steps': 'a'}},
     ["block.inner: option 'rate' is missing; got {'steps': 'a'}",
      "block.inner.steps: Expected a whole number, got text; got 'a'"]),
    ({'size': 1, 'name': 'x', 'many': [{'rate': 1}, {'rate': 0}]}, ['block.many[1].rate: Expected a number > 0.0; got '
                                                                   '0']),
])
def test_all_that_is_wrong_with_a_block(raw, expected):
    assert texts(raw) == expected


def test_one_error_is_itself_and_several_have_a_line_each(capsys):
    mistakes = Mistakes()
    with mistakes:
        raise DataError('a.b: first')
    with pytest.raises(DataError, match=r'^a\.b: first$'):
        mistakes.end()
    with mistakes:
        raise OptionError('c: second')
    with pytest.raises(SystemExit) as end, errors_in_one_line():
        mistakes.end()
    assert end.value.code == 2
    assert capsys.readouterr().err == 'error: a.b: first\nerror: c: second\n'
    assert f'error: {SeveralErrors(tuple(mistakes.errors))}\n' == 'error: a.b: first\nerror: c: second\n'


@pytest.mark.parametrize(('first', 'second', 'told'), [
    ('a.b: x', 'a.b: y', False), ('a: x', 'a.b: y', False), ('a.b.c: x', 'a.b: y', False), ('a: x', 'a[0].c: y', False),
    ('a.b: x', 'a.c: y', True), ('a.b: x', 'a.bc: y', True), ('a[0]: x', 'a[1]: y', True),
])
def test_what_comes_of_another_mistake_is_not_told(first, second, told):
    mistakes = Mistakes()
    for text in (first, second):
        with mistakes:
            raise OptionError(text)
    assert [str(error) for error in mistakes.errors] == [first, second][:1 + told]
    assert mistakes.spare(second.partition(':')[0]) is False
    assert mistakes.spare('another')


def test_a_check_that_stumbles_says_nothing_once_something_is_wrong():
    mistakes = Mistakes()
    with pytest.raises(KeyError), mistakes:
        raise KeyError('a bug of ours')
    with mistakes:
        raise OptionError('a: x')
    with mistakes:
        raise KeyError('a')
    assert len(mistakes.errors) == 1


def test_a_missing_option_may_be_an_unknown_one():
    mistakes = Mistakes()
    mistakes.add(UnknownOption("a: unknown option 'x'", ('a.x', 'a.y')))
    mistakes.add(MissingOption('a.y: missing', ('a.y', )))
    mistakes.add(MissingOption('a.z: missing', ('a.z', )))
    assert [str(error) for error in mistakes.errors] == ["a: unknown option 'x'", 'a.z: missing']
    assert not mistakes.spare('a.y')


def test_other_words_keep_the_kinds():
    errors = SeveralErrors((DataError('a: x'), MissingOption('b: y', ('b.y', ))))
    other = reworded(errors, lambda text: f'file: {text}')
    assert str(other) == 'file: a: x\nerror: file: b: y'
    assert [type(one) for one in each(other)] == [DataError, MissingOption]
    assert each(other)[1].concerns == ('b.y', )
