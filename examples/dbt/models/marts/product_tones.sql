select product, tone_label as label, count(*) as reviews, avg(tone_score) as score
from {{ ref('tones') }}
where tone_status = 'ok'
group by all
order by all
