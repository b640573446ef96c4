{{ config(enabled='custom_events' in var('braze_streams')) }}
select events.*
from ({{ braze.current_rows('custom_events') }}) as events
where events.last >= {{ dbt.dateadd('day', -var('braze_event_days'), braze.last_export()) }}
