"""How it was measured, in Markdown: the protocol, the test distortions, the networks."""

from collections.abc import Callable

import yaml

from dil_plugin.evaluation.protocols import Condition
from dil_plugin.evaluation.results import Results, Run
from dil_plugin.evaluation.tables import Column, markdown_table


def how_measured(results: Results, plain: Callable[[str], str]) -> list[str]:
    """The paragraphs of that chapter.

    Args:
        results: What was measured.
        plain: Escapes text.

    Returns:
        A list, the test distortions as a table, the networks as a table.
    """
    protocol = results.protocol
    facts = {
        'protocol': protocol.name,
        'channel': protocol.channel,
        'border pixels left out': str(protocol.crop_border),
        'scale': str(protocol.scale),
        'seed of the test distortions': str(results.seed),
        'images per set': 'all' if results.limit is None else f'the first {results.limit}',
        'compared with': results.baseline_text,
        **results.settings,
    }
    return ['\n'.join(f'- {plain(name)}: {plain(value)}' for name, value in facts.items()),
            _distortions(results, plain), _networks(results, plain)]


def _distortions(results: Results, plain: Callable[[str], str]) -> str:
    conditions = [results.protocol.condition(name) for name in results.conditions]
    columns = [Column('condition', align='left'), Column('in training', align='left'),
               Column('test distortion', align='left')]
    return markdown_table(columns, [[plain(condition.name), condition.seen_text or '–', _yaml(condition)]
                                    for condition in conditions])


def _yaml(condition: Condition) -> str:
    if condition.distortion is None:
        return "the set's own distorted images"
    text = yaml.safe_dump(condition.distortion, default_flow_style=True, sort_keys=False, width=10**6)
    return f'`{text.strip()}`'


def _networks(results: Results, plain: Callable[[str], str]) -> str:
    titles = ('run', 'network', 'parameters', 'variant', 'iterations', 'trained on', 'checkpoint', 'key', 'SHA-256')
    numbers = ('parameters', 'iterations')
    columns = [Column(title, 'd', 'right' if title in numbers else 'left') for title in titles]
    return markdown_table(columns, [_network(run, plain) for run in results.runs])


def _network(run: Run, plain: Callable[[str], str]) -> list[str | float | None]:
    return [plain(run.name), plain(run.network), run.parameters, plain(run.variant) if run.variant else None,
            run.iteration, plain(', '.join(run.trained_on)) or None, plain(run.checkpoint), run.param_key or None,
            f'`{run.sha256[:12]}`']
