"""Data A as SAELens draws it, where that library is installed."""

import importlib
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import ModuleType

import torch
from torch import Generator

from toys.recovery_cases import RecoveryCase
from toys.synth import DATA_A, SynthCase, SynthToy
from toys.synth_directions import OrthogonalisedDirections
from toys.synth_law import SynthLaw
from toys.synth_parts import LinearlySpaced
from toys.toy import ToyBatch

THEIRS = "data-a-saelens"
LARGEST = 2**62  # of the seeds that are drawn


def installed() -> str | None:
    """SAELens's version, ``None`` where it is not installed; whether its arms run at all."""
    found = importlib.util.find_spec("sae_lens") is not None
    return importlib.metadata.version("sae-lens") if found else None


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines of theirs; both as they were afterwards."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def library(name: str = "sae_lens") -> ModuleType:
    """A module of SAELens, imported when it is asked for: that takes seconds."""
    with quiet():
        return importlib.import_module(name)


@dataclass(frozen=True, kw_only=True, eq=False)
class SAELensToy(SynthToy):
    """A toy whose numbers SAELens has drawn, and whose rows it draws.

    Args:
        source: Their ``SyntheticModel``.
    """

    source: torch.nn.Module

    def sample(self, rows: int, generator: Generator) -> ToyBatch:
        """Rows of theirs, a pure function of the generator's state; random state is put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(LARGEST, (), generator=generator)))
            x, codes = self.source.sample_with_features(rows)
        dtype = self.dictionary.dtype
        return ToyBatch(x.to(dtype), codes.to(dtype))


@dataclass(frozen=True, kw_only=True)
class SAELensCase(SynthCase):
    """The same law, of a toy that SAELens draws and samples; the generator's seed is its seed."""

    def build(self, generator: Generator) -> SAELensToy:
        theirs = library("sae_lens.synthetic")
        with quiet(), torch.random.fork_rng(devices=[]):
            source = theirs.SyntheticModel(_config(theirs, self, generator.initial_seed()))
        source.eval().requires_grad_(False)
        drawn, dtype = source.activation_generator, torch.get_default_dtype()
        law = SynthLaw(
            gates=drawn.firing_probabilities.double(),
            mean=drawn.mean_firing_magnitudes,
            deviation=drawn.std_firing_magnitudes,
            loadings=source.correlation_matrix.correlation_factor,
            trees=self.trees,
        )
        return SAELensToy(
            law=law,
            dictionary=source.feature_dict.feature_vectors.detach().to(dtype),
            bias=source.feature_dict.bias.detach().to(dtype),
            noise=0.0,
            requested=self.rates.of(self.features),
            source=source,
        )


def _config(theirs: ModuleType, case: SynthCase, seed: int) -> object:
    """Their settings of a case with trees, a copula, and sizes in equal steps."""
    rates, trees, copula, directions = case.rates, case.trees, case.copula, case.directions
    assert trees is not None
    assert copula is not None
    assert isinstance(directions, OrthogonalisedDirections)
    return theirs.SyntheticModelConfig(
        num_features=case.features,
        hidden_dim=case.d_model,
        firing_probability=theirs.ZipfianFiringProbabilityConfig(
            exponent=rates.exponent, min_prob=rates.low, max_prob=rates.high
        ),
        hierarchy=theirs.HierarchyConfig(
            total_root_nodes=trees.roots,
            branching_factor=trees.branching,
            max_depth=trees.depth,
            mutually_exclusive_portion=float(trees.exclusive),
            compensate_probabilities=trees.compensated,
            scale_children_by_parent=trees.scaled,
        ),
        orthogonalization=theirs.OrthogonalizationConfig(
            num_steps=directions.steps, lr=directions.rate
        ),
        correlation=theirs.LowRankCorrelationConfig(
            rank=copula.rank, correlation_scale=copula.scale
        ),
        mean_firing_magnitudes=_sizes(theirs, case.mean),
        std_firing_magnitudes=_sizes(theirs, case.deviation),
        bias=case.bias,
        seed=seed,
    )


def _sizes(theirs: ModuleType, law: object) -> object:
    assert isinstance(law, LinearlySpaced)
    return theirs.LinearMagnitudeConfig(start=law.start, end=law.stop)


SAELENS_CASES = {
    THEIRS: RecoveryCase(
        family="data-a",
        case=SAELensCase(**{f.name: getattr(DATA_A, f.name) for f in fields(DATA_A)}),
    )
}
"""By name; to be built only where SAELens is installed."""
