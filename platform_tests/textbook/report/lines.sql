select o.order_id, o.ordered_at, c.country, l.quantity * l.price as amount
from orders o
join customers c using (customer_id)
join order_lines l using (order_id)
where not o.cancelled
