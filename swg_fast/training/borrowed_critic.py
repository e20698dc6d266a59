"""Taking the critic that another run has trained: several policies can share one, or use an earlier state."""

from __future__ import annotations

from pathlib import Path

from swg_fast.common.errors import UsageError
from swg_fast.training.history import HISTORY, append_line, read_history
from swg_fast.training.run_folder import RUN, read_record
from swg_fast.training.saved_state import Origin, check_state, copy_state, saved_steps, state_path
from swg_fast.training.settings import CRITIC, TrainSettings

PHASE = "critic"


def check_critic(run: Path, settings: TrainSettings, rows: int, origin: Origin) -> None:
    """`UsageError` where ``run`` has no state of the critic that a run of ``origin``, with ``settings`` and
    ``rows`` transitions, would train itself, at its number of steps."""
    if (run / RUN).is_file():  # a sweep's critic has none
        theirs, mine = read_record(run / RUN), settings.to_dict()
        # With a falling learning rate the planned length decides each step, not only how many were taken.
        free = () if settings.critic_cosine_decay else ("critic_steps",)
        changed = [name for name in CRITIC if name not in free and theirs.settings.get(name) != mine[name]]
        if changed or theirs.transitions != rows:
            raise UsageError(f"{run}: its critic has other settings "
                             f"({', '.join(changed) or 'another dataset'}); "
                             "train with the same ones, or leave out --critic")
    steps = saved_steps(run / "states", PHASE)
    if settings.critic_steps not in steps:
        found = f"there are those of {', '.join(map(str, steps))}" if steps else "there is none at all"
        raise UsageError(f"{run}: no saved critic of {settings.critic_steps} steps ({found}); choose "
                         "--critic-steps")
    check_state(run / "states", PHASE, settings.critic_steps, origin)


def take_critic(run: Path, out: Path, steps: int, origin: Origin) -> None:
    """Copies the critic's state of ``steps`` and its log up to there to ``out``, a run of ``origin``, unless
    ``out`` has it."""
    if state_path(out / "states", PHASE, steps).is_file():
        return
    for line in read_history(run / "logs" / HISTORY).get(PHASE, []):
        if line["step"] <= steps:
            append_line(out / "logs" / HISTORY, PHASE, line)
    copy_state(run / "states", out / "states", PHASE, steps, origin)
