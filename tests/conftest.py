"""One thread: the tests' tensors are small, and threads that wait for each other on a busy machine cost minutes."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the libraries that start threads of their own (BM3D)

import torch

torch.set_num_threads(1)
