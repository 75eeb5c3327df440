"""The runtime of one worker among several, over ``torch.distributed``.

Every worker embeds its share of the global batch, gathers the embeddings of all workers and computes the
loss of the whole global batch. In the gathered tensor only a worker's own rows carry a gradient, so the sum
of the workers' gradients is the gradient of the single-process loss: no factor, no average. Statistics of batch norms
hang on every worker's rows; there the gradients of all workers are summed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.distributed as dist

from sketchynet.stages.runtime import Report

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """Services of a stage in a process group that the caller has initialised (gloo or nccl).

    ``device`` is where the tensors of this worker live; ``listener`` receives the reports of rank 0. Every
    method but ``report`` is collective: all workers call it, in the same order, with the same parameters.
    """

    def __init__(
        self, *, device: str | torch.device = "cpu", listener: Callable[[Report], None] | None = None
    ) -> None:
        if not dist.is_initialized():
            raise RuntimeError("TorchRuntime needs torch.distributed.init_process_group() first")
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.device = torch.device(device)
        self._listener = listener

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of all workers, (sum of n, ...), in rank order; gradient flows into this worker's rows only.

        ``rows`` is (n, ...); n may differ between workers and may be zero, the rest of the shape and the
        dtype may not.
        """
        if self.world_size == 1:
            return rows
        counts = self._counts(len(rows))
        longest = max(counts)
        if longest == 0:
            return rows
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        parts = [part[:count] for part, count in zip(received, counts, strict=True)]
        parts[self.rank] = rows
        return torch.cat(parts)

    @torch.compiler.disable
    def share(self, row: torch.Tensor) -> torch.Tensor:
        """The rows (n,) of all workers, (world size, n), in rank order, without gradient."""
        row = row.detach().contiguous()
        received = [torch.empty_like(row) for _ in range(self.world_size)]
        dist.all_gather(received, row)
        return torch.stack(received)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces every ``.grad`` by its sum over the workers; a missing one counts as zero.

        A parameter without a gradient on every worker keeps none, as in one process: an optimiser with
        weight decay or momentum leaves it alone.
        """
        if self.world_size == 1:  # a message to oneself would copy every gradient twice
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            return
        present = torch.tensor([p.grad is not None for p in trained], dtype=torch.float32, device=self.device)
        dist.all_reduce(present)
        used = [p for p, count in zip(trained, present.tolist(), strict=True) if count > 0]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum_in_place([p.grad for p in used if p.grad is not None])

    def average_buffers(self, module: torch.nn.Module) -> None:
        """Replaces floating-point buffers (running statistics) by their mean over the workers.

        Counters (``num_batches_tracked``) are integers and stay.
        """
        if self.world_size == 1:
            return
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self._sum_in_place(buffers)
        with torch.no_grad():
            for buffer in buffers:
                buffer.div_(self.world_size)

    def barrier(self) -> None:
        """Waits until every worker is here."""
        # nccl guesses a device, with a warning, unless told
        dist.barrier(device_ids=[self.device.index or 0] if self.device.type == "cuda" else None)

    def report(self, report: Report) -> None:
        """Hands a report of rank 0 to the listener; those of other ranks are dropped."""
        if self.rank == 0 and self._listener is not None:
            self._listener(report)

    def _counts(self, count: int) -> list[int]:
        """``count`` of every worker, in rank order."""
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        counts[self.rank] = count
        dist.all_reduce(counts)
        return [int(value) for value in counts.tolist()]

    def _sum_in_place(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sums tensors over the workers, all tensors of one dtype in a single message."""
        buckets: dict[torch.dtype, list[torch.Tensor]] = {}
        for tensor in tensors:
            buckets.setdefault(tensor.dtype, []).append(tensor)
        for bucket in buckets.values():
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            with torch.no_grad():
                for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                    tensor.copy_(total.view_as(tensor))

