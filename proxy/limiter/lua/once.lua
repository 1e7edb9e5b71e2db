#!lua
-- The life of one Idempotency-Key: claimed, kept alive, answered, forgotten.
--
--   KEYS  entry, counter of the bytes kept for the tenant in this hour; both with the same {hash tag}
--   ARGV  now in us ('' in production), what to do, request, then by what is done:
--         claim    fingerprint, lease ms, kept ms, rid that is known to be dead ('' : none)
--         renew    lease ms
--         stream   (none): from now on it is known that the answer is a stream
--         finish   status, headers, body, bytes per hour ms; an empty status: no answer is kept
--         release  (none)
--   returns of claim {'new'} | {'other'} | {'running'; rid; 'stream' or ''} | {'lost'; rid; …}
--           | {'done'; rid; status; headers; body}; of all else {1} or, where another request holds
--           the key, {0}
--   clock  the server's, or the one injected by a test
--
-- Only who claimed a key changes it. A claim whose lease ended is lost: the next one finds out what
-- became of it, and takes the key over by naming it.
--@include shared
local now_ms = math.floor(now_us(ARGV[1]) / 1000)
local op, rid, entry = ARGV[2], ARGV[3], KEYS[1]

local function claim(fingerprint, lease_ms, kept_ms, dead)
  local e = redis.call('HMGET', entry, 'fp', 'st', 'rid', 'until', 'stream')
  if e[1] and e[1] ~= fingerprint then return {'other'} end
  if e[2] == 'done' then
    local answer = redis.call('HMGET', entry, 'status', 'headers', 'body')
    return {'done', e[3], answer[1] or '', answer[2] or '', answer[3] or ''}
  end
  if e[1] and e[3] ~= dead then
    local word = tonumber(e[4]) > now_ms and 'running' or 'lost'
    return {word, e[3], e[5] or ''}
  end
  redis.call('DEL', entry)
  redis.call('HSET', entry, 'fp', fingerprint, 'st', 'running', 'rid', rid,
    'until', I(now_ms + lease_ms))
  redis.call('PEXPIRE', entry, kept_ms)
  return {'new'}
end

local function finish(status, headers, body, bytes_max)
  redis.call('HSET', entry, 'st', 'done')
  if status == '' then return {1} end
  local size = #headers + #body
  local used = redis.call('INCRBY', KEYS[2], size)
  redis.call('PEXPIRE', KEYS[2], 7200000)
  if used <= bytes_max then
    redis.call('HSET', entry, 'status', status, 'headers', headers, 'body', body)
  end
  return {1}
end

if op == 'claim' then return claim(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]) end
local e = redis.call('HMGET', entry, 'rid', 'st')
if e[1] ~= rid or e[2] ~= 'running' then return {0} end
if op == 'renew' then
  redis.call('HSET', entry, 'until', I(now_ms + tonumber(ARGV[4])))
elseif op == 'stream' then
  redis.call('HSET', entry, 'stream', 'stream')
elseif op == 'finish' then
  return finish(ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]))
else
  redis.call('DEL', entry)
end
return {1}
