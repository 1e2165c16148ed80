"""Messages between the ranks' hosts, which may be waited for without limit.

Collectives give up when a rank is late: on CPU after 30 seconds, which cannot be set (MindSpore
2.10), on Ascend after HCCL_EXEC_TIMEOUT. What takes ranks unequally long (a checkpoint, files of
unequal length) is waited for here. A rank that ends closes its connection, which ends the others.
"""

import secrets
from multiprocessing.connection import Client, Connection, Listener

import numpy as np

__all__ = ["Channel"]

KEY_BYTES, NUMBER_BYTES = 32, 8


class Channel:
    """Connections of all ranks with rank 0.

    Making one is a collective operation. Only processes that know a key, which the ranks have
    from rank 0 through a collective, can connect.

    Args:
        rank, size: this one among all; at least two.
        host: address of the machine of rank 0.
    """

    def __init__(self, rank: int, size: int, host: str) -> None:
        key = secrets.token_bytes(KEY_BYTES)
        self.rank = rank
        self.peers: dict[int, Connection] = {}
        if rank == 0:
            with Listener((host, 0), backlog=size, authkey=key) as listener:
                _from_rank_0(_number(listener.address[1]) + key)
                for _ in range(size - 1):
                    connection = listener.accept()
                    peer = int.from_bytes(connection.recv_bytes(NUMBER_BYTES), "big")
                    self.peers[peer] = connection
        else:
            message = _from_rank_0(bytes(NUMBER_BYTES + KEY_BYTES))
            port, key = int.from_bytes(message[:NUMBER_BYTES], "big"), message[NUMBER_BYTES:]
            self.peers[0] = Client((host, port), authkey=key)
            self.peers[0].send_bytes(_number(rank))

    def gather(self, message: bytes) -> list[bytes]:
        """Return the messages of all ranks in their order; all ranks must call it, and wait.

        Raises:
            RuntimeError: a rank has ended.
        """
        try:
            if self.rank:
                self.peers[0].send_bytes(message)
                size = int.from_bytes(self.peers[0].recv_bytes(NUMBER_BYTES), "big")
                return [self.peers[0].recv_bytes() for _ in range(size)]
            received = [self.peers[peer].recv_bytes() for peer in sorted(self.peers)]
            messages = [message, *received]
            for connection in self.peers.values():
                connection.send_bytes(_number(len(messages)))
                for each in messages:
                    connection.send_bytes(each)
            return messages
        except (EOFError, OSError) as error:
            raise RuntimeError("another rank has ended; its output tells why") from error


def _number(value: int) -> bytes:
    return value.to_bytes(NUMBER_BYTES, "big")


def _from_rank_0(message: bytes) -> bytes:
    """Return the bytes that rank 0 has, equally many on all ranks, by a collective."""
    from mindspore import Tensor, ops

    values = Tensor(np.frombuffer(message, np.uint8).astype(np.int32))
    return ops.Broadcast(0)((values,))[0].asnumpy().astype(np.uint8).tobytes()
