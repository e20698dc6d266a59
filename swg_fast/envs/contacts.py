"""MuJoCo's contacts as D4RL's data were recorded with them.

Up to 3.2 MuJoCo gave a contact the larger of two geoms' margins and one point a pair of convex
geoms; since 3.5 it gives the sum of the margins, and its own convex collision gives several points.
From equal states, one step of Ant Maze then differs by 1e-2, and by 1e-5 with the contacts mended.
"""

from __future__ import annotations

from functools import cache

from swg_fast.envs.opengl import mujoco

# Collisions that D4RL's MuJoCo did not have; each flag exists only where the collision does.
_NEWER_COLLISIONS = ("mjDSBL_NATIVECCD", "mjDSBL_MULTICCD")

# Two spheres 1.5 margins apart: touching where margins add, apart where the larger one counts.
_PROBE = """<mujoco><worldbody>
<geom size=".1" margin=".01"/>
<body pos="0 0 .215"><freejoint/><geom size=".1" margin=".01"/></body>
</worldbody></mujoco>"""


@cache
def adds_margins() -> bool:
    """Whether this MuJoCo adds two geoms' margins, tried with a model of two spheres."""
    model = mujoco.MjModel.from_xml_string(_PROBE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return bool(data.ncon)


def _newer_collisions() -> int:
    flags = [getattr(mujoco.mjtDisableBit, name, None) for name in _NEWER_COLLISIONS]
    return sum(int(flag) for flag in flags if flag is not None)


def mend(model: mujoco.MjModel) -> None:
    """Gives a model that was just loaded the contacts of D4RL's MuJoCo.

    Call it once a model: a second call would halve the margins again. It is exact for two geoms of equal
    margin. An explicit contact pair has its own margin in every version.
    """
    model.opt.disableflags |= _newer_collisions()
    if adds_margins():
        model.geom_margin[:] /= 2


def describe() -> str:
    """What `mend` does with this MuJoCo, for a result's JSON."""
    done = ["margins halved"] if adds_margins() else []
    done += ["one convex contact a pair"] if _newer_collisions() else []
    return "mended: " + ", ".join(done) if done else "as in D4RL's MuJoCo: nothing to mend"
