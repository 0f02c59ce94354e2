"""Steps each scheduler 100 times.

schedulers.py reference FOLDER   writes reference.pt: by case the values, and the state after 40 steps
schedulers.py resume FOLDER      goes on from the state that Rust saved after 40 steps (ours.pt), writes resumed.pt
"""

import json
import math
import sys
from pathlib import Path

import torch
from torch.optim import lr_scheduler as S
from torch.optim.swa_utils import SWALR


def bolts(warmup_epochs, max_epochs, warmup_start_lr, eta_min, base_lr):
    """The formula of Lightning Bolts' LinearWarmupCosineAnnealingLR, which here stays at its end."""

    def factor(epoch):
        if epoch < warmup_epochs:
            lr = warmup_start_lr + epoch * (base_lr - warmup_start_lr) / max(1, warmup_epochs - 1)
        else:
            part = min(1.0, (epoch - warmup_epochs) / (max_epochs - warmup_epochs))
            lr = eta_min + 0.5 * (base_lr - eta_min) * (1 + math.cos(math.pi * part))
        return lr / base_lr

    return factor


CASES = {
    "lambda": lambda o: S.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda-per-group": lambda o: S.LambdaLR(o, [lambda epoch: 1 / (1 + epoch), lambda epoch: 0.9 ** (epoch // 10)]),
    "multiplicative": lambda o: S.MultiplicativeLR(o, lambda epoch: 1 - 0.5 / (epoch + 1)),
    "step": lambda o: S.StepLR(o, 7),
    "step-gamma": lambda o: S.StepLR(o, 3, gamma=0.9),
    "multistep": lambda o: S.MultiStepLR(o, [5, 20, 20, 60], gamma=0.3),
    "constant": lambda o: S.ConstantLR(o),
    "constant-half": lambda o: S.ConstantLR(o, factor=0.5, total_iters=33),
    "linear": lambda o: S.LinearLR(o),
    "linear-down": lambda o: S.LinearLR(o, start_factor=0.9, end_factor=0.2, total_iters=50),
    "exponential": lambda o: S.ExponentialLR(o, 0.97),
    "polynomial": lambda o: S.PolynomialLR(o),
    "polynomial-square": lambda o: S.PolynomialLR(o, total_iters=80, power=2.0),
    "cosine": lambda o: S.CosineAnnealingLR(o, 30),
    "cosine-min": lambda o: S.CosineAnnealingLR(o, 45, eta_min=0.01),
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 9),
    "restarts-longer": lambda o: S.CosineAnnealingWarmRestarts(o, 7, T_mult=2, eta_min=0.001),
    "cyclic": lambda o: S.CyclicLR(o, 0.01, 0.2, step_size_up=13),
    "cyclic-2": lambda o: S.CyclicLR(
        o, [0.01, 0.02], [0.1, 0.3], step_size_up=5, step_size_down=11, mode="triangular2", base_momentum=0.7, max_momentum=0.95
    ),
    "cyclic-exp": lambda o: S.CyclicLR(o, 0.01, 0.2, step_size_up=8, mode="exp_range", gamma=0.98),
    "cyclic-scale": lambda o: S.CyclicLR(
        o, 0.01, 0.2, step_size_up=8, scale_fn=lambda x: 1 / (1 + x), scale_mode="iterations", cycle_momentum=False
    ),
    "one-cycle": lambda o: S.OneCycleLR(o, 0.5, total_steps=100),
    "one-cycle-linear": lambda o: S.OneCycleLR(
        o, [0.5, 1.0], total_steps=120, pct_start=0.2, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0
    ),
    "one-cycle-three": lambda o: S.OneCycleLR(
        o, 0.3, total_steps=110, three_phase=True, base_momentum=0.8, max_momentum=0.9, pct_start=0.35
    ),
    "one-cycle-no-momentum": lambda o: S.OneCycleLR(o, 0.3, total_steps=101, cycle_momentum=False),
    "plateau": lambda o: S.ReduceLROnPlateau(o, patience=3),
    "plateau-max": lambda o: S.ReduceLROnPlateau(
        o, mode="max", factor=0.5, patience=2, threshold=0.05, threshold_mode="abs", cooldown=4, min_lr=[0.001, 0.01], eps=1e-4
    ),
    "plateau-min-abs": lambda o: S.ReduceLROnPlateau(o, factor=0.7, patience=1, threshold=0.2, threshold_mode="abs"),
    "plateau-max-rel": lambda o: S.ReduceLROnPlateau(o, mode="max", factor=0.9, patience=0, threshold=0.1, min_lr=0.002),
    "sequential": lambda o: S.SequentialLR(o, [S.ConstantLR(o, 0.1, 20), S.ExponentialLR(o, 0.9)], [20]),
    "sequential-three": lambda o: S.SequentialLR(
        o,
        [S.LinearLR(o, 0.01, total_iters=10), S.CosineAnnealingLR(o, 30, eta_min=0.001), S.StepLR(o, 5, 0.5)],
        [10, 55],
    ),
    "sequential-restarts": lambda o: S.SequentialLR(
        o, [S.MultiStepLR(o, [3, 5]), S.CosineAnnealingWarmRestarts(o, 8, 2), S.PolynomialLR(o, 30)], [9, 50]
    ),
    "sequential-lambda": lambda o: S.SequentialLR(
        o, [S.LambdaLR(o, lambda e: (e + 1) / 10), S.MultiplicativeLR(o, lambda e: 0.95), S.LinearLR(o)], [9, 30]
    ),
    "sequential-momentum": lambda o: S.SequentialLR(
        o, [S.ConstantLR(o), S.CyclicLR(o, 0.01, 0.2, step_size_up=6), S.OneCycleLR(o, 0.4, 60)], [7, 40]
    ),
    "sequential-nested": lambda o: S.SequentialLR(
        o,
        [S.SequentialLR(o, [S.LinearLR(o), S.ConstantLR(o, 0.5, 4)], [6]), S.ExponentialLR(o, 0.9)],
        [25],
    ),
    "sequential-of-chain": lambda o: S.SequentialLR(
        o, [S.ChainedScheduler([S.ConstantLR(o, 0.1, 5), S.ExponentialLR(o, 0.95)], o), S.StepLR(o, 10)], [30]
    ),
    "chained": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 20), S.ExponentialLR(o, 0.9)], o),
    "chained-three": lambda o: S.ChainedScheduler(
        [S.LinearLR(o, 0.2, total_iters=15), S.MultiStepLR(o, [30, 60], 0.5), S.CosineAnnealingLR(o, 100)], o
    ),
    "chained-sequential": lambda o: S.ChainedScheduler(
        [S.SequentialLR(o, [S.ConstantLR(o, 0.5, 3), S.StepLR(o, 4)], [8]), S.MultiplicativeLR(o, lambda e: 0.99)], o
    ),
    "swa": lambda o: SWALR(o, 0.02),
    "swa-linear": lambda o: SWALR(o, [0.02, 0.3], anneal_epochs=25, anneal_strategy="linear"),
    "swa-at-once": lambda o: SWALR(o, 0.3, anneal_epochs=0),
    "warmup-cosine": lambda o: S.LambdaLR(o, [bolts(10, 90, 0.0, 0.0, 0.1), bolts(10, 90, 0.0, 0.0, 0.05)]),
    "warmup-cosine-floor": lambda o: S.LambdaLR(o, [bolts(1, 60, 1e-3, 1e-2, 0.1), bolts(1, 60, 1e-3, 1e-2, 0.05)]),
}


