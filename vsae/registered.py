"""What can be saved: the closed table of classes and the constructor arguments they keep."""

from collections.abc import Callable

from torch import nn

import priors
import vsae

Register = Callable[..., type]

_SUPPORT = ("decoder", "prior", "width", "noise")  # what every model of codes in slots is made of


def register_all(register: Register) -> None:
    """Tell ``register`` of every class of the library, with its arguments."""
    for part in (_parts, _layers, _models, _posteriors, _priors):
        part(register)


def _parts(register: Register) -> None:
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
    register(vsae.JoinedEncoder, "encoders")
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
    for pair in (vsae.Autoencoder, vsae.LayeredAutoencoder):
        register(pair, "model", "guide", "normalizer")


def _layers(register: Register) -> None:
    register(vsae.LayerNormalizer, "mean", "scales", "layers")
    for norm in (vsae.SumOfNorms, vsae.ConcatenatedNorm):
        register(norm)
    register(vsae.MixedNorm, "concatenated", "summed")
    register(vsae.LayeredDecoder, "latents", "layers", "norm", "bias", "writes")
    register(vsae.LayeredEncoder, "decoder", "layers", "targets", "reads")
    register(vsae.DecoupledDecoder, "shared", "layers", "bias")
    register(vsae.DecoupledEncoder, "decoder")
    register(vsae.SkipConnection, "layers", "inputs", "targets")
    register(vsae.LadderEncoder, "d_model", "sizes", "numbers")
    register(vsae.LateralDecoder, "levels", "learnable")
    register(vsae.AdditiveDecoder, "parts")
    register(vsae.ChainDecoder, "levels")
    for consistency in (vsae.Consistency, vsae.StoppedConsistency):
        register(consistency, "views", "scales")
    register(vsae.PrecisionWeightedGuide, "model", "evidence")


def _models(register: Register) -> None:
    register(vsae.SparseAutoencoder, "decoder", "prior", "noise", "link", "dictionary")
    register(vsae.SupportAutoencoder, *_SUPPORT, "activity")
    register(vsae.MatryoshkaAutoencoder, *_SUPPORT, "prefixes", "weights", "activity")
    register(vsae.MultiTopKAutoencoder, *_SUPPORT, "k", "weight")
    register(vsae.Crosscoder, "model", "layers", "targets", "skip")
    register(vsae.GatedAutoencoder, "decoder", "prior", "noise")
    register(vsae.TieredAutoencoder, "decoder", "prior", "sizes", "noise")
    register(vsae.LadderAutoencoder, "decoder", "priors", "noise", "consistency")
    chain = ("decoder", "prior", "spreads", "noise", "link")
    register(vsae.GaussianLadderAutoencoder, *chain)
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


def _posteriors(register: Register) -> None:
    register(vsae.GaussianPosterior, "encoder", "floor")
    register(vsae.FullGaussianPosterior, "encoder", "latents", "floor")
    register(vsae.GaussianLadderPosterior, "encoder", "floor")
    single = (vsae.ReLUPosterior, vsae.PointPosterior, vsae.GatedPosterior, vsae.LadderPosterior)
    for posterior in single:
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


def _priors(register: Register) -> None:
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
