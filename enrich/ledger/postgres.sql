-- The shared ledger: the same tables as the embedded one, with leases instead of file locks.

-- name: schema_1
CREATE TABLE run (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at  DOUBLE PRECISION NOT NULL, -- seconds since the epoch, as every time here but the leases
    ended_at    DOUBLE PRECISION,
    lease_until TIMESTAMPTZ NOT NULL,      -- by the database's clock: a run whose lease ran out is dead
    info        TEXT NOT NULL,             -- JSON
    summary     TEXT                       -- JSON
);
CREATE TABLE request (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key        BYTEA NOT NULL UNIQUE, -- the Idempotency-Key, 16 bytes
    state      SMALLINT NOT NULL, -- 0 sent, 1 failed, 2 released (may be sent as if new), 3 skipped (by the operator),
                                  -- 4 doubted (its run gave it up, any other may send it)
    run        BIGINT NOT NULL,       -- that sent it last
    attempts   INTEGER NOT NULL,      -- over all runs
    sent_at    DOUBLE PRECISION NOT NULL, -- of the first intent; boot and boottime (seconds) as well
    boot       BIGINT NOT NULL,
    boottime   DOUBLE PRECISION NOT NULL,
    failure    BIGINT,                -- the last one
    attempt_id BYTEA NOT NULL,        -- the X-Request-Id of the latest attempt, 16 bytes
    model      TEXT NOT NULL,
    parent     BYTEA,
    question   BYTEA,
    crc        BIGINT NOT NULL,       -- over key and body
    body       BYTEA NOT NULL
);
CREATE INDEX request_question ON request (question) WHERE question IS NOT NULL;
CREATE INDEX request_state ON request (state) WHERE state <> 0;
CREATE TABLE answer (
    id             BIGINT PRIMARY KEY, -- the request's
    run            BIGINT NOT NULL,
    received_at    DOUBLE PRECISION NOT NULL,
    streamed       SMALLINT NOT NULL,
    latency_ms     DOUBLE PRECISION,
    first_token_ms DOUBLE PRECISION,
    request_id     TEXT,               -- the response's X-Request-Id
    crc            BIGINT NOT NULL,    -- over key, request_id and body
    body           BYTEA NOT NULL
);
CREATE TABLE failure (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request     BIGINT NOT NULL,
    attempt     INTEGER NOT NULL,
    attempt_id  BYTEA NOT NULL,
    at          DOUBLE PRECISION NOT NULL,
    code        TEXT NOT NULL,
    message     TEXT NOT NULL,
    fate        TEXT NOT NULL, -- unsent, refused or unknown
    status      INTEGER,
    retryable   SMALLINT,
    request_id  TEXT,
    retry_after DOUBLE PRECISION,
    evidence    BYTEA NOT NULL,
    answer      BYTEA -- the raw answer that was taken back
);
CREATE INDEX failure_request ON failure (request);
CREATE TABLE generation (step BYTEA PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL);

-- name: known_keys
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.key = ANY(%s)

-- name: known_keys_locked
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.key = ANY(%s)
ORDER BY r.key
FOR UPDATE OF r

-- name: known_questions
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.question = ANY(%s) AND a.id IS NOT NULL

-- name: failures
SELECT id, convert_to(code, 'UTF8'), convert_to(message, 'UTF8'), convert_to(fate, 'UTF8'), status, retryable,
       convert_to(request_id, 'UTF8'), retry_after, evidence
FROM failure WHERE id = ANY(%s)

-- name: stored_body
SELECT crc, body FROM request WHERE id = %s

-- name: insert_requests
INSERT INTO request (state, attempts, run, sent_at, boot, boottime, key, attempt_id, model, parent, question, crc, body)
SELECT 0, 1, %s, %s, %s, %s, line.*
FROM unnest(%s::bytea[], %s::bytea[], %s::text[], %s::bytea[], %s::bytea[], %s::bigint[], %s::bytea[])
     AS line(key, attempt_id, model, parent, question, crc, body)
ON CONFLICT (key) DO NOTHING
RETURNING key

-- name: take_over
UPDATE request SET state = 0, run = %s, attempts = %s, attempt_id = %s, sent_at = %s, boot = %s, boottime = %s
WHERE id = %s

-- name: mend_body
UPDATE request SET crc = %s, body = %s WHERE id = %s

-- name: next_attempt
UPDATE request SET attempts = %s, attempt_id = %s WHERE id = %s

-- name: set_state
UPDATE request SET state = %s WHERE id = %s

