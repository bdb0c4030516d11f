-- Built from the flights alone: whatever is joined here would go stale when only the other side changes. Dimensions are
-- joined by their natural keys in the marts.
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='flight_id',
        delete_missing_in="{{ source('staged_operations', 'flights') }}",
    )
}}

select
    flight_id,
    carrier,
    flight_number,
    tail_number,
    origin,
    destination,
    scheduled_departure,
    departure,
    dep_delay_min,
    arr_delay_min,
    air_time_min,
    distance_mi,
    status,
    status in ('departed', 'landed') as is_departed,
    status = 'cancelled' as is_cancelled,
    case when status in ('departed', 'landed') then dep_delay_min < {{ var('on_time_within_min') }} end as is_departed_on_time,
    updated_at,
    _staging_id
from {{ source('staged_operations', 'flights') }}
{% if is_incremental() -%}
where _staging_id > (select coalesce(max(_staging_id), 0) from {{ this }})
{%- endif %}
