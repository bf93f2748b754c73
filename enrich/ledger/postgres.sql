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
    crc        BIGINT NOT NULL,       -- over key, body, sent_at, boot and boottime
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

-- name: schema_2
ALTER TABLE run ADD COLUMN account BYTEA; -- whose limit it shares, as in pace
CREATE INDEX run_account ON run (account, lease_until) WHERE account IS NOT NULL;
CREATE TABLE pace (                            -- how an account stands; see enrich/ledger/lease.py
    account      BYTEA PRIMARY KEY,            -- 16 bytes, a salted hash of endpoint and key
    sent         BIGINT NOT NULL DEFAULT 0,
    paused_until DOUBLE PRECISION NOT NULL DEFAULT 0, -- seconds by the database's clock, as every time here
    cause        TEXT NOT NULL DEFAULT '',
    episode      BIGINT NOT NULL DEFAULT 0,
    cuts         BIGINT NOT NULL DEFAULT 0,
    cut_at       DOUBLE PRECISION NOT NULL DEFAULT 0,
    known        DOUBLE PRECISION NOT NULL DEFAULT 0, -- requests per second
    burst        DOUBLE PRECISION NOT NULL DEFAULT 0, -- requests
    rate         DOUBLE PRECISION,                    -- requests per second; null before the first 429
    probe        DOUBLE PRECISION NOT NULL DEFAULT 1,
    patience     DOUBLE PRECISION NOT NULL DEFAULT 0,
    quiet_since  DOUBLE PRECISION NOT NULL DEFAULT 0,
    rate_next    DOUBLE PRECISION NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE lane (
    account BYTEA NOT NULL,
    tokens  BOOLEAN NOT NULL,          -- else requests
    amount  DOUBLE PRECISION NOT NULL, -- in any span of so many
    seconds DOUBLE PRECISION NOT NULL,
    spacing DOUBLE PRECISION NOT NULL, -- seconds from one unit to the next
    next    DOUBLE PRECISION NOT NULL, -- when the next slot is free
    until   DOUBLE PRECISION NOT NULL, -- when it ceases to hold, unless it is declared again
    PRIMARY KEY (account, tokens, amount, seconds, spacing)
) WITH (fillfactor = 50);
INSERT INTO memory (name, value) VALUES ('salt', gen_random_uuid()::text) ON CONFLICT (name) DO NOTHING;
CREATE FUNCTION lease(
    account_ BYTEA, runs_ INTEGER, now_ DOUBLE PRECISION, started_ DOUBLE PRECISION,
    tokens_ BOOLEAN[], amount_ DOUBLE PRECISION[], seconds_ DOUBLE PRECISION[], spacing_ DOUBLE PRECISION[],
    want_ INTEGER, each_ DOUBLE PRECISION, settled_ DOUBLE PRECISION, sent_ BIGINT, adaptive_ BOOLEAN,
    trouble_ BOOLEAN, pause_ DOUBLE PRECISION, cause_ TEXT,
    cut_episode_ BIGINT, cut_known_ DOUBLE PRECISION, cut_burst_ DOUBLE PRECISION, cut_rate_ DOUBLE PRECISION,
    cut_probe_ DOUBLE PRECISION, cut_patience_ DOUBLE PRECISION, cut_lower_ BOOLEAN,
    OUT now DOUBLE PRECISION, OUT start DOUBLE PRECISION, OUT step DOUBLE PRECISION, OUT count INTEGER,
    OUT paused_until DOUBLE PRECISION, OUT cause TEXT, OUT episode BIGINT, OUT cuts BIGINT,
    OUT cut_at DOUBLE PRECISION, OUT known DOUBLE PRECISION, OUT burst DOUBLE PRECISION,
    OUT rate DOUBLE PRECISION, OUT probe DOUBLE PRECISION, OUT sent BIGINT, OUT runs INTEGER
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a     pace%ROWTYPE;
    t     DOUBLE PRECISION;
    first DOUBLE PRECISION;
    gap   DOUBLE PRECISION;
    final DOUBLE PRECISION; -- when the last slot is
    n     INTEGER;
    held  BOOLEAN;          -- by the learned rate
BEGIN
    SELECT * INTO a FROM pace p WHERE p.account = account_ FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO pace (account) VALUES (account_) ON CONFLICT DO NOTHING;
        SELECT * INTO a FROM pace p WHERE p.account = account_ FOR UPDATE;
    END IF;
    t := coalesce(now_, extract(epoch FROM clock_timestamp())::float8); -- read when it is this process's turn

    -- what it has to tell: the longest pause wins, the first cut of an episode counts
    a.sent := a.sent + sent_;
    a.paused_until := least(a.paused_until, t + 300);
    IF pause_ > 0 AND t + pause_ > a.paused_until THEN
        a.paused_until := t + pause_;
        a.cause := cause_;
    END IF;
    IF trouble_ THEN
        a.quiet_since := t;
    END IF;
    a.rate_next := least(a.rate_next, t + 300);
    IF cut_episode_ = a.episode THEN
        a.episode := a.episode + 1;
        a.cuts := a.cuts + cut_lower_::int;
        a.cut_at := t;
        a.known := cut_known_;
        a.burst := cut_burst_;
        a.rate := cut_rate_;
        a.probe := cut_probe_;
        a.patience := cut_patience_;
        a.quiet_since := t;
    END IF;
    held := adaptive_ AND a.rate IS NOT NULL;

    -- the lanes: those that are declared here are there, and hold; each is moved by what was used beyond expectation
    INSERT INTO lane
    SELECT account_, w.tokens, w.amount, w.seconds, w.spacing, t, t
    FROM unnest(tokens_, amount_, seconds_, spacing_) AS w(tokens, amount, seconds, spacing)
    WHERE NOT EXISTS (
        SELECT 1 FROM lane l
        WHERE l.account = account_ AND (l.tokens, l.amount, l.seconds, l.spacing)
            = (w.tokens, w.amount, w.seconds, w.spacing));
    UPDATE lane l SET
        next = CASE WHEN l.tokens THEN greatest(
                   greatest(least(l.next, t + 2 * l.seconds + runs_ * (l.spacing * each_)), t) + settled_ * l.spacing, t)
               ELSE least(l.next, t + 2 * l.seconds + runs_ * l.spacing) END,
        until = CASE WHEN EXISTS (
                   SELECT 1 FROM unnest(tokens_, amount_, seconds_, spacing_) AS w(tokens, amount, seconds, spacing)
                   WHERE (l.tokens, l.amount, l.seconds, l.spacing) = (w.tokens, w.amount, w.seconds, w.spacing))
               THEN 'infinity' ELSE l.until END
    WHERE l.account = account_;

    -- the next slots that all of them have free
    SELECT greatest(t, started_ + 1, max(l.next)),
           greatest(0, max(CASE WHEN l.tokens THEN l.spacing * each_ ELSE l.spacing END))
    INTO first, gap
    FROM lane l WHERE l.account = account_ AND l.until > t;
    IF held THEN
        first := greatest(first, a.rate_next);
        gap := greatest(gap, 1 / a.rate);
    END IF;
    n := CASE WHEN a.paused_until > t THEN 0
              WHEN gap > 0 THEN least(want_, greatest(1, ceil(0.25 / (gap * runs_))))
              ELSE want_ END;
    final := first + (n - 1) * gap;
    UPDATE lane l SET
        next = moved.next,
        until = CASE WHEN l.until = 'infinity' THEN greatest(moved.next, t) + 15 ELSE l.until END
    FROM (
        SELECT o.tokens, o.amount, o.seconds, o.spacing,
               CASE WHEN n > 0 AND o.until > t AND (NOT o.tokens OR o.spacing * each_ > 0)
                    THEN final + CASE WHEN o.tokens THEN o.spacing * each_ ELSE o.spacing END
                    ELSE o.next END AS next
        FROM lane o WHERE o.account = account_
    ) AS moved
    WHERE l.account = account_
      AND (l.tokens, l.amount, l.seconds, l.spacing) = (moved.tokens, moved.amount, moved.seconds, moved.spacing);
    IF held AND n > 0 THEN
        IF a.rate_next > t - 0.01 THEN -- the rate is what holds everybody up: see whether there is more
            IF t - a.quiet_since > a.patience THEN
                a.probe := least(1, 2 * a.probe);
                a.quiet_since := t;
            END IF;
            a.rate := a.rate + n * least(a.probe, CASE WHEN a.probe <= 1 THEN 0.02 ELSE 0.25 END * a.rate);
        END IF;
        a.rate_next := final + 1 / a.rate;
    END IF;

    UPDATE pace p SET
        sent = a.sent, paused_until = a.paused_until, cause = a.cause, episode = a.episode, cuts = a.cuts,
        cut_at = a.cut_at, known = a.known, burst = a.burst, rate = a.rate, probe = a.probe, patience = a.patience,
        quiet_since = a.quiet_since, rate_next = a.rate_next
    WHERE p.account = account_;
    now := t; start := first; step := gap; count := n; paused_until := a.paused_until; cause := a.cause;
    episode := a.episode; cuts := a.cuts; cut_at := a.cut_at; known := a.known; burst := a.burst; rate := a.rate;
    probe := a.probe; sent := a.sent; runs := runs_;
END
$$;

-- name: schema_3
ALTER TABLE run DROP COLUMN account; -- and its index
ALTER TABLE run ADD COLUMN accounts BYTEA[] NOT NULL DEFAULT '{}'; -- whose limits it shares, as in pace
CREATE INDEX run_lease ON run (lease_until);

-- name: schema_4
ALTER TABLE request ADD COLUMN seal BIGINT; -- over key, state, run, attempts, failure, model, parent and question
ALTER TABLE generation ADD COLUMN crc BIGINT; -- over step and n
ALTER TABLE memory ADD COLUMN crc BIGINT; -- over name and value; null where the database wrote it itself

-- name: schema_5
DROP FUNCTION lease(
    BYTEA, INTEGER, DOUBLE PRECISION, DOUBLE PRECISION, BOOLEAN[], DOUBLE PRECISION[], DOUBLE PRECISION[], DOUBLE PRECISION[],
    INTEGER, DOUBLE PRECISION, DOUBLE PRECISION, BIGINT, BOOLEAN, BOOLEAN, DOUBLE PRECISION, TEXT, BIGINT,
    DOUBLE PRECISION, DOUBLE PRECISION, DOUBLE PRECISION, DOUBLE PRECISION, DOUBLE PRECISION, BOOLEAN);
ALTER TABLE pace -- what a run's own pace decides by now
    DROP COLUMN paused_until, DROP COLUMN cause, DROP COLUMN cuts, DROP COLUMN cut_at, DROP COLUMN burst,
    DROP COLUMN rate, DROP COLUMN probe, DROP COLUMN patience, DROP COLUMN quiet_since, DROP COLUMN rate_next;
CREATE FUNCTION lease(
    account_ BYTEA, runs_ INTEGER, now_ DOUBLE PRECISION, started_ DOUBLE PRECISION,
    tokens_ BOOLEAN[], amount_ DOUBLE PRECISION[], seconds_ DOUBLE PRECISION[], spacing_ DOUBLE PRECISION[],
    want_ INTEGER, each_ DOUBLE PRECISION, settled_ DOUBLE PRECISION, sent_ BIGINT,
    cut_episode_ BIGINT, cut_known_ DOUBLE PRECISION,
    OUT now DOUBLE PRECISION, OUT start DOUBLE PRECISION, OUT step DOUBLE PRECISION, OUT count INTEGER,
    OUT episode BIGINT, OUT known DOUBLE PRECISION, OUT sent BIGINT, OUT runs INTEGER
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    a     pace%ROWTYPE;
    t     DOUBLE PRECISION;
    first DOUBLE PRECISION;
    gap   DOUBLE PRECISION;
    final DOUBLE PRECISION; -- when the last slot is
    n     INTEGER;
BEGIN
    SELECT * INTO a FROM pace p WHERE p.account = account_ FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO pace (account) VALUES (account_) ON CONFLICT DO NOTHING;
        SELECT * INTO a FROM pace p WHERE p.account = account_ FOR UPDATE;
    END IF;
    t := coalesce(now_, extract(epoch FROM clock_timestamp())::float8); -- read when it is this process's turn

    -- what it has to tell: the first cut of an episode counts
    a.sent := a.sent + sent_;
    IF cut_episode_ = a.episode THEN
        a.episode := a.episode + 1;
        a.known := cut_known_;
    END IF;

    -- the lanes: those that are declared here are there, and hold; each is moved by what was used beyond expectation
    INSERT INTO lane
    SELECT account_, w.tokens, w.amount, w.seconds, w.spacing, t, t
    FROM unnest(tokens_, amount_, seconds_, spacing_) AS w(tokens, amount, seconds, spacing)
    WHERE NOT EXISTS (
        SELECT 1 FROM lane l
        WHERE l.account = account_ AND (l.tokens, l.amount, l.seconds, l.spacing)
            = (w.tokens, w.amount, w.seconds, w.spacing));
    UPDATE lane l SET
        next = CASE WHEN l.tokens THEN greatest(
                   greatest(least(l.next, t + 2 * l.seconds + runs_ * (l.spacing * each_)), t) + settled_ * l.spacing, t)
               ELSE least(l.next, t + 2 * l.seconds + runs_ * l.spacing) END,
        until = CASE WHEN EXISTS (
                   SELECT 1 FROM unnest(tokens_, amount_, seconds_, spacing_) AS w(tokens, amount, seconds, spacing)
                   WHERE (l.tokens, l.amount, l.seconds, l.spacing) = (w.tokens, w.amount, w.seconds, w.spacing))
               THEN 'infinity' ELSE l.until END
    WHERE l.account = account_;

    -- the next slots that all of them have free
    SELECT greatest(t, started_ + 1, max(l.next)),
           greatest(0, max(CASE WHEN l.tokens THEN l.spacing * each_ ELSE l.spacing END))
    INTO first, gap
    FROM lane l WHERE l.account = account_ AND l.until > t;
    n := CASE WHEN gap > 0 THEN least(want_, greatest(1, ceil(0.25 / (gap * runs_)))) ELSE want_ END;
    final := first + (n - 1) * gap;
    UPDATE lane l SET
        next = moved.next,
        until = CASE WHEN l.until = 'infinity' THEN greatest(moved.next, t) + 15 ELSE l.until END
    FROM (
        SELECT o.tokens, o.amount, o.seconds, o.spacing,
               CASE WHEN n > 0 AND o.until > t AND (NOT o.tokens OR o.spacing * each_ > 0)
                    THEN final + CASE WHEN o.tokens THEN o.spacing * each_ ELSE o.spacing END
                    ELSE o.next END AS next
        FROM lane o WHERE o.account = account_
    ) AS moved
    WHERE l.account = account_
      AND (l.tokens, l.amount, l.seconds, l.spacing) = (moved.tokens, moved.amount, moved.seconds, moved.spacing);

    UPDATE pace p SET sent = a.sent, episode = a.episode, known = a.known WHERE p.account = account_;
    now := t; start := first; step := gap; count := n; episode := a.episode; known := a.known; sent := a.sent;
    runs := runs_;
END
$$;

-- name: schema_6
ALTER TABLE request ADD COLUMN step TEXT; -- that asks it
CREATE TABLE held ( -- what is reserved for requests of which it is not known what they cost
    key      BYTEA NOT NULL,
    tag      TEXT NOT NULL,
    run      BIGINT NOT NULL, -- that is at work at it; 0 none
    requests DOUBLE PRECISION NOT NULL,
    tokens   DOUBLE PRECISION NOT NULL,
    credits  DOUBLE PRECISION NOT NULL,
    usd      DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (key, tag)
);
CREATE TABLE spending ( -- under each tag, in each quarter of an hour
    tag      TEXT NOT NULL,
    slot     BIGINT NOT NULL, -- quarters of an hour since the epoch
    requests DOUBLE PRECISION NOT NULL,
    tokens   DOUBLE PRECISION NOT NULL,
    credits  DOUBLE PRECISION NOT NULL,
    usd      DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tag, slot)
);

-- name: generations
SELECT step, n, crc FROM generation

-- name: notes
SELECT convert_to(name, 'UTF8'), convert_to(value, 'UTF8'), crc FROM memory

-- name: check_note
UPDATE memory SET crc = %s WHERE name = %s

-- name: known_keys
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body,
       CASE WHEN a.id IS NULL THEN r.seal END
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.key = ANY(%b)

-- name: known_keys_locked
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body,
       CASE WHEN a.id IS NULL THEN r.seal END
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.key = ANY(%b)
ORDER BY r.key
FOR UPDATE OF r

-- name: known_questions
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body, r.seal
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.question = ANY(%b) AND a.id IS NOT NULL

-- name: failures
SELECT id, convert_to(code, 'UTF8'), convert_to(message, 'UTF8'), convert_to(fate, 'UTF8'), status, retryable,
       convert_to(request_id, 'UTF8'), retry_after, evidence
FROM failure WHERE id = ANY(%s)

-- name: stored_body
SELECT crc, body FROM request WHERE id = %s

-- name: insert_requests
INSERT INTO request (state, attempts, run, sent_at, boot, boottime, key, attempt_id, model, parent, question, crc, body,
                     seal, step)
SELECT 0, 1, %s, %s, %s, %s, line.*
FROM unnest(%b::bytea[], %b::bytea[], %s::text[], %b::bytea[], %b::bytea[], %b::bigint[], %b::bytea[],
            %b::bigint[], %s::text[])
     AS line(key, attempt_id, model, parent, question, crc, body, seal, step)
ON CONFLICT (key) DO NOTHING
RETURNING key

-- name: date
UPDATE request SET sent_at = %s, boot = %s, boottime = %s, crc = %s, body = %s WHERE id = %s

-- name: put_request
UPDATE request SET state = %s, run = %s, attempts = %s, attempt_id = %s, failure = %s, model = %s, parent = %s,
       question = %s, seal = %s
WHERE id = %s


-- name: insert_answers
INSERT INTO answer (id, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body)
SELECT r.id, line.run, line.received_at, line.streamed, line.latency_ms, line.first_token_ms, line.request_id, line.crc,
       line.body
FROM unnest(%b::bigint[], %b::float8[], %b::smallint[], %b::float8[], %b::float8[], %s::text[], %b::bigint[],
            %b::bytea[], %b::bytea[])
     AS line(run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body, key)
JOIN request r ON r.key = line.key
ON CONFLICT (id) DO NOTHING

-- name: insert_both
WITH claimed AS (
    INSERT INTO request (state, attempts, run, sent_at, boot, boottime, key, attempt_id, model, parent, question, crc, body,
                     seal, step)
    SELECT 0, 1, %s, %s, %s, %s, line.*
    FROM unnest(%b::bytea[], %b::bytea[], %s::text[], %b::bytea[], %b::bytea[], %b::bigint[], %b::bytea[],
                %b::bigint[], %s::text[])
         AS line(key, attempt_id, model, parent, question, crc, body, seal, step)
    ON CONFLICT (key) DO NOTHING
    RETURNING key
), answered AS (
    INSERT INTO answer (id, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body)
    SELECT r.id, line.run, line.received_at, line.streamed, line.latency_ms, line.first_token_ms, line.request_id, line.crc,
           line.body
    FROM unnest(%b::bigint[], %b::float8[], %b::smallint[], %b::float8[], %b::float8[], %s::text[], %b::bigint[],
                %b::bytea[], %b::bytea[])
         AS line(run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body, key)
    JOIN request r ON r.key = line.key
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM answered), (SELECT array_agg(key) FROM claimed)

-- name: has_requests
SELECT key FROM request WHERE key = ANY(%s)

-- name: delete_answer
DELETE FROM answer WHERE id = %s

-- name: insert_failure
INSERT INTO failure (request, attempt, attempt_id, at, code, message, fate, status, retryable, request_id, retry_after,
                     evidence, answer)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING id

-- name: harmless_failures
SELECT count(DISTINCT attempt) FROM failure
WHERE request = %s AND attempt NOT IN (
    SELECT attempt FROM failure WHERE request = %s AND (fate NOT IN ('unsent', 'refused') OR answer IS NOT NULL))

-- name: harmful_failures
SELECT EXISTS (SELECT 1 FROM failure WHERE request = %s AND (fate NOT IN ('unsent', 'refused') OR answer IS NOT NULL))


-- name: withdraw
DELETE FROM request
WHERE key = %s AND run = %s AND state = 0 AND attempts = 1 AND failure IS NULL
  AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: insert_run
INSERT INTO run (started_at, lease_until, info) VALUES (%s, clock_timestamp() + make_interval(secs => %s), %s)
RETURNING number

-- name: renew_lease
UPDATE run SET lease_until = clock_timestamp() + make_interval(secs => %s) WHERE number = %s

-- name: end_lease
UPDATE run SET lease_until = '-infinity' WHERE number = %s

-- name: is_alive
SELECT lease_until > clock_timestamp() FROM run WHERE number = %s

-- name: no_new_run
LOCK TABLE run IN SHARE ROW EXCLUSIVE MODE

-- name: live_run
SELECT min(number) FROM run WHERE lease_until > clock_timestamp() AND ended_at IS NULL

-- name: beside
SELECT info FROM run WHERE lease_until > clock_timestamp() AND number <> %s

-- name: end_run
UPDATE run SET ended_at = %s, summary = %s, lease_until = '-infinity' WHERE number = %s

-- name: runs
SELECT number, started_at, ended_at, summary FROM run ORDER BY number

-- name: all_runs
SELECT number, started_at, ended_at, summary, info FROM run ORDER BY number

-- name: last_run
SELECT number, started_at, ended_at, summary, info FROM run WHERE ended_at IS NOT NULL ORDER BY number DESC LIMIT 1

-- name: generation
SELECT n, crc FROM generation WHERE step = %s

-- name: hold_generation
INSERT INTO generation AS g (step, n, crc) VALUES (%s, %s, %s) ON CONFLICT (step) DO UPDATE SET n = g.n
RETURNING n, crc

-- name: set_generation
UPDATE generation SET n = %s, crc = %s WHERE step = %s


-- name: recall
SELECT convert_to(value, 'UTF8'), crc FROM memory WHERE name = %s


-- name: hold_note
INSERT INTO memory AS m (name, value, crc) VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET value = m.value
RETURNING convert_to(m.value, 'UTF8'), m.crc

-- name: remember
INSERT INTO memory (name, value, crc) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, crc = excluded.crc


-- name: lock_budgets
SELECT pg_advisory_xact_lock(1113746482)

-- name: budget_used
SELECT s.requests, s.tokens, s.credits, s.usd, h.requests, h.tokens, h.credits, h.usd, h.holds
FROM (SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(tokens), 0) AS tokens, coalesce(sum(credits), 0) AS credits,
             coalesce(sum(usd), 0) AS usd FROM spending WHERE tag = %s AND slot >= %s) s
CROSS JOIN (SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(tokens), 0) AS tokens,
                   coalesce(sum(credits), 0) AS credits, coalesce(sum(usd), 0) AS usd, count(*) AS holds
            FROM held WHERE tag = %s) h

