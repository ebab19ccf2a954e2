"""The Kubernetes objects of the mesh as `kubectl get -o yaml` would return them."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta
from typing import Any

from meshscope.demo.pilot.bootstrap import pod_annotations
from meshscope.demo.pilot.registry import Registry, Service, target_port
from meshscope.demo.spec import CLUSTER_DOMAIN, ROOT_NAMESPACE, Json, MeshSpec, Pod, Workload, identity

_NODE = "demo"
_NODE_ADDRESS = "127.0.0.1"
_PROXY_IMAGE = "docker.io/istio/proxyv2:1.32.0"


def kubernetes_objects(spec: MeshSpec) -> dict[str, list[Json]]:
    """Namespace ("cluster" for what has none) → its objects."""
    return _Writer(spec).objects()


class _Writer:
    def __init__(self, spec: MeshSpec) -> None:
        self.spec = spec
        self.registry = Registry(spec)
        # Everything was there a while before the proxies started.
        self.created = _time(spec.started - timedelta(minutes=30))
        self.started = _time(spec.started)
        self._version = 400

    def objects(self) -> dict[str, list[Json]]:
        spaces: dict[str, list[Json]] = {"cluster": [self._namespace(name) for name in self.spec.namespaces]}
        spaces["cluster"].append(self._injector())
        for workload in self.spec.workloads:
            space = spaces.setdefault(workload.namespace, [])
            space += [self._pod(workload, pod) for pod in workload.pods]
            space += [self._deployment(workload), self._replica_set(workload)]
        for item in self.spec.objects:
            namespace = item["metadata"].get("namespace")
            spaces.setdefault(namespace or "cluster", []).append(self._given(item))
        for service in self.registry.services:
            if not service.external and service.selector:
                spaces[service.namespace].append(self._endpoint_slice(service))
        spaces.setdefault(ROOT_NAMESPACE, []).append(self._mesh_config())
        accounts = {(workload.namespace, workload.service_account) for workload in self.spec.workloads}
        accounts |= {(namespace, "default") for namespace in spaces if namespace != "cluster"}
        for namespace, name in sorted(accounts):
            spaces[namespace].append(self._object("v1", "ServiceAccount", namespace, name))
        return spaces

    def _object(
        self, api: str, kind: str, namespace: str | None, name: str, *, created: str = "", **fields: Any
    ) -> Json:
        self._version += 1
        metadata: Json = {
            "creationTimestamp": created or self.created,
            "name": name,
            "resourceVersion": str(self._version),
            "uid": self._uid(kind, namespace, name),
        }
        if namespace:
            metadata["namespace"] = namespace
        metadata.update(fields.pop("metadata", {}))
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}

    def _uid(self, kind: str, namespace: str | None, name: str) -> str:
        if (kind, name) == ("Namespace", "kube-system"):
            return self.spec.cluster_uid
        return self.spec.uid(kind, namespace or "", name)

    def _owner(self, api: str, kind: str, namespace: str, name: str) -> list[Json]:
        owner = {
            "apiVersion": api,
            "blockOwnerDeletion": True,
            "controller": True,
            "kind": kind,
            "name": name,
            "uid": self._uid(kind, namespace, name),
        }
        return [owner]

    def _namespace(self, name: str) -> Json:
        labels = {**self.spec.namespaces[name], "kubernetes.io/metadata.name": name}
        return self._object(
            "v1",
            "Namespace",
            None,
            name,
            metadata={"labels": labels},
            spec={"finalizers": ["kubernetes"]},
            status={"phase": "Active"},
        )

    def _given(self, item: Json) -> Json:
        """A user's object with what the API server adds."""
        manifest = copy.deepcopy(item)
        kind, namespace, name = identity(item)
        applied = {**manifest, "metadata": {"annotations": {}, **manifest["metadata"]}}
        self._version += 1
        manifest["metadata"] = {
            "creationTimestamp": self.created,
            "generation": 1,
            "resourceVersion": str(self._version),
            "uid": self._uid(kind, namespace, name),
            **manifest["metadata"],
        }
        annotations = manifest["metadata"].setdefault("annotations", {})
        annotations["kubectl.kubernetes.io/last-applied-configuration"] = (
            json.dumps(applied, separators=(",", ":"), sort_keys=True, default=str) + "\n"
        )
        if kind == "Service":
            address = self.registry.cluster_ip(item)
            manifest["spec"] = {
                "clusterIP": address,
                "clusterIPs": [address],
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "sessionAffinity": "None",
                "type": "ClusterIP",
                **manifest["spec"],
            }
            manifest["status"] = {"loadBalancer": {}}
        return manifest

    def _template(self, workload: Workload) -> Json:
        containers = [
            {
                "name": workload.app,
                "image": f"docker.io/istio/examples-bookinfo-{workload.app}-{workload.version}:1.20.3",
                "imagePullPolicy": "IfNotPresent",
                "ports": [_container_port(port.number, port.name) for port in workload.ports],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ]
        return {
            "containers": containers,
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": workload.service_account,
            "serviceAccountName": workload.service_account,
            "terminationGracePeriodSeconds": 30,
        }

    def _deployment(self, workload: Workload) -> Json:
        labels = {"app": workload.app, "version": workload.version, **workload.labels}
        replicas = len(workload.pods)
        ready = sum(1 for pod in workload.pods if pod.ready)
        status: Json = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
        if ready:
            status |= {"readyReplicas": ready, "availableReplicas": ready}
        if replicas - ready:
            status["unavailableReplicas"] = replicas - ready
        available = "True" if ready == replicas else "False"
        reason = "MinimumReplicasAvailable" if ready == replicas else "MinimumReplicasUnavailable"
        status["conditions"] = [
            {
                "type": "Available",
                "status": available,
                "reason": reason,
                "lastTransitionTime": self.started,
                "lastUpdateTime": self.started,
            }
        ]
        template: Json = {"labels": labels}
        if workload.annotations:
            template["annotations"] = dict(workload.annotations)
        return self._object(
            "apps/v1",
            "Deployment",
            workload.namespace,
            workload.name,
            metadata={"labels": labels, "generation": 1},
            spec={
                "replicas": replicas,
                "selector": {"matchLabels": {"app": workload.app, "version": workload.version}},
                "strategy": {"type": "RollingUpdate"},
                "template": {"metadata": template, "spec": self._template(workload)},
            },
            status=status,
        )

    def _replica_set(self, workload: Workload) -> Json:
        labels = {"app": workload.app, "version": workload.version, **workload.labels}
        labels["pod-template-hash"] = workload.template_hash
        replicas = len(workload.pods)
        return self._object(
            "apps/v1",
            "ReplicaSet",
            workload.namespace,
            f"{workload.name}-{workload.template_hash}",
            metadata={
                "generation": 1,
                "labels": labels,
                "ownerReferences": self._owner("apps/v1", "Deployment", workload.namespace, workload.name),
            },
            spec={
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": self._template(workload)},
            },
            status={
                "observedGeneration": 1,
                "replicas": replicas,
                "readyReplicas": sum(1 for pod in workload.pods if pod.ready),
            },
        )

    def _pod(self, workload: Workload, pod: Pod) -> Json:
        replica_set = f"{workload.name}-{workload.template_hash}"
        body = {**self._template(workload), "nodeName": _NODE, "enableServiceLinks": True}
        status = self._pod_status(workload, pod)
        if workload.sidecar:
            body["initContainers"] = [_init_container(), _proxy_container(self.spec, workload)]
        metadata: Json = {
            "generateName": f"{replica_set}-",
            "generation": 1,
            "labels": {**workload.pod_labels(pod), "pod-template-hash": workload.template_hash},
            "ownerReferences": self._owner("apps/v1", "ReplicaSet", workload.namespace, replica_set),
        }
        annotations = pod_annotations(workload, pod)
        if annotations:
            metadata["annotations"] = annotations
        return self._object(
            "v1",
            "Pod",
            workload.namespace,
            pod.name,
            created=self.started,
            metadata=metadata,
            spec=body,
            status=status,
        )

    def _pod_status(self, workload: Workload, pod: Pod) -> Json:
        ready = "True" if pod.ready else "False"
        conditions = [
            {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": self.started}
            for kind, status in (
                ("PodReadyToStartContainers", "True"),
                ("Initialized", "True"),
                ("Ready", ready),
                ("ContainersReady", ready),
                ("PodScheduled", "True"),
            )
        ]
        if not pod.ready:
            for condition in conditions[2:4]:
                condition["reason"] = "ContainersNotReady"
                condition["message"] = f"containers with unready status: [{workload.app}]"
        ip = self.spec.pod_ip(pod)
        status: Json = {
            "conditions": conditions,
            "containerStatuses": [self._container_status(workload.app, ready=pod.ready)],
            "hostIP": _NODE_ADDRESS,
            "hostIPs": [{"ip": _NODE_ADDRESS}],
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "qosClass": "Burstable",
            "startTime": self.started,
        }
        if workload.sidecar:
            done = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": self.started}}
            status["initContainerStatuses"] = [
                {**self._container_status("istio-init", ready=True), "started": False, "state": done},
                self._container_status("istio-proxy", ready=True),
            ]
        return status

    def _container_status(self, name: str, *, ready: bool) -> Json:
        return {
            "name": name,
            "image": _PROXY_IMAGE if name.startswith("istio-") else f"{name}:demo",
            "lastState": {},
            "ready": ready,
            "restartCount": 0,
            "started": True,
            "state": {"running": {"startedAt": self.started}},
        }

    def _endpoint_slice(self, service: Service) -> Json:
        selected = self.registry.selected(service)
        endpoints = [
            {
                "addresses": [self.spec.pod_ip(pod)],
                "conditions": {"ready": pod.ready, "serving": pod.ready, "terminating": False},
                "nodeName": _NODE,
                "targetRef": {
                    "kind": "Pod",
                    "name": pod.name,
                    "namespace": workload.namespace,
                    "uid": self._uid("Pod", workload.namespace, pod.name),
                },
            }
            for workload, pod in selected
        ]
        ports = [
            {
                "name": port.name,
                "port": target_port(selected[0][0], port) if selected else port.number,
                "protocol": "TCP",
            }
            for port in service.ports
        ]
        labels = {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": service.name,
        }
        owner = self._owner("v1", "Service", service.namespace, service.name)
        metadata = {"generateName": f"{service.name}-", "labels": labels, "ownerReferences": owner}
        return self._object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            service.namespace,
            f"{service.name}-{self._uid('EndpointSlice', service.namespace, service.name)[:5]}",
            metadata=metadata,
            addressType="IPv4",
            endpoints=endpoints if selected else None,
            ports=ports if selected else None,
        )

    def _mesh_config(self) -> Json:
        mesh: Json = {
            "accessLogFile": "/dev/stdout",
            "defaultConfig": {"discoveryAddress": "istiod.istio-system.svc:15012"},
            "enablePrometheusMerge": True,
            "rootNamespace": ROOT_NAMESPACE,
            "trustDomain": CLUSTER_DOMAIN,
            **self.spec.mesh_config,
        }
        if self.spec.access_log == "json":
            mesh["accessLogEncoding"] = "JSON"
        if self.spec.stats == "all":
            mesh["defaultConfig"]["proxyStatsMatcher"] = {"inclusionRegexps": [".*"]}
        # JSON is YAML, and istiod reads the key as YAML.
        data = {"mesh": json.dumps(mesh, indent=2), "meshNetworks": "networks: {}"}
        metadata = {"labels": {"istio.io/rev": "default", "release": "istio"}}
        return self._object("v1", "ConfigMap", ROOT_NAMESPACE, "istio", metadata=metadata, data=data)

    def _injector(self) -> Json:
        service = {"name": "istiod", "namespace": ROOT_NAMESPACE, "path": "/inject", "port": 443}
        webhook = {
            "name": "namespace.sidecar-injector.istio.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": service},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {
                "matchExpressions": [{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]
            },
            "objectSelector": {
                "matchExpressions": [
                    {"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}
                ]
            },
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "*",
                }
            ],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        }
        return self._object(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            None,
            "istio-sidecar-injector",
            metadata={"labels": {"app": "sidecar-injector", "istio.io/rev": "default"}},
            webhooks=[webhook],
        )


