"""Finds every rule: the modules `ms_*` of this package."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import meshscope.rules as package
from meshscope.rules.rule import LoadedRule


@cache
def catalogue() -> tuple[LoadedRule, ...]:
    """All rules by code; a module without RULE, check or docstring is a programming error and raises."""
    found = []
    for module_info in pkgutil.iter_modules(package.__path__):
        if not module_info.name.startswith("ms_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        found.append(LoadedRule(module.RULE, module.__doc__ or "", module.check))
    return tuple(sorted(found, key=lambda loaded: loaded.rule.code))


def by_code_or_cause(name: str) -> tuple[LoadedRule, ...]:
    """The rules with this code (any case), this cause id, or this code known from elsewhere."""
    wanted = name.lower()
    return tuple(
        loaded
        for loaded in catalogue()
        if wanted in {loaded.rule.code.lower(), loaded.rule.cause, *map(str.lower, loaded.rule.also_known_as)}
    )
