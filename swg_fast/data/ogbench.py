"""OGBench's npz files for its single-task variants, rewards relabelled by OGBench itself."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from swg_fast.common.errors import UsageError
from swg_fast.common.optional_packages import need
from swg_fast.common.quiet import explain, quiet
from swg_fast.data.gate import Declared, check_real, check_sizes
from swg_fast.data.transitions import Transitions, check_values, scaled_actions
from swg_fast.envs.action_bounds import ActionBounds
from swg_fast.envs.gymnasium_env import GymnasiumEnv
from swg_fast.envs.registry import make_env

FOLDER = "~/.ogbench/data"  # OGBench's own
NEEDED = ("observations", "actions", "terminals", "qpos")


def load_ogbench(task: str, path: str | Path | None = None, bounds: ActionBounds | None = None
                 ) -> Transitions:
    """Transitions of an OGBench single task such as ``antmaze-large-navigate-singletask-v0``.

    ``path`` is OGBench's .npz file; None takes OGBench's own, downloaded to its folder. Rewards are
    OGBench's for the task (-1 until success, then 0; -k for the k parts of a manipulation that are
    not done), a success is terminal, and the last recorded state of a trajectory gives no transition. Actions
    are scaled by ``bounds``, or by the environment's.

    Raises `UsageError` where ogbench is not installed, the name is not a single task's, or the file
    is not there or is not OGBench's.
    """
    ogbench = need("ogbench", task)
    env = make_env(task)  # refuses pictures and goal-conditioned tasks
    assert isinstance(env, GymnasiumEnv)  # which make_env gives for these names
    parts = task.split("-")
    place = parts.index("singletask")
    dataset_name, env_name = "-".join(parts[:place] + parts[-1:]), "-".join(parts[:place - 1] + parts[place:])
    file = Path(path) if path is not None else Path(FOLDER).expanduser() / f"{dataset_name}.npz"
    if path is None and not file.is_file():
        try:
            ogbench.download_datasets([dataset_name])
        except Exception as error:  # from urllib, a socket or the disk
            raise UsageError(f"{task}: its data could not be downloaded ({explain(error)}); fetch "
                             f"{dataset_name}.npz by other means and give its path to --dataset") from error
    _check_file(file)
    mend = f"give that task's own file, {dataset_name}.npz"
    data = _relabelled(file, env_name, env, mend)
    _check_arrays(data, file, env, mend)
    ends, successes = data["terminals"] > 0, data["masks"] == 0
    bounds = env.bounds if bounds is None else bounds.sized(env.action_dim, task)
    scaled = scaled_actions(data["actions"], bounds, str(file))
    return Transitions(
        observations=data["observations"], next_observations=data["next_observations"],
        actions=scaled.actions, rewards=data["rewards"], bounds=bounds, findings=tuple(scaled.findings),
        terminals=successes, episodes=np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(np.int32),
        dropped=f"the last state of {int(ends.sum())} trajectories gives none; "
                f"{int(successes.sum())} are in success, and terminal")


def _relabelled(file: Path, env_name: str, env: GymnasiumEnv, mend: str) -> dict[str, np.ndarray]:
    """The arrays of ``file``, with the rewards and masks that OGBench gives them for the task.

    Raises `UsageError` with ``mend`` where the file is another task's.
    """
    import ogbench
    from ogbench.relabel_utils import relabel_dataset

    try:
        with quiet():
            np.random.seed(0)
            data = ogbench.load_dataset(str(file), add_info=True)
            relabel_dataset(env_name, env.env, data)
    except Exception as error:  # zip on damage, numpy on arrays that do not fit, KeyError
        raise UsageError(f"{file} is no recording of {env.task} ({explain(error)}); {mend}") from error
    return data


def _check_arrays(data: dict[str, np.ndarray], file: Path, env: GymnasiumEnv, mend: str) -> None:
    """`UsageError` for arrays that are empty, not finite or, with ``mend``, not of the sizes of ``env``."""
    core = env.env.unwrapped
    joints = (getattr(core, "model", None) or core._model).nq
    for key, width in (("observations", env.state_dim), ("actions", env.action_dim), ("qpos", joints)):
        if data[key].shape[1:] != (width,):
            raise UsageError(f"{file}: {key!r} has shape {list(data[key].shape)}, and {env.task} has {width} "
                             f"a row; {mend}")
    rows = len(data["terminals"])
    if not rows:
        raise UsageError(f"{file}: every step is the last of a trajectory; nothing to learn from")
    for key in ("observations", "actions", "next_observations", "rewards", "masks"):
        if len(data[key]) != rows:
            raise UsageError(f"{file}: {key!r} has another length than the rest; download it again")
    check_values(data, str(file))
    check_values({"observations": data["next_observations"]}, str(file))  # with each trajectory's last


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give the path of an OGBench .npz file to --dataset")
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = {info.filename.removesuffix(".npy"): _declared(archive, info)
                      for info in archive.infolist()}
    except Exception as error:  # from zip or numpy
        raise UsageError(f"{file}: not a readable .npz file ({explain(error)}); download it again") from error
    missing = [key for key in NEEDED if key not in arrays]
    if missing:
        raise UsageError(f"{file}: no {' and no '.join(map(repr, missing))}; an OGBench file has "
                         f"{', '.join(NEEDED)}")
    for key in NEEDED:
        check_real(arrays[key], key, str(file), "fiub" if key == "terminals" else "f")
    check_sizes(arrays, file, str(file))


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Declared:
    """The array's header, before it is unpacked."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version](member)
    return Declared(shape, dtype, info.compress_size, info.compress_type != zipfile.ZIP_STORED)
