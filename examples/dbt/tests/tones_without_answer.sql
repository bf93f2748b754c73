-- Reviews without an answer: some are a warning, too many keep the marts from being built.
{{ config(warn_if='>0', error_if='>10') }}
select review_id, tone_status, tone_error
from {{ ref('tones') }}
where tone_status not in ('ok', 'skipped')
