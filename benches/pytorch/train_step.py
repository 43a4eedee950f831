"""Time training steps of the PyTorch model in one process; prints one JSON line.

    python train_step.py --shape L --mode compile --steps 5 --threads 2
    python train_step.py --gemm

A step is everything between two batches: forward, cross-entropy, backward, clipping by the global norm, AdamW (torch's
fused one), and the loss read back. The line: {"shape", "mode", "parameters", "tokens_per_second" (median), "step_ms"
(one a step after warm-up), "peak_rss_mb" (in MiB, of this process), "loss" (of the last step)}. `--gemm` prints {"gemm_gflops"}: the best of several f32 products,
as the peak that model FLOPs are compared with.
"""

import argparse
import json
import resource
import statistics
import time

import torch

from model import Config, Decoder

SHAPES = {
    "S": (Config(4096, 256, 768, 6, 4, 2), 256, 8),
    "M": (Config(8192, 512, 1536, 8, 8, 4), 512, 4),
    "L": (Config(32000, 768, 2048, 12, 12, 4), 512, 2),
}
MODES = ("eager", "compile", "lora", "lora-compile")
LORA_RANK = 16


def train(shape: str, mode: str, warm_up: int, steps: int) -> dict:
    """Steps on one batch of pseudo-random ids."""
    config, length, sequences = SHAPES[shape]
    torch.manual_seed(0)
    model = Decoder(config, length, LORA_RANK if mode.startswith("lora") else None)
    parameters = sum(p.numel() for p in model.parameters())
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model.loss, dynamic=False) if mode.endswith("compile") else model.loss
    stream = torch.randint(config.vocab_size, (sequences, length + 1))
    ids, targets = stream[:, :-1].contiguous(), stream[:, 1:].contiguous()
    times, loss = [], 0.0
    for _ in range(warm_up + steps):
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        step_loss = loss_of(ids, targets)
        step_loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        loss = step_loss.item()
        times.append(1e3 * (time.perf_counter() - begin))
    times = times[warm_up:]
    return {
        "shape": shape,
        "mode": mode,
        "parameters": parameters,
        "tokens_per_second": 1e3 * sequences * length / statistics.median(times),
        "step_ms": times,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": loss,
    }


def gemm_gflops() -> float:
    """The best f32 matrix product among shapes like those of training."""
    best = 0.0
    for m, k, n in ((1024, 768, 2048), (2048, 2048, 2048), (1024, 2048, 4096)):
        a, b = torch.randn(m, k), torch.randn(k, n)
        for _ in range(8):
            begin = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2e-9 * m * k * n / (time.perf_counter() - begin))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Time training steps of the PyTorch model.")
    parser.add_argument("--shape", choices=SHAPES, default="S")
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before those measured (default 2)")
    parser.add_argument("--steps", type=int, default=5, help="steps measured (default 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gemm", action="store_true", help="measure f32 matrix products instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.gemm:
        print(json.dumps({"gemm_gflops": gemm_gflops()}))
    else:
        print(json.dumps(train(arguments.shape, arguments.mode, arguments.warm_up, arguments.steps)))


if __name__ == "__main__":
    main()
