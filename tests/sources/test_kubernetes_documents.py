"""Objects are read as the API server holds them; what can't be read is named and costs itself alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshscope.sources.kubernetes_documents import DocumentError, decode, parse_yaml
from meshscope.sources.source import Read

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: shop
"""


def names(read: Read) -> list[str]:
    return [found.metadata.name for found in read.objects]


def read_yaml(text: str) -> Read:
    return decode(text.encode(), "kubernetes/x.yaml")


def test_single_and_multi_document() -> None:
    text = f"# two\n---\n{SERVICE.format(name='a')}---\n\n--- # nothing\n---\n{SERVICE.format(name='b')}...\n"
    read = read_yaml(text)
    assert names(read) == ["a", "b"]
    assert read.problems == ()


@pytest.mark.parametrize("indent", ["", "  "])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_list(indent: str, newline: str) -> None:
    text = "apiVersion: v1\nitems:\n"
    for name in ("a", "b"):
        first, *rest = SERVICE.format(name=name).splitlines()
        text += f"{indent}- {first}\n" + "".join(f"{indent}  {line}\n" for line in rest)
    text += 'kind: List\nmetadata:\n  resourceVersion: ""\n'
    assert names(read_yaml(text.replace("\n", newline))) == ["a", "b"]


@pytest.mark.parametrize("dumps", [lambda value: json.dumps(value), lambda value: yaml.safe_dump(value)])
def test_a_typed_list_gives_its_items_their_kind(dumps: Any) -> None:
    document = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "5"},
        "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}],
    }
    read = read_yaml(dumps(document))
    assert [(found.kind, found.apiVersion, found.metadata.name) for found in read.objects] == [
        ("Pod", "v1", "a"),
        ("Pod", "v1", "b"),
    ]
    assert read.objects[0].body["kind"] == "Pod"


def test_an_empty_list_is_no_problem() -> None:
    for text in (
        '{"kind": "List", "apiVersion": "v1", "items": []}',
        "kind: List\napiVersion: v1\nitems: []\n",
    ):
        assert read_yaml(text) == Read(())
    assert read_yaml("kind: PodList\napiVersion: v1\nitems: null\n") == Read(())


def test_json_documents_one_after_the_other() -> None:
    one = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}, indent=1)
    assert names(read_yaml(one + "\n" + one.replace('"a"', '"b"') + "\n")) == ["a", "b"]
    broken = read_yaml(one + "\n{,")
    assert names(broken) == ["a"]
    assert [problem.what for problem in broken.problems] == ["kubernetes/x.yaml line 8"]


def test_flow_style_yaml() -> None:
    read = read_yaml("{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n" + SERVICE.format(name="b"))
    assert names(read) == ["a", "b"]


def test_a_broken_document_hides_no_other() -> None:
    broken = "kind: [\nname: x\n"
    text = SERVICE.format(name="a") + "---\n" + broken + "---\n" + SERVICE.format(name="b")
    read = read_yaml(text)
    assert names(read) == ["a", "b"]
    (problem,) = read.problems
    assert problem.what.startswith("kubernetes/x.yaml line ")
    assert int(problem.what.split()[-1]) in (7, 8, 9)


def test_a_broken_item_hides_no_other() -> None:
    text = "apiVersion: v1\nitems:\n"
    for name in ("a", '"unclosed', "b"):
        first, *rest = SERVICE.format(name=name).splitlines()
        text += f"- {first}\n" + "".join(f"  {line}\n" for line in rest)
    read = read_yaml(text + "kind: List\n")
    assert names(read) == ["a", "b"]
    assert len(read.problems) == 1


def test_aliases_between_items() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a, labels: &labels {app: shop}}
- apiVersion: v1
  kind: Service
  metadata: {name: b, labels: *labels}
