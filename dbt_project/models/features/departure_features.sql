-- What is known of each flight some hours before its scheduled departure (`prediction_horizon_hours`), and whether it
-- then left late. Nothing that became known later enters: each value is taken by the instant at which it was reported,
-- within a declared age. A flight is here once the data reach that instant.
with flights as (
    select
        *,
        scheduled_departure - interval '{{ var('prediction_horizon_hours') }} hours' as predicted_at,
        scheduled_departure at time zone 'America/New_York' as local_departure,
        count(*) over (
            partition by origin, date_trunc('hour', scheduled_departure)
        ) as departures_in_hour,
        -- A row holds only its last state, and the delay was entered when the plane left. If the row was changed after
        -- its landing, the delay was corrected: what it said before is gone, so it counts from the correction.
        case
            when departure is null or dep_delay_min is null then null
            when updated_at <= departure + to_minutes(coalesce(air_time_min, 0)::bigint + 30)
                then departure + interval '{{ var('departure_reported_within_min') }} minutes'
            else updated_at
        end as reported_at
    from {{ source('staged_operations', 'flights') }}
),

-- Without those that arrived after a newer one of their station: so the last that was published is the newest known.
observations as (
    select * from {{ source('staged_weather', 'observations') }}
    qualify observed_at = max(observed_at) over (partition by station order by published_at)
),

-- The newest observation known, if it is not too old.
weather as (
    select flights.flight_id, flights.predicted_at, observations.*
    from flights
    asof join observations
        on flights.origin = observations.station
        and flights.predicted_at >= observations.published_at
    where observations.observed_at >= flights.predicted_at - interval '{{ var('observation_max_age_hours') }} hours'
),

-- All flights of a plane are here that leave from New York; those that bring it back are not.
legs as (
    select
        *,
        lag(scheduled_departure) over plane as leg_scheduled,
        lag(reported_at) over plane as leg_reported_at,
        lag(dep_delay_min) over plane as leg_delay_min
    from flights
    where tail_number is not null
    window plane as (partition by tail_number order by scheduled_departure, flight_id)
),

previous_legs as (
    select
        flight_id,
        leg_scheduled,
        coalesce(leg_reported_at <= predicted_at, false) as has_left,
        leg_delay_min,
        predicted_at
    from legs
    where leg_scheduled >= predicted_at - interval '{{ var('previous_leg_max_age_hours') }} hours'
),

-- Reported departures and the instants of prediction in one order of time: a window that ends at an instant of
-- prediction holds what had been reported by then.
moments as (
    select flight_id, carrier, origin, destination, predicted_at as instant, null::int as is_late from flights
    union all
    select null, carrier, origin, destination, reported_at, (dep_delay_min > {{ var('late_after_min') }})::int
    from flights
    where reported_at is not null
),

recent as (
    select
        flight_id,
        avg(is_late) over (
            partition by origin order by instant range between interval '3 hours' preceding and current row
        ) as origin_late_share_3h,
        avg(is_late) over (
            partition by carrier order by instant range between interval '6 hours' preceding and current row
        ) as carrier_late_share_6h,
        avg(is_late) over (
            partition by carrier order by instant range between interval '7 days' preceding and current row
        ) as carrier_late_share_7d,
        avg(is_late) over (
            partition by origin, destination order by instant range between interval '28 days' preceding and current row
        ) as route_late_share_28d
    from moments
    qualify flight_id is not null
)

select
    flights.flight_id,
    flights.scheduled_departure,
    flights.predicted_at,
    flights.carrier,
    flights.origin,
    flights.destination,
    flights.distance_mi,
    hour(flights.local_departure) as departure_hour,
    isodow(flights.local_departure) as weekday,
    flights.departures_in_hour,
    weather.temperature_f,
    weather.humidity_pct,
    weather.wind_speed_mph,
    weather.wind_gust_mph,
    weather.precipitation_in,
    weather.pressure_mb,
    weather.visibility_mi,
    date_diff('minute', weather.observed_at, flights.predicted_at)::double as observation_age_min,
    date_diff('minute', previous_legs.leg_scheduled, flights.scheduled_departure)::double as aircraft_gap_min,
    case when previous_legs.has_left then previous_legs.leg_delay_min end as previous_leg_delay_min,
    -- A leg that is due and has not been reported is late by so much already, whatever becomes of it.
    case
        when not previous_legs.has_left
            then greatest(date_diff('minute', previous_legs.leg_scheduled, flights.predicted_at), 0)::double
    end as previous_leg_overdue_min,
    recent.origin_late_share_3h,
    recent.carrier_late_share_6h,
    recent.carrier_late_share_7d,
    recent.route_late_share_28d,
    case when flights.departure is not null then flights.dep_delay_min > {{ var('late_after_min') }} end as left_late
from flights
left join weather on flights.flight_id = weather.flight_id
left join previous_legs on flights.flight_id = previous_legs.flight_id
left join recent on flights.flight_id = recent.flight_id
where flights.predicted_at <= (select max(updated_at) from flights)
