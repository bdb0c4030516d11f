-- How different are the features of each whole week from those that the model was trained on? The population stability
-- index (PSI): deciles of the training window, nulls by themselves; over all airports and for each. Weather and delays
-- of a week are never those of a year: so a week drifts if its PSI is above what any week of the training window has.
-- What the wind is beside that of the other airports in the same hour stays the same whatever the weather.
{%- set features = [
    'departure_hour', 'departures_in_hour', 'distance_mi', 'temperature_f', 'humidity_pct', 'wind_speed_mph',
    'wind_against_others_mph', 'precipitation_in', 'pressure_mb', 'visibility_mi', 'observation_age_min',
    'aircraft_gap_min', 'previous_leg_delay_min', 'previous_leg_overdue_min', 'origin_late_share_3h',
    'carrier_late_share_6h', 'carrier_late_share_7d', 'route_late_share_28d',
] %}
with trained as (
    select min(scheduled_departure) as since, max(scheduled_departure) as until
    from {{ source('datasets', 'departures') }}
    where split = 'train'
),

departures as (
    select
        *,
        (scheduled_departure at time zone 'America/New_York')::date as day,
        date_trunc('hour', predicted_at) as hour
    from {{ ref('departure_features') }}
),

weeks as (
    select
        date_trunc('week', day)::date as week,
        min(scheduled_departure) >= (select since from trained)
        and max(scheduled_departure) <= (select until from trained) as is_training
    from departures
    group by week
    having count(distinct day) = 7
),

winds as (
    select origin, hour, avg(wind_speed_mph) as wind from departures group by origin, hour
),

others as (
    select own.origin, own.hour, avg(other.wind) as wind
    from winds as own
    join winds as other on own.hour = other.hour and own.origin != other.origin
    group by own.origin, own.hour
),

features as (
    select
        departures.* replace (week.week as day),
        week.is_training,
        departures.wind_speed_mph - others.wind as wind_against_others_mph
    from departures
    join weeks as week on date_trunc('week', departures.day)::date = week.week
    left join others on departures.origin = others.origin and departures.hour = others.hour
),

long as (
    {%- for feature in features %}
    select '{{ feature }}' as feature, day as week, is_training, origin, {{ feature }}::double as value from features
    {{ 'union all' if not loop.last }}
    {%- endfor %}
),

grouped as (
    select feature, week, is_training, 'all' as airport, value from long
    union all
    select feature, week, is_training, origin, value from long
),

edges as (
    select
        feature,
        airport,
        list_distinct(quantile_cont(value, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])) as edges
    from grouped
    where is_training
    group by feature, airport
),

binned as (
    select
        grouped.feature,
        grouped.airport,
        grouped.week,
        grouped.is_training,
        case when value is null then -1 else len(list_filter(edges, lambda edge: edge < value)) end as bin,
        count(*) as flights
    from grouped
    join edges on grouped.feature = edges.feature and grouped.airport = edges.airport
    group by all
),

expected as (
    select
        feature,
        airport,
        bin,
        sum(flights) filter (where is_training) as flights,
        sum(sum(flights) filter (where is_training)) over (partition by feature, airport) as of_all
    from binned
    group by feature, airport, bin
),

totals as (
    select feature, airport, week, is_training, sum(flights) as flights from binned group by all
),

-- No share is nothing: a bin that one side never had would make the index infinite.
shares as (
    select
        totals.*,
        greatest(coalesce(expected.flights, 0) / expected.of_all, 1e-4) as expected_share,
        greatest(coalesce(binned.flights, 0) / totals.flights, 1e-4) as share
    from totals
    join expected on totals.feature = expected.feature and totals.airport = expected.airport
    left join binned
        on totals.feature = binned.feature
        and totals.airport = binned.airport
        and totals.week = binned.week
        and expected.bin = binned.bin
),

indexes as (
    select
        feature,
        airport,
        week,
        is_training,
        any_value(flights)::bigint as flights,
        sum((share - expected_share) * ln(share / expected_share)) as psi
    from shares
    group by feature, airport, week, is_training
)

select
    feature,
    airport,
    week,
    is_training,
    flights,
    psi,
    max(psi) filter (where is_training) over (partition by feature, airport) as highest_in_training,
    psi > greatest(highest_in_training, {{ var('drift_above_psi') }}) as is_drifting
from indexes
