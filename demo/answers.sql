-- Which devices do people use now?
-- A child row is current exactly when it is as old as its user: removed devices drop out of this join.
select d.os, count(*) as devices, count(distinct d.braze_id) as users
from braze.devices as d
join braze.users as u on u.braze_id = d.braze_id and u.exported_at = d.exported_at
group by d.os
order by devices desc
limit 5;

-- What sells best?
select p.name as product, sum(p.count) as sold, count(*) as buyers
from braze.purchases as p
join braze.users as u on u.braze_id = p.braze_id and u.exported_at = p.exported_at
group by p.name
order by sold desc, product
limit 5;

-- Which campaigns move people?
-- `engaged` holds what a person did: opened_email, clicked_email, opened_push ...
select
  c.name as campaign,
  count(*) as recipients,
  count(*) filter (where len(json_keys(c.engaged)) > 0) as moved,
  round(100.0 * moved / recipients, 1) as percent
from braze.campaigns_received as c
join braze.users as u on u.braze_id = c.braze_id and u.exported_at = c.exported_at
group by c.name
order by recipients desc, campaign
limit 5;
