#!lua
-- Takes slots, rates, budgets and credit for one request together, or nothing.
--
--   KEYS  buckets, wallet, budgets, record, open, policy, then one sorted set for each slot;
--         all with the same {hash tag}
--   ARGV  now in us ('' in production), spec as JSON, base as JSON
--         spec: tid, rid, lease ms (0: no record), hold micros, tv and gv (versions of the policy),
--         slots [{name, limit}], buckets [{f, burst, debt us}], costs [us], budgets [{scope, f, limit}]
--   returns {1 granted, 0 refused or 2 known; reason or state; now us; us to wait; micros available
--         or ''; epoch; {us left in each bucket}}; the last is true of refusals as well
--   clock  the server's, or the one injected by a test
--
-- Without allow-oom: when memory is full, admissions stop and what runs can still end.
--@include shared
local now, spec = now_us(ARGV[1]), cjson.decode(ARGV[2])
local now_ms = math.floor(now / 1000)
assert_whole(spec.hold, 'hold')
assert_whole(spec.lease, 'lease')
assert(#KEYS == 6 + #spec.slots, 'admit: one key for each slot')
assert(#spec.costs == #spec.buckets, 'admit: one cost for each bucket')
for _, cost in ipairs(spec.costs) do assert_whole(cost, 'cost') end

-- Read: theoretical arrival times, brought back into what a jump of the clock allows.
local names, tats, left, clamps = {}, {}, {}, {}
for i, b in ipairs(spec.buckets) do names[i] = b.f end
local stored = #names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or {}
for i, b in ipairs(spec.buckets) do
  local tat, cap = tonumber(stored[i] or '0'), now + b.burst + b.debt
  if tat > cap then
    tat = cap
    clamps[#clamps + 1] = b.f
    clamps[#clamps + 1] = I(cap)
  end
  tats[i] = math.max(tat, now)
  left[i] = now + b.burst - tats[i]
end
local policy = policy_now(spec.tid, now)
local function answer(code, word, wait, available)
  return {code, word, now, wait, available or '', policy.epoch, left}
end
local function refuse(word, wait, available) return answer(0, word, wait or 0, available) end

-- How many leases of a scope run. Looked for where all slots seem taken: most end in time by
-- themselves, and those of a clock that went back are brought back to what a lease may last.
local function living(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
  local ahead = redis.call('ZRANGEBYSCORE', key, '(' .. I(now_ms + 2 * spec.lease), '+inf')
  for _, rid in ipairs(ahead) do redis.call('ZADD', key, I(now_ms + spec.lease), rid) end
  return redis.call('ZCARD', key)
end

-- Decide, in this order: known, policy, slots, rates, budgets, credit.
local state = redis.call('HGET', KEYS[4], 'st')
if state then return answer(2, state, 0) end
if policy.is_cold then return refuse('cold', policy.wait) end
if policy.global ~= spec.gv or policy.tenant ~= spec.tv then return refuse('policy') end
-- Kept even if the request is refused, else a clock that went back locks the tenant out.
if #clamps > 0 then redis.call('HSET', KEYS[1], unpack(clamps)) end
for i, slot in ipairs(spec.slots) do
  local key = KEYS[6 + i]
  if redis.call('ZCARD', key) >= slot.limit and living(key) >= slot.limit then
    return refuse('concurrency:' .. slot.name, 1000000)
  end
end
local longest, tightest = 0, nil
for i, b in ipairs(spec.buckets) do
  if spec.costs[i] > b.burst then return refuse('oversize:' .. b.f) end
  local wait = tats[i] + spec.costs[i] - b.burst - now
  if wait > longest then longest, tightest = wait, b.f end
end
if tightest then return refuse('rate:' .. tightest, longest) end
for _, budget in ipairs(spec.budgets) do
  local room = budget_left(budget)
  if not room then return refuse('budgets', 1000000) end
  if room < spec.hold then return refuse('budget:' .. budget.f, 0, room) end
end
local credit
if spec.hold > 0 then
  credit = credit_left()
  if not credit then return refuse('wallet', 1000000) end
  if credit < spec.hold then return refuse('credit', 0, credit) end
  credit = credit - spec.hold
end

-- Commit.
local scopes = scopes_of(spec)
local record = {'st', 'open', 'schema', '1', 'hold', I(spec.hold), 'at', I(now), 'tid', spec.tid,
  'rid', spec.rid, 'scopes', scopes, 'slots', slots_of(spec), 'spec', ARGV[2], 'base', ARGV[3]}
local taken = {}
for i, b in ipairs(spec.buckets) do
  if tats[i] == now then -- the bucket was full: a new busy period begins
    taken[#taken + 1] = 'z:' .. b.f
    taken[#taken + 1] = I(now)
  end
  taken[#taken + 1] = b.f
  taken[#taken + 1] = I(tats[i] + spec.costs[i])
  record[#record + 1] = 'b:' .. b.f
  record[#record + 1] = I(spec.costs[i])
  left[i] = now + b.burst - tats[i] - spec.costs[i]
end
if #taken > 0 then
  redis.call('HSET', KEYS[1], unpack(taken))
  redis.call('PEXPIRE', KEYS[1], 3600000) -- all in it is then in the past
end
if spec.lease > 0 then
  local ends_ms = I(now_ms + spec.lease)
  redis.call('HSET', KEYS[4], unpack(record))
  for i = 7, #KEYS do redis.call('ZADD', KEYS[i], ends_ms, spec.rid) end
  redis.call('ZADD', KEYS[5], ends_ms, spec.tid .. '|' .. spec.rid)
  move_hold(spec.hold, scopes)
end
return answer(1, 'ok', 0, credit)
