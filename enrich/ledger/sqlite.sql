-- The embedded ledger. A claim is one insert into request, an answer one insert into answer; nothing is updated on
-- the way. A request with a sound answer is answered, whatever its state.

-- name: schema_1
CREATE TABLE run (
    number     INTEGER PRIMARY KEY,
    started_at REAL NOT NULL, -- seconds since the epoch, as every time here
    ended_at   REAL,          -- stays NULL when the run's process died
    boot       INTEGER NOT NULL, -- which start of the machine (48 bits of a hash), 0 where it is not known
    info       TEXT NOT NULL, -- JSON
    summary    TEXT           -- JSON
);
CREATE TABLE request (
    id         INTEGER PRIMARY KEY,
    key        BLOB NOT NULL UNIQUE, -- the Idempotency-Key, 16 bytes
    state      INTEGER NOT NULL, -- 0 sent, 1 failed, 2 released (may be sent as if new), 3 skipped (by the operator),
                                 -- 4 doubted (its run gave it up, any other may send it)
    run        INTEGER NOT NULL, -- that sent it last
    attempts   INTEGER NOT NULL, -- over all runs
    sent_at    REAL NOT NULL, -- of the first intent; boot and boottime (seconds) as well
    boot       INTEGER NOT NULL,
    boottime   REAL NOT NULL,
    failure    INTEGER,       -- the last one
    attempt_id BLOB NOT NULL, -- the X-Request-Id of the latest attempt, 16 bytes
    model      TEXT NOT NULL,
    parent     BLOB,
    question   BLOB,
    crc        INTEGER NOT NULL, -- over key, body, sent_at, boot and boottime
    body       BLOB NOT NULL
);
CREATE INDEX request_question ON request (question) WHERE question IS NOT NULL;
CREATE INDEX request_state ON request (state) WHERE state <> 0;
CREATE TABLE answer (
    id             INTEGER PRIMARY KEY, -- the request's
    run            INTEGER NOT NULL,
    received_at    REAL NOT NULL,
    streamed       INTEGER NOT NULL,
    latency_ms     REAL,
    first_token_ms REAL,
    request_id     TEXT,         -- the response's X-Request-Id
    crc            INTEGER NOT NULL, -- over key, request_id and body
    body           BLOB NOT NULL
);
CREATE TABLE failure (
    id          INTEGER PRIMARY KEY,
    request     INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    attempt_id  BLOB NOT NULL,
    at          REAL NOT NULL,
    code        TEXT NOT NULL,
    message     TEXT NOT NULL,
    fate        TEXT NOT NULL, -- unsent, refused or unknown
    status      INTEGER,
    retryable   INTEGER,
    request_id  TEXT,
    retry_after REAL,
    evidence    BLOB NOT NULL,
    answer      BLOB -- the raw answer that was taken back
);
CREATE INDEX failure_request ON failure (request);
CREATE TABLE generation (step BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- name: schema_2
ALTER TABLE request ADD COLUMN seal INTEGER; -- over key, state, run, attempts, failure, model, parent and question
ALTER TABLE generation ADD COLUMN crc INTEGER; -- over step and n
ALTER TABLE memory ADD COLUMN crc INTEGER; -- over name and value

-- name: schema_3
ALTER TABLE request ADD COLUMN step TEXT; -- that asks it
CREATE TABLE held ( -- what is reserved for requests of which it is not known what they cost
    key      BLOB NOT NULL,
    tag      TEXT NOT NULL,
    run      INTEGER NOT NULL, -- that is at work at it; 0 none
    requests REAL NOT NULL,
    tokens   REAL NOT NULL,
    credits  REAL NOT NULL,
    usd      REAL NOT NULL,
    PRIMARY KEY (key, tag)
) WITHOUT ROWID;
CREATE TABLE spending ( -- under each tag, in each quarter of an hour
    tag      TEXT NOT NULL,
    slot     INTEGER NOT NULL, -- quarters of an hour since the epoch
    requests REAL NOT NULL,
    tokens   REAL NOT NULL,
    credits  REAL NOT NULL,
    usd      REAL NOT NULL,
    PRIMARY KEY (tag, slot)
) WITHOUT ROWID;

-- name: generations
SELECT step, n, crc FROM generation

-- name: notes
SELECT name, value, crc FROM memory

-- name: check_note
UPDATE memory SET crc = ? WHERE name = ?

-- name: known_keys
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure, r.model, r.parent,
       r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms, a.request_id, a.body,
       CASE WHEN a.id IS NULL THEN r.seal END
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.key IN (:list)

-- name: next_keys
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure, r.model, r.parent,
       r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms, a.request_id, a.body,
       CASE WHEN a.id IS NULL THEN r.seal END
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.id > ? AND r.id <= ?

-- name: known_questions
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure, r.model, r.parent,
       r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms, a.request_id, a.body, r.seal
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.question IN (:list) AND a.id IS NOT NULL

-- name: failures
SELECT id, code, message, fate, status, retryable, request_id, retry_after, evidence FROM failure WHERE id IN (:list)

-- name: stored_body
SELECT crc, body FROM request WHERE id = ?

-- name: insert_request
INSERT INTO request (state, attempts, run, sent_at, boot, boottime, key, attempt_id, model, parent, question, crc, body,
                     seal, step)
SELECT 0, 1, * FROM (VALUES :rows) WHERE true
ON CONFLICT (key) DO NOTHING

-- name: last_request
SELECT coalesce(max(id), 0) FROM request

-- name: keys_since
SELECT key FROM request WHERE id > ?

-- name: date
UPDATE request SET sent_at = ?, boot = ?, boottime = ?, crc = ?, body = ? WHERE id = ?

-- name: put_request
UPDATE request SET state = ?, run = ?, attempts = ?, attempt_id = ?, failure = ?, model = ?, parent = ?,
       question = ?, seal = ?
WHERE id = ?


-- name: insert_answer
INSERT INTO answer (id, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body)
SELECT r.id, a.column1, a.column2, a.column3, a.column4, a.column5, a.column6, a.column7, a.column8
FROM (VALUES :rows) a CROSS JOIN request r ON r.key = a.column9 WHERE true
ON CONFLICT (id) DO NOTHING

-- name: has_request
SELECT 1 FROM request WHERE key = ?

-- name: delete_answer
DELETE FROM answer WHERE id = ?

-- name: insert_failure
INSERT INTO failure (request, attempt, attempt_id, at, code, message, fate, status, retryable, request_id, retry_after,
                     evidence, answer)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
RETURNING id

-- name: harmless_failures
SELECT count(DISTINCT attempt) FROM failure
WHERE request = ? AND attempt NOT IN (
    SELECT attempt FROM failure WHERE request = ? AND (fate NOT IN ('unsent', 'refused') OR answer IS NOT NULL))

-- name: harmful_failures
SELECT EXISTS (SELECT 1 FROM failure WHERE request = ? AND (fate NOT IN ('unsent', 'refused') OR answer IS NOT NULL))


-- name: withdraw
DELETE FROM request
WHERE key = ? AND run = ? AND state = 0 AND attempts = 1 AND failure IS NULL
  AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: next_run
SELECT coalesce(max(number), 0) + 1 FROM run

-- name: insert_run
INSERT INTO run (number, started_at, boot, info) VALUES (?, ?, ?, ?)

-- name: end_run
UPDATE run SET ended_at = ?, summary = ? WHERE number = ?

-- name: open_runs
SELECT number FROM run WHERE ended_at IS NULL

-- name: beside
SELECT number, info FROM run WHERE ended_at IS NULL AND number <> ?

-- name: runs
SELECT number, started_at, ended_at, summary FROM run ORDER BY number

-- name: all_runs
SELECT number, started_at, ended_at, summary, info FROM run ORDER BY number

-- name: last_run
SELECT number, started_at, ended_at, summary, info FROM run WHERE ended_at IS NOT NULL ORDER BY number DESC LIMIT 1

-- name: generation
SELECT n, crc FROM generation WHERE step = ?

-- name: hold_generation
INSERT INTO generation AS g (step, n, crc) VALUES (?, ?, ?) ON CONFLICT (step) DO UPDATE SET n = g.n
RETURNING n, crc

-- name: set_generation
UPDATE generation SET n = ?, crc = ? WHERE step = ?


-- name: recall
SELECT value, crc FROM memory WHERE name = ?


-- name: hold_note
INSERT INTO memory AS m (name, value, crc) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = m.value
RETURNING value, crc

-- name: remember
INSERT INTO memory (name, value, crc) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, crc = excluded.crc


-- name: lock_budgets
SELECT 1

-- name: budget_used
SELECT s.requests, s.tokens, s.credits, s.usd, h.requests, h.tokens, h.credits, h.usd, h.holds
FROM (SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(tokens), 0) AS tokens, coalesce(sum(credits), 0) AS credits,
             coalesce(sum(usd), 0) AS usd FROM spending WHERE tag = ? AND slot >= ?) s
