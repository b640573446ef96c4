{# The rows of a stream that belong to their user as the user is now: both are of the same export. #}
{% macro current_rows(stream) %}
select rows_of_all_time.*
from {{ source('braze', stream) }} as rows_of_all_time
join {{ ref('braze_users') }} as users
  on users.braze_id = rows_of_all_time.braze_id and users.exported_at = rows_of_all_time.exported_at
{% endmacro %}