"""
    read = read_yaml(text)
    assert [found.metadata.labels for found in read.objects] == [{"app": "shop"}] * 2


@pytest.mark.parametrize(
    "text", ["just text", "- 1", "7", "apiVersion: v1", "kind: Pod", "apiVersion: 1\nkind: Pod", "[1, null]",
             "apiVersion: v1\nkind: Pod\nmetadata: x", "apiVersion: v1\nkind: Pod\nmetadata: {name: {a: b}}"]
)  # fmt: skip
def test_what_is_no_object_is_named(text: str) -> None:
    read = read_yaml(text)
    assert read.objects == ()
    assert len(read.problems) == 1


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# only words\n", b"---\n---\n", b"\xef\xbb\xbf"])
def test_nothing_is_no_problem(data: bytes) -> None:
    assert decode(data, "x") == Read(())


def test_not_utf8() -> None:
    read = decode(b"a: b\nc: \xff", "x.yaml")
    assert [problem.what for problem in read.problems] == ["x.yaml line 2"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("yes", "yes"),
        ("on", "on"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("9" * 5000, "9" * 5000),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("١٢", "١٢"),
        ("7", 7),
        ("-7", -7),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ('"7"', "7"),
        ("'true'", "true"),
        ("!!binary aGk=", "aGk="),
        ("!!timestamp 2026-01-02", "2026-01-02"),
        ("!!python/object/apply:os.system ['false']", ["false"]),
    ],
)
def test_scalars_mean_what_they_mean_in_json(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}\n") == {"key": value}


def test_keys_are_text() -> None:
    assert parse_yaml("1: a\ntrue: b\nnull: c\non: d\n2026-01-02: e\n<<: f\n") == {
        "1": "a",
        "true": "b",
        "null": "c",
        "on": "d",
        "2026-01-02": "e",
        "<<": "f",
    }
    for text in ("? [a]\n: b\n", "? {a: b}\n: c\n"):
        with pytest.raises(DocumentError, match="isn't text"):
            parse_yaml(text)


def test_a_billion_laughs() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(DocumentError, match="aliases") as raised:
        parse_yaml("\n".join(lines))
    assert raised.value.line > 0


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: *nowhere"])
def test_aliases_of_what_isnt_there_yet(text: str) -> None:
    with pytest.raises(DocumentError, match="alias"):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, "- " * 10**5, "{a: " * 10**5, "[" * 10**5 + "]" * 10**5, '{"a":' * 10**5 + "1" + "}" * 10**5],
    ids=["brackets", "dashes", "braces", "closed", "json"],
)  # fmt: skip
def test_nesting_ends_somewhere(text: str) -> None:
    started = time.monotonic()
    read = read_yaml(text)
    assert time.monotonic() - started < 2
    assert read.objects == ()
    assert len(read.problems) == 1


def test_nesting_that_json_allows_is_refused_alike() -> None:
    deep = '{"apiVersion": "v1", "kind": "X", "spec": ' + "[" * 500 + "]" * 500 + "}"
    assert "nests deeper" in read_yaml(deep).problems[0].why


@pytest.mark.parametrize("dumps", [lambda value: json.dumps(value), lambda value: yaml.safe_dump(value)])
def test_a_secrets_values_are_dropped_at_once(dumps: Any) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "a",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "c2VjcmV0", "other": "kept"},
        },
        "type": "kubernetes.io/tls",
        "data": {"tls.key": "c2VjcmV0", "tls.crt": "c2VjcmV0"},
        "stringData": {"token": "c2VjcmV0"},
    }
    (found,) = read_yaml(dumps({"apiVersion": "v1", "kind": "List", "items": [secret]})).objects
    assert b"c2VjcmV0" not in orjson.dumps(found.body)
    assert set(found.body["data"]) == {"tls.key", "tls.crt"}
    assert found.metadata.annotations == {"other": "kept"}
    assert found.body["type"] == "kubernetes.io/tls"


def test_managed_fields_and_events_are_not_kept() -> None:
    text = (
        "apiVersion: v1\nitems:\n"
        "- apiVersion: v1\n  kind: Event\n  metadata: {name: e}\n"
        "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: p\n    managedFields: [{manager: x}]\n"
        "kind: List\n"
        "---\napiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: f}\n"
        "---\n{apiVersion: v1, kind: Event, metadata: {name: g}}\n"
    )
    read = read_yaml(text)
    assert names(read) == ["p"]
    assert read.objects[0].body["metadata"] == {"name": "p"}


def test_metadata_of_any_scalars_is_text() -> None:
    (found,) = read_yaml(
        "apiVersion: v1\nkind: Pod\n"
        "metadata: {name: 7, labels: {a: 1, b: true, c: null}, ownerReferences: [x, {name: 5}]}"
    ).objects
    assert found.metadata.name == "7"
    assert found.metadata.labels == {"a": "1", "b": "true", "c": ""}
    assert [owner.name for owner in found.metadata.ownerReferences] == ["5"]


def test_recorded_objects_are_what_a_yaml_library_reads(tmp_path: Path) -> None:
    import tarfile

    class WithoutTimes(yaml.SafeLoader):
        pass

    WithoutTimes.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    recordings = Path(__file__).parent.parent / "data" / "istio"
    with tarfile.open(recordings / "authz-deny.tar.gz") as tar:
        for name in ("kubernetes/cluster.yaml", "kubernetes/legacy.yaml", "kubernetes/bookinfo.yaml"):
            file = tar.extractfile(name)
            assert file is not None
            data = file.read()
            started = time.process_time()
            read = decode(data, name)
            assert time.process_time() - started < 0.3
            expected = [item for item in yaml.load(data, WithoutTimes)["items"] if item["kind"] != "Event"]
            assert [found.body for found in read.objects] == expected


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(spec=_json, name=st.text(max_size=10))
def test_json_comes_back_as_it_was(spec: Any, name: str) -> None:
    document = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}
    read = decode(orjson.dumps(document), "x")
    assert [found.body for found in read.objects] == [document]


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    decode(data, "x")


_lines = st.sampled_from(
    ["---", "...", "apiVersion: v1", "kind: List", "items:", "- kind: Pod", "  kind: Event", "# words",
     "  metadata: &a {name: x}", "  spec: *a", "- |", "  text", "- [", "- {a: 'b", "kind: Service", "metadata:",
     "  name: y", "%YAML 1.1", "\t", "? x", "- apiVersion: v1", '"', "items: []", "- &a [*a]"]
)  # fmt: skip


@given(st.lists(_lines, max_size=15))
def test_no_mixture_of_lines_makes_it_fail(lines: list[str]) -> None:
    read = decode("\n".join(lines).encode(), "x")
    assert all(found.kind for found in read.objects)
