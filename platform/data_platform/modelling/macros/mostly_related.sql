{#
    At most the share `orphans` of a column's distinct values (and a `few` at any rate) is missing in the dimension.
    Sources disagree on some keys at all times, and no fact is dropped for it; many missing at once mean that the
    dimension is broken.
#}
{% test mostly_related(model, column_name, to, field, orphans, few=10) %}
with keys as (
    select distinct {{ column_name }} as key from {{ model }} where {{ column_name }} is not null
)

select
    count(*) as keys,
    count(*) filter (where dimension.{{ field }} is null) as orphan_keys
from keys
left join (select distinct {{ field }} from {{ to }}) as dimension on keys.key = dimension.{{ field }}
having orphan_keys > greatest({{ few }}, {{ orphans }} * count(*))
{% endtest %}
