{# When the last segment export was requested. A resync does not count, as it asks for some users only. #}
{% macro last_export() %}
(select max(exported_at) from {{ source('braze', 'export_files') }} where source <> 'ids')
{% endmacro %}

{# Some hours before the last segment export: the exports of one night begin within hours of each other. #}
{% macro last_night(hours=12) %}
{{ dbt.dateadd('hour', -hours, last_export()) }}
{% endmacro %}
