"""Jobs in processes of one thread each, with a progress bar; the same rows as here, one by one."""

import multiprocessing
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

import torch
from tqdm import tqdm


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch here, too; threads and random state are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def run_jobs(
    run: Callable[..., dict], jobs: Sequence[Hashable], settings: object, threads: int, bar: tqdm
) -> list[dict]:
    """``[run(job, settings) for job in jobs]``: here, or in ``threads`` processes."""
    if threads == 1:
        return [_advanced(run(job, settings), bar) for job in jobs]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(threads, context, torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(run, job, settings): job for job in jobs}
        try:
            rows = {futures[f]: _advanced(f.result(), bar) for f in as_completed(futures)}
        finally:  # after an error, what has not begun never does
            pool.shutdown(wait=False, cancel_futures=True)
    return [rows[job] for job in jobs]


def _advanced(row: dict, bar: tqdm) -> dict:
    bar.update()
    return row
