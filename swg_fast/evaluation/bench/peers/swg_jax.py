"""The authors' own sampler, imported unchanged from a checkout, on the parameters of a score network of this
project. Needs flax beside JAX.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def make_sampler(network: Any, table: Any, betas: np.ndarray, guidance_scale: float, checkout: str
                 ) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """A function (states [B, S], N, seed) -> kept actions [B, A] by the highest weight.

    Raises `FileNotFoundError` where ``checkout`` has no src/models.
    """
    if not (Path(checkout) / "src" / "models" / "diffusion_model.py").is_file():
        raise FileNotFoundError(f"{checkout}: no src/models/diffusion_model.py; give a checkout of SWG-JAX")
    sys.path.insert(0, str(Path(checkout).resolve()))
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    diffusion = importlib.import_module("src.models.diffusion_model")
    models, helpers = (importlib.import_module(f"src.models.{name}") for name in ("models", "helpers"))
    early = network.weight_head == "early"
    width = network.time_embed_dim
    module = diffusion.DDPM(
        time_preprocess_cls=partial(helpers.FourierFeatures, output_size=width, learnable=True),
        cond_encoder_cls=partial(models.MLP, hidden_dims=(2 * width, 2 * width), activations=nn.swish,
                                 activate_final=False),
        reverse_encoder_cls=partial(
            models.MLPResNet_mod if early else models.MLPResNet, use_layer_norm=True,
            num_blocks=network.num_blocks, dropout_rate=0.0, hidden_dim=network.hidden_dim,
            out_dim=network.latent_dim, activations=nn.swish))
    params = jax.tree.map(jnp.asarray, parameters(network))
    betas = jnp.asarray(betas, jnp.float32)
    alphas = 1.0 - betas
    low, high = table.weight_clip

    def sample(states: np.ndarray, n: int, seed: int) -> np.ndarray:
        repeated = jnp.repeat(jnp.asarray(states), n, axis=0)
        z, _ = diffusion.ddpm_sampler_swg(
            module.apply, params, table.num_steps, jax.random.PRNGKey(seed), network.latent_dim, repeated,
            alphas, jnp.cumprod(alphas), betas, temperature=1.0, repeat_last_step=0, clip_denoised=True,
            guidance_scale=guidance_scale, max_weight_clip=high, min_weight_clip=low)
        z = z.reshape(len(states), n, -1)
        return np.asarray(z[jnp.arange(len(states)), z[..., -1].argmax(1), :-1])

    return sample


def parameters(network: Any) -> dict[str, Any]:
    """The score network's parameters under the names of the authors' modules."""

    def array(tensor: Any) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    def dense(layer: Any) -> dict[str, np.ndarray]:
        return {"kernel": array(layer.weight).T, "bias": array(layer.bias)}

    def block(part: Any) -> dict[str, Any]:
        norm = {"scale": array(part.norm.weight), "bias": array(part.norm.bias)}
        return {"LayerNorm_0": norm, "Dense_0": dense(part.up), "Dense_1": dense(part.down)}

    trunk = {"Dense_0": dense(network.input), "Dense_1": dense(network.output),
             **{f"MLPResNetBlock_{i}": block(part) for i, part in enumerate(network.blocks)}}
    early = network.weight_head == "early"
    if early:
        trunk["MLP_0"] = {"Dense_0": dense(network.weight_hidden), "Dense_1": dense(network.weight_output)}
    return {
        "FourierFeatures_0": {"kernel": array(network.time_features.frequencies)[:, None]},
        "MLP_0": {"Dense_0": dense(network.time_mlp[0]), "Dense_1": dense(network.time_mlp[2])},
        "MLPResNet_mod_0" if early else "MLPResNet_0": trunk,
    }
