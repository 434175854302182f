"""Settings of the whole test suite."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

# The models are tiny: a second thread only waits for the first, and on shared cores spins.
torch.set_num_threads(1)


def pytest_collection_finish():
    """Leave what stays to the end out of every later garbage collection."""
    gc.collect()
    gc.freeze()
