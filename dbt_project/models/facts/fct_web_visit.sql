{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='request_id',
        delete_missing_in="{{ source('staged_web', 'visits') }}",
    )
}}

select
    request_id,
    visited_at,
    client_ip,
    path,
    origin_airport,
    destination_airport,
    search_terms,
    utm_source,
    utm_medium,
    utm_campaign,
    booking_id,
    status,
    device,
    bytes as response_bytes,
    device = 'bot' as is_bot,
    path not like '/assets/%' as is_page,
    path = '/search' as is_search,
    path = '/booking/confirmed' and booking_id is not null as is_confirmation,
    _staging_id
from {{ source('staged_web', 'visits') }}
{% if is_incremental() -%}
where _staging_id > (select coalesce(max(_staging_id), 0) from {{ this }})
{%- endif %}
