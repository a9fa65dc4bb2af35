from __future__ import annotations

import threading
import time

import pytest

from matcompute.errors import InputError
from matcompute.publish.pull.rate import Limiter, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"), [("500k", 5e5), ("5M", 5e6), ("1.5 GB/s", 1.5e9), ("20MiB", 20 * 2**20), ("100", 100)]
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-5M", "0", "5T"])
def test_no_rates(text: str) -> None:
    with pytest.raises(InputError, match="is not a rate"):
        parse_rate(text)


def test_threads_share_the_rate() -> None:
    limiter = Limiter(1e6)

    def take() -> None:
        for _ in range(20):
            limiter.take(10_000)

    begun = time.monotonic()
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 0.8 MB at 1 MB/s, at most a quarter of a second ahead; later is the machine's affair.
    assert time.monotonic() - begun > 0.5
    assert Limiter(None).take(10**12) is None
