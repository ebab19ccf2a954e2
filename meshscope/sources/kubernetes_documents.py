"""Decodes Kubernetes objects from YAML and JSON: single, a List, or many documents in one file.

Scalars mean what they mean in JSON, because that is what the API server holds: a timestamp, `yes` or `010` is
text. One document or item that can't be read costs itself alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from meshscope.model.findings import Unavailable
from meshscope.model.kubernetes import KubernetesObject, ObjectMeta, OwnerReference
from meshscope.sources.source import Read

REDACTED = "[redacted]"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

MAX_DEPTH = 128
"""Kubernetes' own schemas nest about thirty deep (a CustomResourceDefinition's schema)."""
MAX_ALIASED_NODES = 100_000
"""What aliases may repeat within a document; a chain of them doubles with every line."""

_UNREAD_KINDS = frozenset({"Event"})
"""No rule reads events, and a namespace has more of them than of everything else together."""
_REMEDY = "read the objects from the cluster again (kubectl get … -o yaml)"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_Piece = tuple[int, Any]
"""A document with the line it begins at, from 0; a DocumentError in the place of one that can't be read."""


class DocumentError(Exception):
    """A document can't be read: why, and the line within the text given (from 0)."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.line = line


def decode(data: bytes, name: str) -> Read:
    """All objects of one file but events; `name` is how problems call the file."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Read((), (_problem(name, data.count(b"\n", 0, error.start), "it isn't UTF-8"),))
    objects: list[KubernetesObject] = []
    problems: list[Unavailable] = []
    for line, document in _json(text) if text.lstrip()[:1] in ("{", "[") else _yaml(text):
        for found in _objects(document):
            if isinstance(found, KubernetesObject):
                objects.append(found)
            elif found.line:
                problems.append(_problem(name, found.line, str(found)))
            else:
                problems.append(_problem(name, line, str(found)))
    return Read(tuple(objects), tuple(problems))


def _problem(name: str, line: int, why: str) -> Unavailable:
    return Unavailable(f"{name} line {line + 1}", why, _REMEDY)


# --- JSON -------------------------------------------------------------------------------------------------


def _json(text: str) -> Iterator[_Piece]:
    try:
        yield 0, orjson.loads(text)
    except orjson.JSONDecodeError as error:
        pieces = list(_yaml(text)) if _is_flow_style(text) else list(_json_documents(text))
        if len(pieces) == 1 and isinstance(pieces[0][1], DocumentError):
            pieces = [(0, DocumentError(f"it isn't JSON: {error.msg}", error.lineno - 1))]
        yield from pieces


def _is_flow_style(text: str) -> bool:
    """Whether text that begins with a brace is YAML all the same; JSON never begins a line so."""
    return _DOCUMENT.search(text) is not None


def _json_documents(text: str) -> Iterator[_Piece]:
    """JSON documents one after the other, as calls of `kubectl get -o json` leave them in one file."""
    decoder, at, line = json.JSONDecoder(), 0, 0
    while at < len(text):
        if text[at].isspace():
            line += text[at] == "\n"
            at += 1
            continue
        try:
            _, end = decoder.raw_decode(text, at)
            yield line, orjson.loads(text[at:end])
        except (ValueError, RecursionError) as error:
            yield line, DocumentError(f"it isn't JSON: {error}", line)
            return
        line += text.count("\n", at, end)
        at = end


# --- YAML -------------------------------------------------------------------------------------------------

_DOCUMENT = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_ITEMS = re.compile(r"^items:[ \t]*\n(?=- )", re.MULTILINE)
_ITEM = re.compile(r"^- ", re.MULTILINE)
_AFTER_ITEMS = re.compile(r"^[^\s#-]", re.MULTILINE)
_ITEM_KIND = re.compile(r"^(?:- |  )kind: (\w+)[ \t]*$", re.MULTILINE)
_KIND = re.compile(r"^kind: (\w+)[ \t]*$", re.MULTILINE)


def _yaml(text: str) -> Iterator[_Piece]:
    for line, document in _documents(text.replace("\r\n", "\n")):
        kind = _KIND.search(document)
        if _says_nothing(document) or (kind and kind[1] in _UNREAD_KINDS):
            continue
        items = list(_list_items(document))
        if items and not any(isinstance(item, DocumentError) for _, item in items):
            yield from ((line + offset, item) for offset, item in items)
            continue
        try:
            # What looked like items may have been something else, or need an anchor from another item.
            yield line, parse_yaml(document)
        except DocumentError as error:
            for offset, item in items or [(error.line, error)]:
                if isinstance(item, DocumentError):
                    item.line = line + offset
                yield line + offset, item


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """Splits at the lines that begin a document, which no content can look like (YAML 1.2, 9.1.4)."""
    starts = [found.start() for found in _DOCUMENT.finditer(text)]
    yield 0, text[: starts[0]] if starts else text
    line = 0
    for before, start, end in zip([0, *starts], starts, [*starts[1:], len(text)], strict=False):
        line += text.count("\n", before, start)
        # Blanks in the marker's place, so that columns stay what they are in the file.
        yield line, "   " + text[start + 3 : end]


