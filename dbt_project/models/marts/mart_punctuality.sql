-- Left joins: a flight of an unknown carrier or from an unknown airport still counts.
select
    flights.carrier,
    coalesce(any_value(airlines.airline_name), 'unknown') as airline_name,
    flights.origin,
    flights.destination,
    date_trunc('month', flights.scheduled_departure at time zone coalesce(airports.timezone, 'UTC'))::date as month,
    {{ departure_measures() }},
    {{ delay_statistics('arr_delay_min') }}
from {{ ref('fct_flight') }} as flights
left join {{ ref('dim_airline') }} as airlines on flights.carrier = airlines.carrier
left join {{ ref('dim_airport') }} as airports on flights.origin = airports.airport
group by flights.carrier, flights.origin, flights.destination, month
