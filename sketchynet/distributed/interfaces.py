"""Workers that meet over the network that Ray uses.

Gloo asks the name service for the address of its host, and Debian's answer to that is 127.0.1.1: workers on different
machines would then each wait for the other at home. Ray knows the address at which the other machines reach this one.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any

from sketchynet.distributed import session  # noqa: F401 (sets Ray's environment before Ray is imported)

import ray  # isort: skip
from ray.train.torch import TorchConfig  # isort: skip
from ray.train.torch.config import _TorchBackend  # isort: skip

__all__ = ["RoutedTorchConfig", "interface_of", "meet_over_ray_network"]

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def interface_of(address: str) -> str | None:
    """Name of the network interface of this machine that has the IPv4 address; None where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def meet_over_ray_network() -> None:
    """Points gloo and nccl to the interface of this node's Ray address, unless the environment names one."""
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


class _RoutedBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(meet_over_ray_network)
        super().on_start(worker_group, backend_config)


class RoutedTorchConfig(TorchConfig):
    """Ray's TorchConfig whose workers meet over the network that Ray uses."""

    @property
    def backend_cls(self) -> type[_RoutedBackend]:
        return _RoutedBackend
