-- Last touch: a visit, and a booking confirmed by it, belongs to the campaign by which the same client last came within
-- the attribution window, itself included. A visit is a page that a person was shown; whoever confirms a booking is a
-- person, whatever the agent is called.
with visits as (
    select * from {{ ref('fct_web_visit') }}
    where status < 400 and is_page and (is_confirmation or not is_bot)
),

-- One touch for a client and instant: an as-of join must not depend on the order of rows.
touches as (
    select client_ip, visited_at, utm_source, utm_campaign from visits
    where utm_source is not null or utm_campaign is not null
    qualify row_number() over (partition by client_ip, visited_at order by request_id desc) = 1
),

attributed as (
    select
        visits.*,
        touches.visited_at >= visits.visited_at - interval '{{ var('attribution_window_hours') }} hours' as is_attributed,
        case when is_attributed then touches.utm_source end as touch_source,
        case when is_attributed then touches.utm_campaign end as touch_campaign
    from visits
    asof left join touches
        on visits.client_ip = touches.client_ip
        and visits.visited_at >= touches.visited_at
),

-- A confirmation page that is loaded again confirms nothing new.
confirmations as (
    select request_id, booking_id from visits
    where is_confirmation
    qualify row_number() over (partition by booking_id order by visited_at, request_id) = 1
)

select
    date_trunc('month', attributed.visited_at)::date as month,
    coalesce(attributed.touch_source, '(none)') as utm_source,
    coalesce(attributed.touch_campaign, '(none)') as utm_campaign,
    count(*) as visits,
    count(*) filter (where attributed.is_search) as searches,
    count(confirmations.booking_id) as confirmed_bookings,
    count(confirmations.booking_id) filter (where bookings.booking_id is null) as unmatched_bookings,
    count(confirmations.booking_id) / count(*) as conversion_rate,
    coalesce(sum(bookings.fare_usd), 0) as revenue_usd
from attributed
left join confirmations on attributed.request_id = confirmations.request_id
left join {{ source('staged_operations', 'bookings') }} as bookings on confirmations.booking_id = bookings.booking_id
group by 1, 2, 3
