select review_id, product, trim(review) as review
from {{ ref('reviews') }}
where review is not null
