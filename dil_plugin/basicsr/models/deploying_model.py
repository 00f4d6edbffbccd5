"""Which parameters are validated and saved: ``theta``, or the virtually updated ``phi`` (``train.dil.deploy``)."""

from dil_plugin.basicsr.models.deployed_network import DeployedNetwork
from dil_plugin.basicsr.models.resumable_model import ResumableModel


class DeployingModel(ResumableModel):
    """With a ``deployed`` network that one is validated and saved as ``params``, the trained one as ``params_theta``.

    Training goes on from ``params_theta`` (``CheckpointFiles.load_network``); all else takes ``params``, as of any
    checkpoint.
    """

    deployed: DeployedNetwork | None = None

    def test(self) -> None:
        """As BasicSR's, with the network that is deployed."""
        if self.deployed is None:
            super().test()
            return
        trained, self.net_g = self.net_g, self.deployed.current()
        try:
            super().test()
        finally:
            self.net_g = trained

    def _save_networks(self, name: int | str) -> None:
        if self.deployed is None:
            super()._save_networks(name)
        else:
            self.save_network([self.deployed.current(), self.net_g], 'net_g', name, ['params', 'params_theta'])
