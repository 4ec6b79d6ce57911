"""Cores: how many there are, and who uses them."""

from threading import Thread

import pytest
import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

from faceswap_diffusion import devices


@pytest.mark.parametrize(("cores", "threads"), [(2, 1), (8, 2), (64, 8)])
def test_stages_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int):
    monkeypatch.setattr(devices, "available_cores", lambda: cores)
    torch.set_num_threads(8)
    seen = []

    def work() -> None:
        with devices.sharing_cores(3):
            stage = Thread(target=lambda: seen.append(torch.get_num_threads()))
            stage.start()
            stage.join()
            seen.append(torch.get_num_threads())
            raise RuntimeError

    try:
        with pytest.raises(RuntimeError):
            work()
        assert seen == [threads, threads]
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(1)


def test_linear_algebra_gets_one_thread_and_then_what_it_had():
    def threads() -> set[int]:
        return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}

    with threadpool_limits(4, user_api="blas"):
        with devices.sharing_cores(3):
            assert threads() == {1}
        assert threads() == {4}
