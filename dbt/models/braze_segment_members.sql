{{ config(enabled='segment_members' in var('braze_streams')) }}
select members.segment_id, members.braze_id, users.external_id, members.exported_at
from {{ source('braze', 'segment_members') }} as members
join {{ source('braze', 'users') }} as users on users.braze_id = members.braze_id
where members.is_member