def _container_port(number: int, name: str | None) -> Json:
    port: Json = {"containerPort": number, "protocol": "TCP"}
    if name:
        port["name"] = name
    return port


def _init_container() -> Json:
    arguments = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*"]
    return {"name": "istio-init", "image": _PROXY_IMAGE, "args": arguments, "resources": {}}


def _proxy_container(spec: MeshSpec, workload: Workload) -> Json:
    owner = f"kubernetes://apis/apps/v1/namespaces/{workload.namespace}/deployments/{workload.name}"
    proxy_config = {"proxyStatsMatcher": {"inclusionRegexps": [".*"]}} if spec.stats == "all" else {}
    environment = {
        "PILOT_CERT_PROVIDER": "istiod",
        "CA_ADDR": "istiod.istio-system.svc:15012",
        "PROXY_CONFIG": json.dumps(proxy_config, separators=(",", ":")) + "\n",
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_META_WORKLOAD_NAME": workload.name,
        "ISTIO_META_OWNER": owner,
        "ISTIO_META_MESH_ID": CLUSTER_DOMAIN,
        "TRUST_DOMAIN": CLUSTER_DOMAIN,
    }
    return {
        "name": "istio-proxy",
        "image": _PROXY_IMAGE,
        "args": [
            "proxy",
            "sidecar",
            "--domain",
            "$(POD_NAMESPACE).svc.cluster.local",
            "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error",
            "--log_output_level=default:info",
        ],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"}},
        "resources": {
            "limits": {"cpu": "2", "memory": "1Gi"},
            "requests": {"cpu": "100m", "memory": "128Mi"},
        },
        "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"}},
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
