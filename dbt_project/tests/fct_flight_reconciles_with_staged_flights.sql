-- Every staged flight is in the fact and no other. Flights staged after the fact was built are not its concern.
{% set staged = source('staged_operations', 'flights') %}
select 'missing in the fact' as problem, flight_id
from {{ staged }}
where _staging_id <= (select max(_staging_id) from {{ ref('fct_flight') }})
    and flight_id not in (select flight_id from {{ ref('fct_flight') }})
union all
select 'not in the staged table', flight_id
from {{ ref('fct_flight') }}
where flight_id not in (select flight_id from {{ staged }})
