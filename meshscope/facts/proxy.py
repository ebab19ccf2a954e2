"""One Envoy proxy: every answer it gave, decoded on first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from meshscope.envoy.access_log import ProxyLog, read_log
from meshscope.envoy.clusters import ClusterStatuses, read_clusters
from meshscope.envoy.config_dump import ConfigDump, ConfigDumpError, DecodeProblem
from meshscope.envoy.server_info import ServerInfo, read_server_info
from meshscope.envoy.stats import Stats, moved_between, read_prometheus, read_text
from meshscope.istio.names import NodeInfo, node_info, pod_workload
from meshscope.model.findings import Unavailable, Unknown
from meshscope.model.names import ProxyId, WorkloadId
from meshscope.sources.source import Part

if TYPE_CHECKING:
    from meshscope.sources.source import Source


class Proxy:
    """What one proxy said. A part that can't be had or read is an Unavailable, and is listed in `unknowns`."""

    def __init__(self, identity: ProxyId, source: Source) -> None:
        self.id = identity
        self._source = source
        self.unknowns: dict[Part, Unknown] = {}

    def __repr__(self) -> str:
        return f"Proxy({self.id})"

    def path(self, part: Part) -> str:
        """Where the part is in a bundle: what evidence cites."""
        return f"proxies/{self.id.namespace}/{self.id.pod}/{part.value}"

    def _read(self, part: Part) -> bytes | Unavailable:
        answer = self._source.read(self.id, part)
        if isinstance(answer, Unavailable):
            self.unknowns.setdefault(part, answer.unknown())
        return answer

    def _unreadable(self, part: Part, why: str) -> Unavailable:
        problem = Unavailable(
            f"{part.value} of {self.id}", f"it can't be read: {why}", f"capture {self.path(part)} again"
        )
        self.unknowns[part] = problem.unknown()
        return problem

    @cached_property
    def config(self) -> ConfigDump | Unavailable:
        raw = self._read(Part.CONFIG_DUMP)
        if isinstance(raw, Unavailable):
            return raw
        try:
            return ConfigDump(raw)
        except ConfigDumpError as error:
            return self._unreadable(Part.CONFIG_DUMP, str(error))

    @cached_property
    def clusters(self) -> ClusterStatuses | Unavailable:
        return self._clusters(Part.CLUSTERS)

    @cached_property
    def clusters_before(self) -> ClusterStatuses | None:
        """An earlier sample of the same, where there is one."""
        raw = self._source.read(self.id, Part.BEFORE_CLUSTERS)
        found = None if isinstance(raw, Unavailable) else read_clusters(raw)
        return None if isinstance(found, DecodeProblem) else found

    def _clusters(self, part: Part) -> ClusterStatuses | Unavailable:
        raw = self._read(part)
        if isinstance(raw, Unavailable):
            return raw
        found = read_clusters(raw)
        return self._unreadable(part, found.why) if isinstance(found, DecodeProblem) else found

    @cached_property
    def log(self) -> ProxyLog | Unavailable:
        raw = self._read(Part.LOG)
        return raw if isinstance(raw, Unavailable) else read_log(raw)

    @cached_property
    def stats(self) -> Stats | Unavailable:
        """Totals since the proxy's start, from /stats or the Prometheus text: whichever is there."""
        text = self._source.read(self.id, Part.STATS)
        if not isinstance(text, Unavailable):
            return read_text(text)
        metrics = self._read(Part.METRICS)
        return metrics if isinstance(metrics, Unavailable) else read_prometheus(metrics)

    @cached_property
    def moved(self) -> Stats | None:
        """What the counters did between two samples; None where there is only one."""
        before = self._source.read(self.id, Part.BEFORE_METRICS)
        now = self._source.read(self.id, Part.METRICS)
        if isinstance(before, Unavailable) or isinstance(now, Unavailable):
            return None
        return moved_between(before, now)

    @cached_property
    def server_info(self) -> ServerInfo | Unavailable:
        raw = self._read(Part.SERVER_INFO)
        if isinstance(raw, Unavailable):
            return raw
        found = read_server_info(raw)
        return self._unreadable(Part.SERVER_INFO, found.why) if isinstance(found, DecodeProblem) else found

    @cached_property
    def node(self) -> NodeInfo:
        """Who the proxy says it is; server_info first, because a config dump can be a hundred times as big."""
        info = self.server_info
        found = None if isinstance(info, Unavailable) else node_info(info.node)
        if found is None and not isinstance(self.config, Unavailable):
            found = node_info(self.config.bootstrap.node)
        return found or NodeInfo(
            "", self.id.pod, self.id.namespace, workload=pod_workload(self.id.namespace, self.id.pod, {})
        )

    @property
    def workload(self) -> WorkloadId:
        """The workload by the proxy's own word, else by its pod's name."""
        return self.node.workload
