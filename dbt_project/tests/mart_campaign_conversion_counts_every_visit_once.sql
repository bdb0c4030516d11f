-- No join loses a visit or counts it twice, and no confirmed booking is lost.
with marts as (
    select coalesce(sum(visits), 0) as visits, coalesce(sum(confirmed_bookings), 0) as confirmed_bookings
    from {{ ref('mart_campaign_conversion') }}
),

facts as (
    select count(*) as visits, count(distinct booking_id) filter (where is_confirmation) as confirmed_bookings
    from {{ ref('fct_web_visit') }}
    where status < 400 and is_page and (is_confirmation or not is_bot)
)

select * from marts cross join facts
where marts.visits != facts.visits or marts.confirmed_bookings != facts.confirmed_bookings
