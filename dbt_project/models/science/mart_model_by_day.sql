-- How good was each version of the model on each day, in each way that it was asked, of how many of the day's flights did
-- it say anything, and of how many of those is it known what became of them?
with predictions as (
    select
        *,
        -- Flights of the same score share their rank, as AUC counts them.
        rank() over same_known
            + (count(*) over (partition by model_version, channel, day, left_late is null, score) - 1) / 2
            as score_rank
    from {{ ref('fct_prediction') }}
    where day is not null
    window same_known as (partition by model_version, channel, day, left_late is null order by score)
),

flights as (
    select (scheduled_departure at time zone 'America/New_York')::date as day, count(*) as flights
    from {{ ref('departure_features') }}
    group by day
),

days as (
    select
        model_version,
        channel,
        day,
        count(*) as predictions,
        count(left_late) as known,
        count(*) filter (where left_late) as late,
        avg(score) filter (where left_late is not null) as mean_score,
        avg(left_late::int) as late_share,
        avg((score - left_late::int) ** 2) as brier,
        -avg(ln(case when left_late then greatest(score, 1e-15) when not left_late then greatest(1 - score, 1e-15) end))
            as log_loss,
        (sum(score_rank) filter (where left_late) - late * (late + 1) / 2) / nullif(late * (known - late), 0) as auc
    from predictions
    group by model_version, channel, day
)

select
    days.model_version,
    days.channel,
    days.day,
    coalesce(flights.flights, 0) as flights,
    days.predictions,
    days.predictions / nullif(flights.flights, 0) as coverage,
    days.known,
    days.known / days.predictions as known_share,
    days.mean_score,
    days.late_share,
    days.brier,
    days.log_loss,
    days.auc
from days
left join flights on days.day = flights.day
