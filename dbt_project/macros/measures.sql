{# What every mart says of a group of flights: counts, the share that departed on time, and departure delays. #}
{% macro departure_measures() -%}
    count(*) as flights,
    count(*) filter (where is_cancelled) as cancelled,
    count(*) filter (where is_departed) as departed,
    avg(is_departed_on_time::int) as departed_on_time_share,
    {{ delay_statistics('dep_delay_min') }}
{%- endmacro %}

{# Mean, median and 90th percentile (interpolated) of a delay, over the flights that have one. #}
{% macro delay_statistics(delay) -%}
    avg({{ delay }}) as mean_{{ delay }},
    quantile_cont({{ delay }}, 0.5) as median_{{ delay }},
    quantile_cont({{ delay }}, 0.9) as p90_{{ delay }}
{%- endmacro %}
