"""The networks of an evaluation's runs: checked at once, loaded one at a time, told apart from others."""

import hashlib
import json
import sys
from pathlib import Path

from dil_plugin.errors import OptionError
from dil_plugin.evaluation.networks import RestorationNetwork, load_network
from dil_plugin.evaluation.reproduce_options import Plan
from dil_plugin.evaluation.results import INPUT, Run


class RunNetworks:
    """The networks of a plan; standard error says of each which of its checkpoint's parameters it has.

    Attributes:
        runs: What they are, in the plan's order.
        identities: By the run's name (``input`` too), what its scores depend on: the checkpoint, which of its
            parameters, and the architecture with its options and ``val.window_size``, which may be another YAML's.

    Raises:
        OptionError: A network is of another scale than the protocol, or not for colour images.
        DataError: A checkpoint cannot be read, or is of another network.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.runs: list[Run] = []
        self.identities = {INPUT: INPUT}
        for name, path in plan.runs.items():
            network = self.load(name, 'cpu')
            self._check(network, name, path)
            sys.stderr.write(f'{name}: {path}: {network.selection}\n')
            run = _describe(network, name, path)
            self.runs.append(run)
            facts = [network.options, network.scale, network.outputs]
            if network.window_size != (network.notes.window_size if network.notes else None):  # the YAML's
                facts.append(network.window_size)
            architecture = json.dumps(facts, sort_keys=True, default=str)
            self.identities[name] = f'{run.sha256} {run.param_key} {_digest(architecture)}'

    def load(self, name: str, device: str) -> RestorationNetwork:
        """The network of a run, on a device."""
        options = self._plan.options
        opt = Path(options.opt) if options.opt else None
        return load_network(self._plan.runs[name], opt, options.param_key, device)

    def _check(self, network: RestorationNetwork, name: str, path: Path) -> None:
        protocol = self._plan.protocol
        if network.scale != protocol.scale:
            raise OptionError(f'--run {name}={path}: the network enlarges by {network.scale}, but the table '
                              f'{protocol.name} is of scale {protocol.scale}')
        if network.channels != 3:
            raise OptionError(f'--run {name}={path}: the network takes {network.channels} channels; the test sets have '
                              '3')


def _describe(network: RestorationNetwork, name: str, path: Path) -> Run:
    notes = network.notes
    return Run(name=name, checkpoint=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
               network=network.name, parameters=network.parameters, param_key=network.param_key,
               iteration=notes.iteration if notes else None, trained_on=notes.confounders if notes else [],
               variant=notes.variant if notes else None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
