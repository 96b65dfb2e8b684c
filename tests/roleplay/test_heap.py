"""Memory that is freed goes back to the system, each time in a process of its own, whose heap is new."""

import subprocess
import sys

import pytest

from roleplay.environment import ROOT

FREED = """
import psutil, torch
from roleplay.engine import cache
from roleplay import heap

heap.return_blocks(heap.CACHES)
memory, kept, caches = psutil.Process().memory_info, [], []
before = memory().rss
with torch.inference_mode():
    for tokens in range(256, 128, -2):  # each finds the hole of one before it too large, or its neighbour in the way
        caches = [*caches[-3:], cache.KeyValues(18, 1, 256, torch.float32, torch.device("cpu"))]
        caches[-1].reserve(tokens)
        caches[-1]._store.fill_(1)
        kept.append(torch.ones(100_000))
caches.clear()
print((memory().rss - before) / sum(tensor.nbytes for tensor in kept))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is told")
def test_the_memory_of_caches_goes_back_to_the_system() -> None:
    """Without it about 2.2."""
    done = subprocess.run([sys.executable, "-c", FREED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5


HOLES = """
import psutil, torch
from roleplay import heap

memory = psutil.Process().memory_info
blocks = [torch.ones(15_000) for _ in range(2_000)]
full = memory().rss
blocks = blocks[::10]
freed = memory().rss
heap.trim()
print(full - freed, full - memory().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is told")
def test_the_memory_of_holes_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 10e6 and after > 90e6  # of the 108 MB that are no longer held
