select
    carrier,
    name as airline_name
from {{ source('staged_reference', 'airlines') }}
