"""What may be believed about codes: structures, densities, graphs, penalties."""

from priors import penalties as penalties
from priors import replicas as replicas
from priors._gaussian import AbstractPrecision as AbstractPrecision
from priors._gaussian import PrecisionNormal as PrecisionNormal
from priors._prior import AbstractGaussianPrior as AbstractGaussianPrior
from priors.ard import ARDPrior as ARDPrior
from priors.bernoulli import BernoulliPrior as BernoulliPrior
from priors.block_diagonal import BlockDiagonalPrior as BlockDiagonalPrior
from priors.cholesky import CholeskyPrior as CholeskyPrior
from priors.component_lu import ComponentLU as ComponentLU
from priors.equicorrelated import EquicorrelatedPrior as EquicorrelatedPrior
from priors.flat import FlatPrior as FlatPrior
from priors.graph import Graph as Graph
from priors.isotropic import IsotropicPrior as IsotropicPrior
from priors.lanczos import LanczosSpectrum as LanczosSpectrum
from priors.laplace import LaplacePrior as LaplacePrior
from priors.laplacian import GraphLaplacianPrior as GraphLaplacianPrior
from priors.log_determinant import AbstractLogDeterminant as AbstractLogDeterminant
from priors.log_determinant import Omitted as Omitted
from priors.restrict import restrict as restrict
from priors.slab import SlabPrior as SlabPrior
from priors.spectrum import Spectrum as Spectrum
from priors.subsets import UniformSubsets as UniformSubsets
