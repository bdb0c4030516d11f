{# Everything is built in the target's schema: which tables may be seen, and as of when, is the platform's decision. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ target.schema }}
{%- endmacro %}
