"""What a relational database promises of a table's rows by its constraints: unique indexes, foreign keys, and the
values that enumerations and checks allow. Read for drafts; loading does not ask for them.

Checks are parsed by sqlglot. Of those it can be certain of (a column is one of some values, or not below or above a
number) the promise is taken, any other is left out: a contract that claims too little is corrected, one that claims too
much quarantines good rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import sqlglot
from sqlglot import exp

from data_platform.ingestion.sql.constraint_types import Constraints, ForeignKey, Number
from data_platform.ingestion.sql.dialects import MysqlSession, PostgresqlSession, Session, SqliteSession
from data_platform.ingestion.sql.dialects.mysql import text_literal
from data_platform.lakehouse.sql import literal


def constraints(session: Session, relation: str) -> Constraints:
    """The constraints of a relation, whose name is quoted as `Session.relation` does. None of a view. Raises
    PlatformError if the database does not answer."""
    if isinstance(session, PostgresqlSession):
        return _postgresql(session, relation)
    if isinstance(session, MysqlSession):
        return _mysql(session, relation)
    if isinstance(session, SqliteSession):
        return _sqlite(session, relation)
    return Constraints()


POSTGRESQL_UNIQUE = """
select i.indexrelid::bigint::text as part, a.attname::text as name from pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, place)
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = {relation}::regclass and i.indisunique and not i.indisprimary and i.indisvalid
    and i.indpred is null and i.indexprs is null and k.place <= i.indnkeyatts
order by i.indexrelid, k.place
"""

POSTGRESQL_FOREIGN = """
select c.oid::bigint::text as part, a.attname::text as name,
    case when n.nspname = 'public' then t.relname else n.nspname || '.' || t.relname end::text as other,
    b.attname::text as to_name
from pg_constraint c cross join lateral unnest(c.conkey, c.confkey) with ordinality as k (own, far, place)
    join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.own
    join pg_attribute b on b.attrelid = c.confrelid and b.attnum = k.far
    join pg_class t on t.oid = c.confrelid join pg_namespace n on n.oid = t.relnamespace