-- name: insert_answers
INSERT INTO answer (id, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body)
SELECT r.id, line.run, line.received_at, line.streamed, line.latency_ms, line.first_token_ms, line.request_id, line.crc,
       line.body
FROM unnest(%s::bigint[], %s::float8[], %s::smallint[], %s::float8[], %s::float8[], %s::text[], %s::bigint[],
            %s::bytea[], %s::bytea[])
     AS line(run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body, key)
JOIN request r ON r.key = line.key
ON CONFLICT (id) DO NOTHING

-- name: has_requests
SELECT key FROM request WHERE key = ANY(%s)

-- name: delete_answer
DELETE FROM answer WHERE id = %s

-- name: insert_failure
INSERT INTO failure (request, attempt, attempt_id, at, code, message, fate, status, retryable, request_id, retry_after,
                     evidence, answer)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: last_failure
UPDATE request SET failure = %s WHERE id = %s

-- name: harmless_failures
SELECT count(DISTINCT attempt) FROM failure
WHERE request = %s AND attempt NOT IN (
    SELECT attempt FROM failure WHERE request = %s AND (fate = 'unknown' OR answer IS NOT NULL))

-- name: withdraw
DELETE FROM request
WHERE key = %s AND run = %s AND state = 0 AND attempts = 1 AND failure IS NULL
  AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: release_refused
UPDATE request SET state = 2
WHERE key = %s AND run = %s AND state IN (0, 4) AND failure IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)
  AND attempts <= 1 + (SELECT count(DISTINCT attempt) FROM failure WHERE failure.request = request.id)
  AND NOT EXISTS (SELECT 1 FROM failure
                  WHERE failure.request = request.id AND (fate = 'unknown' OR failure.answer IS NOT NULL))

-- name: insert_run
INSERT INTO run (started_at, lease_until, info) VALUES (%s, clock_timestamp() + make_interval(secs => %s), %s)
RETURNING number

-- name: renew_lease
UPDATE run SET lease_until = clock_timestamp() + make_interval(secs => %s) WHERE number = %s

-- name: end_lease
UPDATE run SET lease_until = '-infinity' WHERE number = %s

-- name: is_alive
SELECT lease_until > clock_timestamp() FROM run WHERE number = %s

-- name: live_run
SELECT min(number) FROM run WHERE lease_until > clock_timestamp() AND ended_at IS NULL

-- name: end_run
UPDATE run SET ended_at = %s, summary = %s, lease_until = '-infinity' WHERE number = %s

-- name: last_run
SELECT number, started_at, ended_at, summary FROM run WHERE ended_at IS NOT NULL ORDER BY number DESC LIMIT 1

-- name: generation
SELECT n FROM generation WHERE step = %s

-- name: bump_generation
INSERT INTO generation AS g (step, n) VALUES (%s, 1) ON CONFLICT (step) DO UPDATE SET n = g.n + 1

-- name: recall
SELECT value FROM memory WHERE name = %s

-- name: remember
INSERT INTO memory (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: count
SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM answer)

-- name: unanswered
SELECT state, sent_at, boot, boottime FROM request
WHERE NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: page
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body, r.crc, r.body, a.received_at
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.id > %s ORDER BY r.id LIMIT %s

-- name: logs
SELECT id, convert_to(code, 'UTF8'), convert_to(message, 'UTF8'), convert_to(fate, 'UTF8'), status, retryable,
       convert_to(request_id, 'UTF8'), retry_after, evidence, request, attempt, attempt_id, at, answer
FROM failure WHERE request = ANY(%s) ORDER BY id

-- name: distinct_keys
SELECT count(DISTINCT key) FROM request

-- name: orphans
SELECT (SELECT count(*) FROM answer a WHERE NOT EXISTS (SELECT 1 FROM request r WHERE r.id = a.id))
     + (SELECT count(*) FROM failure f WHERE NOT EXISTS (SELECT 1 FROM request r WHERE r.id = f.request))

-- name: prune
WITH old AS (
    SELECT id FROM answer WHERE received_at < %s
    UNION
    SELECT r.id FROM request r JOIN failure f ON f.id = r.failure
    WHERE r.state = 1 AND f.at < %s AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = r.id)
), failures AS (
    DELETE FROM failure WHERE request IN (SELECT id FROM old)
), answers AS (
    DELETE FROM answer WHERE id IN (SELECT id FROM old)
)
DELETE FROM request WHERE id IN (SELECT id FROM old)