CROSS JOIN (SELECT coalesce(sum(requests), 0) AS requests, coalesce(sum(tokens), 0) AS tokens,
                   coalesce(sum(credits), 0) AS credits, coalesce(sum(usd), 0) AS usd, count(*) AS holds
            FROM held WHERE tag = ?) h

-- name: held_for
SELECT key, tag, run, requests, tokens, credits, usd FROM held WHERE key IN (:list)

-- name: all_held
SELECT key, tag, run, requests, tokens, credits, usd FROM held

-- name: holding_runs
SELECT DISTINCT run FROM held WHERE tag = ?

-- name: hold
INSERT INTO held (key, tag, run, requests, tokens, credits, usd) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key, tag) DO UPDATE SET run = excluded.run, requests = excluded.requests, tokens = excluded.tokens,
       credits = excluded.credits, usd = excluded.usd

-- name: abandon
UPDATE held SET run = ? WHERE key = ?

-- name: let_go
DELETE FROM held WHERE key = ? AND tag = ?

-- name: spend
INSERT INTO spending AS s (tag, slot, requests, tokens, credits, usd) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tag, slot) DO UPDATE SET requests = s.requests + excluded.requests, tokens = s.tokens + excluded.tokens,
       credits = s.credits + excluded.credits, usd = s.usd + excluded.usd

