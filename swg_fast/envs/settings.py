"""How an evaluation makes and steps its environments."""

from __future__ import annotations

from dataclasses import dataclass

from swg_fast.common.settings_fields import check_fields, setting

STATE_STRIDE = 1 << 16  # the noise's state word is episode * STATE_STRIDE + step
ENDLESS = 10_000  # steps of an episode where neither the environment nor the user has a limit
LONGEST = 86_400.0  # seconds of a step


@dataclass(frozen=True)
class EnvSettings:
    """Whose code environments may run, and when a step and an episode are over."""

    trust: tuple[str, ...] = setting(
        (), "Module or entry point (MODULE:NAME) outside the known packages that may run code. Can be given "
            "several times.")
    step_timeout: float = setting(60.0, "Seconds after which a step of an environment has failed.", bottom=0,
                                  top=LONGEST, min_open=True)
    episode_limit: int | None = setting(
        None, f"Steps after which an episode ends. Left out: the environment's own, or {ENDLESS:,} where it "
              "has none.", bottom=1, top=STATE_STRIDE - 1)

    def __post_init__(self) -> None:
        check_fields(self)
