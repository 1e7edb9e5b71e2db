#!lua flags=allow-oom
-- Ends a request once: frees its slots, trues up charges and hold, appends the usage event.
--
--   KEYS  buckets, wallet, budgets, record, open, unposted, stream, then one sorted set for each slot;
--         all with the same {hash tag}
--   ARGV  now in us ('' in production), spec as JSON, update as JSON, event as JSON
--         update: charges {bucket: us, absolute}, hold micros (what the event is worth), rank
--   returns {1; settled or revised; now us}, or {2; state; now us}: ended before, nothing was done
--   clock  the server's, or the one injected by a test
--
-- An ended request whose event comes again with a higher rank gets that event appended, and nothing
-- else: its charges and its hold were settled. One whose record is lost leaves the buckets alone.
-- The record has no time to live: publish drops it, and until then its hold counts.
--@include shared
--@include true_up
local now, spec, update = now_us(ARGV[1]), cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local member = spec.tid .. '|' .. spec.rid
assert(#KEYS == 7 + #spec.slots, 'settle: one key for each slot')
assert_whole(update.hold, 'hold')
assert_whole(update.rank, 'rank')
assert_update(spec, update)

local record, word = read_record(spec), 'settled'
if record.state and record.state ~= 'open' then
  if update.rank <= record.rank then return {2, record.state, I(now)} end
  word = 'revised'
  redis.call('HSET', KEYS[4], 'rank', I(update.rank), 'event', ARGV[4])
else
  local fields
  if record.state then
    fields = true_up(now, spec, update.charges, record)
  else
    record.scopes = scopes_of(spec)
    fields = {'schema', '1', 'tid', spec.tid, 'rid', spec.rid, 'at', I(now),
      'scopes', record.scopes, 'slots', '', 'adopted', '1'}
  end
  move_hold(update.hold - record.hold, record.scopes)
  for i = 8, #KEYS do redis.call('ZREM', KEYS[i], spec.rid) end
  redis.call('ZREM', KEYS[5], member)
  for _, part in ipairs({'st', 'settled', 'hold', I(update.hold), 'rank', I(update.rank),
    'event', ARGV[4]}) do fields[#fields + 1] = part end
  redis.call('HSET', KEYS[4], unpack(fields))
  redis.call('HDEL', KEYS[4], 'progress', 'spec', 'base')
end
redis.call('ZADD', KEYS[6], I(math.floor(now / 1000)), member)
redis.call('XADD', KEYS[7], '*', 'e', ARGV[4])
return {1, word, I(now)}
