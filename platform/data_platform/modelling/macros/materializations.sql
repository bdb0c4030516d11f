{#
    How models are built: into files that nobody sees until the platform has audited and published them. dbt reads the
    lakehouse and never writes to it. The rows are computed by the platform (data_platform.modelling.landing) on dbt's
    own connection; from then on the model's name means the new rows, for the models after it and for the tests.

    A project that the platform publishes has this folder among its macro-paths (as the link platform_macros), and the
    plugin of profiles.yml.

    Incremental models know the strategies append, delete+insert and merge (of whole rows), unique_key,
    on_schema_change (ignore, fail, append_new_columns), full_refresh, and

        delete_missing_in="{{ source(...) }}"    rows whose unique_key is not in that relation are deleted
#}
{% materialization table, adapter="duckdb" -%}
    {{ return(built_by_the_platform(false)) }}
{%- endmaterialization %}

{% materialization incremental, adapter="duckdb" -%}
    {{ return(built_by_the_platform(is_incremental())) }}
{%- endmaterialization %}

{% macro built_by_the_platform(increment) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {#- The first statement opens the connection of dbt's thread, on which the platform then computes the model. -#}
    {%- do run_query(config.get('sql_header') or 'select 1') -%}
    {%- call noop_statement('main', 'OK', 'OK') -%}
        {{ sql }}
    {%- endcall -%}
    {%- do adapter.store_relation('lakehouse', this, [], '', 'parquet', {
        'model': model,
        'sql': sql,
        'increment': increment,
        'present_in': render(config.get('delete_missing_in') or ''),
    }) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [this.incorporate(type='view')]}) }}
{%- endmacro %}

{# What is published lies in one schema, the profile's. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ target.schema }}
{%- endmacro %}

{# dbt's own asks for a table, and what is published stands in dbt's database as a view. #}
{% macro is_incremental() -%}
    {%- if not execute -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set published = adapter.get_relation(this.database, this.schema, this.table) -%}
    {{ return(published is not none and model.config.materialized == 'incremental' and not should_full_refresh()) }}
{%- endmacro %}
