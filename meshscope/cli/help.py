"""What help says of each command, without loading any of them."""

from __future__ import annotations

from typing import NamedTuple


class Help(NamedTuple):
    """A command in one line, and how it is used."""

    summary: str
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def epilogue(self) -> str:
        return "\n".join(("For example:", "", *(f"  {example}" for example in self.examples)))


OVERVIEW = """Finds what is broken in a service mesh, why, how it knows, and how to fix it.

For example:

  meshscope demo --fault deny-policy
  meshscope diagnose
  meshscope diagnose reviews-v2 ratings -n bookinfo --bundle incident.tar.zst
  meshscope explain deny-policy

Exit codes: 0 nothing found, 1 findings, 2 wrong usage, 3 nothing could be
reached, 4 evidence incomplete (with --strict), 130 interrupted.
"""

COMMANDS = {
    "diagnose": Help(
        "What fails, why, and how to fix it.",
        (
            "meshscope diagnose",
            "meshscope diagnose productpage-v1 reviews -n bookinfo",
            "meshscope diagnose deployment/reviews-v2.bookinfo service/ratings.bookinfo",
            "meshscope diagnose --bundle incident.tar.zst --out markdown=incident.md",
            "meshscope diagnose --fail-on warning --strict",
        ),
    ),
    "trace": Help(
        "The way of one request through the proxies, hop by hop.",
        (
            "meshscope trace productpage-v1.bookinfo GET http://reviews:9080/reviews/0",
            "meshscope trace reviews-v2 GET http://ratings:9080/ -n bookinfo -H 'a: b'",
            "meshscope trace reviews-v2.bookinfo tcp://mongodb:27017",
        ),
    ),
    "proxy-status": Help(
        "Which proxies have got their configuration, and which refused it.",
        (
            "meshscope proxy-status",
            "meshscope proxy-status -o wide --bundle incident.tar.zst",
            "meshscope proxy-status reviews-v2-6974b79895-v9rnr.bookinfo",
        ),
        ("ps",),
    ),
    "proxy-config": Help(
        "What one proxy holds: clusters, listeners, routes, endpoints, secrets.",
        (
            "meshscope proxy-config cluster reviews-v2-6974b79895-v9rnr.bookinfo",
            "meshscope pc listener deployment/reviews-v2 -n bookinfo --port 15006 -o wide",
            "meshscope pc endpoint productpage-v1 --port 9080 --status unhealthy",
            "meshscope pc all --file config_dump.json",
        ),
        ("pc",),
    ),
    "capture": Help(
        "Keep what can be read of a mesh as a bundle.",
        ("meshscope capture -o incident.tar.zst", "meshscope capture --demo -o incident/ --force"),
    ),
    "rules": Help("The catalogue of rules.", ("meshscope rules --mesh istio", "meshscope rules -o json")),
    "explain": Help(
        "What a code or a cause means and how to fix it.",
        ("meshscope explain deny-policy", "meshscope explain MS-I001"),
    ),
    "demo": Help(
        "A mesh of real Envoys on this machine, with faults to choose from.",
        (
            "meshscope demo --list",
            "meshscope demo --fault deny-policy",
            "meshscope demo --fault deny-policy --fault route-timeout --once -o json",
        ),
    ),
    "completion": Help(
        "The completion script for a shell.",
        (
            "source <(meshscope completion bash)",
            "meshscope completion fish > ~/.config/fish/completions/meshscope.fish",
        ),
    ),
    "version": Help("The version of meshscope, and of what it runs on."),
}
