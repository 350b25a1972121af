"""Every architecture by name from the command line: trained, measured, and no option ignored."""

import importlib
import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vsae import SparseCode, load
from vsae.__main__ import main
from vsae.commands.architectures import ARCHITECTURES, choose
from vsae.commands.eval import firings, measure
from vsae.commands.prior_names import PRIORS
from vsae.commands.train import SETTINGS
from vsae.errors import ConfigError

LATENTS, WIDTH = 40, 6
SMALL = ["--latents", str(LATENTS), "--steps", "20", "--batch-size", "100"]
FEW = {"k": "4", "experts": "4"}  # instead of defaults that are too many for so few latents
VALUES = {"graph": "e.npy", "prior": "cholesky", "prefixes": "4,40"} | dict.fromkeys(
    ("k", "width", "block", "warmup", "experts", "children", "subspace", "auxk_after"), "2"
)
by_name = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture
def acts(tmp_path):
    path = tmp_path / "acts.npy"
    generator = torch.Generator().manual_seed(0)
    np.save(path, torch.randn(500, WIDTH, generator=generator, dtype=torch.float32).numpy())
    return str(path)


def few(name):
    """Options that make an architecture small."""
    fit = {n: v for n, v in FEW.items() if n in ARCHITECTURES[name].settings}
    return [word for n, v in fit.items() for word in (f"--{n}", v)]


