"""Finds the AuthorizationPolicies that bear on a pod, and says what kind of decision each can make."""

from __future__ import annotations

from typing import Any, Literal

from meshscope.istio.kubernetes import Objects, dicts, match_labels, selects
from meshscope.istio.names import SECURITY
from meshscope.model.kubernetes import KubernetesObject

Action = Literal["CUSTOM", "DENY", "ALLOW", "AUDIT"]

# The order in which Envoy asks them; AUDIT never decides.
_ORDER: dict[Action, int] = {"CUSTOM": 0, "DENY": 1, "ALLOW": 2, "AUDIT": 3}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_GATEWAY_LABELS = ("gateway.networking.k8s.io/gateway-name", "istio.io/gateway-name")


def applying(objects: Objects, pod: KubernetesObject) -> tuple[KubernetesObject, ...]:
    """The policies that select a pod, in the order in which they decide, the oldest first within an action.

    They come from the pod's own and from the root namespace. A policy with targetRefs is a gateway's (or a
    waypoint's) and never a sidecar's.
    """
    namespaces = dict.fromkeys((objects.root_namespace, pod.metadata.namespace))
    found = [
        policy
        for namespace in namespaces
        for policy in objects.of("AuthorizationPolicy", SECURITY, namespace)
        if _selects(policy, pod)
    ]
    return tuple(sorted(found, key=_order))


def action(policy: KubernetesObject) -> Action:
    """What a policy does; ALLOW where it doesn't say (or says what Istio doesn't know)."""
    named = policy.spec.get("action")
    return next((known for known in _ORDER if known == named), "ALLOW")


def rules(policy: KubernetesObject) -> tuple[dict[str, Any], ...]:
    return dicts(policy.spec.get("rules"))


def is_dry_run(policy: KubernetesObject) -> bool:
    """Whether the policy is only shadowed: it counts what it would do and does nothing."""
    return policy.metadata.annotations.get("istio.io/dry-run", "") in _TRUE


def allows_nothing(policy: KubernetesObject) -> bool:
    """`spec: {}`: an ALLOW without rules matches no request, so that what it selects refuses all."""
    return action(policy) == "ALLOW" and not policy.spec.get("rules")


def matches_everything(policy: KubernetesObject) -> bool:
    """`rules: [{}]`: a rule without conditions matches every request."""
    return any(not any(rule.get(key) for key in ("from", "to", "when")) for rule in rules(policy))


def decides_nothing(policy: KubernetesObject) -> bool:
    """A DENY, CUSTOM or AUDIT without rules matches no request, and so changes none."""
    return action(policy) != "ALLOW" and not policy.spec.get("rules")


def provider(policy: KubernetesObject) -> str:
    """The extension provider that a CUSTOM policy asks; "" where it names none."""
    named = policy.spec.get("provider")
    return str(named.get("name") or "") if isinstance(named, dict) else ""


def target_refs(policy: KubernetesObject) -> tuple[dict[str, Any], ...]:
    """`targetRefs`, or the older single `targetRef`."""
    several = dicts(policy.spec.get("targetRefs"))
    single = policy.spec.get("targetRef")
    return several or ((single,) if isinstance(single, dict) else ())


def _selects(policy: KubernetesObject, pod: KubernetesObject) -> bool:
    targets = target_refs(policy)
    if not targets:
        return selects(match_labels(policy.spec), pod.metadata.labels)
    if policy.metadata.namespace != pod.metadata.namespace:
        return False
    gateways = [pod.metadata.labels[label] for label in _GATEWAY_LABELS if label in pod.metadata.labels]
    return any(target.get("kind") == "Gateway" and target.get("name") in gateways for target in targets)


def _order(policy: KubernetesObject) -> tuple[int, str, str, str]:
    meta = policy.metadata
    return _ORDER[action(policy)], meta.creationTimestamp, meta.name, meta.namespace
