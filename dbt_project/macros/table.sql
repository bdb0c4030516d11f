{#
    The materialization `table`: the rows are replaced in one transaction, and the table itself stays as long as its
    columns do. dbt-duckdb's own makes a new table each time and renames it: several commits, and a new version of the
    lakehouse's schema, which every reader has to read again.
#}
{% materialization table, adapter="duckdb" -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set rows = adapter.quote(model.name ~ '__rows') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- call statement('main') -%}
        create or replace temporary table temp.{{ rows }} as (
            {{ sql }}
        )
    {%- endcall -%}

    {%- if existing is not none and not should_full_refresh()
            and described(target_relation) == described('temp.' ~ rows) -%}
        {%- do run_query('delete from ' ~ target_relation) -%}
        {%- do run_query('insert into ' ~ target_relation ~ ' select * from temp.' ~ rows) -%}
    {%- else -%}
        {%- do run_query('create or replace table ' ~ target_relation ~ ' as select * from temp.' ~ rows) -%}
    {%- endif -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {%- do run_query('drop table temp.' ~ rows) -%}

    {{ return({'relations': [target_relation]}) }}
{%- endmaterialization %}

{# The names and types of a table's columns, in their order. #}
{% macro described(relation) -%}
    {%- set columns = [] -%}
    {%- for row in run_query('describe ' ~ relation).rows -%}
        {%- do columns.append((row[0], row[1])) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}
