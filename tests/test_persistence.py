"""What is saved is what is loaded, to the bit; anything else is a typed error."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
from pairs import PAIRS, D, K, pair, tied
from torch import nn

import priors
import vsae
from priors import BlockDiagonalPrior, GraphLaplacianPrior, LanczosSpectrum, Omitted, Spectrum
from priors.replicas import stack
from vsae import AffineNormalizer, fit, load, save
from vsae.config import build, describe, register
from vsae.errors import CheckpointCorruptError, CheckpointError, VsaeError
from vsae.persistence import CONFIG, WEIGHTS, _digest


def assert_same(one, two, x):
    ours, theirs = one.state_dict(), two.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [n for n, p in one.named_parameters() if p.requires_grad] == [
        n for n, p in two.named_parameters() if p.requires_grad
    ]
    torch.manual_seed(3)
    first = one.elbo(x)
    torch.manual_seed(3)
    assert torch.equal(first, two.elbo(x))
    assert torch.equal(one.encode(x), two.encode(x))


@pytest.mark.parametrize(("prior", "posterior"), PAIRS)
def test_round_trip(prior, posterior, tmp_path):
    x = torch.randn(40, D)
    autoencoder = pair(prior, posterior, link=nn.ReLU())
    autoencoder.normalizer = AffineNormalizer.fit(x)
    fit(autoencoder, x, steps=3, batch_size=8, lr=0.1).run(progress=False)
    assert_same(autoencoder, load(save(autoencoder, tmp_path / "sae")), x)


def test_shared_weights_stay_shared(tmp_path):
    loaded = load(save(tied(), tmp_path / "sae"))
    assert loaded.guide.posterior.encoder.decoder is not None
    assert loaded.guide.posterior.encoder.decoder.W_dec is loaded.W_dec
    assert_same(tied_copy := tied(), load(save(tied_copy, tmp_path / "again")), torch.randn(5, D))


def test_graph_normalisers_and_scattered_blocks_survive(tmp_path):
    from pairs import ring

    for number, logdet in enumerate((Spectrum(), LanczosSpectrum(probes=3, steps=4), Omitted())):
        autoencoder = pair()
        autoencoder.model.prior = GraphLaplacianPrior(ring(signed=True), ridge=0.3, logdet=logdet)
        assert_same(autoencoder, load(save(autoencoder, tmp_path / str(number))), torch.randn(5, D))
    autoencoder.model.prior = BlockDiagonalPrior.from_labels([0, 1, 0, 1, 1, 0])
    assert_same(autoencoder, load(save(autoencoder, tmp_path / "blocks")), torch.randn(5, D))


@pytest.mark.float32
def test_dtype_is_that_of_the_file(tmp_path):
    autoencoder = pair("graph")
    folder = save(autoencoder, tmp_path / "sae")
    torch.set_default_dtype(torch.float64)
    assert load(folder).W_dec.dtype == torch.float32
    assert_same(autoencoder, load(folder), torch.randn(5, D, dtype=torch.float32))


def test_files_are_json_and_safetensors_alone(tmp_path):
    folder = save(pair(), tmp_path / "sae")
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert not list(tmp_path.glob(".*"))  # no staging left
    settings = json.loads((folder / CONFIG).read_text())
    assert settings["d_in"] == D
    assert settings["d_sae"] == K
    assert set(safetensors.torch.load_file(folder / WEIGHTS)) >= {"model.decoder.W_dec"}


def test_nothing_is_overwritten(tmp_path):
    folder = save(pair(), tmp_path / "sae")
    before = (folder / WEIGHTS).read_bytes()
    with pytest.raises(CheckpointError, match="not empty") as caught:
        save(pair("isotropic"), folder)
    assert caught.value.code == "checkpoint.exists"
    assert (folder / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_every_truncation_is_caught(name, tmp_path):
    folder = save(pair(), tmp_path / "sae")
    whole = (folder / name).read_bytes()
    for length in {0, 1, 8, 9, len(whole) // 2, len(whole) - 2}:
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load(folder)


def test_every_flipped_bit_of_the_weights_is_caught(tmp_path):
    folder = save(pair(), tmp_path / "sae")
    whole = bytearray((folder / WEIGHTS).read_bytes())
    generator = torch.Generator().manual_seed(0)
    for bit in torch.randint(8 * len(whole), (200,), generator=generator).tolist():
        whole[bit // 8] ^= 1 << bit % 8
        (folder / WEIGHTS).write_bytes(whole)
        with pytest.raises(CheckpointCorruptError) as caught:
            load(folder)
        assert caught.value.code == "checkpoint.checksum"
        whole[bit // 8] ^= 1 << bit % 8


def edit(folder, change, *, signed=True):
    """A settings file changed by hand, its checksum made to fit if ``signed``."""
    settings = json.loads((folder / CONFIG).read_text())
    change(settings)
    if signed:
        settings["settings"]["sha256"] = _digest(settings)
    (folder / CONFIG).write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["vsae"]["model"].update(link={"class": "Identity"}),
        lambda s: s["vsae"]["guide"]["posterior"].update(floor=0.5),
        lambda s: s.update(dtype="float32"),
        lambda s: s.update(frozen=["model.decoder.W_dec"]),
    ],
)
def test_a_change_of_the_settings_is_caught(change, tmp_path):
    folder = save(pair(link=nn.ReLU()), tmp_path / "sae")
    edit(folder, change, signed=False)
    with pytest.raises(CheckpointCorruptError) as caught:
        load(folder)
    assert caught.value.code == "checkpoint.checksum"


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(vsae=3),
        lambda s: s["vsae"].update({"class": "ReLU"}) or s.update(vsae={"class": "ReLU"}),
        lambda s: s["vsae"]["model"]["decoder"].update(latents="6"),
        lambda s: s["vsae"]["model"]["decoder"].update(latents=-1),
        lambda s: s["vsae"]["guide"]["posterior"].update(encoder={"class": "ReLU"}),
    ],
)
def test_settings_that_describe_no_model(change, tmp_path):
    folder = save(pair(), tmp_path / "sae")
    edit(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.code == "checkpoint.settings"


BAD = {
    "checkpoint.missing": lambda f: (f / WEIGHTS).unlink(),
    "checkpoint.json": lambda f: (f / CONFIG).write_text("[" * 100_000),
    "checkpoint.format": lambda f: edit(f, lambda s: s.update(format=99)),
    "config.unregistered": lambda f: edit(f, lambda s: s["vsae"].update({"class": "os.system"})),
    "config.arguments": lambda f: edit(f, lambda s: s["vsae"].update(extra=1)),
    "checkpoint.keys": lambda f: edit(
        f, lambda s: s["vsae"]["model"]["decoder"].update(bias=False)
    ),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_folders(code, tmp_path):
    folder = save(pair(), tmp_path / "sae")
    BAD[code](folder)
    with pytest.raises(VsaeError) as caught:
        load(folder)
    assert caught.value.code == code


def test_a_bad_header_under_a_good_checksum(tmp_path):
    folder = save(pair(), tmp_path / "sae")
    junk = b"\x00" * 100
    (folder / WEIGHTS).write_bytes(junk)
    good = {"bytes": 100, "sha256": hashlib.sha256(junk).hexdigest()}
    edit(folder, lambda s: s.update(weights=good))
    with pytest.raises(CheckpointCorruptError) as caught:
        load(folder)
    assert caught.value.code == "checkpoint.tensors"


def test_a_missing_tensor_is_named(tmp_path):
    folder = save(pair("graph"), tmp_path / "sae")
    edges = ["vsae", "model", "prior", "graph", "edges"]

    def rename(settings):
        for key in edges:
            settings = settings[key]
        settings["tensor"] = "elsewhere"

    edit(folder, rename)
    with pytest.raises(CheckpointError, match="elsewhere") as caught:
        load(folder)
    assert caught.value.code == "config.tensor"


def test_a_truncated_weights_file_is_called_that(tmp_path):
    folder = save(pair(), tmp_path / "sae")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(CheckpointCorruptError) as caught:
        load(folder)
    assert caught.value.code == "checkpoint.truncated"


def test_loading_draws_nothing_from_the_global_generator(tmp_path):
    folder = save(pair("blocks"), tmp_path / "sae")
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_learned_noise_at_its_floor_loads(tmp_path):
    autoencoder = tied()
    with torch.no_grad():
        autoencoder.model.noise.log_excess.fill_(-100.0)
    assert_same(autoencoder, load(save(autoencoder, tmp_path / "sae")), torch.randn(5, D))


def test_frozen_parameters_stay_frozen(tmp_path):
    autoencoder = pair()
    autoencoder.W_dec.requires_grad_(False)
    assert not load(save(autoencoder, tmp_path / "sae")).W_dec.requires_grad


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError) as caught:
        save(pair(), tmp_path / "file" / "sae")
    assert caught.value.code == "checkpoint.write"
    assert caught.value.context["errno"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_half_precision_is_refused(tmp_path):
    with pytest.raises(VsaeError) as caught:
        save(pair().bfloat16(), tmp_path / "sae")
    assert caught.value.code == "model.dtype"


def test_stacks_and_strangers_are_refused(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        save(stack([pair(), pair()]), tmp_path / "sae")
    assert caught.value.code == "checkpoint.stacked"

    class Mine(nn.Identity):
        pass

    with pytest.raises(CheckpointError) as caught:
        save(pair(link=Mine()), tmp_path / "sae")
    assert caught.value.code == "config.unregistered"
    assert not (tmp_path / "sae").exists()


def test_a_users_class_can_be_registered():
    class Doubled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

    register(Doubled, "factor")
    assert build(describe(Doubled(2.5), {}), {}).factor == 2.5

    with pytest.raises(VsaeError) as caught:
        register(type("Doubled", (nn.Module,), {}))
    assert caught.value.code == "config.duplicate"


@pytest.mark.parametrize("package", [priors, vsae])
def test_every_part_of_a_pair_has_a_saved_name(package):
    from vsae.config import _TABLE

    parts = ("Prior", "Posterior", "Autoencoder", "Encoder", "Decoder", "Link", "Normalizer")
    abstract = {
        "AbstractGaussianPrior",
        "AbstractDictionaryEncoder",
        "AbstractRefreshedGraphPrior",
    }
    names = {n for n in dir(package) if n.endswith(parts)} - abstract
    assert len(names) > 5
    assert names <= set(_TABLE), names - set(_TABLE)
