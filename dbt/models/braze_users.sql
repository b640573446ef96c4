select users.*
from {{ source('braze', 'users') }} as users
{% if var('braze_everybody') %}
where not exists (
  select 1
  from {{ source('braze', 'segment_members') }} as members
  where members.braze_id = users.braze_id
    and members.segment_id = '{{ var("braze_everybody") }}'
    and not members.is_member
)
{% endif %}
