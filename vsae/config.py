"""The one place where names become classes: a pair as JSON, and JSON as a pair.

A module is described by its class's registered name and constructor arguments, read back from
attributes of the same names. Names are looked up in a closed table, never imported from a path: a
settings file cannot run code. Extend the table with :func:`register`.
"""

import math

from torch import Tensor, nn

import priors
import vsae
from vsae.errors import CheckpointError, ConfigError

_TABLE: dict[str, tuple[type, tuple[str, ...]]] = {}


def register(cls: type, *arguments: str) -> type:
    """Make ``cls`` saveable: ``cls(**{a: getattr(module, a) for a in arguments})`` rebuilds it.

    Args:
        cls: A module class, or a value class such as ``Graph``.
        arguments: Constructor arguments that are also attributes: numbers, strings, tuples,
            tensors, graphs or modules.

    Raises:
        ConfigError: ``config.duplicate`` if the name is taken by another class.
    """
    if _TABLE.get(cls.__name__, (cls,))[0] is not cls:
        raise ConfigError(
            f"the name {cls.__name__} is registered for another class: got {cls}, expected "
            f"{_TABLE[cls.__name__][0]}. Rename one.",
            code="config.duplicate",
        )
    _TABLE[cls.__name__] = (cls, arguments)
    return cls