-- name: held_for
SELECT key, tag, run, requests, tokens, credits, usd FROM held WHERE key = ANY(%b) ORDER BY key, tag FOR UPDATE

-- name: all_held
SELECT key, tag, run, requests, tokens, credits, usd FROM held

-- name: holding_runs
SELECT DISTINCT run FROM held WHERE tag = %s

-- name: hold
INSERT INTO held (key, tag, run, requests, tokens, credits, usd) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (key, tag) DO UPDATE SET run = excluded.run, requests = excluded.requests, tokens = excluded.tokens,
       credits = excluded.credits, usd = excluded.usd

-- name: abandon
UPDATE held SET run = %s WHERE key = %s

-- name: let_go
DELETE FROM held WHERE key = %s AND tag = %s

-- name: spend
INSERT INTO spending AS s (tag, slot, requests, tokens, credits, usd) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (tag, slot) DO UPDATE SET requests = s.requests + excluded.requests, tokens = s.tokens + excluded.tokens,
       credits = s.credits + excluded.credits, usd = s.usd + excluded.usd

-- name: spending
SELECT tag, slot, requests, tokens, credits, usd FROM spending ORDER BY tag, slot

-- name: count
SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM answer)

-- name: totals
SELECT count(*), sum(attempts), 0 FROM request

