"""Plots draw the numbers they are given: read back from the artists, not from pictures."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vsae import plots
from vsae.errors import ConfigError, ShapeError


@pytest.fixture
def ax():
    return Figure().add_subplot()


RECORDS = [
    {"step": 0, "beta": 0.1, "elbo/loss": 9.0, "elbo/x": 7.0},
    {"step": 5, "beta": 0.6, "elbo/loss": 4.0, "elbo/x": 3.5},
    {"step": 10, "beta": 1.0, "elbo/loss": 2.0, "elbo/x": 1.5},
]


def test_training_curves_draw_every_elbo_metric_against_the_step(ax):
    assert plots.training_curves(ax, RECORDS) is ax
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {
        "elbo/loss": [[0, 9], [5, 4], [10, 2]],
        "elbo/x": [[0, 7], [5, 3.5], [10, 1.5]],
    }


def test_training_curves_of_replicas_are_a_line_each(ax):
    records = [{"step": n, "elbo/loss": [n + 1.0, n + 2.0]} for n in (0, 1)]
    plots.training_curves(ax, records)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2], [2, 3]]
    assert len({line.get_color() for line in ax.lines}) == 1
    assert len(ax.get_legend().get_texts()) == 1


def test_compared_curves_skip_records_without_the_metric(ax):
    runs = {"a": RECORDS, "b": [{"step": 1}, {"step": 2, "beta": 0.5}]}
    plots.compared_curves(ax, runs, metric="beta")
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[0, 0.1], [5, 0.6], [10, 1]],
        [[2, 0.5]],
    ]


@pytest.mark.parametrize(("metric", "code"), [("nothing", "plot.empty"), ("bad", "plot.nonfinite")])
def test_training_curves_say_what_they_cannot_draw(ax, metric, code):
    with pytest.raises(ConfigError) as raised:
        plots.compared_curves(ax, {"a": [{"step": 0, "bad": float("nan")}]}, metric=metric)
    assert raised.value.code == code


def test_training_curves_of_nothing_is_an_error(ax):
    with pytest.raises(ConfigError) as raised:
        plots.training_curves(ax, [{"step": 0}])
    assert raised.value.code == "plot.empty"


def test_frontier_is_ordered_by_l0_with_error_bars(ax):
    point = plots.FrontierPoint
    points = [point(20.0, 0.9, 1.0, 0.02), point(5.0, 0.5, 0.5, 0.04), point(10.0, 0.7, 0.0, 0.0)]
    plots.pareto_frontier(ax, {"arm": points, "other": [point(3.0, 0.1)]}, label="EV")
    (line, _, bars), other = (container.lines for container in ax.containers)
    assert line.get_xydata().tolist() == [[5, 0.5], [10, 0.7], [20, 0.9]]
    horizontal, vertical = (np.array(bar.get_segments()) for bar in bars)
    np.testing.assert_allclose(horizontal[0], [[4.5, 0.5], [5.5, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(vertical[0], [[5, 0.46], [5, 0.54]], rtol=1e-12)
    assert other[2] == ()  # one seed: no interval is drawn
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["arm", "other"]


def test_heatmap_reorders_rows_and_columns_by_block_and_frames_blocks(ax):
    labels = torch.tensor([1, 0, 1, 0, 2])
    matrix = torch.arange(25.0).view(5, 5) / 25
    plots.correlation_heatmap(ax, matrix, labels=labels, limit=0.5)
    order = [1, 3, 0, 2, 4]
    expected = matrix.numpy()[np.ix_(order, order)]
    np.testing.assert_array_equal(ax.images[0].get_array(), expected)
    assert ax.images[0].get_clim() == (-0.5, 0.5)
    frames = [line.get_xydata() for line in ax.lines]
    spans = [(frame.min(0).tolist(), frame.max(0).tolist()) for frame in frames]
    assert spans == [([-0.5] * 2, [1.5] * 2), ([1.5] * 2, [3.5] * 2), ([3.5] * 2, [4.5] * 2)]
    for frame in frames:  # a closed square: four sides, each along one axis
        steps = np.abs(np.diff(frame, axis=0))
        assert frame[0].tolist() == frame[-1].tolist()
        assert ((steps == 0).sum(1) == 1).all()


def test_heatmap_without_labels_keeps_the_order(ax):
    matrix = torch.tensor([[1.0, 0.3], [0.3, 1.0]])
    plots.correlation_heatmap(ax, matrix)
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix.numpy())
    assert not ax.lines


def test_heatmap_refuses_labels_of_another_length(ax):
    with pytest.raises(ShapeError) as raised:
        plots.correlation_heatmap(ax, torch.eye(3), labels=torch.tensor([0, 1]))
    assert raised.value.code == "plot.shape"


def test_firing_rates_are_counted_per_bin_and_the_dead_apart(ax):
    frequency = torch.tensor([0.0, 0.0, 0.0, 0.001, 0.002, 0.5, 1.0])
    plots.firing_rate_histogram(ax, frequency, rows=1000, label="iso")
    dead, alive = ax.patches[-1], ax.patches[:-1]
    assert dead.get_height() == 3
    assert dead.get_x() + dead.get_width() < -3
    assert sum(patch.get_height() for patch in alive) == 4
    for rate in (0.001, 0.002, 0.5, 1.0):
        at = np.log10(rate)
        inside = [p for p in alive if p.get_x() - 1e-9 <= at <= p.get_x() + p.get_width() + 1e-9]
        assert sum(p.get_height() for p in inside) >= 1, rate
    assert ax.lines[0].get_xdata()[0] == -3  # the dead line: one firing in all rows
    assert ax.get_title() == "iso: 3 of 7 never fire"


def test_kl_is_sorted_and_collapsed_latents_stay_visible(ax):
    plots.kl_per_latent(ax, {"iso": torch.tensor([0.0, 3.0, 1.0])}, collapsed=0.01)
    line, threshold = ax.lines
    assert line.get_xydata().tolist() == [[1, 3], [2, 1], [3, 0.001]]
    assert list(threshold.get_ydata()) == [0.01, 0.01]


def test_bars_have_the_lengths_errors_and_references_given(ax):
    plots.bars(ax, {"a": 2.0, "b": 1.5}, errors={"a": 0.25}, references={"clean": 1.0, "zero": 6.0})
    assert [patch.get_width() for patch in ax.patches] == [2.0, 1.5]
    assert {text.get_text() for text in ax.texts} >= {"2", "1.5"}
    segments = np.array(ax.collections[0].get_segments())
    assert segments[0, :, 0].tolist() == [1.75, 2.25]
    lines = {
        line.get_label(): line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"
    }
    assert lines == {"clean": 1.0, "zero": 6.0}
    low, high = ax.get_xlim()
    assert low <= 0
    assert high > 6
    assert ax.yaxis_inverted()  # the first on top


def test_bars_refuse_nan(ax):
    with pytest.raises(ConfigError) as raised:
        plots.bars(ax, {"a": float("nan")})
    assert raised.value.code == "plot.nonfinite"


def test_norm_shares_are_counted_per_layer(ax):
    atoms = torch.tensor([[3.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # the last: nowhere
    plots.norm_share_histogram(ax, atoms, (2, 1), names=["base", "chat"])
    drawn = [patch.get_xy() for patch in ax.patches]
    for outline, shares in zip(drawn, ([0.75, 0.0], [0.25, 1.0]), strict=True):
        for share in shares:  # the outline is high where a latent's share is
            left = np.floor(min(share, 1 - 1e-9) * 25) / 25
            assert outline[np.isclose(outline[:, 0], left), 1].max() == 1
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["base", "chat"]
    with pytest.raises(ConfigError) as raised:
        plots.norm_share_histogram(ax, atoms, (2, 1), names=["base"])
    assert raised.value.code == "plot.names"


def test_cosines_between_layers_are_weighted_by_what_is_written_there(ax):
    alike, opposed = [1.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, -1.0]
    alone = [1.0, 1.0, 0.0, 0.0]  # says nothing of the pair
    plots.layer_cosine_heatmap(ax, torch.tensor([alike, opposed, alone]), (2, 2))
    shown = np.asarray(ax.images[0].get_array())
    expected = (0.5 * 0.5 * 1 + 0.75 * 0.25 * -1) / (0.5 * 0.5 + 0.75 * 0.25)
    np.testing.assert_allclose(shown, [[1, expected], [expected, 1]], atol=1e-6)


def test_plotting_leaves_no_global_figures():
    """Object-oriented matplotlib only: importing and drawing must not load pyplot's state."""
    import subprocess
    import sys

    program = (
        "import sys, torch; from matplotlib.figure import Figure; from vsae import plots;"
        "plots.kl_per_latent(Figure().add_subplot(), {'a': torch.ones(3)});"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
