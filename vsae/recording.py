"""The sample sites of one run of a program, without the copies and checks of a full trace."""

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from priors.errors import ConfigError


class record_sites(Messenger):
    """Record sample sites; those of ``given`` take its values: ``trace`` and ``replay`` in one.

    At a small model's scale a step is mostly bookkeeping, of which this is a third of Pyro's.

    Args:
        given: Latent sites of an earlier run, by name, whose values are used again.

    Attributes:
        sites: ``{name: message}`` in the order of the program, plates included.

    Raises:
        ConfigError: ``elbo.duplicate_site`` if a program uses a name twice.
    """

    def __init__(self, given: dict[str, dict] | None = None) -> None:
        super().__init__()
        self.given, self.sites = given or {}, {}

    @property
    def sampled(self) -> dict[str, dict]:
        """The sites without those of plates."""
        return {name: msg for name, msg in self.sites.items() if not site_is_subsample(msg)}

    def _pyro_sample(self, msg) -> None:
        earlier = self.given.get(msg["name"])
        if earlier is not None and not msg["is_observed"]:
            msg["done"], msg["value"], msg["infer"] = True, earlier["value"], earlier["infer"]

    def _pyro_post_sample(self, msg) -> None:
        if msg["infer"].get("_do_not_trace"):
            return
        if msg["name"] in self.sites:
            raise ConfigError(
                f"every site needs a name of its own: got {msg['name']!r} twice in one program.",
                code="elbo.duplicate_site",
                context={"name": msg["name"]},
            )
        self.sites[msg["name"]] = msg.copy()


class record_means(record_sites):
    """Record sample sites at the *means* of their distributions; nothing is drawn."""

    def _pyro_sample(self, msg) -> None:
        if not (msg["is_observed"] or site_is_subsample(msg)):
            msg["done"], msg["value"] = True, msg["fn"].mean


def latent(sites: dict[str, dict]) -> dict[str, dict]:
    """Those that are not observed."""
    return {name: msg for name, msg in sites.items() if not msg["is_observed"]}
