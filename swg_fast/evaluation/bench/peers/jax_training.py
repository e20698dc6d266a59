"""The two training steps in jitted JAX on the same networks, as SWG's users run them today.

Written for this comparison: the same losses, batch, dropout and averages, Adam written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def _arrays(module: Any) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value.detach().cpu().numpy()) for name, value in module.state_dict().items()}


def _adam(params: Tree, grads: Tree, state: Tree, rate: float, decay: float = 0.0) -> tuple[Tree, Tree]:
    m, v, count = state
    count = count + 1
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)

    def move(p: Any, a: Any, b: Any) -> Any:
        step = (a / (1 - 0.9**count)) / (jnp.sqrt(b / (1 - 0.999**count)) + 1e-8)
        return p - rate * (step + decay * p)

    return jax.tree.map(move, params, m, v), (m, v, count)


def _zeros(params: Tree) -> Tree:
    return (jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.zeros(()))


def _norm(x: Any, scale: Any, bias: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale + bias


def actor_step(network: Any, schedule: Any, settings: Any, data: np.ndarray) -> Callable[[], Any]:
    """A function that takes one step of the diffusion on random rows of ``data`` [N, D + S], [a, w, s]."""
    params = _arrays(network)
    D, L, drop = network.latent_dim, network.num_blocks, settings.dropout
    early = network.weight_head == "early"
    kind = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[settings.precision]
    bars = jnp.asarray(schedule.alphas_cumprod.numpy(), jnp.float32)
    rows = jnp.asarray(data)

    def forward(p: Tree, z: Any, s: Any, t: Any, key: Any) -> Any:
        def dense(name: str, x: Any) -> Any:
            y = x.astype(kind) @ p[f"{name}.weight"].T.astype(kind)
            return y.astype(jnp.float32) + p[f"{name}.bias"]

        phase = 2 * jnp.pi * t[:, None] * p["time_features.frequencies"]
        c = dense("time_mlp.2", jax.nn.silu(dense("time_mlp.0", jnp.concatenate(
            [jnp.cos(phase), jnp.sin(phase)], -1))))
        h = branch = dense("input", jnp.concatenate([z, s, c], -1))
        for i in range(L):
            key, draw = jax.random.split(key)
            x = jnp.where(jax.random.bernoulli(draw, 1 - drop, h.shape), h / (1 - drop), 0.0) if drop else h
            x = _norm(x, p[f"blocks.{i}.norm.weight"], p[f"blocks.{i}.norm.bias"])
            h = h + dense(f"blocks.{i}.down", jax.nn.silu(dense(f"blocks.{i}.up", x)))
            branch = h if i == 1 else branch
        out = dense("output", jax.nn.silu(h))
        if early:
            out = jnp.concatenate(
                [out, dense("weight_output", jax.nn.silu(dense("weight_hidden", branch)))], -1)
        return out

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Tree, key: Any) -> tuple[Tree, Any]:
        p, state, ema = carry
        at, when, noise, drops = jax.random.split(key, 4)
        batch = rows[jax.random.randint(at, (settings.actor_batch,), 0, len(rows))]
        t = jax.random.randint(when, (settings.actor_batch,), 0, schedule.num_steps)
        xi = jax.random.normal(noise, (settings.actor_batch, D))
        z = jnp.sqrt(bars[t])[:, None] * batch[:, :D] + jnp.sqrt(1 - bars[t])[:, None] * xi

        def loss(p: Tree) -> Any:
            error = jnp.square(forward(p, z, batch[:, D:], t.astype(jnp.float32), drops) - xi)
            return error[:, :-1].sum(1).mean() + error[:, -1].mean()

        value, grads = jax.value_and_grad(loss)(p)
        p, state = _adam(p, grads, state, settings.actor_lr, settings.weight_decay)
        rate = settings.ema_rate
        return (p, state, jax.tree.map(lambda a, b: a + rate * (b - a), ema, p)), value

    return _stepper(step, (params, _zeros(params), jax.tree.map(jnp.copy, params)))


def critic_step(q: Any, value: Any, settings: Any, data: np.ndarray, state_dim: int) -> Callable[[], Any]:
    """A function that takes one implicit-Q-learning step on random rows of ``data``, [s, s', a, r, 1 -
    terminal]."""
    qs, vs, rows, S = _arrays(q), _arrays(value), jnp.asarray(data), state_dim

    def q_of(p: Tree, s: Any, a: Any) -> Any:
        x = jnp.broadcast_to(jnp.concatenate([s, a], -1), (2, len(s), s.shape[1] + a.shape[1]))
        for i in range(3):
            x = jnp.einsum("kbi,kio->kbo", x, p[f"weights.{i}"]) + p[f"biases.{i}"]
            x = jax.nn.relu(x) if i < 2 else x
        return x[..., 0]

    def v_of(p: Tree, s: Any) -> Any:
        x = _norm(s, p["norm.weight"], p["norm.bias"])
        for i in (0, 2, 4):
            x = x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
            x = jax.nn.relu(x) if i < 4 else x
        return x[:, 0]

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Tree, key: Any) -> tuple[Tree, Any]:
        qp, vp, target, q_state, v_state = carry
        batch = rows[jax.random.randint(key, (settings.critic_batch,), 0, len(rows))]
        s, s_next, a = batch[:, :S], batch[:, S:2 * S], batch[:, 2 * S:-2]
        best = q_of(target, s, a).min(0)

        def value_loss(p: Tree) -> Any:
            u = best - v_of(p, s)
            return (jnp.where(u > 0, settings.expectile, 1 - settings.expectile) * u * u).mean()

        first, grads = jax.value_and_grad(value_loss)(vp)
        vp, v_state = _adam(vp, grads, v_state, settings.critic_lr)
        td_target = batch[:, -2] + settings.discount * batch[:, -1] * v_of(vp, s_next)
        second, grads = jax.value_and_grad(
            lambda p: jnp.square(q_of(p, s, a) - td_target).mean())(qp)
        qp, q_state = _adam(qp, grads, q_state, settings.critic_lr)
        target = jax.tree.map(lambda a, b: a + settings.polyak * (b - a), target, qp)
        return (qp, vp, target, q_state, v_state), first + second

    return _stepper(step, (qs, vs, jax.tree.map(jnp.copy, qs), _zeros(qs), _zeros(vs)))


def _stepper(step: Callable[..., Any], carry: Tree) -> Callable[[], Any]:
    key, held = jax.random.PRNGKey(0), [carry]

    def once() -> Any:
        nonlocal key
        key, mine = jax.random.split(key)
        held[0], loss = step(held[0], mine)
        return loss.block_until_ready()

    return once