def describe(
    value: object,
    tensors: dict[str, Tensor],
    path: str = "",
    seen: dict[int, str] | None = None,
) -> object:
    """``value`` as JSON; the tensors it needs for its *construction* go to ``tensors``.

    A tensor is named by its path of attributes, as in a state dict, where it may stand anyway; a
    module met a second time (tied weights) is named by the path of the first.

    Raises:
        CheckpointError: ``config.unregistered`` for an object of a class without a name.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor) and not value.dim():
        return value.item()
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"tensor": path, "learned": isinstance(value, nn.Parameter)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # which JSON has no name for
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [describe(item, tensors, _join(path, str(i)), seen) for i, item in enumerate(value)]
    if id(value) in seen:
        return {"same": seen[id(value)]}
    seen[id(value)], name = path, type(value).__name__
    if _TABLE.get(name, (None,))[0] is not type(value):
        raise CheckpointError(
            f"{type(value)} cannot be saved: got a class without a registered name. "
            f"Register it: vsae.config.register({name}, 'argument', …).",
            code="config.unregistered",
            context={"class": name},
        )
    settings = {
        argument: describe(getattr(value, argument), tensors, _join(path, argument), seen)
        for argument in _TABLE[name][1]
    }
    return {"class": name, **settings}


def build(
    spec: object,
    tensors: dict[str, Tensor],
    path: str = "",
    seen: dict[str, object] | None = None,
) -> object:
    """The object a description describes, freshly constructed; :func:`describe`'s inverse.

    Raises:
        CheckpointError: ``config.unregistered`` for a name not in the table, ``config.arguments``
            for missing or unknown arguments, ``config.tensor`` for a missing tensor or module.
    """
    seen = {} if seen is None else seen
    if isinstance(spec, list):
        return tuple(build(v, tensors, _join(path, str(i)), seen) for i, v in enumerate(spec))
    if not isinstance(spec, dict):
        return spec
    if "float" in spec:
        return float(spec["float"])
    if "tensor" in spec:
        tensor = _look_up(tensors, spec["tensor"])
        return nn.Parameter(tensor.clone()) if spec.get("learned") else tensor
    if "same" in spec:
        return _look_up(seen, spec["same"])
    cls, arguments = _class(spec)
    given = {a: build(spec[a], tensors, _join(path, a), seen) for a in arguments}
    seen[path] = cls(**given)
    return seen[path]


def _class(spec: dict) -> tuple[type, tuple[str, ...]]:
    name, given = spec.get("class"), set(spec) - {"class"}
    if name not in _TABLE:
        raise CheckpointError(
            f"unknown class name: got {name!r}, expected one of {sorted(_TABLE)}. "
            "Import the package that registers it first.",
            code="config.unregistered",
            context={"class": name},
        )
    if given != set(_TABLE[name][1]):
        raise CheckpointError(
            f"{name} needs arguments {sorted(_TABLE[name][1])}: got {sorted(given)}.",
            code="config.arguments",
            context={"class": name},
        )
    return _TABLE[name]


def references(spec: object) -> set[str]:
    """Names of the tensors a description refers to."""
    if isinstance(spec, list):
        return set().union(*map(references, spec))
    if not isinstance(spec, dict):
        return set()
    return {spec["tensor"]} if "tensor" in spec else set().union(*map(references, spec.values()))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _look_up(table: dict, name: str) -> object:
    if name not in table:
        raise CheckpointError(
            f"the settings name {name!r}, which is missing.", code="config.tensor"
        )
    return table[name]


_SUPPORT = ("decoder", "prior", "width", "noise")  # what every model of codes in slots is made of


def _register_vsae() -> None:
    for cls in (nn.Identity, nn.ReLU, vsae.IdentityNormalizer):
        register(cls)
    register(vsae.TopKLink, "k")
    register(vsae.AffineNormalizer, "mean", "scale")
    register(vsae.WhiteningNormalizer, "mean", "whitening")
    for decoder in (vsae.LinearDecoder, vsae.FreeDecoder):
        register(decoder, "latents", "d_model", "bias")
    register(vsae.HierarchicalDecoder, "top", "branching", "subspaces")
    register(vsae.LinearEncoder, "d_model", "outputs")
    register(vsae.MLPEncoder, "d_model", "hidden", "outputs")
    for encoder in (vsae.TiedEncoder, vsae.DictionaryEncoder, vsae.ScreenedEncoder):
        register(encoder, "decoder")
    register(vsae.TieredEncoder, "d_model", "sizes", "clip", "norms")
    for norm in (nn.RMSNorm, nn.LayerNorm):
        register(norm, "normalized_shape", "eps", "elementwise_affine")
    register(vsae.Curriculum, "starts", "lengths")
    register(vsae.FixedNoise, "scale")
    register(vsae.LearnedNoise, "scale", "floor")
    register(vsae.AnnealedExponentialPrior, "dim", "start", "end", "length")
    register(vsae.TargetedExponentialPrior, "dim", "target", "start", "rate")
    register(vsae.TargetL0, "target", "start", "rate", "limits")
    register(vsae.AnnealedNoise, "start", "end", "length")
    register(vsae.RowNoise, "floor", "shape")
    register(vsae.Coherence, "decoder", "weight", "threshold", "anchors")
    register(vsae.FittedSpikeSlabPrior, "prior", "rate", "pooling", "spread")
    couplings = ("start", "every", "memory", "strength", "significance", "relabelling")
    register(vsae.CoFiringGatesPrior, "gates", *couplings)
    register(vsae.DecoderGraphPrior, "prior", "decoder", "k", "every", "start")
    register(vsae.CoactivationPrior, "prior", "k", "every", "start", "window")
    register(vsae.DeadLatents, "latents", "after")
    register(vsae.HierarchicalEncoder, "decoder", "top")
    register(vsae.LeakyThreshold, "threshold", "slope")
    for guide in (vsae.AmortizedGuide, vsae.RoutedGuide):
        register(guide, "posterior")
    register(vsae.Autoencoder, "model", "guide", "normalizer")


def _register_models() -> None:
    register(vsae.SparseAutoencoder, "decoder", "prior", "noise", "link", "dictionary")
    register(vsae.SupportAutoencoder, *_SUPPORT, "activity")
    register(vsae.MatryoshkaAutoencoder, *_SUPPORT, "prefixes", "weights", "activity")
    register(vsae.MultiTopKAutoencoder, *_SUPPORT, "k", "weight")
    register(vsae.GatedAutoencoder, "decoder", "prior", "noise")
    register(vsae.TieredAutoencoder, "decoder", "prior", "sizes", "noise")
    switch = ("experts", "width", "noise", "balance")
    register(vsae.SwitchAutoencoder, "decoder", "prior", *switch)
    register(vsae.ResidualAutoencoder, "model", "dead", "residual_noise")
    routed = ("k", "noise", "top_noise", "losers", "num_losers", "orthogonality")
    register(vsae.HierarchicalAutoencoder, "decoder", "prior", *routed)
    for belief in (
        vsae.Biorthogonality,
        vsae.FrobeniusBiorthogonality,
        vsae.ShippedBiorthogonality,
    ):
        register(belief, "encoder", "decoder", "weight")


def _register_posteriors() -> None:
    register(vsae.GaussianPosterior, "encoder", "floor")
    register(vsae.FullGaussianPosterior, "encoder", "latents", "floor")
    for posterior in (vsae.ReLUPosterior, vsae.PointPosterior, vsae.GatedPosterior):
        register(posterior, "encoder")
    iterated = ("decoder", "prior", "noise", "iterations")
    for posterior in (vsae.FISTAPosterior, vsae.UnrolledFISTAPosterior):
        register(posterior, *iterated)
    register(vsae.RelaxedFISTAPosterior, *iterated, "k")
    for posterior in (vsae.MeanFieldPosterior, vsae.UnrolledMeanFieldPosterior):
        register(posterior, *iterated, "damping")
    register(vsae.RefinedMeanFieldPosterior, "start", "iterative", "iterations")
    register(vsae.FittedNoisePosterior, "posterior", "decoder", "noise")
    register(vsae.SpikeSlabPosterior, "encoder", "floor")
    for posterior in (vsae.TopKPosterior, vsae.AbsTopKPosterior):
        register(posterior, "encoder", "k")
    register(vsae.BatchTopKPosterior, "encoder", "k", "width")
    register(vsae.FixedVarianceGaussianPosterior, "encoder", "scale")
    register(vsae.GaussianTopKPosterior, "encoder", "k", "scale")
    register(vsae.MatchingPursuitPosterior, "decoder", "k")
    register(vsae.SwitchPosterior, "encoder", "experts", "k")
    register(vsae.TieredPosterior, "encoder", "curriculum")
    register(vsae.JumpReLUPosterior, "encoder", "width", "bandwidth")
    register(vsae.AuxKPosterior, "posterior", "dead", "k")
    activations = ("activation", "child_activation")
    register(vsae.RoutedPosterior, "encoder", "k", *activations)
    register(vsae.RoutedLosersPosterior, "encoder", "k", "width", *activations)
    register(vsae.GaussianRoutedPosterior, "encoder", "k", "scale")


def _register_priors() -> None:
    register(priors.Tree, "roots", "branching")
    register(priors.Graph, "edges", "weights", "num_nodes", "signed", "scaling")
    register(priors.IsotropicPrior, "dim", "learnable", "loc")
    register(priors.EquicorrelatedPrior, "dim", "correlation", "loc")
    register(priors.CholeskyPrior, "dim", "loc")
    register(priors.BlockDiagonalPrior, "block_sizes", "order", "loc")
    register(priors.LaplacePrior, "dim", "learnable")
    register(priors.TieredLaplacePrior, "sizes", "scales", "learnable", "floor", "ramps")
    register(priors.SoftmaxWeightsPrior, "sizes", "l1")
    register(priors.GraphLaplacianPrior, "graph", "learnable", "loc", "logdet")
    register(priors.ARDPrior, "dim", "loc")
    register(priors.FlatPrior, "dim")
    register(priors.BernoulliPrior, "dim", "rate", "learnable")
    register(priors.ProductPrior, "gaussian", "laplace")
    register(priors.SlabPrior, "prior")
    slabs = (priors.TruncatedNormalPrior, priors.HalfNormalPrior, priors.ExponentialPrior)
    for slab in slabs:
        register(slab, "dim", "learnable")
    register(priors.IsingGatesPrior, "couplings", "learnable")
    register(priors.TreeGatesPrior, "parents", "leak", "exclusion", "learnable")
    register(priors.SpikeSlabPrior, "gates", "slab")
    for logdet in (priors.ComponentLU, priors.Spectrum, priors.Omitted):
        register(logdet)
    register(priors.LanczosSpectrum, "probes", "steps", "seed")


for _register in (_register_vsae, _register_models, _register_posteriors, _register_priors):
    _register()
