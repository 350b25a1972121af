"""Posterior families, one file each: ``x -> {site: Distribution}``."""

from vsae.posteriors.abs_topk import AbsTopKPosterior as AbsTopKPosterior
from vsae.posteriors.auxk import AuxKPosterior as AuxKPosterior
from vsae.posteriors.batch_topk import BatchTopKPosterior as BatchTopKPosterior
from vsae.posteriors.fista import FISTAPosterior as FISTAPosterior
from vsae.posteriors.fista import UnrolledFISTAPosterior as UnrolledFISTAPosterior
from vsae.posteriors.fitted_noise import FittedNoisePosterior as FittedNoisePosterior
from vsae.posteriors.fixed_variance import (
    FixedVarianceGaussianPosterior as FixedVarianceGaussianPosterior,
)
from vsae.posteriors.gated import GatedPosterior as GatedPosterior
from vsae.posteriors.gaussian import FullGaussianPosterior as FullGaussianPosterior
from vsae.posteriors.gaussian import GaussianPosterior as GaussianPosterior
from vsae.posteriors.gaussian_routed import GaussianRoutedPosterior as GaussianRoutedPosterior
from vsae.posteriors.gaussian_topk import GaussianTopKPosterior as GaussianTopKPosterior
from vsae.posteriors.jumprelu import JumpReLUPosterior as JumpReLUPosterior
from vsae.posteriors.ladder import GaussianLadderPosterior as GaussianLadderPosterior
from vsae.posteriors.ladder import LadderPosterior as LadderPosterior
from vsae.posteriors.matching_pursuit import MatchingPursuitPosterior as MatchingPursuitPosterior
from vsae.posteriors.mean_field import MeanFieldPosterior as MeanFieldPosterior
from vsae.posteriors.mean_field import UnrolledMeanFieldPosterior as UnrolledMeanFieldPosterior
from vsae.posteriors.point import PointPosterior as PointPosterior
from vsae.posteriors.point import ReLUPosterior as ReLUPosterior
from vsae.posteriors.point import point as point
from vsae.posteriors.refined import RefinedMeanFieldPosterior as RefinedMeanFieldPosterior
from vsae.posteriors.relaxed_fista import RelaxedFISTAPosterior as RelaxedFISTAPosterior
from vsae.posteriors.routed import RoutedPosterior as RoutedPosterior
from vsae.posteriors.routed_losers import RoutedLosersPosterior as RoutedLosersPosterior
from vsae.posteriors.spike_slab import SpikeSlabPosterior as SpikeSlabPosterior
from vsae.posteriors.switch import SwitchPosterior as SwitchPosterior
from vsae.posteriors.tiered import TieredPosterior as TieredPosterior
from vsae.posteriors.topk import TopKPosterior as TopKPosterior
