#!lua
-- Takes a place for one attempt under the caps of an upstream and of its credential, or nothing.
--
--   KEYS  rates, then one sorted set for each slot; all with the same {hash tag}
--   ARGV  now in us ('' in production), attempt, ms of the lease, caps as JSON
--         caps: rates [{f, cost us, burst us}], slots [how many may run at once]
--   returns {1, 'ok'} or {0, 'rate' or 'slots'}; where it refuses it has taken nothing
--   clock  the server's, or the one injected by a test
--@include shared
local now, caps = now_us(ARGV[1]), cjson.decode(ARGV[4])
local now_ms, lease = math.floor(now / 1000), tonumber(ARGV[3])
assert(#KEYS == 1 + #caps.slots, 'caps: one key for each slot')
assert_whole(lease, 'lease')

for i, limit in ipairs(caps.slots) do
  local key = KEYS[1 + i]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', I(now_ms))
  if redis.call('ZCARD', key) >= limit then return {0, 'slots'} end
end
local taken = {}
for _, rate in ipairs(caps.rates) do
  local tat = tonumber(redis.call('HGET', KEYS[1], rate.f) or '0')
  -- A clock that jumped back must not lock the cap for longer than a full burst.
  tat = math.max(now, math.min(tat, now + rate.burst))
  if tat + rate.cost - rate.burst > now then return {0, 'rate'} end
  taken[#taken + 1] = rate.f
  taken[#taken + 1] = I(tat + rate.cost)
end
if #taken > 0 then
  redis.call('HSET', KEYS[1], unpack(taken))
  redis.call('PEXPIRE', KEYS[1], 3600000)
end
for i = 1, #caps.slots do
  local key = KEYS[1 + i]
  redis.call('ZADD', key, I(now_ms + lease), ARGV[2])
  redis.call('PEXPIRE', key, 3600000)
end
return {1, 'ok'}
