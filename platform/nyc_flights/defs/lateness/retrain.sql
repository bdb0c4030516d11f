-- Each row is a reason to train lateness anew. Whatever the reason, a week of flights has to have left since those that
-- it was trained and tested on last.

-- The first version, once the outcomes of six days are known.
select 'there is no version yet' as reason, count(distinct scheduled_departure::date) as days
from modelled.departure_features
where left_late is not null
having
    count(distinct scheduled_departure::date) > 6
    and not exists (from platform.models where model = 'lateness');

-- The wind of an airport beside that of the others, far beyond the mart's own limit: from one season to the next its PSI
-- against a training window of four months comes to 0.53, and in one week of the year to 1.22.
select
    'the wind at ' || airport || ' is not what it was when it was trained' as reason,
    week,
    psi,
    highest_in_training
from modelled.mart_feature_drift
where
    feature = 'wind_against_others_mph'
    and airport != 'all'
    and is_drifting
    and psi > 1.5
    and not is_training
    and week = (select max(week) from modelled.mart_feature_drift)
    and (select max(scheduled_departure) from datasets.departures) < (
        select max(scheduled_departure) from modelled.departure_features where left_late is not null
    ) - interval 7 days;

-- The last seven days of known outcomes against what was measured before it went into production. An AUC within days is
-- lower than one over several, as no day is told from another.
with production as (
    select version, (metrics ->> '$.auc')::double as tested
    from platform.models
    where
        model = 'lateness'
        and version = (
            select arg_max(version, since) filter (where stage = 'production')
            from platform.model_stages
            where model = 'lateness'
        )
),

week as (
    select
        model_version as version,
        sum(known) as known,
        sum(auc * known) / sum(known) filter (where auc is not null) as auc,
        sum(mean_score * known) / sum(known) as mean_score,
        sum(late_share * known) / sum(known) as late_share
    from modelled.mart_model_by_day
    where
        channel = 'batch'
        and known > 0
        and day > (select max(day) from modelled.mart_model_by_day where channel = 'batch' and known > 0) - 7
    group by version
)

select
    case
        when auc < tested - 0.08 then 'it ranks flights worse than when it was tested'
        else 'the share of late departures is not what it predicts'
    end as reason,
    version,
    known,
    round(auc, 3) as auc,
    round(tested, 3) as tested,
    round(mean_score, 3) as mean_score,
    round(late_share, 3) as late_share
from week
join production using (version)
where
    known >= 2000
    and (auc < tested - 0.08 or abs(mean_score - late_share) > 0.08)
    and (select max(scheduled_departure) from datasets.departures) < (
        select max(scheduled_departure) from modelled.departure_features where left_late is not null
    ) - interval 7 days;
