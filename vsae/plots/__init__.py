"""Plots as functions ``(ax, data) -> ax`` on axes of the caller's; no state, nothing is shown."""

from vsae.plots.bars import bars as bars
from vsae.plots.curves import compared_curves as compared_curves
from vsae.plots.curves import training_curves as training_curves
from vsae.plots.firing import firing_rate_histogram as firing_rate_histogram
from vsae.plots.frontier import FrontierPoint as FrontierPoint
from vsae.plots.frontier import pareto_frontier as pareto_frontier
from vsae.plots.heatmap import block_order as block_order
from vsae.plots.heatmap import correlation_heatmap as correlation_heatmap
from vsae.plots.kl import kl_per_latent as kl_per_latent
from vsae.plots.layers import layer_cosine_heatmap as layer_cosine_heatmap
from vsae.plots.layers import norm_share_histogram as norm_share_histogram
