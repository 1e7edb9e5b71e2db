-- What admit, beat and settle share: numbers, the clock, what credit and budgets still allow.
--
--   KEYS  2 wallet, 3 budgets, as the including script has them; 6 policy where policy_now is called
--   ARGV  none by itself
--   returns nothing: included, not run
--   clock  the server's, or the one injected by a test

-- Every number that is stored is written with this: tostring keeps 14 digits. All are whole, and '%d'
-- is exact up to 2^53 as '%.0f' is, at a third of the price. Replies take numbers as they are.
local function I(x) return string.format('%d', x) end

local function now_us(injected)
  if injected ~= '' then return tonumber(injected) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function assert_whole(x, name)
  assert(type(x) == 'number' and x >= 0 and x <= 9007199254740991 and x % 1 == 0,
    name .. ' must be a whole number of at least 0')
end

-- A shard is cold while nothing is published, and behind its fence after a loss of data.
local function policy_now(tenant, now)
  local p = redis.call('HMGET', KEYS[6], '*', tenant, 'epoch', 'opens_at_ms')
  local opens = tonumber(p[4] or '0') * 1000
  return {global = p[1], tenant = p[2], epoch = p[3] or '', is_cold = not p[1] or now < opens,
    wait = math.max(opens - now, 1000000)}
end

-- Micros that may still be held; nil where the control plane has not published them.
local function credit_left()
  local w = redis.call('HMGET', KEYS[2], 'posted', 'limit', 'held')
  return w[1] and tonumber(w[1]) + tonumber(w[2] or '0') - tonumber(w[3] or '0') or nil
end

local function budget_left(budget)
  local g = redis.call('HMGET', KEYS[3], 'ver', budget.f, 'h:' .. budget.scope)
  return g[1] and budget.limit - tonumber(g[2] or '0') - tonumber(g[3] or '0') or nil
end

local function move_hold(delta, scopes)
  if delta == 0 then return end
  redis.call('HINCRBY', KEYS[2], 'held', I(delta))
  for scope in string.gmatch(scopes, '[^,]+') do
    redis.call('HINCRBY', KEYS[3], 'h:' .. scope, I(delta))
  end
end

-- The scopes whose budgets a spec names, each once, joined by commas.
local function scopes_of(spec)
  local seen, names = {}, {}
  for _, budget in ipairs(spec.budgets) do
    if not seen[budget.scope] then
      seen[budget.scope] = true
      names[#names + 1] = budget.scope
    end
  end
  return table.concat(names, ',')
end

local function slots_of(spec)
  local names = {}
  for i, slot in ipairs(spec.slots) do names[i] = slot.name end
  return table.concat(names, ',')
end
