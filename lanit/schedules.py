"""What changes during training, as pure functions of progress, so that a resumed run continues exactly."""

from __future__ import annotations


def diversity_weight(initial: float, step: int, decay_steps: int) -> float:
    """λ_ds: linear from ``initial`` at step 0 to 0 at ``decay_steps`` (METHOD 9; 130 000 of 150 000 in the paper)."""
    return initial * max(0.0, 1 - step / decay_steps) if decay_steps else 0.0


def learns_prompts(step: int, steps: int, start: float) -> bool:
    """Whether ``step`` belongs to phase 2, which begins at the share ``start`` of all steps (METHOD 13)."""
    return step >= start * steps


def r1_weight(weight: float, step: int, every: int) -> float:
    """Lazy R1: the weight times its interval on every ``every``-th step, else 0 (METHOD 6)."""
    return weight * every if every and is_due(step, every) else 0.0


def is_due(step: int, every: int) -> bool:
    """Whether what comes on every ``every``-th step, from step 0 on, comes on this one."""
    return step % every == 0


def ema_decay(decay: float, step: int) -> float:
    """EMA decay with a warm-up, so that short runs are not dominated by their random start: at most (1+t)/(10+t)."""
    return min(decay, (1 + step) / (10 + step))


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random in one step; no generator state needs saving to resume (splitmix64's finaliser)."""
    mask = 2**64 - 1
    x = (seed * 0x9E3779B97F4A7C15 + step + 1) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 1
