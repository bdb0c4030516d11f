-- Of the flights to which a version of the model gave about the same probability, in one way: how many left late?
select
    model_version,
    channel,
    least(floor(score * 10), 9)::bigint as tenth,
    count(*) as predictions,
    count(left_late) as known,
    avg(score) filter (where left_late is not null) as mean_score,
    avg(left_late::int) as late_share,
    late_share - mean_score as gap
from {{ ref('fct_prediction') }}
group by model_version, channel, tenth
