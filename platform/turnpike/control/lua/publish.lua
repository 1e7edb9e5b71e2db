#!lua flags=allow-oom
-- Brings what PostgreSQL has posted back to the wallet, the budgets and the records of one tenant.
--
--   KEYS  wallet, budgets, unposted, open, then one record per posted request
--   ARGV  posted in micros, version of the wallet row, credit limit in micros, tenant,
--         what was spent as JSON {"<scope>:<period>": micros}, then one posted rank per record
--   returns how many records let go of their hold
--
-- Values are taken only from a newer version; records are handled at any version, each step once,
-- so that stale, repeated and reordered publishes change nothing. Reads no clock. May run when
-- memory is full: it is how work in flight ends.
assert(#KEYS >= 4, 'publish: four keys before the records')
assert(#ARGV == 5 + #KEYS - 4, 'publish: one rank for each record')
local TOMBSTONE_MS = 3600000
local function I(x) return string.format('%d', x) end

local wallet, budgets, unposted, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local posted, version, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tenant, spent = ARGV[4], cjson.decode(ARGV[5])

-- Once a day: counters of days and months that are over.
local function drop_old_counters()
  local day = ''
  for name in pairs(spent) do
    local period = string.match(name, ':(%d+%-%d+%-%d+)$')
    if period and period > day then day = period end
  end
  if day == '' or redis.call('HGET', budgets, 'day') == day then return end
  for _, field in ipairs(redis.call('HKEYS', budgets)) do
    if string.sub(field, 1, 2) == 's:' and not spent[string.sub(field, 3)] then
      redis.call('HDEL', budgets, field)
    end
  end
  redis.call('HSET', budgets, 'day', day)
end

local function publish_values()
  if version > tonumber(redis.call('HGET', wallet, 'ver') or '-1') then
    redis.call('HSET', wallet, 'posted', I(posted), 'ver', I(version), 'limit', I(limit))
  end
  if version > tonumber(redis.call('HGET', budgets, 'ver') or '-1') then
    redis.call('HSET', budgets, 'ver', I(version))
    for name, micros in pairs(spent) do redis.call('HSET', budgets, 's:' .. name, I(micros)) end
    drop_old_counters()
  end
end

local function drop_hold(hold, scopes)
  if hold == 0 then return end
  redis.call('HINCRBY', wallet, 'held', I(-hold))
  for scope in string.gmatch(scopes or '', '[^,]+') do
    if redis.call('HINCRBY', budgets, 'h:' .. scope, I(-hold)) == 0 then
      redis.call('HDEL', budgets, 'h:' .. scope)
    end
  end
end

-- What is left of a request: enough to know a repetition and a better event from one another.
local function bury(key, member, posted_rank, best_rank, paid)
  redis.call('DEL', key)
  local fields = {'st', 'posted', 'posted', I(posted_rank), 'rank', I(best_rank)}
  if paid then
    fields[7], fields[8] = 'paid', I(paid)
  end
  redis.call('HSET', key, unpack(fields))
  redis.call('PEXPIRE', key, TOMBSTONE_MS)
  if posted_rank >= best_rank then redis.call('ZREM', unposted, member) end
end

publish_values()
local freed = 0
for i = 5, #KEYS do
  local key, rank = KEYS[i], tonumber(ARGV[i + 1])
  local member = tenant .. '|' .. string.match(key, '[^:]+$')
  local r = redis.call('HMGET', key, 'st', 'hold', 'rank', 'posted', 'scopes')
  local state, hold = r[1], tonumber(r[2] or '0')
  local best, known = tonumber(r[3] or '-1'), tonumber(r[4] or '-1')
  if state == 'settled' and rank < best then
    -- A better event is on its way and will be posted within the same hold.
    if rank > known then redis.call('HSET', key, 'posted', I(rank)) end
  elseif state == 'settled' or state == 'open' then
    -- Open: adopted after a loss of data, although PostgreSQL has it.
    drop_hold(hold, r[5])
    if state == 'open' then redis.call('ZREM', open, member) end
    bury(key, member, rank, rank, state == 'settled' and hold or nil)
    freed = freed + 1
  elseif rank > known then
    bury(key, member, rank, math.max(rank, best))
  elseif known >= best then
    redis.call('ZREM', unposted, member)
  end
end
return freed