-- name: spending
SELECT tag, slot, requests, tokens, credits, usd FROM spending ORDER BY tag, slot

-- name: count
SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM answer)

-- name: version
SELECT (SELECT coalesce(max(number), 0) FROM run), (SELECT count(*) FROM request),
       (SELECT coalesce(max(id), 0) FROM answer), (SELECT coalesce(max(id), 0) FROM failure)

-- name: totals
SELECT count(*),
       sum(CASE WHEN typeof(attempts) = 'integer' THEN attempts ELSE 1 END),
       count(*) FILTER (WHERE typeof(attempts) <> 'integer' OR typeof(sent_at) <> 'real' OR typeof(state) <> 'integer'
                           OR parent IS NOT NULL AND typeof(parent) <> 'blob')
FROM request NOT INDEXED

-- name: unanswered
SELECT count(*) FILTER (WHERE state = 1),
       count(*) FILTER (WHERE state NOT IN (1, 2, 3) AND CASE
           WHEN :boot <> 0 AND boot = :boot THEN max(:wall - sent_at, :boottime - boottime) > :doubt
           ELSE :wall - sent_at < -:tolerance OR :wall - sent_at > :doubt END),
       count(*) FILTER (WHERE state = 3)
FROM request NOT INDEXED WHERE NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = request.id)

-- name: last_answer
SELECT coalesce(max(id), 0) FROM answer

-- name: spent
SELECT count(*),
       count(*) FILTER (WHERE typeof(received_at) <> 'real' OR typeof(latency_ms) NOT IN ('real', 'null')),
       '[' || group_concat(CASE WHEN streamed = 0 AND json_valid(CAST(body AS TEXT))
                                THEN json_extract(CAST(body AS TEXT), '$.usage.prompt_tokens', '$.usage.completion_tokens',
                                                  '$.usage.total_tokens', '$.usage.credits') END) || ']',
       group_concat(CASE WHEN streamed <> 0 OR NOT json_valid(CAST(body AS TEXT)) THEN id END)
FROM answer WHERE id > ? AND id <= ?

-- name: replies
SELECT id, body, streamed FROM answer WHERE id IN (:list)

-- name: answer_numbers
SELECT id FROM answer WHERE id > ? AND id <= ?

-- name: listing
SELECT r.id, r.key,
       CASE WHEN a.id IS NOT NULL THEN 'answered' WHEN r.state = 1 THEN 'failed' WHEN r.state = 3 THEN 'skipped'
            WHEN r.state <> 2 AND CASE
                WHEN :boot <> 0 AND r.boot = :boot THEN max(:wall - r.sent_at, :boottime - r.boottime) > :doubt
                ELSE :wall - r.sent_at < -:tolerance OR :wall - r.sent_at > :doubt END
            THEN 'in_doubt' ELSE 'sent' END AS standing,
       r.model, r.attempts, r.sent_at,
       CASE WHEN a.streamed = 0 THEN substr(a.body, nullif(instr(a.body, x'22757361676522'), 0)) END, -- from "usage" on
       CASE WHEN a.id IS NULL THEN (
            SELECT CASE WHEN f.message = '' THEN f.code ELSE f.code || ': ' || f.message END
            FROM failure f WHERE f.id = r.failure) END,
       a.streamed <> 0,
       typeof(r.state) <> 'integer' OR r.parent IS NOT NULL AND typeof(r.parent) <> 'blob'
       OR typeof(a.received_at) NOT IN ('real', 'null') OR typeof(a.latency_ms) NOT IN ('real', 'null')