where c.conrelid = {relation}::regclass and c.contype = 'f' order by c.oid, k.place
"""

POSTGRESQL_ENUMS = """
select a.attname::text as name, e.enumlabel::text as label from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    join pg_enum e on e.enumtypid = case when t.typtype = 'd' then t.typbasetype else t.oid end
where a.attrelid = {relation}::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum, e.enumsortorder
"""

POSTGRESQL_CHECKS = """
select pg_get_expr(c.conbin, c.conrelid)::text as expression from pg_constraint c
where c.conrelid = {relation}::regclass and c.contype = 'c' and c.convalidated order by c.oid
"""


def _postgresql(session: Session, relation: str) -> Constraints:
    def rows(statement: str, *names: str) -> list[tuple[str, ...]]:
        return _rows(session, statement.format(relation=literal(relation)), *names)

    allowed: dict[str, tuple[str | Number, ...]] = {}
    for name, label in rows(POSTGRESQL_ENUMS, "name", "label"):
        allowed[name] = (*allowed.get(name, ()), label)
    checks = [text for (text,) in rows(POSTGRESQL_CHECKS, "expression")]
    return _put_together(
        rows(POSTGRESQL_UNIQUE, "part", "name"),
        rows(POSTGRESQL_FOREIGN, "part", "name", "other", "to_name"),
        allowed,
        checks,
        "postgres",
    )


def _mysql(session: Session, relation: str) -> Constraints:
    schema, table = (part.replace("``", "`") for part in relation[1:-1].split("`.`"))
    here = f"table_schema = {text_literal(schema)} and table_name = {text_literal(table)}"
    unique = _rows(
        session,
        "select index_name as part, column_name as name from information_schema.statistics "
        f"where {here} and non_unique = 0 and index_name <> 'PRIMARY' and column_name is not null "
        "and index_name not in (select index_name from information_schema.statistics "
        f"where {here} and (sub_part is not null or column_name is null)) order by index_name, seq_in_index",
        "part",
        "name",
    )
    foreign = _rows(
        session,
        "select constraint_name as part, column_name as name, if(referenced_table_schema = table_schema, "
        "referenced_table_name, concat(referenced_table_schema, '.', referenced_table_name)) as other, "
        f"referenced_column_name as to_name from information_schema.key_column_usage where {here} "
        "and referenced_table_name is not null order by constraint_name, ordinal_position",
        "part",
        "name",
        "other",
        "to_name",
    )
    enums = _rows(
        session,
        f"select column_name as name, column_type as declared from information_schema.columns where {here} "
        "and data_type = 'enum' order by ordinal_position",
        "name",
        "declared",
    )
    checks = _rows(
        session,
        "select c.check_clause as expression from information_schema.check_constraints c "
        "join information_schema.table_constraints t on t.constraint_schema = c.constraint_schema "
        f"and t.constraint_name = c.constraint_name where t.table_schema = {text_literal(schema)} "
        f"and t.table_name = {text_literal(table)} and t.constraint_type = 'CHECK'"
        + (f" and c.table_name = {text_literal(table)}" if _names_the_table(session) else ""),
        "expression",
    )
    allowed: dict[str, tuple[str | Number, ...]] = {name: _enum_labels(declared) for name, declared in enums}
    # MySQL writes the quotes of a text with a backslash before them.
    texts = [text.replace("\\'", "'") for (text,) in checks]
    return _put_together(unique, foreign, allowed, texts, "mysql")


def _names_the_table(session: Session) -> bool:
    """Whether the server says which table a check is of: in MariaDB its name is unique within a table alone."""
    statement = (
        "select 1 as value from information_schema.columns where table_schema = 'information_schema' "
        "and table_name = 'CHECK_CONSTRAINTS' and column_name = 'TABLE_NAME' limit 1"
    )
    return session.scalar(statement, pa.int64()) is not None


def _enum_labels(declared: str) -> tuple[str, ...]:
    """The labels of `enum('a','it''s')`."""
    return tuple(
        str(token.text)
        for token in sqlglot.tokenize(declared, read="mysql")
        if token.token_type == sqlglot.TokenType.STRING
    )


def _sqlite(session: Session, relation: str) -> Constraints:
    table = literal(relation[1:-1].replace('""', '"'))
    unique = _rows(
        session,
        f"select l.name as part, i.name as name from pragma_index_list({table}) l, pragma_index_info(l.name) i "
        "where l.\"unique\" = 1 and l.origin <> 'pk' and l.partial = 0 and not exists "
        "(select 1 from pragma_index_info(l.name) where name is null) order by l.seq desc, i.seqno",
        "part",
        "name",
    )
    # Without the columns that are referred to, they are those of the primary key. Names are as the constraint spells
    # them, which need not be as the tables do.
    foreign = _rows(
        session,
        "select cast(f.id as text) as part, "
        f'(select p.name from pragma_table_info({table}) p where p.name = f."from" collate nocase) as name, '
        "(select t.name from pragma_table_list t where t.schema = 'main' and t.name = f.\"table\" collate nocase) "
        'as other, (select p.name from pragma_table_info(f."table") p where p.name = f."to" collate nocase '
        'or (f."to" is null and p.pk = f.seq + 1)) as to_name '
        f"from pragma_foreign_key_list({table}) f order by f.id desc, f.seq",
        "part",
        "name",
        "other",
        "to_name",
    )
    made = _rows(session, f"select sql as made from sqlite_schema where name = {table} and type = 'table'", "made")
    checks = [check for (text,) in made for check in _checks_within(text)]
    found = _put_together(unique, foreign, {}, checks, "sqlite")
    names = {column.name.lower(): column.name for column in session.columns(relation)}
    return replace(
        found,
        allowed={names.get(name.lower(), name): values for name, values in found.allowed.items()},
        bounds={names.get(name.lower(), name): bounds for name, bounds in found.bounds.items()},
    )


def _checks_within(statement: str) -> Iterator[str]:
    """The expressions of the checks in a CREATE TABLE, as they stand there."""
    try:
        tokens = sqlglot.tokenize(statement, read="sqlite")
    except sqlglot.errors.SqlglotError:
        return
    for place, token in enumerate(tokens[:-1]):
        if token.text.upper() != "CHECK" or tokens[place + 1].token_type != sqlglot.TokenType.L_PAREN:
            continue
        depth = 0
        for other in tokens[place + 1 :]:
            depth += (other.token_type == sqlglot.TokenType.L_PAREN) - (other.token_type == sqlglot.TokenType.R_PAREN)
            if not depth:
                yield statement[tokens[place + 1].start : other.end + 1]
                break


def _rows(session: Session, statement: str, *names: str) -> list[tuple[str, ...]]:
    """The rows of a statement, all of text; those with a null in them are left out."""
    found = []
    for batch in session.stream(statement, pa.schema([(name, pa.string()) for name in names])):
        found += [tuple(row[name] for name in names) for row in batch.to_pylist()]
    return [row for row in found if None not in row]


def _put_together(
    unique: Sequence[tuple[str, ...]],
    foreign: Sequence[tuple[str, ...]],
    allowed: Mapping[str, tuple[str | Number, ...]],
    checks: Sequence[str],
    dialect: str,
) -> Constraints:
    indexes: dict[str, tuple[str, ...]] = {}
    for part, name in unique:
        indexes[part] = (*indexes.get(part, ()), name)
    keys: dict[str, ForeignKey] = {}
    for part, name, table, to in foreign:
        known = keys.get(part, ForeignKey((), table, ()))
        keys[part] = ForeignKey((*known.columns, name), table, (*known.to, to))
    values = dict(allowed)
    bounds: dict[str, dict[str, Number]] = {}
    for check in checks:
        for column, found in promises(check, dialect):
            if isinstance(found, tuple):
                # Of two promises both hold.
                before = values.get(column)
                values[column] = found if before is None else tuple(one for one in before if one in found)
            else:
                bounds[column] = {**bounds.get(column, {}), **found}
    distinct = tuple(dict.fromkeys(indexes.values()))
    return Constraints(distinct, tuple(keys.values()), values, bounds)


def promises(check: str, dialect: str) -> Iterator[tuple[str, tuple[str | Number, ...] | dict[str, Number]]]:
    """What a check promises of single columns: the values that one may have, or bounds of its numbers."""
    try:
        tree = sqlglot.parse_one(check, read=dialect)
    except sqlglot.errors.SqlglotError:
        return
    for part in map(_where_known, _conjuncts(tree)):
        values = _values(part)
        if values is not None:
            yield values
        else:
            yield from _bounds(part)


def _conjuncts(tree: exp.Expr) -> Iterator[exp.Expr]:
    plain = tree.unnest()
    if isinstance(plain, exp.And):
        yield from _conjuncts(plain.left)
        yield from _conjuncts(plain.right)
    else:
        yield plain


def _where_known(part: exp.Expr) -> exp.Expr:
    """A condition without the `x is null or` before it: that a check lets nulls pass goes without saying."""
    if not isinstance(part, exp.Or):
        return part
    sides = [part.left.unnest(), part.right.unnest()]
    others = [one for one in sides if not (isinstance(one, exp.Is) and isinstance(one.expression, exp.Null))]
    columns = {column.name for column in part.find_all(exp.Column)}
    return others[0] if len(others) == 1 and len(columns) == 1 else part


def _column(node: exp.Expr | None) -> str | None:
    """The name of a column that stands by itself, cast or not."""
    node = _bare(node)
    return node.name if isinstance(node, exp.Column) and not node.table else None


def _bare(node: exp.Expr | None) -> exp.Expr | None:
    while isinstance(node, exp.Paren | exp.Cast):
        node = node.this
    return node.expression if isinstance(node, exp.Introducer) else node


def _value(node: exp.Expr | None) -> str | Number | None:
    """The text or number of a literal, cast or not, such as PostgreSQL's `('-40'::integer)::numeric`."""
    is_number = isinstance(node, exp.Paren | exp.Cast) and any(
        cast.to.this in exp.DataType.NUMERIC_TYPES for cast in node.find_all(exp.Cast)
    )
    bare = _bare(node)
    if isinstance(bare, exp.Neg):
        value = _value(bare.this)
        return None if value is None or isinstance(value, str) else -value
    if not isinstance(bare, exp.Literal):
        return None
    if bare.is_string and not is_number:
        return str(bare.this)
    try:
        return int(bare.this)
    except ValueError:
        pass
    try:
        return float(bare.this)
    except ValueError:
        return None


