-- No join of a mart loses a flight or counts it twice.
select mart, flights, facts
from (
    select 'mart_punctuality' as mart, (select coalesce(sum(flights), 0) from {{ ref('mart_punctuality') }}) as flights
    union all
    select 'mart_weather_delay', (select coalesce(sum(flights), 0) from {{ ref('mart_weather_delay') }})
)
cross join (select count(*) as facts from {{ ref('fct_flight') }})
where flights != facts
