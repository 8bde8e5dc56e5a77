"""One thread: tests have small tensors, and threads that wait for each other are slow on a busy machine."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the libraries that start threads of their own (BM3D)

import torch

torch.set_num_threads(1)
