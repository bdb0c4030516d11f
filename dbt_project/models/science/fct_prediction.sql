-- What was predicted of each flight, and what became of it. Of several scores by one version of the model the first
-- counts: later ones may know more.
{{ config(enabled=var('prediction_feedback')) }}
with predictions as (
    select * from {{ source('scores', 'late_departure') }}
    qualify row_number() over (partition by flight_id, model_version order by scored_at, score) = 1
)

select
    predictions.flight_id || ':' || predictions.model_version as prediction_key,
    predictions.flight_id,
    predictions.model_version,
    predictions.scored_at,
    predictions.score,
    flights.scheduled_departure,
    (flights.scheduled_departure at time zone 'America/New_York')::date as day,
    flights.carrier,
    flights.origin,
    case
        when flights.flight_id is null then 'unknown'
        when flights.is_cancelled then 'cancelled'
        when not flights.is_departed or flights.dep_delay_min is null then 'open'
        when flights.dep_delay_min > {{ var('late_after_min') }} then 'late'
        else 'on time'
    end as outcome,
    case when outcome in ('late', 'on time') then outcome = 'late' end as left_late
from predictions
left join {{ ref('fct_flight') }} as flights on predictions.flight_id = flights.flight_id
