"""Algorithm 2 in jitted JAX, with `jax.grad` for the guidance, as SWG's users run it today.

Written for this comparison: the same formulas, on the parameters of a score network of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _score_network(network: Any, dtype: str) -> Callable[[Any, Any, Any], Any]:
    """The network as a function of (z [M, D], states [M, S], t) that returns the noise [M, D]."""
    kind = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[dtype]
    params = {name: jnp.asarray(value.detach().cpu().numpy())
              for name, value in network.state_dict().items()}
    early = network.weight_head == "early"

    def dense(name: str, x: Any) -> Any:
        return x.astype(kind) @ params[f"{name}.weight"].T.astype(kind) + \
            params[f"{name}.bias"].astype(kind)

    def norm(name: str, x: Any) -> Any:
        x = x.astype(jnp.float32)
        x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * params[f"{name}.weight"] + params[f"{name}.bias"]

    def eps(z: Any, states: Any, t: Any) -> Any:
        phase = 2 * jnp.pi * t * params["time_features.frequencies"]
        c = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
        c = dense("time_mlp.2", jax.nn.silu(dense("time_mlp.0", c)))
        c = jnp.broadcast_to(c, (z.shape[0], c.shape[0]))
        h = dense("input", jnp.concatenate([z, states, c.astype(z.dtype)], -1)).astype(jnp.float32)
        branch = h
        for i in range(network.num_blocks):
            wide = jax.nn.silu(dense(f"blocks.{i}.up", norm(f"blocks.{i}.norm", h)))
            h = h + dense(f"blocks.{i}.down", wide).astype(jnp.float32)
            branch = h if i == 1 else branch
        out = dense("output", jax.nn.silu(h))
        if early:
            w = dense("weight_output", jax.nn.silu(dense("weight_hidden", branch)))
            out = jnp.concatenate([out, w], -1)
        return out.astype(jnp.float32)

    return eps


def make_sampler(network: Any, table: Any, dtype: str) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """A function (states [B, S], N, seed) -> kept actions [B, A], compiled at its first call."""
    eps, D, T = _score_network(network, dtype), network.latent_dim, table.num_steps
    coefficients = jnp.asarray(table.coefficients.numpy(), jnp.float32)
    low, high = table.weight_clip

    def step(states: Any, carry: Any, t: Any) -> Any:
        z, key, _ = carry
        row = coefficients[t]

        def log_weight(z: Any) -> Any:
            e = eps(z, states, t.astype(jnp.float32))
            w0 = row[1] * (z[:, -1] - row[0] * e[:, -1])
            return jnp.log(jnp.clip(w0, low, high)).sum(), e

        gradient, e = jax.grad(log_weight, has_aux=True)(z)
        e = e - row[2] * jnp.nan_to_num(gradient, nan=0.0)
        key, draw = jax.random.split(key)
        z = row[4] * z + row[5] * e + row[7] * jax.random.normal(draw, z.shape)
        raw = z[:, -1]
        z = jnp.concatenate([jnp.clip(z[:, :-1], -1, 1), jnp.clip(z[:, -1:], low, high)], -1)
        return (z, key, raw), None

    @jax.jit
    def run(states: Any, rows: Any, key: Any) -> Any:
        B, N = states.shape[0], rows.shape[0]
        states = jnp.repeat(states, N, axis=0)
        key, first = jax.random.split(key)
        z = table.initial * jax.random.normal(first, (B * N, D))
        carry, _ = jax.lax.scan(lambda c, t: step(states, c, t), (z, key, z[:, -1]),
                                jnp.arange(T - 1, -1, -1))
        z, _, raw = carry
        best = raw.reshape(B, N).argmax(1)
        return z.reshape(B, N, D)[jnp.arange(B), best, :-1]

    def sample(states: np.ndarray, n: int, seed: int) -> np.ndarray:
        return np.asarray(run(jnp.asarray(states), jnp.zeros(n), jax.random.PRNGKey(seed)))

    return sample
