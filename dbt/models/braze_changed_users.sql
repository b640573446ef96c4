select users.*
from {{ ref('braze_users') }} as users
where users.exported_at > {{ braze.last_night() }}
