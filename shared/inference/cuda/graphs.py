"""CUDA graphs of steps, each with fixed shapes; on another device the steps run directly.

A graph starts all kernels of a layer at once: for a small batch their launches, one by one, take
ten times as long as the kernels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

MAX_GRAPHS = 512
"""Most graphs that are kept; the least recently used one is dropped."""
RESERVE_BYTES = 512 * 1024**2
"""Free memory of the GPU below which no further graph is captured."""
WARM_UPS = 2
"""Runs before a capture, in which libraries allocate their workspaces and choose their kernels."""


class Shape(NamedTuple):
    """A step (0: embeddings, i: layer i) and the sizes of the batch."""

    step: int
    rows: int
    width: int


class Steps(Protocol):
    """Runs a step of a shape directly."""

    def run(self, shape: Shape, compute: Callable[[], None], state: Tensor) -> None:
        """Run ``compute``, which reads and writes ``state`` and other buffers of fixed address."""
        ...


class DirectSteps:
    """Runs each step directly."""

    def run(self, shape: Shape, compute: Callable[[], None], state: Tensor) -> None:
        """Run ``compute``."""
        compute()


class GraphSteps:
    """Runs each step as a CUDA graph, captured when a shape is first used.

    All graphs share one memory pool. That is safe because a graph leaves nothing in it: results are
    in buffers outside the pool, and graphs run one after the other.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, torch.cuda.CUDAGraph] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, shape: Shape, compute: Callable[[], None], state: Tensor) -> None:
        """Replay the graph of ``shape``; without memory for a new one, run ``compute``."""
        graph = self._graphs.get(shape)
        if graph is None:
            free_bytes, _ = torch.cuda.mem_get_info()
            if free_bytes < RESERVE_BYTES:
                compute()
                return
            graph = self._capture(shape, compute, state)
        self._graphs.move_to_end(shape)
        graph.replay()

    def _capture(
        self, shape: Shape, compute: Callable[[], None], state: Tensor
    ) -> torch.cuda.CUDAGraph:
        before = state.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                compute()
            state.copy_(before)  # the warm-ups ran the layer on it
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            compute()
        if len(self._graphs) >= MAX_GRAPHS:
            _, oldest = self._graphs.popitem(last=False)
            oldest.reset()
        self._graphs[shape] = graph
        return graph
