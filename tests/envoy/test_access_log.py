"""A proxy's log is read in both encodings, mixed, cut, prefixed and hostile."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from meshscope.envoy.access_log import LINE_LIMIT, AccessLogEntry, read_log
from tests.recordings import RecordedProxy, proxies

HEALTHY = (
    '[2026-11-23T12:27:11.751Z] "GET /reviews/0 HTTP/1.1" 200 - via_upstream - "-" 0 358 16 15 "-" "curl/7.88.1" '
    '"ca003e6c-f583-43bf-be9e-0a242cb7cd07" "reviews:9080" "10.88.1.6:9080" '
    "outbound|9080||reviews.bookinfo.svc.cluster.local 10.88.1.3:59780 10.96.96.51:9080 10.88.1.3:54930 - default\n"
)
REFUSED = (
    '[2026-11-23T12:27:12.000Z] "GET /ratings/0 HTTP/1.1" 503 URX,UF '
    "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "
    '"delayed_connect_error:_Connection_refused" 0 145 3 - "10.1.1.1" "curl/7.88.1" "id" "ratings:9080" '
    '"10.88.1.8:9080" outbound|9080||ratings.bookinfo.svc.cluster.local - 10.96.1.1:9080 10.88.1.3:5 - default\n'
)
DENIED_TCP = (
    '[2026-11-23T12:27:13.000Z] "- - -" 0 - - rbac_access_denied_matched_policy[none] "-" 5 0 1 - "-" "-" "-" "-" "-" '
    "inbound|9000|| - 10.88.1.8:9000 10.88.1.3:40000 outbound_.9000_._.tcp.bookinfo.svc.cluster.local -\n"
)


def one(line: str | bytes) -> AccessLogEntry:
    log = read_log(line.encode() if isinstance(line, str) else line)
    assert (len(log.entries), log.messages, log.unreadable) == (1, (), 0)
    return log.entries[0]


def test_every_field_of_the_text_format() -> None:
    entry = one(HEALTHY)
    assert entry == AccessLogEntry(
        start_time=datetime(2026, 11, 23, 12, 27, 11, 751000, tzinfo=UTC),
        method="GET",
        path="/reviews/0",
        protocol="HTTP/1.1",
        response_code=200,
        response_code_details="via_upstream",
        bytes_sent=358,
        duration_ms=16,
        upstream_service_time="15",
        user_agent="curl/7.88.1",
        request_id="ca003e6c-f583-43bf-be9e-0a242cb7cd07",
        authority="reviews:9080",
        upstream_host="10.88.1.6:9080",
        upstream_cluster="outbound|9080||reviews.bookinfo.svc.cluster.local",
        upstream_local_address="10.88.1.3:59780",
        downstream_local_address="10.96.96.51:9080",
        downstream_remote_address="10.88.1.3:54930",
        route_name="default",
        line=HEALTHY.rstrip("\n"),
        number=1,
    )


def test_flags_are_a_set_and_dashes_are_nothing() -> None:
    entry = one(REFUSED)
    assert entry.response_flags == {"UF", "URX"}
    assert one(REFUSED.replace("URX,UF", "UF,URX")).response_flags == entry.response_flags
    assert entry.upstream_transport_failure_reason == "delayed_connect_error:_Connection_refused"
    assert entry.upstream_service_time == ""
    assert entry.connection_termination_details == ""


def test_a_connection_without_http() -> None:
    entry = one(DENIED_TCP)
    assert (entry.method, entry.path, entry.protocol, entry.response_code) == ("", "", "", 0)
    assert entry.connection_termination_details == "rbac_access_denied_matched_policy[none]"
    assert entry.bytes_sent == 0
    assert entry.requested_server_name.startswith("outbound_.9000_")


def test_both_encodings_say_the_same() -> None:
    text = one(REFUSED)
    fields = {
        "start_time": "2026-11-23T12:27:12.000Z",
        "response_flags": "URX,UF",
        "duration": 3,
        "connection_termination_details": None,
        "upstream_service_time": None,
        "upstream_local_address": None,
        "requested_server_name": None,
    }
    for name in AccessLogEntry.__struct_fields__:
        if name not in {"line", "number", "duration_ms"}:
            fields.setdefault(name, getattr(text, name))
    line = json.dumps(fields)
    from_json = one(line)
    assert from_json.line == line
    for name in AccessLogEntry.__struct_fields__:
        if name != "line":
            assert getattr(from_json, name) == getattr(text, name), name


def test_json_numbers_may_be_text() -> None:
    entry = one(
        '{"start_time":"2026-11-23T12:27:12Z","response_code":"503","duration":"7","response_flags":"UO"}'
    )
    assert (entry.response_code, entry.duration_ms) == (503, 7)
    assert entry.response_flags == {"UO"}


@pytest.mark.parametrize(
    ("agent", "path"),
    [
        ('curl "quoted" agent', "/"),
        ('"', "/"),
        ('" "forged-id" "forged:80" "1.1.1.1:1" cluster a b c d route', "/"),
        ("plain", '/a"b'),
        ('x" 503 UF y - "-" 1 2 3 4 "-" "z', '/"?q="'),
        ("{}[]\\", "/%22"),
    ],
)
def test_envoy_does_not_escape_quotes_and_they_mislead_nobody(agent: str, path: str) -> None:
    entry = one(HEALTHY.replace("curl/7.88.1", agent).replace("/reviews/0", path))
    assert (entry.user_agent, entry.path) == (agent, path)
    assert (entry.response_code, entry.authority, entry.upstream_host) == (
        200,
        "reviews:9080",
        "10.88.1.6:9080",
    )


@pytest.mark.parametrize(
    "prefix",
    [
        "2026-11-23T12:27:11.751123456Z ",
        "2026-11-23T13:27:11.751123456+01:00 ",
        "[pod/reviews-v1-abc/istio-proxy] ",
        "[pod/reviews-v1-abc/istio-proxy] 2026-11-23T12:27:11.751123456Z ",
        "2026-11-23T12:27:11.751123456Z stdout F ",
    ],
)
def test_prefixes_of_kubectl_and_container_runtimes(prefix: str) -> None:
    assert one(prefix + HEALTHY).authority == "reviews:9080"
    assert one(prefix + '{"start_time":"2026-11-23T12:27:12Z","authority":"a"}').authority == "a"
    message = "2026-11-23T12:00:00.123456Z\twarning\tenvoy config external/envoy/source:1\tno\tthread=12\n"
    assert read_log((prefix + message).encode()).messages[0].text == "no"


def test_istios_own_messages() -> None:
    raw = (
        "2026-11-23T12:00:00.123456Z\twarning\tenvoy config external/envoy/source/x.cc:123\tgRPC config rejected: a\t"
        "thread=12\n"
        "2026-11-23T12:00:01Z\twarn\tca\tca request failed\n"
        "2026-11-23T12:00:02Z\tinfo\tReadiness succeeded in 1s\n"
        '{"level":"error","time":"2026-11-23T12:00:03Z","scope":"envoy main","msg":"gone"}\n'
    )
    first, second, third, fourth = read_log(raw.encode()).messages
    assert (first.level, first.logger, first.text) == ("warning", "config", "gRPC config rejected: a")
    assert first.time == datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
    assert (second.level, second.logger, second.text) == ("warning", "ca", "ca request failed")
    assert (third.logger, third.text) == ("", "Readiness succeeded in 1s")
    assert (fourth.level, fourth.logger, fourth.text) == ("error", "main", "gone")


def test_stock_messages_and_the_lines_that_follow_them() -> None:
    raw = (
        "[2026-11-23 12:00:00.123][12][warning][config] [source/common/x.cc:138] gRPC config rejected: Error\n"
        "virtualInbound: no such filter\n"
        "\n" + HEALTHY + "cut off\n"
    )
    log = read_log(raw.encode())
    (message,) = log.messages
    assert message.logger == "config"
    assert message.text == "gRPC config rejected: Error\nvirtualInbound: no such filter"
    assert message.time == datetime(2026, 11, 23, 12, 0, 0, 123000, tzinfo=UTC)
    assert (len(log.entries), log.entries[0].number, log.unreadable) == (1, 4, 1)


@pytest.mark.parametrize("length", range(1, len(HEALTHY) - 10, 17))
def test_a_line_cut_anywhere_is_unreadable_and_spoils_no_other(length: int) -> None:
    log = read_log((HEALTHY[:length] + "\n" + REFUSED + HEALTHY[length:]).encode())
    assert [entry.response_code for entry in log.entries] == [503]
    assert log.unreadable + len(log.messages) >= 1


def test_hostile_bytes_stay_text() -> None:
    entry = one(HEALTHY.encode().replace(b"curl/7.88.1", b"\xff\x00\x1b[31m\xe2\x80\xae"))
    assert entry.user_agent == "\ufffd\x00\x1b[31m\u202e"


def test_quotes_are_limited_values_are_not() -> None:
    entry = one(HEALTHY.replace("/reviews/0", "/" + "a" * 5000))
    assert len(entry.line) == LINE_LIMIT
    assert len(entry.path) == 5001


def test_many_quotes_cost_no_time() -> None:
    hostile = HEALTHY.replace("curl/7.88.1", '" "a' * 20_000)[:-300] + "\n"
    assert read_log(hostile.encode()).unreadable == 1


@pytest.mark.parametrize("recorded", proxies(), ids=str)
def test_every_recorded_line_is_read(recorded: RecordedProxy) -> None:
    raw = recorded.read("proxy.log")
    log = read_log(raw)
    assert len(log.entries) == raw.count(b"\n")
    assert log.unreadable == 0
    for entry in log.entries:
        assert entry.start_time is not None
        assert entry.response_code_details
        assert entry.downstream_remote_address
