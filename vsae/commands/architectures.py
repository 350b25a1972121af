"""Which autoencoder a name stands for, and which options it hears; torch is imported to build."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vsae.commands.prior_names import PRIORS, build_prior


@dataclass(frozen=True)
class Architecture:
    """A line of the table.

    Attributes:
        preset: ``module:function``, called with width, latents and the settings by keyword.
        summary: For ``--list-architectures``.
        settings: Keywords that are options, and their defaults; ``None`` is the preset's own.
        prior: Name of the prior if ``--prior`` is not given.
        fixed: Whether there is no other prior.
        penalty: Whether it has a penalty besides the prior's, for β to warm up.
        gaussian: Whether its KL is that of a Gaussian prior on dense codes, under which latents may
            collapse.
        auxk: Whether AuxK may be added: an encoder with a row per latent, and codes that are zero.
        every: Of ``--latents`` and the settings, how many latents a prior is over.
        crosscoder: ``module:function`` for data of several layers, likewise; ``""`` if the flat one
            over their concatenation serves.
    """

    preset: str
    summary: str
    settings: dict[str, object] = field(default_factory=dict)
    prior: str = "flat"
    fixed: bool = False
    penalty: bool = False
    gaussian: bool = False
    auxk: bool = True
    every: Callable[[int, Mapping], int] = lambda latents, _: latents
    crosscoder: str = ""


ARCHITECTURES = {
    "l1": Architecture(
        "vsae.presets.dense:l1_autoencoder",
        "ReLU codes, an l1 penalty",
        {"l1": 0.1},
        prior="laplace",
        fixed=True,
        auxk=False,
        crosscoder="vsae.presets.dense_crosscoders:l1_crosscoder",
    ),
    "variational": Architecture(
        "vsae.commands.architectures:variational",
        "Gaussian posterior, rectified codes, any prior",
        {"noise": 0.5, "scale": None},
        prior="isotropic",
        gaussian=True,
        auxk=False,
        crosscoder="vsae.commands.architectures:variational_layers",
    ),
    "topk": Architecture(
        "vsae.presets.topk:topk_autoencoder",
        "k active latents in every row",
        {"k": 32, "noise": None, "screened": None},
        crosscoder="vsae.presets.sparse_crosscoders:topk_crosscoder",
    ),
    "batch_topk": Architecture(
        "vsae.presets.batch_topk:batch_topk_autoencoder",
        "k active latents per row on average over a batch",
        {"k": 32, "width": None, "noise": None, "screened": None},
        crosscoder="vsae.presets.sparse_crosscoders:batch_topk_crosscoder",
    ),
    "jumprelu": Architecture(
        "vsae.presets.jumprelu:jumprelu_autoencoder",
        "a learned threshold per latent, an l0 penalty",
        {"l0": 0.5, "width": None, "threshold": 0.3, "bandwidth": 0.3, "screened": None},
        penalty=True,
        crosscoder="vsae.presets.sparse_crosscoders:jumprelu_crosscoder",
    ),
    "gated": Architecture(
        "vsae.presets.gated:gated_autoencoder",
        "a gate with an l1 penalty, magnitudes without",
        {"l1": 0.1},
        prior="laplace",
        fixed=True,
    ),
    "abs_topk": Architecture(
        "vsae.presets.abs_topk:abs_topk_autoencoder",
        "k active latents in every row, of either sign",
        {"k": 32, "noise": None},
    ),
    "matryoshka": Architecture(
        "vsae.presets.matryoshka:matryoshka_autoencoder",
        "nested dictionaries, each of which must reconstruct",
        {"k": 32, "width": None, "prefixes": None, "noise": None},
    ),
    "multi_topk": Architecture(
        "vsae.presets.multi_topk:multi_topk_autoencoder",
        "TopK whose codes may be cut off at another k",
        {"k": 32, "width": None, "noise": None},
    ),
    "matching_pursuit": Architecture(
        "vsae.presets.matching_pursuit:matching_pursuit_autoencoder",
        "k latents one after another, each for what is left",
        {"k": 32, "noise": None},
        auxk=False,
    ),
    "switch": Architecture(
        "vsae.presets.switch:switch_autoencoder",
        "experts, one of which writes the row's k latents",
        {"k": 32, "experts": None, "noise": None},
    ),
    "hierarchical": Architecture(
        "vsae.commands.architectures:hierarchical",
        "H-SAE: k roots per row, and one child of each",
        {"k": 32, "children": 16, "subspace": 4, "noise": None},
        every=lambda roots, settings: roots * (1 + settings["children"]),
    ),
    "variational_topk": Architecture(
        "vsae.presets.variational_topk:variational_topk_autoencoder",
        "TopK of noisy codes, KL on all latents",
        {"k": 32, "alpha": 0.1, "scale": None},
        prior="isotropic",
        fixed=True,
        gaussian=True,
        auxk=False,
    ),
    "shrunk_topk": Architecture(
        "vsae.presets.variational_topk:shrunk_topk_autoencoder",
        "TopK, all latents shrunk, no noise: vSAE as released",
        {"k": 32, "alpha": 0.1},
        prior="isotropic",
        fixed=True,
        gaussian=True,
        auxk=False,
    ),
    "masked_variational_topk": Architecture(
        "vsae.presets.variational_topk:masked_variational_topk_autoencoder",
        "TopK of Gaussian amplitudes, KL on selected latents",
        {"k": 32, "alpha": 0.1, "scale": None},
        prior="isotropic",
        fixed=True,
    ),
}


@dataclass(frozen=True)
class Choice:
    """An architecture, a prior, and every setting of both.

    Attributes:
        settings: Options and their values, those not given at their defaults; ``None`` is the
            preset's own default.
    """

    architecture: str
    prior: str
    settings: dict[str, object]

    @property
    def penalised(self) -> bool:
        """Whether β has anything to scale but constants."""
        return self.prior != "flat" or ARCHITECTURES[self.architecture].penalty


def choose(given: dict[str, object]) -> Choice:
    """What the options given by the user ask for.

    Args:
        given: ``architecture`` and ``prior``, both optional, and options of either. Without an
            architecture the prior says which: Laplace is the l1 SAE, others are variational.

    Raises:
        ConfigError: ``train.option`` for an option that would be ignored.

    Example:
        >>> choose({"architecture": "topk", "k": 4}).settings
        {'k': 4, 'noise': None, 'screened': None}
    """
    implied = "l1" if given.get("prior", "laplace") == "laplace" else "variational"
    name = given.get("architecture", implied)
    chosen = ARCHITECTURES[name]
    prior = chosen.prior if chosen.fixed else given.get("prior", chosen.prior)
    known = chosen.settings | ({} if chosen.fixed else PRIORS[prior])
    choice = Choice(name, prior, known | {n: v for n, v in given.items() if n in known})
    also = {
        "architecture": True,
        "prior": not chosen.fixed or given.get("prior") == prior,
        "warmup": choice.penalised,
        "auxk_after": chosen.auxk,
    }
    heard = known.keys() | {option for option, allowed in also.items() if allowed}
    _refuse_ignored(given.keys() - heard, choice, heard)
    return choice


def _refuse_ignored(ignored, choice: Choice, heard) -> None:
    if not ignored:
        return
    from priors.errors import ConfigError

    raise ConfigError(
        f"options without an effect: got {_flags(ignored)}, but --architecture "
        f"{choice.architecture} under the prior {choice.prior} listens to "
        f"{_flags(heard - {'architecture'})}. Leave them out.",
        code="train.option",
        context={"ignored": sorted(ignored), "heard": sorted(heard)},
    )


def _flags(names) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in sorted(names))


def build(choice: Choice, d_model: int | tuple[int, ...], latents: int, normalizer):
    """The autoencoder of a choice, untrained; a crosscoder if there is a width per layer.

    Architectures without a crosscoder of their own are a flat one over the concatenation.
    """
    chosen = ARCHITECTURES[choice.architecture]
    settings = {n: choice.settings[n] for n in chosen.settings if choice.settings[n] is not None}
    if not chosen.fixed:
        every = chosen.every(latents, settings)
        settings["prior"] = build_prior(choice.prior, every, choice.settings)
    screened, layered = settings.pop("screened", False), isinstance(d_model, tuple)
    if screened and layered and chosen.crosscoder:
        raise _not_screened(choice)
    if screened:
        settings["encoder"] = importlib.import_module("vsae.encoders").ScreenedEncoder
    crossed = layered and bool(chosen.crosscoder)
    module, function = (chosen.crosscoder if crossed else chosen.preset).split(":")
    preset = getattr(importlib.import_module(module), function)
    if crossed or not layered:
        return preset(d_model, latents, normalizer=normalizer, **settings)
    pair = importlib.import_module("vsae.layered_autoencoder").LayeredAutoencoder
    return pair.of(preset(sum(d_model), latents, normalizer=normalizer, **settings), d_model)


def _not_screened(choice: Choice) -> Exception:
    from priors.errors import ConfigError

    return ConfigError(
        f"crosscoders are not screened: got {choice.architecture} --screened for activations of "
        "several layers. Leave it out, or give one layer, (rows, d).",
        code="train.layers",
    )


def variational(d_model: int, _: int, *, prior, noise, scale=0.1, normalizer):
    """The V-SAE with rectified codes, called as the other presets are."""
    from torch import nn

    from vsae.presets import variational_autoencoder

    return variational_autoencoder(
        d_model, prior, noise=noise, link=nn.ReLU(), scale=scale, normalizer=normalizer
    )


def variational_layers(layers: tuple[int, ...], _: int, *, prior, noise, scale=0.1, normalizer):
    """The variational crosscoder with rectified codes, called as the other presets are."""
    from torch import nn

    from vsae.presets import variational_crosscoder

    return variational_crosscoder(
        layers, prior, noise=noise, link=nn.ReLU(), scale=scale, normalizer=normalizer
    )


def hierarchical(d_model: int, roots: int, *, k, children, subspace, prior, noise=None, normalizer):
    """The H-SAE of two levels, called as the other presets are: latents are roots."""
    from vsae.presets import hierarchical_autoencoder
    from vsae.presets.topk import HALF

    return hierarchical_autoencoder(
        d_model,
        roots,
        k=k,
        branching=(children,),
        subspaces=(subspace,),
        prior=prior,
        noise=HALF if noise is None else noise,
        normalizer=normalizer,
    )
