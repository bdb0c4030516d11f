-- Departures whose outcome is known, with what was known of them three hours before. A flight that never left is none:
-- whether it would have been late cannot be said.
select *
from modelled.departure_features
where left_late is not null
