-- What beat and settle share: reading a request's record, and moving its charges.
--
--   KEYS  1 buckets, 4 record, as the including script has them
--   ARGV  none by itself
--   returns nothing: included, not run
--   clock  the one that the including script read

-- What is recorded of a request; state is nil when there is no record.
local function read_record(spec)
  local fields = {'st', 'hold', 'at', 'scopes', 'rank', 'kept'}
  for i, b in ipairs(spec.buckets) do fields[6 + i] = 'b:' .. b.f end
  local r = redis.call('HMGET', KEYS[4], unpack(fields))
  local charged = {}
  for i = 1, #spec.buckets do charged[i] = tonumber(r[6 + i] or '0') end
  return {state = r[1] or nil, hold = tonumber(r[2] or '0'), at = tonumber(r[3] or '0'),
    scopes = r[4] or '', rank = tonumber(r[5] or '-1'), is_kept = r[6] and true or false,
    charged = charged}
end

local function assert_update(spec, update)
  for _, b in ipairs(spec.buckets) do
    if update.charges[b.f] then assert_whole(update.charges[b.f], 'charge') end
  end
end

-- Brings the charges of an open record to absolute values. What is given back is only what is still
-- missing: nothing if the bucket was full at any time since, and nothing of a record marked `kept`,
-- of which the buckets do not hold all that it was charged. Returns what the record has to note.
local function true_up(now, spec, charges, record)
  local moved, noted, is_later = {}, {}, false
  for i, b in ipairs(spec.buckets) do
    local want, had = charges[b.f], record.charged[i]
    if want and want ~= had then
      local both = redis.call('HMGET', KEYS[1], b.f, 'z:' .. b.f)
      local tat, since = tonumber(both[1] or '0'), tonumber(both[2] or '0')
      local to = tat
      if want > had then
        local cap = now + b.burst + b.debt
        to, is_later = math.max(tat, now) + want - had, true
        if tat <= now then moved[#moved + 1] = 'z:' .. b.f; moved[#moved + 1] = I(now) end
        if to > cap then
          to = cap
          noted[#noted + 1] = 'kept'; noted[#noted + 1] = '1'
        end
      elseif tat > now and since <= record.at and not record.is_kept then
        to = math.max(tat + want - had, now)
      end
      if to ~= tat then moved[#moved + 1] = b.f; moved[#moved + 1] = I(to) end
      noted[#noted + 1] = 'b:' .. b.f; noted[#noted + 1] = I(want)
    end
  end
  if #moved > 0 then
    redis.call('HSET', KEYS[1], unpack(moved))
    -- What was only given back is over sooner than what admission has said.
    if is_later then redis.call('PEXPIRE', KEYS[1], 3600000) end
  end
  return noted
end
