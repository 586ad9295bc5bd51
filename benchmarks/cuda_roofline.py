"""What the CUDA kernels could reach on paper: a PREDICTION, made without a GPU.

The simulator of PTX counts, for each kernel, the bytes, instructions and special-function
instructions (exponentials, logarithms, reciprocals) that one element of the logits costs. Divided
by what a GPU moves and issues in a second, the largest of the three is an estimate of the least
time. `of copy` is the share of the memory's peak that it leaves. It errs both ways: the second
sweep over rows that fit no shared memory may find them in L2 and not in the device's memory; PTX
has instructions that the machine code lacks, and the other way around; and a real launch waits for
what no count shows.

Needs nvcc and the emulated host code: make build-native-plain venv, pip install --group cuda.

    python -m benchmarks.cuda_roofline [--classes 10 1000 8000 32003]
"""

import argparse
import dataclasses

from tests.cuda import ptx_device
from tests.cuda.counting import Case, count


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Peaks from NVIDIA's data sheets; boost clock.

    Attributes:
        name: Of the product.
        processors: Streaming multiprocessors.
        clock: GHz.
        bandwidth: TB/s of device memory.
        shared: KiB of shared memory that a block may have.
    """

    name: str
    processors: int
    clock: float
    bandwidth: float
    shared: int

    def seconds_per_element(self, cost):
        """The three bounds: memory, issue (128 lanes a clock), special functions (16)."""
        lanes = self.processors * self.clock * 1e9
        return {
            "memory": cost.moved / (self.bandwidth * 1e12),
            "issue": cost.instructions / (128 * lanes),
            "exponentials": cost.mufu / (16 * lanes),
        }


GPUS = [
    Gpu("A100 80GB", 108, 1.41, 2.04, 163),
    Gpu("H100 SXM", 132, 1.98, 3.35, 227),
    Gpu("B200", 148, 1.97, 8.0, 227),
]
KINDS = {
    "forward KL": {},
    "forward KL, losses only": {"gradient": False},
    "forward KL + labels": {"hard": True},
    "reverse KL": {"divergence": "reverse_kl"},
    "JSD": {"divergence": "jsd"},
}


def rows(kind, dtype, classes):
    """Yields a line for each GPU; kernels are counted once for each size of shared memory."""
    costs = {}
    for gpu in GPUS:
        case = Case(dtype, classes, shared_memory=gpu.shared << 10, **KINDS[kind])
        if gpu.shared not in costs:
            costs[gpu.shared] = count(case)
        cost = costs[gpu.shared]
        bounds = gpu.seconds_per_element(cost)
        bound = max(bounds, key=bounds.get)
        share = bounds["memory"] / bounds[bound]
        yield (
            f"{kind:26}{dtype:10}{classes:>7}{cost.moved:>8.2f}{cost.instructions:>8.0f}"
            f"{cost.mufu:>7.2f}  {gpu.name:11}{1e-9 / bounds[bound]:>8.0f}  {bound:13}{share:>8.0%}"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 1000, 8000, 32003])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    arguments = parser.parse_args()
    if reason := ptx_device.missing():
        parser.exit(1, f"Nothing can be counted here: {reason}\n")
    print("PREDICTED from counts; nothing was run on a GPU. Per element of the logits:")
    print(
        f"{'':26}{'dtype':10}{'classes':>7}{'bytes':>8}{'instr':>8}{'mufu':>7}  {'GPU':11}"
        f"{'G el/s':>8}  {'bound by':13}{'of copy':>8}"
    )
    for kind in arguments.kinds:
        for dtype in arguments.dtypes:
            for classes in arguments.classes:
                for line in rows(kind, dtype, classes):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
