-- Departures whose outcome is known, with what was known of them three hours before. A flight that never left is none:
-- whether it would have been late cannot be said. What is older than four months says little of the season to come, and
-- a feature that changed is learned again the sooner.
select *
from modelled.departure_features
where
    left_late is not null
    and scheduled_departure > (
        select max(scheduled_departure) from modelled.departure_features where left_late is not null
    ) - interval 120 days
