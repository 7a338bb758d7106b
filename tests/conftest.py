"""Every test runs on one torch thread: the suite shares its cores between test processes."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
