"""What a batch decides is decided by the whole batch, however many processes share it."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from vsae import (
    AmortizedGuide,
    Autoencoder,
    BatchTopKPosterior,
    ClosedFormELBO,
    DeadLatents,
    DictionaryEncoder,
    LinearDecoder,
    share_batches,
)
from vsae.errors import ConfigError
from vsae.presets import batch_topk_autoencoder

D, K, WIDTH, ROWS, WORLD = 5, 12, 6, 16, 2

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def posterior():
    torch.manual_seed(0)
    encoder = DictionaryEncoder(LinearDecoder(K, D))
    return BatchTopKPosterior(encoder, k=2, width=WIDTH).train()


def rows():
    x = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(1))
    x[: ROWS // 2] *= 5  # the halves want different thresholds
    return x


def loss_and_gradients(x, wrap):
    pair = batch_topk_autoencoder(D, K, k=2, width=WIDTH)
    with torch.no_grad():
        for parameter in pair.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    if dist.is_initialized():
        share_batches(pair)
    module = ClosedFormELBO()(pair.train().model, pair.guide)
    wrapped = wrap(module)  # dropped before the backward pass, it would average nothing
    (wrapped(x) / len(x)).backward()
    return {name: p.grad for name, p in module.named_parameters()}


def work(rank, folder):
    torch.set_default_dtype(torch.float64)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    half = rows().chunk(WORLD)[rank]
    alone = posterior()(half)["z"].v  # a process group is no reason to share
    q, dead = posterior(), DeadLatents(K, after=ROWS)
    for observer in (q, dead):
        share_batches(observer)
    copy.deepcopy(q)  # a process group cannot be copied
    sites = {name: d.v for name, d in q(half).items()}
    for observer in (q, dead):
        observer.observe(sites)
    found = {"z": sites["z"], "threshold": q.threshold, "silent_for": dead.silent_for}
    found["alone"] = alone
    found["gradients"] = loss_and_gradients(half, DistributedDataParallel)
    torch.save(found, f"{folder}/{rank}.pt")  # ours, read back below
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=WORLD)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    q, dead = posterior(), DeadLatents(K, after=ROWS)
    sites = {name: d.v for name, d in q(rows()).items()}
    for observer in (q, dead):
        observer.observe(sites)
    torch.testing.assert_close(torch.cat([f["z"] for f in found]), sites["z"])
    alone = torch.cat([posterior()(half)["z"].v for half in rows().chunk(WORLD)])
    assert not torch.equal(alone, sites["z"])  # else this test shows nothing
    torch.testing.assert_close(torch.cat([f["alone"] for f in found]), alone)
    for f in found:
        torch.testing.assert_close(f["threshold"], q.threshold)
        torch.testing.assert_close(f["silent_for"], dead.silent_for)
    one = loss_and_gradients(rows(), lambda module: module)
    for name, gradient in one.items():
        torch.testing.assert_close(found[0]["gradients"][name], gradient)


def test_sharing_needs_a_group():
    with pytest.raises(ConfigError) as caught:
        share_batches(posterior())
    assert caught.value.code == "observer.group"


def test_a_process_alone_needs_no_group():
    pair = Autoencoder(
        batch_topk_autoencoder(D, K, k=2, width=WIDTH).model, AmortizedGuide(posterior())
    )
    assert pair.code(rows()).z.shape == (ROWS, WIDTH)
