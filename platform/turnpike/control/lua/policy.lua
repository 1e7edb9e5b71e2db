-- Raises policy versions and the epoch of one shard; never lowers one.
--
--   KEYS  the shard's policy hash
--   ARGV  epoch or '', fence in ms, then a name and a version each: '*' or a tenant's number
--   returns how many of the numbers were newer than what stood there
--
-- The clock is the server's. A newer epoch closes the shard until now + fence. Numbers are compared
-- as text by length, then by digits: versions may pass 2^53, where doubles are no longer exact.
assert(#KEYS == 1 and #ARGV % 2 == 0, 'policy: an epoch, a fence, then pairs')

local function is_newer(value, stored)
  if not stored then return true end
  if #value ~= #stored then return #value > #stored end
  return value > stored
end

for i = 4, #ARGV, 2 do assert(string.match(ARGV[i], '^%d+$'), 'policy: a version is digits') end

local raised = 0
if ARGV[1] ~= '' and is_newer(ARGV[1], redis.call('HGET', KEYS[1], 'epoch')) then
  local time = redis.call('TIME')
  local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  -- A fence that still stands is never shortened.
  local stands_until = tonumber(redis.call('HGET', KEYS[1], 'opens_at_ms') or '0')
  local opens_at_ms = string.format('%.0f', math.max(stands_until, now_ms + tonumber(ARGV[2])))
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'opens_at_ms', opens_at_ms)
  raised = raised + 1
end
for i = 3, #ARGV, 2 do
  if is_newer(ARGV[i + 1], redis.call('HGET', KEYS[1], ARGV[i])) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    raised = raised + 1
  end
end
return raised
