"""Faults of routing: hosts, routes and subsets that lead nowhere."""

from __future__ import annotations

from meshscope.demo.faults.registry import fault
from meshscope.demo.spec import Flow, Json, MeshSpec


@fault(
    "no-vhost",
    "an EnvoyFilter takes the catch-all virtual host from productpage, which then calls a name that nobody has",
)
def no_vhost(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1alpha3
        kind: EnvoyFilter
        metadata: {name: known-hosts-only, namespace: bookinfo}
        spec:
          workloadSelector: {labels: {app: productpage}}
          configPatches:
          - applyTo: VIRTUAL_HOST
            match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: allow_any}}}
            patch: {operation: REMOVE}
    """)

    def without_catch_all(routes: Json) -> None:
        routes["virtual_hosts"] = [host for host in routes["virtual_hosts"] if host["name"] != "allow_any"]

    spec.patch("bookinfo/productpage-v1", "route", "*", without_catch_all)
    spec.flows.append(Flow("misspelt", "bookinfo/productpage-v1", "http://detials:9080/details/0", rate=5))


@fault("no-matching-route", "a VirtualService routes only /v2 of details; productpage asks for /details/0")
def no_matching_route(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - name: second-version
            match: [{uri: {prefix: /v2}}]
            route: [{destination: {host: details}}]
    """)


@fault(
    "registry-only", "productpage calls hosts outside the mesh's registry, which the outbound policy forbids"
)
def registry_only(spec: MeshSpec) -> None:
    spec.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    source = "bookinfo/productpage-v1"
    spec.flows.append(Flow("books", source, "http://books.example.com:9080/volumes", rate=5))
    spec.flows.append(Flow("cache", source, "tcp://cache.example.com:6379", rate=2))


@fault(
    "sidecar-egress-hides-host",
    "a Sidecar resource shows productpage only reviews, and the outbound policy forbids the rest",
)
def sidecar_egress_hides_host(spec: MeshSpec) -> None:
    spec.mesh_config["outboundTrafficPolicy"] = {"mode": "REGISTRY_ONLY"}
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: Sidecar
        metadata: {name: productpage, namespace: bookinfo}
        spec:
          workloadSelector: {labels: {app: productpage}}
          egress:
          - hosts: ["./reviews.bookinfo.svc.cluster.local", "istio-system/*"]
    """)


@fault(
    "subset-not-defined", "a route sends half of reviews to the subset v4, which no DestinationRule defines"
)
def subset_not_defined(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: reviews, namespace: bookinfo}
        spec:
          hosts: [reviews]
          http:
          - name: split
            route:
            - {destination: {host: reviews, subset: v1}, weight: 50}
            - {destination: {host: reviews, subset: v4}, weight: 50}
    """)


@fault("route-to-unknown-host", "a VirtualService sends details to details-canary, which isn't there")
def route_to_unknown_host(spec: MeshSpec) -> None:
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - name: canary
            route: [{destination: {host: details-canary, port: {number: 9080}}}]
    """)


@fault(
    "http-policy-on-tcp-port", "the port of details is named tcp, so its HTTP routes and timeout are ignored"
)
def http_policy_on_tcp_port(spec: MeshSpec) -> None:
    spec.find("Service", "details")["spec"]["ports"][0]["name"] = "tcp-details"
    spec.add("""
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: details, namespace: bookinfo}
        spec:
          hosts: [details]
          http:
          - name: impatient
            timeout: 1s
            retries: {attempts: 3}
            route: [{destination: {host: details}}]
    """)


@fault("connect-to-proxy-port", "productpage calls the pod of details at 15006, the port of its sidecar")
def connect_to_proxy_port(spec: MeshSpec) -> None:
    address = spec.pod_ip(spec.workload("details-v1").pods[0])
    url = f"http://{address}:15006/details/0"
    spec.flows.append(Flow("sidecar-port", "bookinfo/productpage-v1", url, rate=5))
