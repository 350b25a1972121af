"""Autoencoders by name, each as one call over the parts."""

from vsae.presets.abs_topk import abs_topk_autoencoder as abs_topk_autoencoder
from vsae.presets.auxk import with_auxk as with_auxk
from vsae.presets.batch_topk import batch_topk_autoencoder as batch_topk_autoencoder
from vsae.presets.dense import l1_autoencoder as l1_autoencoder
from vsae.presets.dense import variational_autoencoder as variational_autoencoder
from vsae.presets.dense_crosscoders import l1_crosscoder as l1_crosscoder
from vsae.presets.dense_crosscoders import point_crosscoder as point_crosscoder
from vsae.presets.dense_crosscoders import variational_crosscoder as variational_crosscoder
from vsae.presets.gated import gated_autoencoder as gated_autoencoder
from vsae.presets.hierarchical import hierarchical_autoencoder as hierarchical_autoencoder
from vsae.presets.jumprelu import jumprelu_autoencoder as jumprelu_autoencoder
from vsae.presets.ladder import ladder_autoencoder as ladder_autoencoder
from vsae.presets.ladder import variational_ladder_autoencoder as variational_ladder_autoencoder
from vsae.presets.matching_pursuit import (
    matching_pursuit_autoencoder as matching_pursuit_autoencoder,
)
from vsae.presets.matryoshka import matryoshka_autoencoder as matryoshka_autoencoder
from vsae.presets.multi_topk import multi_topk_autoencoder as multi_topk_autoencoder
from vsae.presets.published_hierarchical import (
    paper_hierarchical_autoencoder as paper_hierarchical_autoencoder,
)
from vsae.presets.published_hierarchical import (
    shipped_hierarchical_autoencoder as shipped_hierarchical_autoencoder,
)
from vsae.presets.sparse_crosscoders import batch_topk_crosscoder as batch_topk_crosscoder
from vsae.presets.sparse_crosscoders import decoupled_crosscoder as decoupled_crosscoder
from vsae.presets.sparse_crosscoders import jumprelu_crosscoder as jumprelu_crosscoder
from vsae.presets.sparse_crosscoders import topk_crosscoder as topk_crosscoder
from vsae.presets.switch import switch_autoencoder as switch_autoencoder
from vsae.presets.tiered import tiered_autoencoder as tiered_autoencoder
from vsae.presets.topk import topk_autoencoder as topk_autoencoder
from vsae.presets.variational_topk import (
    masked_variational_topk_autoencoder as masked_variational_topk_autoencoder,
)
from vsae.presets.variational_topk import shrunk_topk_autoencoder as shrunk_topk_autoencoder
from vsae.presets.variational_topk import (
    variational_topk_autoencoder as variational_topk_autoencoder,
)
