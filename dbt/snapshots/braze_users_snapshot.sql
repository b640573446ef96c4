{% snapshot braze_users_snapshot %}
{{
  config(
    unique_key='braze_id',
    strategy='timestamp',
    updated_at='exported_at',
    hard_deletes='ignore',
  )
}}
select braze_id, exported_at, {{ var('braze_snapshot_columns') | join(', ') }}
from {{ source('braze', 'users') }}
{% endsnapshot %}
