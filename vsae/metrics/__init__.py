"""Metrics: pure functions of tensors, with float64 sums and definitions stated."""

from vsae.metrics.activity import activation_frequency as activation_frequency
from vsae.metrics.activity import activation_value as activation_value
from vsae.metrics.activity import active_units as active_units
from vsae.metrics.activity import dead_fraction as dead_fraction
from vsae.metrics.activity import l0 as l0
from vsae.metrics.collapse import surviving_components as surviving_components
from vsae.metrics.reconstruction import explained_variance as explained_variance
from vsae.metrics.reconstruction import kl_recovered as kl_recovered
from vsae.metrics.reconstruction import loss_recovered as loss_recovered
from vsae.metrics.reconstruction import mse as mse
from vsae.metrics.recovery import absorption_fraction as absorption_fraction
from vsae.metrics.recovery import latent_f1 as latent_f1
from vsae.metrics.recovery import mean_correlation_coefficient as mean_correlation_coefficient
from vsae.metrics.recovery import uniqueness as uniqueness
from vsae.metrics.retrieval import ndcg_at_k as ndcg_at_k
from vsae.metrics.retrieval import precision_at_k as precision_at_k
