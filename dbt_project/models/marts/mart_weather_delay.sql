-- The observation of the hour in which a flight was scheduled to leave, at the airport it leaves from. Visibility is
-- banded by the FAA's flight categories, rain by the American Meteorological Society's intensities.
with flights as (
    select
        flights.*,
        case
            when weather.wind_speed_mph is null then 'unknown'
            when weather.wind_speed_mph < 10 then 'under 10 mph'
            when weather.wind_speed_mph < 20 then '10 to 20 mph'
            when weather.wind_speed_mph < 30 then '20 to 30 mph'
            else '30 mph and over'
        end as wind_band,
        case
            when weather.visibility_mi is null then 'unknown'
            when weather.visibility_mi < 1 then 'under 1 mi'
            when weather.visibility_mi < 3 then '1 to 3 mi'
            when weather.visibility_mi <= 5 then '3 to 5 mi'
            else 'over 5 mi'
        end as visibility_band,
        case
            when weather.precipitation_in is null then 'unknown'
            when weather.precipitation_in = 0 then 'none'
            when weather.precipitation_in <= 0.1 then 'light'
            when weather.precipitation_in <= 0.3 then 'moderate'
            else 'heavy'
        end as precipitation_band
    from {{ ref('fct_flight') }} as flights
    left join {{ source('staged_weather', 'observations') }} as weather
        on flights.origin = weather.station
        and date_trunc('hour', flights.scheduled_departure) = weather.observed_at
)

select
    wind_band,
    visibility_band,
    precipitation_band,
    {{ departure_measures() }}
from flights
group by wind_band, visibility_band, precipitation_band
