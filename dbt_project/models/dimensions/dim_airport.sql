-- A time zone that DuckDB does not know would fail every query that converts by it: it becomes null here.
select
    airports.airport,
    airports.name as airport_name,
    airports.latitude,
    airports.longitude,
    airports.altitude_ft,
    airports.utc_offset_h,
    airports.dst,
    zones.name as timezone
from {{ source('staged_reference', 'airports') }} as airports
left join pg_timezone_names() as zones on zones.name = airports.timezone
