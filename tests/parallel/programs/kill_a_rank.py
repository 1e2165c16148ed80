"""Ranks that add up for ever, until rank 1 is killed; rank 0 then waits in a collective.

python scripts/launch.py 2 kill_a_rank.py
"""

import os
import signal

import mindspore as ms
from mindspore import Tensor, ops

from mg.device import DeviceConfig, setup_device
from mg.parallel.ranks import init_ranks

setup_device(DeviceConfig(device="CPU"))
ranks = init_ranks()
total = ops.AllReduce()
for number in range(1000000):
    assert float(total(Tensor([float(ranks.rank)], ms.float32)).asnumpy()[0]) == 1
    if number == 100 and ranks.rank == 1:
        print("rank 1 is about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
