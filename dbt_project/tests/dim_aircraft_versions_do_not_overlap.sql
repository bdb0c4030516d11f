-- Versions are numbered without a gap, follow each other in time, and only the last may be current.
select *
from (
    select
        *,
        row_number() over (partition by tail_number order by version) as position,
        lead(valid_from) over (partition by tail_number order by version) as next_valid_from
    from {{ ref('dim_aircraft') }}
)
where version != position
    or valid_to <= valid_from
    or is_current != (valid_to is null)
    or (next_valid_from is not null and (valid_to is null or valid_to > next_valid_from))
