#!lua
-- Takes credit and budgets for work that outlives its request, or nothing: what admit.lua does for
-- a request, without slots and rates. PostgreSQL takes the hold over; publish.lua then drops this one
-- in the very step in which it publishes a balance without the pending amount.
--
--   KEYS  wallet, budgets, record, unposted, policy; all with the same {hash tag}
--   ARGV  tenant, id of the work, hold in micros, budgets as JSON [{scope, f, limit}],
--         scopes joined by commas
--   returns {1 granted, 0 refused or 2 known; reason or state; micros available}
--   clock  the server's
--
-- Without allow-oom: when memory is full, admissions stop and what runs can still end.
assert(#KEYS == 5, 'hold: five keys')
local function I(x) return string.format('%d', x) end
local wallet, budgets, record, unposted, policy = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local hold, checks, scopes = tonumber(ARGV[3]), cjson.decode(ARGV[4]), ARGV[5]
assert(hold and hold >= 0 and hold <= 9007199254740991 and hold % 1 == 0,
  'hold must be a whole number of at least 0')
local t = redis.call('TIME')
local now_ms = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)

local state = redis.call('HGET', record, 'st')
if state then return {2, state, ''} end
local p = redis.call('HMGET', policy, '*', 'opens_at_ms')
if not p[1] or now_ms < tonumber(p[2] or '0') then return {0, 'cold', ''} end
for _, b in ipairs(checks) do
  local g = redis.call('HMGET', budgets, 'ver', b.f, 'h:' .. b.scope)
  if not g[1] then return {0, 'cold', ''} end
  local room = b.limit - tonumber(g[2] or '0') - tonumber(g[3] or '0')
  if room < hold then return {0, 'budget:' .. b.f, I(room)} end
end
local w = redis.call('HMGET', wallet, 'posted', 'limit', 'held')
if not w[1] then return {0, 'cold', ''} end
local credit = tonumber(w[1]) + tonumber(w[2] or '0') - tonumber(w[3] or '0')
if credit < hold then return {0, 'credit', I(credit)} end

redis.call('HSET', record, 'st', 'settled', 'schema', '1', 'kind', 'hold', 'hold', I(hold),
  'rank', '0', 'tid', ARGV[1], 'rid', ARGV[2], 'scopes', scopes)
redis.call('ZADD', unposted, I(now_ms), ARGV[1] .. '|' .. ARGV[2])
if hold > 0 then
  redis.call('HINCRBY', wallet, 'held', I(hold))
  for scope in string.gmatch(scopes, '[^,]+') do
    redis.call('HINCRBY', budgets, 'h:' .. scope, I(hold))
  end
end
return {1, 'ok', I(credit - hold)}
