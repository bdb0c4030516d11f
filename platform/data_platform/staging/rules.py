"""Which rules of its contract the rows of a staged table were held against, as the ledger keeps them, and which are
newer than some of the rows. A step audits the rows that it brings and no others, so a rule that is added to a contract
holds for all rows only once they are staged again. What a rule is, is `contracts`' business.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from data_platform.contracts.contract import Contract, contract_columns, rule, schema_of

RULES = "rules"
"""The entry of a staged table's position that holds the rules which all of its rows were held against."""

SEPARATOR = "\t"
"""Stands between a rule in words and what tells it from another that has the same words."""


def rules_of(contract: type[Contract]) -> list[str]:
    """The rules of a contract that a row can break, each as text that changes with the rule."""
    schema = schema_of(contract)
    found = [_identified("", check) for check in schema.checks]
    found += [f"unique: {', '.join(schema.unique)}"] if schema.unique else []
    for column in contract_columns(contract):
        found += [] if column.nullable else [f"{column.name} not null"]
        found += [f"{column.name} unique"] if column.unique else []
        found += [_identified(f"{column.name} ", check) for check in schema.columns[column.name].checks]
        if column.references is not None and column.references.orphans == "quarantine":
            found.append(f"{column.name} in {column.references.table}.{column.references.column}")
    return sorted(found)


def _identified(prefix: str, check: Any) -> str:
    """A check in words, and what is the same for the same check in every process: a set has another order in each."""
    given = sorted((name, _ordered(value)) for name, value in (check.statistics or {}).items())
    digest = hashlib.sha256(repr((prefix, check.name, given)).encode()).hexdigest()[:12]
    return f"{prefix}{rule(check)}{SEPARATOR}{digest}"


def _ordered(value: object) -> str:
    return repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)


def _identity(rule_text: str) -> str:
    return rule_text.rpartition(SEPARATOR)[2]


def kept(before: Mapping[str, str], contract: type[Contract], *, stays: bool) -> dict[str, str]:
    """What the ledger keeps after a step: the rules that all rows of the table were held against. `before` is the
    position before it, `stays` whether there are rows that the step did not audit. Of a table staged by a release that
    kept no rules, the present ones are taken for its own."""
    now = rules_of(contract)
    if stays and RULES in before:
        there = set(map(_identity, now))
        now = [one for one in json.loads(before[RULES]) if _identity(one) in there]
    return {RULES: json.dumps(now)}


def newer_rules(position: Mapping[str, str], contract: type[Contract]) -> list[str]:
    """The rules of a contract, in words, that some rows of its table were never held against."""
    if RULES not in position:
        return []
    held = set(map(_identity, json.loads(position[RULES])))
    return [one.partition(SEPARATOR)[0] for one in rules_of(contract) if _identity(one) not in held]