-- name: unanswered
SELECT count(*) FILTER (WHERE state = 1),
       count(*) FILTER (WHERE state NOT IN (1, 2, 3) AND CASE
           WHEN %(boot)s <> 0 AND boot = %(boot)s
           THEN greatest(%(wall)s - sent_at, %(boottime)s - boottime) > %(doubt)s
           ELSE %(wall)s - sent_at < -%(tolerance)s OR %(wall)s - sent_at > %(doubt)s END),
       count(*) FILTER (WHERE state = 3)
FROM request WHERE NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: last_answer
SELECT coalesce(max(id), 0) FROM answer

-- name: spent
SELECT count(*), 0, NULL, string_agg(id::text, ',') FROM answer WHERE id > %s AND id <= %s

-- name: answer_numbers
SELECT id FROM answer WHERE id > %s AND id <= %s

-- name: listing
SELECT * FROM (
SELECT r.id, r.key,
       CASE WHEN a.id IS NOT NULL THEN 'answered' WHEN r.state = 1 THEN 'failed' WHEN r.state = 3 THEN 'skipped'
            WHEN r.state <> 2 AND CASE
                WHEN %(boot)s <> 0 AND r.boot = %(boot)s
                THEN greatest(%(wall)s - r.sent_at, %(boottime)s - r.boottime) > %(doubt)s
                ELSE %(wall)s - r.sent_at < -%(tolerance)s OR %(wall)s - r.sent_at > %(doubt)s END
            THEN 'in_doubt' ELSE 'sent' END AS standing,
       convert_to(r.model, 'UTF8') AS model, r.attempts, r.sent_at,
       CASE WHEN a.streamed = 0 -- from "usage" on
            THEN substring(a.body FROM nullif(position('\x22757361676522'::bytea IN a.body), 0)) END AS cost,
       CASE WHEN a.id IS NULL THEN (
            SELECT convert_to(CASE WHEN f.message = '' THEN f.code ELSE f.code || ': ' || f.message END, 'UTF8')
            FROM failure f WHERE f.id = r.failure) END AS error,
       a.streamed <> 0 AS streamed, false AS odd
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.id > %(after)s
) l WHERE %(all)s OR position(standing IN %(states)s) > 0 ORDER BY id LIMIT %(limit)s

