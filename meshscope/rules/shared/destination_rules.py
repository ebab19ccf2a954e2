"""The fix that many rules about connection pools and outlier detection have: another value in a DestinationRule."""

from __future__ import annotations

from meshscope.model.findings import Fix
from meshscope.model.names import ObjectRef


def patched(rule: ObjectRef | None, traffic_policy: str, advice: str, effect: str) -> Fix:
    """A command that merges `traffic_policy` (JSON) into the rule; the advice alone where no rule is known."""
    if rule is None:
        return Fix("advice", advice, effect)
    patch = f'{{"spec":{{"trafficPolicy":{traffic_policy}}}}}'
    return Fix(
        "command",
        f"kubectl patch destinationrule {rule.name} -n {rule.namespace} --type merge -p '{patch}'",
        effect,
    )
