-- History kept (type 2): each change of a plane's registration closes its version and opens the next. Versions are
-- found by comparing attributes, not by _staging_id, so that a rebuilt staged table makes no history. The past cannot
-- be computed again from the staged table, so a full refresh is switched off.
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='aircraft_key',
        full_refresh=false,
    )
}}
{%- set attributes = ['registered_year', 'type', 'manufacturer', 'model', 'engines', 'seats', 'speed_mph', 'engine'] %}

with staged as (
    select * from {{ source('staged_operations', 'aircraft') }}
),

{% if is_incremental() %}
latest as (
    select * from {{ this }}
    qualify row_number() over (partition by tail_number order by version desc) = 1
),

{% endif -%}

opened as (
    select
        staged.tail_number,
        {%- if is_incremental() %}
        coalesce(latest.version, 0) + 1 as version,
        case when latest.tail_number is null then timestamptz '1900-01-01 00:00:00+00' else staged._staged_at end as valid_from,
        {%- else %}
        1::bigint as version,
        timestamptz '1900-01-01 00:00:00+00' as valid_from,
        {%- endif %}
        null::timestamptz as valid_to,
        true as is_current,
        {%- for attribute in attributes %}
        staged.{{ attribute }}{{ ',' if not loop.last }}
        {%- endfor %}
    from staged
    {%- if is_incremental() %}
    left join latest on staged.tail_number = latest.tail_number
    where latest.tail_number is null
        or not latest.is_current
        {%- for attribute in attributes %}
        or staged.{{ attribute }} is distinct from latest.{{ attribute }}
        {%- endfor %}
    {%- endif %}
),

{% if is_incremental() -%}
-- A version ends when the next begins, or when the first picture without the plane was staged.
closed as (
    select
        latest.tail_number,
        latest.version,
        latest.valid_from,
        coalesce(opened.valid_from, (select max(_staged_at) from staged), now()) as valid_to,
        false as is_current,
        {%- for attribute in attributes %}
        latest.{{ attribute }}{{ ',' if not loop.last }}
        {%- endfor %}
    from latest
    left join opened on latest.tail_number = opened.tail_number
    where latest.is_current
        and (opened.tail_number is not null or latest.tail_number not in (select tail_number from staged))
),

{% endif -%}

versions as (
    select * from opened
    {%- if is_incremental() %}
    union all
    select * from closed
    {%- endif %}
)

select
    tail_number || ':' || version as aircraft_key,
    *
from versions