def _says_nothing(document: str) -> bool:
    """Whether there are but comments and directives."""
    return all(
        not line.strip() or line.lstrip()[0] in "#%" or line == "..." for line in document.splitlines()
    )


def _list_items(document: str) -> Iterator[_Piece]:
    """The items of a List as kubectl prints it, each read on its own; nothing where the text is otherwise."""
    begin = _ITEMS.search(document)
    if begin is None:
        return
    after = _AFTER_ITEMS.search(document, begin.end())
    end = after.start() if after else len(document)
    try:
        head = parse_yaml(document[: begin.start()] + document[end:])
    except DocumentError:
        return
    if not isinstance(head, dict) or not str(head.get("kind", "")).endswith("List"):
        return
    starts = [found.start() for found in _ITEM.finditer(document, begin.end(), end)]
    line = document.count("\n", 0, begin.end())
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        text = document[start:stop]
        kind = _ITEM_KIND.search(text)
        if not (kind and kind[1] in _UNREAD_KINDS):
            try:
                yield line, {**head, "items": parse_yaml(text)}
            except DocumentError as error:
                yield line + error.line, error
        line += text.count("\n")


def parse_yaml(text: str) -> Any:
    """One YAML document as JSON's types. Raises DocumentError.

    Built from the parser's events without recursion: the C library's own composer overflows its stack on
    brackets nested deep enough.
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise DocumentError(f"it isn't YAML: {error.problem}", mark.line if mark else 0) from error
    except (yaml.YAMLError, ValueError) as error:
        why = " ".join(str(error).split())
        raise DocumentError(f"it isn't YAML: {why}") from error
    return builder.document


class _Anchored:
    """What an alias may repeat: the value and the number of nodes in it."""

    def __init__(self, value: Any, nodes: int) -> None:
        self.value = value
        self.nodes = nodes


class _Open:
    """A mapping or list that is being read."""

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, before: int) -> None:
        self.value = value
        self.anchor = anchor
        self.before = before
        self.key: str | None = None


class _Builder:
    """Makes JSON's types from YAML's events."""

    def __init__(self) -> None:
        self.document: Any = None
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._nodes = 0
        self._aliased = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            value = _plain(event.value) if event.implicit[0] else event.value
            self._nodes += 1
            if event.anchor:
                self._anchors[event.anchor] = _Anchored(value, 1)
            self._place(value, event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._enter({}, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._enter([], event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._leave(event)
        elif isinstance(event, yaml.AliasEvent):
            self._repeat(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _error("a second document without `---` before it", event)

    def _enter(self, value: dict[str, Any] | list[Any], event: Any) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _error(f"it nests deeper than {MAX_DEPTH}", event)
        if self._open and self._is_key(self._open[-1]):
            raise _error("a key that isn't text", event)
        self._nodes += 1
        self._open.append(_Open(value, event.anchor, self._nodes - 1))

    def _leave(self, event: yaml.Event) -> None:
        closed = self._open.pop()
        if closed.anchor:
            self._anchors[closed.anchor] = _Anchored(closed.value, self._nodes - closed.before)
        self._place(closed.value, event)

    def _repeat(self, event: yaml.AliasEvent) -> None:
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            raise _error(f"an alias of {event.anchor!r}, which isn't defined before", event)
        self._nodes += anchored.nodes
        self._aliased += anchored.nodes
        if self._aliased > MAX_ALIASED_NODES:
            raise _error(f"aliases repeat more than {MAX_ALIASED_NODES} nodes", event)
        self._place(anchored.value, event)

    def _place(self, value: Any, event: yaml.Event) -> None:
        if not self._open:
            self.document = value
            return
        holder = self._open[-1]
        if isinstance(holder.value, list):
            holder.value.append(value)
        elif holder.key is None:
            holder.key = _key(value, event)
        else:
            holder.value[holder.key] = value
            holder.key = None

    @staticmethod
    def _is_key(holder: _Open) -> bool:
        return isinstance(holder.value, dict) and holder.key is None


def _key(value: Any, event: yaml.Event) -> str:
    """A key as JSON has it; a plain scalar is its own text."""
    if isinstance(event, yaml.ScalarEvent):
        return str(event.value)
    if isinstance(value, str):
        return value
    raise _error("a key that isn't text", event)


def _error(why: str, event: yaml.Event) -> DocumentError:
    mark = event.start_mark
    return DocumentError(f"it can't be read: {why}", mark.line if mark else 0)


_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
"""JSON's numbers, as far as 64 bits hold them; longer ones stay text."""


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-0123456789":
        return text
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number[1] is None and number[2] is None:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else text