def make(name):
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 0.05}]
    # Half of the cases that cycle momentum do so with betas.
    if name in ("cyclic-2", "one-cycle-three"):
        optimizer = torch.optim.AdamW(groups, lr=0.1)
    else:
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = CASES[name](optimizer)
    optimizer.step()
    return optimizer, scheduler


def metric(step):
    return 2.0 * math.exp(-step / 12) + 0.3 * math.sin(step * 0.7)


def row(optimizer):
    return [[g["lr"], g["betas"][0] if "betas" in g else g["momentum"]] for g in optimizer.param_groups]


def run(optimizer, scheduler, steps):
    rows = []
    for step in steps:
        if isinstance(scheduler, S.ReduceLROnPlateau):
            scheduler.step(metric(step))
        else:
            scheduler.step()
        rows.append(row(optimizer))
        assert scheduler.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
    return rows


def plain(state):
    if isinstance(state, dict):
        return {k: plain(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(plain(v) for v in state)
    return state


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    out = {}
    ours = torch.load(folder / "ours.pt", weights_only=True) if mode == "resume" else None
    for name in CASES:
        optimizer, scheduler = make(name)
        if ours is None:
            rows = [row(optimizer)] + run(optimizer, scheduler, range(40))
            state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            out[name] = {"state": plain(state), "rows": rows + run(optimizer, scheduler, range(40, 99))}
        elif not name.startswith("warmup"):
            optimizer.load_state_dict(ours[name]["optimizer"])
            scheduler.load_state_dict(ours[name]["scheduler"])
            out[name] = {"rows": run(optimizer, scheduler, range(40, 99))}
    torch.save(out, folder / ("reference.pt" if ours is None else "resumed.pt"))
    print(json.dumps("done"))


main()
