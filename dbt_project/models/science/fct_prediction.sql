-- What was predicted of each flight, in a batch or in answer to a request, and what became of it. Of several scores by
-- one version of the model in one way the first counts: later ones may know more.
with scores as (
    select flight_id, model_version, 'batch' as channel, scored_at, score
    from {{ source('scores', 'late_departure') }}
    union all
    -- What was said of a row without a flight can be held against nothing.
    select inputs ->> '$.flight_id' as flight_id, model_version, 'served' as channel, predicted_at as scored_at, score
    from {{ source('staged_predictions', 'lateness') }}
    where inputs ->> '$.flight_id' is not null
),

predictions as (
    select * from scores
    qualify row_number() over (partition by flight_id, model_version, channel order by scored_at, score) = 1
)

select
    predictions.flight_id || ':' || predictions.model_version || ':' || predictions.channel as prediction_key,
    predictions.flight_id,
    predictions.model_version,
    predictions.channel,
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