# --- objects ----------------------------------------------------------------------------------------------


def _objects(
    document: Any, inherited: tuple[str, str] = ("", ""), depth: int = 0
) -> Iterator[KubernetesObject | DocumentError]:
    """The objects of one document, with Lists flattened (a typed list's items may leave their kind out)."""
    if document is None:
        return
    if isinstance(document, DocumentError):
        yield document
        return
    if isinstance(document, list) and depth == 0:
        for item in document:
            yield from _objects(item, inherited, depth + 1)
        return
    if not isinstance(document, dict):
        yield DocumentError("it isn't a Kubernetes object: no mapping")
        return
    api_version, kind = document.get("apiVersion") or inherited[0], document.get("kind") or inherited[1]
    if not isinstance(api_version, str) or not isinstance(kind, str) or not api_version or not kind:
        yield DocumentError("it isn't a Kubernetes object: apiVersion or kind is missing")
        return
    items = document.get("items")
    if kind.endswith("List") and (isinstance(items, list) or items is None):
        if depth > 2:
            yield DocumentError("it isn't a Kubernetes object: lists within lists")
            return
        of = ("", "") if kind == "List" else (api_version, kind.removesuffix("List"))
        for item in items or ():
            yield from _objects(item, of, depth + 1)
        return
    if kind not in _UNREAD_KINDS:
        yield _object(document, api_version, kind)


def _object(document: dict[str, Any], api_version: str, kind: str) -> KubernetesObject | DocumentError:
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name", ""), str | int | float):
        return DocumentError(f"it isn't a Kubernetes object: a {kind} whose metadata isn't one")
    if not _is_shallow(document, MAX_DEPTH):
        return DocumentError(f"it can't be read: it nests deeper than {MAX_DEPTH}")
    metadata = {key: value for key, value in metadata.items() if key != "managedFields"}
    body = {**document, "apiVersion": api_version, "kind": kind, "metadata": metadata}
    if kind == "Secret" and api_version == "v1":
        body = without_values(body)
    return KubernetesObject(api_version, kind, _metadata(body["metadata"]), body)


def without_values(secret: dict[str, Any]) -> dict[str, Any]:
    """A Secret with the names of its entries and nothing of what they hold."""
    cleaned = dict(secret)
    for field in ("data", "stringData"):
        if field in secret:
            entries = secret[field]
            cleaned[field] = dict.fromkeys(entries, REDACTED) if isinstance(entries, dict) else {}
    metadata = dict(secret["metadata"])
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    cleaned["metadata"] = metadata
    return cleaned


def _is_shallow(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_is_shallow(inner, levels - 1) for inner in value)
    return True


def _metadata(raw: dict[str, Any]) -> ObjectMeta:
    owners = raw.get("ownerReferences")
    return ObjectMeta(
        name=_text(raw.get("name")),
        namespace=_text(raw.get("namespace")),
        uid=_text(raw.get("uid")),
        labels=_texts(raw.get("labels")),
        annotations=_texts(raw.get("annotations")),
        creationTimestamp=_text(raw.get("creationTimestamp")),
        deletionTimestamp=_text(raw.get("deletionTimestamp")),
        ownerReferences=tuple(_owner(owner) for owner in owners if isinstance(owner, dict))
        if isinstance(owners, list)
        else (),
    )


def _owner(raw: dict[str, Any]) -> OwnerReference:
    return OwnerReference(
        kind=_text(raw.get("kind")),
        name=_text(raw.get("name")),
        apiVersion=_text(raw.get("apiVersion")),
        uid=_text(raw.get("uid")),
        controller=raw.get("controller") is True,
    )


def _text(value: Any) -> str:
    """A scalar as text; Kubernetes has nothing else here, but a file written by hand may."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _texts(value: Any) -> dict[str, str]:
    return {key: _text(inner) for key, inner in value.items()} if isinstance(value, dict) else {}
