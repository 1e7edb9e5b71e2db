#!lua flags=allow-oom
-- Renews the leases of a running request, trues up its charges and its hold, and tells the policy.
--
--   KEYS  buckets, wallet, budgets, record, open, policy, then one sorted set for each slot;
--         all with the same {hash tag}
--   ARGV  now in us ('' in production), spec as JSON, update as JSON, progress ('' for no news), base
--         update: charges {bucket: us, absolute}, hold micros or null (as it is)
--   returns {1; open or adopted; micros held now; version of the tenant's policy or ''; epoch; now us}
--         or {2; settled or posted; now us}: someone else ended the request
--   clock  the server's, or the one injected by a test
--
-- A hold rises only as far as credit and budgets reach. A record that Redis lost is adopted with the
-- spec's hold, without checks and without charging the buckets again: the money is spent already, and
-- the buckets lost it together with all else.
--@include shared
--@include true_up
local now, spec, update = now_us(ARGV[1]), cjson.decode(ARGV[2]), cjson.decode(ARGV[3])
local now_ms = math.floor(now / 1000)
assert(#KEYS == 6 + #spec.slots, 'beat: one key for each slot')
assert_whole(spec.hold, 'hold')
assert_update(spec, update)
local want = update.hold ~= cjson.null and update.hold or nil
if want then assert_whole(want, 'hold') end

local record, policy = read_record(spec), policy_now(spec.tid, now)
if record.state and record.state ~= 'open' then return {2, record.state, I(now)} end
local word = 'open'
if not record.state then
  word = 'adopted'
  record.hold, record.scopes = spec.hold, scopes_of(spec)
  local fields = {'st', 'open', 'schema', '1', 'hold', I(spec.hold), 'at', I(now), 'tid', spec.tid,
    'rid', spec.rid, 'scopes', record.scopes, 'slots', slots_of(spec), 'spec', ARGV[2],
    'base', ARGV[5], 'adopted', '1', 'kept', '1'}
  for i, b in ipairs(spec.buckets) do
    record.charged[i] = update.charges[b.f] or spec.costs[i]
    fields[#fields + 1] = 'b:' .. b.f
    fields[#fields + 1] = I(record.charged[i])
  end
  redis.call('HSET', KEYS[4], unpack(fields))
  move_hold(spec.hold, record.scopes)
end

local noted = true_up(now, spec, update.charges, record)
if #noted > 0 then redis.call('HSET', KEYS[4], unpack(noted)) end
if want and want > record.hold then
  local room = not policy.is_cold and credit_left() or 0
  for _, budget in ipairs(spec.budgets) do room = math.min(room, budget_left(budget) or 0) end
  want = record.hold + math.max(0, math.min(want - record.hold, room))
end
if want and want ~= record.hold then
  move_hold(want - record.hold, record.scopes)
  redis.call('HSET', KEYS[4], 'hold', I(want))
end
local ends_ms = I(now_ms + spec.lease)
for i = 7, #KEYS do redis.call('ZADD', KEYS[i], ends_ms, spec.rid) end
redis.call('ZADD', KEYS[5], ends_ms, spec.tid .. '|' .. spec.rid)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], 'progress', ARGV[4]) end
return {1, word, I(want or record.hold), policy.tenant or '', policy.epoch, I(now)}
