"""The backends and types that `swg-fast bench` finds on a machine."""

from __future__ import annotations

import pytest
from conftest import make_network

from swg_fast.common.errors import UsageError
from swg_fast.evaluation.bench import contenders
from swg_fast.method.schedule import NoiseSchedule
from swg_fast.policy.policy import Policy


@pytest.mark.parametrize("native", [False, True])
def test_bf16_only_where_the_processor_has_it(monkeypatch, native):
    monkeypatch.setattr(contenders, "has_native_bf16", lambda: native)
    policy = Policy(make_network(3, 2), NoiseSchedule.vp(5))

    def kinds(dtypes):
        return [found.dtype for found in contenders.find(policy, ["torch", "compile"], dtypes, None)]

    assert kinds(["fp32"]) == ["fp32", "fp32"]
    assert kinds(None) == (["fp32", "bf16"] * 2 if native else ["fp32", "fp32"])
    if native:
        assert kinds(["bf16"]) == ["bf16", "bf16"]
    else:
        with pytest.raises(UsageError, match="no native bf16.*use --dtypes fp32"):
            kinds(["bf16"])