def train(capsys, *words):
    """Exit status, and the JSON object on stdout."""
    status = main(["train", *SMALL, *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def exit_status(words):
    try:
        return main(words)
    except SystemExit as usage:
        return usage.code


@pytest.mark.float32
@by_name
def test_trains_and_is_evaluated(name, acts, tmp_path, capsys):
    out = str(tmp_path / "run")
    status, result = train(capsys, acts, "--out", out, "--architecture", name, *few(name))
    assert status == 0
    every = LATENTS * (1 + ARCHITECTURES[name].settings.get("children", 0))  # of a tree, the roots
    assert load(out).W_dec.shape == (every, WIDTH)
    assert main(["eval", out, acts, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    for found in (scores, *result["metrics"].values()):
        assert all(math.isfinite(value) for value in found.values())
    assert scores["l0"] > 0
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["architecture"] == name
    assert settings["prior"] == ARCHITECTURES[name].prior


@pytest.mark.float32
@pytest.mark.parametrize("prior", PRIORS)
def test_priors_compose_with_codes_in_slots(prior, acts, tmp_path, capsys):
    np.save(tmp_path / "e.npy", np.array([[i, i + 1] for i in range(LATENTS - 1)]))
    words = ["--architecture", "topk", "--k", "4", "--prior", prior]
    words += ["--graph", str(tmp_path / "e.npy")] if prior == "graph" else []
    status, result = train(capsys, acts, "--out", str(tmp_path / "run"), *words)
    assert status == 0
    assert math.isfinite(result["metrics"]["train"]["elbo_nats_per_row"])
    found = type(load(tmp_path / "run").model.prior).__name__.lower()
    assert found.startswith({"blocks": "blockdiagonal"}.get(prior, prior))


def test_without_an_architecture_the_prior_says_which():
    assert choose({}).architecture == choose({"prior": "laplace"}).architecture == "l1"
    for prior in PRIORS.keys() - {"laplace"}:
        assert choose({"prior": prior}).architecture == "variational"


@pytest.mark.float32
def test_laplace_on_slots_is_the_l1_penalty(acts, tmp_path, capsys):
    """Beside the squared error, of which σ² = ½ is the noise: scale 2σ²/λ."""
    words = ["--architecture", "topk", "--k", "4", "--prior", "laplace", "--l1", "0.25"]
    train(capsys, acts, "--out", str(tmp_path / "a"), *words)
    train(capsys, acts, "--out", str(tmp_path / "b"), *words, "--noise", "2")
    a, b = (load(tmp_path / name).model for name in "ab")

    def scale(model):
        return model.prior().base_dist.scale[0].item()

    assert scale(a) == pytest.approx(2 * a.noise().item() ** 2 / 0.25)
    assert scale(b) == pytest.approx(2 * 2**2 / 0.25)


@by_name
def test_settings_are_the_presets_own_keywords(name):
    """Each is one, and each without a default of the preset has one here."""
    chosen = ARCHITECTURES[name]
    module, function = chosen.preset.split(":")
    preset = getattr(importlib.import_module(module), function)
    keywords = inspect.signature(preset).parameters
    assert chosen.settings.keys() - {"screened"} <= keywords.keys()
    assert ("encoder" in keywords) == ("screened" in chosen.settings)
    assert ("prior" in keywords) == (not chosen.fixed)
    for keyword, parameter in keywords.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            ours = keyword in ("prior", "normalizer")
            assert ours or chosen.settings[keyword] is not None, keyword


@by_name
@pytest.mark.parametrize("option", SETTINGS)
def test_options_are_heard_or_refused(name, option, acts, tmp_path, capsys):
    """By name alone: one that is not in the table is an error, before anything is read."""
    chosen = ARCHITECTURES[name]
    penalised = chosen.prior != "flat" or chosen.penalty
    heard = option in chosen.settings | ({} if chosen.fixed else PRIORS[chosen.prior])
    also = {"prior": not chosen.fixed, "warmup": penalised, "auxk_after": chosen.auxk}
    heard |= also.get(option, False)
    value = VALUES.get(option, "0.3")
    given = {"architecture": name, option: value}
    if heard:
        choice = choose(given)
        found = {**choice.settings, "prior": choice.prior}
        assert option in ("warmup", "auxk_after") or found[option] == value
        return
    flag = "--" + option.replace("_", "-")
    words = ["train", acts, "--out", str(tmp_path / "run"), "--architecture", name, "--json"]
    assert main([*words, flag, *([] if option == "screened" else [value])]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "train.option"
    assert error["context"]["ignored"] == [option]
    assert flag in error["message"]
    assert not (tmp_path / "run").exists()


def test_every_option_is_heard_by_something():
    somewhere = {"prior", "warmup", "auxk_after"}.union(*PRIORS.values())
    somewhere |= set().union(*(a.settings for a in ARCHITECTURES.values()))
    assert somewhere == SETTINGS.keys()


@pytest.mark.parametrize(
    "given",
    [
        {"l1": 0.1, "prior": "isotropic"},
        {"noise": 0.5},
        {"block": 2, "prior": "graph"},
        {"k": 3},
        {"architecture": "l1", "prior": "isotropic"},
        {"auxk_after": 300},
    ],
)
def test_options_that_used_to_be_ignored(given):
    with pytest.raises(ConfigError) as caught:
        choose(given)
    assert caught.value.code == "train.option"


@pytest.mark.float32
@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.auxk])
def test_auxk_on_top(name, acts, tmp_path, capsys):
    """Latents silent in a batch are dead in the next; of 4 rows with k = 4 there are many."""
    out = tmp_path / "run"
    words = [acts, "--out", str(out), "--architecture", name, *few(name), "--auxk-after", "4"]
    assert train(capsys, *words, "--batch-size", "4")[0] == 0
    assert load(out).model.dead.after == 4
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert "elbo/residual" not in records[0]
    assert "elbo/residual" in set().union(*records) or "k" not in ARCHITECTURES[name].settings


@pytest.mark.parametrize("words", [["--k", "0"], ["--k", "50"], ["--prefixes", "0"], ["--l0", "0"]])
def test_impossible_settings(words, acts, tmp_path, capsys):
    name = {"--prefixes": "matryoshka", "--l0": "jumprelu"}.get(words[0], "topk")
    words = ["train", acts, "--out", str(tmp_path / "run"), "--architecture", name, *words, *SMALL]
    assert exit_status(words) == 2
    assert "got" in capsys.readouterr().err


def test_list_architectures(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--list-architectures"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ARCHITECTURES)
    assert all(len(line.split()) > 2 and len(line) <= 80 for line in lines)


@pytest.mark.parametrize("words", [["--help"], ["--list-architectures"], ["--architecture", "no"]])
def test_needs_no_torch(words):
    program = (
        "import sys; from vsae.__main__ import main\n"
        f"try: main(['train', *{words!r}])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.float32
def test_hardware_settings_are_set_while_it_runs(acts, tmp_path, monkeypatch):
    from contextlib import ExitStack

    from vsae import hardware

    log = []

    def faster():
        log.append("faster")
        stack = ExitStack()
        stack.callback(log.append, "as before")
        return stack

    monkeypatch.setattr(hardware, "faster_matmul", faster)
    monkeypatch.setattr(hardware, "tune_allocator", lambda: log.append("allocator"))
    words = ["train", acts, *SMALL, "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    assert log == []
    assert main([*words, str(tmp_path / "b"), "--faster-matmul", "--tune-allocator"]) == 0
    assert log == ["faster", "allocator", "as before"]


def test_firings_of_slots_are_those_of_the_dense_code():
    support = torch.stack([torch.randperm(30)[:7] for _ in range(50)])
    code = SparseCode(support, torch.randn(50, 7).relu(), latents=30)
    for threshold in (0.0, 0.5):
        expected = (code.dense().abs() > threshold).sum(0)
        assert torch.equal(firings(code, threshold), expected)
        assert torch.equal(firings(code.dense(), threshold), expected)


@pytest.mark.float32
def test_evaluation_never_makes_a_dense_code(acts, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    train(capsys, acts, "--out", str(out), "--architecture", "topk", "--k", "4")

    def refuse(self):
        raise AssertionError("a code in slots was made dense")

    sae, x = load(out), torch.from_numpy(np.load(acts))
    expected = measure(sae, x)
    monkeypatch.setattr(SparseCode, "dense", refuse)
    assert measure(sae, x) == expected
