"""How an evaluation makes and steps its environments."""

from __future__ import annotations

from dataclasses import dataclass

from swg_fast.common.checks import number, whole
from swg_fast.common.errors import UsageError

STATE_STRIDE = 1 << 16  # the noise's state word is episode * STATE_STRIDE + step
LONGEST = 86_400.0  # seconds of a step


@dataclass(frozen=True)
class EnvSettings:
    """``trust``: modules and entry points outside the known packages whose code may run. ``step_timeout``:
    seconds after which a step has failed. ``episode_limit``: an episode ends after so many steps; None leaves
    that to the environment."""

    trust: tuple[str, ...] = ()
    step_timeout: float = 60.0
    episode_limit: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.trust, str) or not all(isinstance(name, str) for name in self.trust):
            raise UsageError(f"trust must be a list of names, got {self.trust!r}")
        number("step_timeout", self.step_timeout, above=0, high=LONGEST)
        if self.episode_limit is not None:
            whole("episode_limit", self.episode_limit, 1, STATE_STRIDE - 1)
