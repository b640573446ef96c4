{{ config(enabled='segment_members' in var('braze_streams')) }}
select
  members.segment_id,
  members.braze_id,
  users.external_id,
  (
    select max(files.exported_at)
    from {{ source('braze', 'export_files') }} as files
    where coalesce(files.segment_id, files.source) = members.segment_id
      and files.updated_since is null
      and files.exported_at < members.exported_at
  ) as left_after,
  members.exported_at as left_before
from {{ source('braze', 'segment_members') }} as members
join {{ source('braze', 'users') }} as users on users.braze_id = members.braze_id
where not members.is_member