-- name: replies
SELECT id, body, streamed FROM answer WHERE id = ANY(%s)

-- name: page
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure,
       convert_to(r.model, 'UTF8'), r.parent, r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms,
       convert_to(a.request_id, 'UTF8'), a.body, r.seal, r.crc, r.body, a.received_at, r.step, a.run
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.id > %s ORDER BY r.id LIMIT %s

-- name: newest_answers
SELECT id FROM answer ORDER BY id DESC LIMIT %s

-- name: newest_failed
SELECT id FROM request WHERE state = 1 ORDER BY id DESC LIMIT %s

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

-- name: made
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'beatra'), EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'beatra' AND c.relname = 'version')

-- name: version
SELECT number FROM beatra.version

-- name: at_work
SELECT number FROM beatra.run WHERE ended_at IS NULL AND lease_until > clock_timestamp() LIMIT 1

-- name: session
SELECT set_config('search_path', 'beatra', false), set_config('synchronous_commit', 'on', false),
       set_config('default_transaction_isolation', 'read committed', false)

-- name: now
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: salt
SELECT value FROM memory WHERE name = 'salt'

-- name: share_account
UPDATE run SET accounts = accounts || %s WHERE number = %s AND NOT %s = ANY(accounts)

-- name: count_sharing
SELECT count(*), extract(epoch FROM pg_postmaster_start_time())::float8 FROM run
WHERE %s = ANY(accounts) AND lease_until > clock_timestamp()

-- name: lease
SELECT l.*
FROM set_config('synchronous_commit', 'off', true), -- until the transaction ends; the session may be another's then
     lease(%s, %s, %s, %s, %s::boolean[], %s::float8[], %s::float8[], %s::float8[], %s::integer, %s::float8,
           %s::float8, %s::bigint, %s::bigint, %s::float8) AS l
