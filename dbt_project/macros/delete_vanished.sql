{#
    Post-hook of an incremental model: delete the rows whose key is no longer in the source. Runs in the transaction of
    the model itself, so deletes, updates and inserts of one build appear together.
#}
{% macro delete_vanished(source_relation, key) -%}
    delete from {{ this }}
    where {{ key }} not in (select {{ key }} from {{ source_relation }})
{%- endmacro %}