def _values(part: exp.Expr) -> tuple[str, tuple[str | Number, ...]] | None:
    """`status in ('a', 'b')`, `status = any (array['a', 'b'])` or `status = 'a' or status = 'b'`."""
    column: str | None
    if isinstance(part, exp.In):
        column, nodes = _column(part.this), part.expressions
    elif isinstance(part, exp.EQ) and isinstance(part.expression, exp.Any):
        listed = _bare(part.expression.this)
        column, nodes = _column(part.this), listed.expressions if isinstance(listed, exp.Array) else []
    elif isinstance(part, exp.EQ):
        column, nodes = _column(part.this), [part.expression]
    elif isinstance(part, exp.Or):
        both = [_values(side.unnest()) for side in (part.left, part.right)]
        if both[0] is None or both[1] is None or both[0][0] != both[1][0]:
            return None
        return both[0][0], (*both[0][1], *both[1][1])
    else:
        return None
    values = [_value(node) for node in nodes]
    if column is None or not values or None in values:
        return None
    return column, tuple(value for value in values if value is not None)


RULES: dict[type[exp.Expr], tuple[str, str]] = {
    exp.GTE: ("ge", "le"),
    exp.GT: ("gt", "lt"),
    exp.LTE: ("le", "ge"),
    exp.LT: ("lt", "gt"),
}
"""The rule for a column on the left of a comparison, and for one on its right."""


def _bounds(part: exp.Expr) -> Iterator[tuple[str, dict[str, Number]]]:
    """`n >= 0`, `0 < n` or `n between 1 and 5`."""
    if isinstance(part, exp.Between):
        column, low, high = _column(part.this), _value(part.args["low"]), _value(part.args["high"])
        if column is not None and isinstance(low, int | float) and isinstance(high, int | float):
            yield column, {"ge": low, "le": high}
    elif type(part) in RULES:
        assert isinstance(part, exp.Binary)  # noqa: S101 - all of RULES are
        for own, other, rule in zip((part.left, part.right), (part.right, part.left), RULES[type(part)], strict=True):
            name, value = _column(own), _value(other)
            if name is not None and isinstance(value, int | float):
                yield name, {rule: value}
