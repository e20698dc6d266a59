"""Backend ``triton``: the whole sampler and the selection in one fused kernel."""

from __future__ import annotations

from typing import Any

import torch

from swg_fast.common.errors import UsageError
from swg_fast.kernels.shared.devices import is_amd, multiplies_bf16
from swg_fast.kernels.shared.packing import pack
from swg_fast.kernels.shared.sampler_table import SamplerTable, Words
from swg_fast.method.networks import ScoreNetwork
from swg_fast.policy.backends.job import Candidates, Samples, SamplingJob
from swg_fast.policy.backends.streaming import LEAST_BYTES, Backend, predicted
from swg_fast.policy.model import Model
from swg_fast.policy.ranking_names import RANKINGS
from swg_fast.policy.surroundings import own_surroundings


def unsupported(network: ScoreNetwork) -> str | None:
    """In words, why the fused kernels cannot run this network; None where they can."""
    from swg_fast.kernels.fused import launch

    head = network.weight_hidden.out_features if network.weight_head == "early" else None
    return launch.unsupported(network.hidden_dim, network.num_blocks, network.latent_dim, head)


def _in_parts(job: SamplingJob) -> bool:
    """Whether candidates come out of the kernel in chunks to be selected from, or select themselves there."""
    config = job.config
    return (config.keep_share < 1 or job.config.averaged > 1 or job.plan.expects in ("ranker", "read")
            or job.teacher is not None or RANKINGS[job.plan.ranks_by].together
            or job.chunk is not None or not {"expected"}.issuperset(RANKINGS[job.plan.ranks_by].needs)
            or (config.select == "none" and not job.return_candidates))


class TritonBackend(Backend):
    name = "triton"
    dtypes = ("fp32", "bf16", "tf32")

    def __init__(self, model: Model, dtype: str, device: torch.device) -> None:
        super().__init__(model, dtype, device)
        try:
            from swg_fast.kernels.fused import launch
        except ImportError as error:
            raise UsageError("backend 'triton' needs the triton package, which exists for Linux; "
                             "use backend='cpu' or 'torch'") from error
        if device.type == "cuda" and is_amd():
            raise UsageError("backend 'triton' has instructions of NVIDIA's GPUs and this torch is built for "
                             "AMD's (ROCm); use backend='torch'")
        if device.type != "cuda" and not launch.interpreted():
            raise UsageError(
                "backend 'triton' needs an NVIDIA GPU and the policy is on the CPU; load the policy with "
                "device='cuda', use backend='cpu', or set TRITON_INTERPRET=1 to run it slowly here")
        reason = unsupported(model.network)
        if reason:
            raise UsageError(f"backend 'triton' does not support {reason}; use backend='torch'")
        self.launch = launch
        packed = pack(model.network, model.schedule.num_steps, launch.DTYPES[dtype], device)
        self.network = launch.KernelNetwork.lay_out(packed, dtype)

    @classmethod
    def fastest_dtype(cls, device: torch.device) -> str:
        """bf16 on GPUs of capability 8.0 and later."""
        return "bf16" if multiplies_bf16(device) else "fp32"

    @own_surroundings()
    def tune(self, table: SamplerTable, n_states: int, n_candidates: int, repeats: int = 5) -> list[Any]:
        """Times every configuration that suits this many candidates, and keeps the fastest on disk
        for this device and shape: `kernels.fused.tuning.Trial`, the fastest first."""
        from swg_fast.kernels.fused import tuning

        generator = torch.Generator().manual_seed(0)
        states = torch.randn(n_states, self.model.network.state_dim, generator=generator, dtype=torch.float32,
                             device="cpu").to(self.device)
        words = torch.arange(n_states, device=self.device)
        wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        work = self.launch.Work(n_states, n_candidates, table.guided, table.multistep)
        trials = tuning.measure(
            lambda config: self.launch.sample(self.network, table, states, words,
                                              self.launch.Asked(n_candidates, 0, config=config)),
            self.network.configs(work), wait, repeats)
        best = tuning.fastest(trials)
        tuning.remember(tuning.key(self.device, self.network.shape, self.dtype, work), best)
        return sorted(trials, key=lambda trial: (trial.seconds is None, trial.seconds or 0.0))

    def held(self, job: SamplingJob) -> int:
        return super().held(job) if _in_parts(job) else 1  # what runs is in a scratch of fixed size

    def bytes_each(self, job: SamplingJob) -> int:
        return LEAST_BYTES + 16 * job.plan.latent_dim

    def hoist(self, states: torch.Tensor) -> torch.Tensor:
        return self.network.packed.hoist_states(states)

    def run(self, job: SamplingJob, judge: Backend | None = None) -> Samples:
        plan, config = job.plan, job.config
        if _in_parts(job):
            return super().run(job, judge)
        drawn = self.launch.sample(
            self.network, plan.table, job.states, job.state_indices,
            self.launch.Asked(config.n_candidates, job.seed, softmax=config.select == "softmax",
                              selection_temperature=plan.selection_temperature, tree=plan.tree,
                              ranking=plan.ranking, return_candidates=job.return_candidates))
        actions, weights, indices = drawn.actions, drawn.weights, drawn.indices
        z, raw = drawn.z, drawn.candidate_weights
        if config.select == "none":
            actions, weights, indices = z[:, 0, :-1], raw[:, 0], torch.zeros_like(indices)
        return Samples(actions, weights, indices, None if z is None else z[..., :-1], raw, drawn.expected,
                       finite=drawn.finite)

    def candidates(self, job: SamplingJob, states: slice, first: int, count: int) -> Candidates:
        drawn = self.launch.sample(
            self.network, job.plan.table, job.states[states], job.state_indices[states],
            self.launch.Asked(count, job.seed, first, tree=job.plan.tree, ranking=job.plan.ranking,
                              return_candidates=True))
        z, expected = drawn.z, drawn.expected
        if job.plan.expects == "read" and job.teacher is None:
            words = job.words(states, torch.arange(first, first + count, device=self.device))
            expected = self.read(self.hoist(job.states[states]), words, z.flatten(0, 1)).float()
            expected = expected.unflatten(0, (-1, count))
        return Candidates(z, drawn.candidate_weights, expected)

    def predict(self, vectors: torch.Tensor, words: Words, z: torch.Tensor, t: int | None) -> torch.Tensor:
        return predicted(self.network.packed, vectors, words, z, t)