FROM request r NOT INDEXED LEFT JOIN answer a ON a.id = r.id
WHERE r.id > :after AND (:all OR instr(:states, standing) > 0) ORDER BY r.id LIMIT :limit

-- name: page
SELECT r.id, r.key, r.state, r.run, r.attempts, r.sent_at, r.boot, r.boottime, r.failure, r.model, r.parent,
       r.question, a.crc, a.streamed, a.latency_ms, a.first_token_ms, a.request_id, a.body, r.seal,
       r.crc, r.body, a.received_at, r.step, a.run
FROM request r LEFT JOIN answer a ON a.id = r.id
WHERE r.id > ? ORDER BY r.id LIMIT ?

-- name: newest_answers
SELECT id FROM answer ORDER BY id DESC LIMIT ?

-- name: newest_failed
SELECT id FROM request WHERE state = 1 ORDER BY id DESC LIMIT ?

-- name: logs
SELECT id, code, message, fate, status, retryable, request_id, retry_after, evidence, request, attempt, attempt_id, at,
       answer
FROM failure WHERE request IN (:list) ORDER BY id

-- name: distinct_keys
SELECT count(DISTINCT key) FROM request NOT INDEXED

-- name: orphans
SELECT (SELECT count(*) FROM answer WHERE id NOT IN (SELECT id FROM request))
     + (SELECT count(*) FROM failure WHERE request NOT IN (SELECT id FROM request))

-- name: prunable
CREATE TEMP TABLE old AS
SELECT id FROM answer WHERE received_at < :before
UNION ALL
SELECT r.id FROM request r JOIN failure f ON f.id = r.failure
WHERE r.state = 1 AND f.at < :before AND NOT EXISTS (SELECT 1 FROM answer WHERE answer.id = r.id)

-- name: prune
DELETE FROM failure WHERE request IN (SELECT id FROM old);
DELETE FROM answer WHERE id IN (SELECT id FROM old);
DELETE FROM request WHERE id IN (SELECT id FROM old);
DROP TABLE old;

-- name: restore_request
INSERT INTO request (id, key, state, run, attempts, sent_at, boot, boottime, failure, attempt_id, model, parent,
                     question, crc, body, seal, step)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: restore_answer
INSERT INTO answer (id, run, received_at, streamed, latency_ms, first_token_ms, request_id, crc, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: restore_failure
INSERT INTO failure (id, request, attempt, attempt_id, at, code, message, fate, status, retryable, request_id,
                     retry_after, evidence, answer)
SELECT ?, id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM request WHERE id = ?
ON CONFLICT DO NOTHING

-- name: restore_run
INSERT INTO run (number, started_at, ended_at, boot, info, summary) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: restore_spending
INSERT INTO spending AS s (tag, slot, requests, tokens, credits, usd) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tag, slot) DO UPDATE SET requests = max(s.requests, excluded.requests), tokens = max(s.tokens, excluded.tokens),
       credits = max(s.credits, excluded.credits), usd = max(s.usd, excluded.usd)

-- name: restored
SELECT id, key, question FROM request WHERE id IN (:list)

-- name: key_of
SELECT key FROM request WHERE id = ?

-- name: sent_before
SELECT max(sent_at) FROM request WHERE id = (SELECT max(id) FROM request WHERE id < ? AND body <> x'')

-- name: run_before
SELECT max(started_at) FROM run WHERE started_at <= (
    SELECT sent_at FROM request WHERE id = (SELECT min(id) FROM request WHERE id > ? AND body <> x''))

-- name: restored_counts
SELECT (SELECT count(*) FROM request WHERE body <> x''), (SELECT count(*) FROM request WHERE body = x''),
       (SELECT count(*) FROM answer), (SELECT count(*) FROM failure),
       (SELECT count(*) FROM run), (SELECT coalesce(max(id), 0) FROM request)
